"""A cluster that runs apps, without a network: what the control nodes hold, the leader's decisions, and nodes that take a step whenever
somebody waits for one. All but the nodes is the agents' own code."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from answering import Door, as_its_client_hears
from msgspec.structs import replace

from hmcore import api
from hmcore.apps.calls import APPS, DEPLOY, REBALANCE, REMOVE, RESTART, ROLLBACK, SCALE, AppsReply, AppsRequest
from hmcore.apps.records import Allocation, AllocationStatus, Phase, statuses_key
from hmcore.apps.secrets import (
    LIST_SECRETS,
    PUT_SECRET,
    Box,
    PutSecretReply,
    PutSecretRequest,
    SecretsReply,
    SecretView,
)
from hmcore.apps.spec import AppSpec, ContainerSpec, Resources, ServiceSpec
from hmcore.config.inventory import Host
from hmcore.errors import ConnectionLost, InvalidRequest, PeerUnreachable
from hmcore.images.calls import NAME_IMAGE, RESOLVE, Pinned, ResolveReply, ResolveRequest
from hmcore.pki import Identity, Kind
from hmcore.records import ComponentReport, ComponentState, InstanceHealth, Node, NodeReport, NodeState, RaftReport, Role
from hmcore.watch import WATCH
from node_agent.consensus.statemachine import levels, receipts
from node_agent.consensus.statemachine.appcommands import PutApp, PutStatuses
from node_agent.consensus.statemachine.commands import (
    Applied,
    Command,
    FormCluster,
    Proposal,
    PutNode,
    Receipt,
    SetNodeState,
    decode_result,
    encode,
    encode_batch,
)
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.secretcommands import PutKeeper, PutSecret, TurnKey
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.appplan import Cluster, steps
from node_agent.orchestration.rollout import Observed, Terms
from node_agent.orchestration.scheduling.model import Candidate
from node_agent.platform.apps import Apps
from node_agent.platform.changes import Changes
from node_agent.platform.watches import Watches

NAMES = ("node1", "node2", "node3")
ANN = Identity("hm-abc123defg", Kind.OPERATOR, "ann")
ROOMY = Resources(cpus=4000, memory=8 << 30)
LIFE = (Phase.PULLING, Phase.STARTING, Phase.RUNNING)  # of a replica, a step each

FILE = """\
services:
  web:
    image: ${IMAGE:-web:1}
    environment: {TOKEN: hunter2}
    deploy: {replicas: 3, update_config: {failure_action: %s, monitor: 1s}}
  db:
    image: db:1
"""


class World:
    """node1 leads. `sick`: images whose containers end at once; `down`: nodes that do not answer. `on_wait`: called one by one instead of a
    step, when somebody waits for news."""

    no_quorum = None
    is_leader = True
    caught_up = True

    def __init__(self) -> None:
        self.leader: str | None = "node1"
        self.state, self.history = State(), History()
        self.down: set[str] = set()
        self.sick: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.on_wait: list[Callable[[], None]] = []
        self.waits: dict[str, str] = {}
        self.capacity = ROOMY
        self.contents: dict[tuple[str, str], bytes] = {}  # of secrets and configs, as they were given
        self.images: dict[str, str] = {}  # what names mean
        self.registry: dict[str, str] = {}  # what a registry has under them: digests of manifests
        self.silent: dict[str, str] = {}  # why a registry gives no answer about them
        self.lagging: dict[str, AppsReply] = {}  # what a node still has, until somebody waits for it
        self.is_old = False  # the agents are of a release that does not resolve images
        self.gone: set[str] = set()  # names that mean nothing
        self.troubled: dict[str, str] = {}  # what is wrong with the containers' network, by node
        self.resolved: list[ResolveRequest] = []
        self.now = 0.0
        self._memory: dict[str, Observed] = {}
        self._age: dict[str, int] = {}
        self.watches = Watches("node1", state=lambda: (self.state, self.history), leader=lambda: (self.leader, 1))
        changes = Changes("node1", self, self, timeout=1.0)  # type: ignore[arg-type]
        self.apps = Apps(
            "node1", changes, state=lambda: self.state, leader=lambda: "node1", barrier=self._barrier, waits=lambda: self.waits
        )
        self.do(FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST))
        for name in NAMES:
            self.do(PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=Role.CONTROL, release="r1")))
        self.do(PutKeeper(node="node1", public=bytes(32)))
        self.do(TurnKey(basis=0, keepers={"node1": bytes(32)}, boxes=(Box(node="node1", sealed=b"x"),)))

    async def _barrier(self) -> None:
        self.asked.append(("", "barrier"))

    # --- what the log holds

    def do(self, command: Command, author: str = "") -> None:
        receipt = self._put(encode(command), f"own-{self.state.index}", author)
        assert isinstance(decode_result(receipt.result), Applied), decode_result(receipt.result)

    def _put(self, command: bytes, request_id: str, author: str) -> Receipt:
        index = self.state.index + 1
        proposal = Proposal(request_id, command, 1_795_000_000.0 + index, author)
        self.state, (receipt,), changed = apply_batch(self.state, encode_batch([proposal]), index)
        self.history.add(index, changed)
        self.watches.applied()
        return receipt

    def receipt(self, request_id: str) -> Receipt | None:
        return receipts.find(self.state, request_id)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        receipt = self._put(command, request_id, author)
        return receipt.index, receipt.result

    # --- what the leader and the nodes do

    def deploy(self, name: str, spec: AppSpec, author: str = "ann") -> None:
        """And wait until nothing changes any more."""
        self.do(PutApp(name=name, spec=spec), author)
        self.settle()

    def settle(self) -> None:
        quiet = 0
        for _ in range(200):
            before = self.state.index
            self.step()
            quiet = quiet + 1 if self.state.index == before else 0
            if quiet == 3:  # nothing is watched any more either
                return
        raise AssertionError("it goes on and on")

    def step(self) -> None:
        """The leader looks at every app once, then every node goes a step further. Ten seconds pass."""
        self.now += 10.0
        candidates = tuple(Candidate(node=node, capacity=self.capacity) for node in self.state.nodes.values())
        made = steps(self.state, self.state.apps, Cluster(candidates), self._memory, self.now, Terms(fence_after=10.0))
        self._memory = {name: each.observed for name, each in made.items()}
        self.waits = {f"{name}/{service}": why for name, each in made.items() for service, why in each.waits.items()}
        for each in made.values():
            if each.command is not None:
                self.do(each.command)
        for node in NAMES:
            self._tell(node)

    def _tell(self, node: str) -> None:
        told = []
        for key, each in sorted(self.state.allocations.items()):
            if key.startswith(f"{node}/"):
                self._age[each.id] = self._age.get(each.id, -1) + 1
                told.append(self._status(each))
        before = self.state.statuses.get(statuses_key(node))
        if before is None or before.allocations != tuple(told):
            self.do(PutStatuses(node=node, incarnation=0, allocations=tuple(told)))

    def _status(self, each: Allocation) -> AllocationStatus:
        if each.stop:
            return AllocationStatus(id=each.id, phase=Phase.DONE)
        image = self.state.generations[f"{each.app}@{each.generation}"].spec.services[each.service].container.image
        phase = LIFE[min(self._age[each.id], len(LIFE) - 1)]
        if phase is Phase.RUNNING and image in self.sick:
            return AllocationStatus(id=each.id, phase=Phase.FAILED, error="no such file: /start", exit_code=127)
        health = InstanceHealth.HEALTHY if phase is Phase.RUNNING else InstanceHealth.UNKNOWN
        container = f"{each.service}{each.serial:012}" if phase is Phase.RUNNING else ""
        return AllocationStatus(id=each.id, phase=phase, health=health, container=container, since=1_795_000_000.0)

    def lose(self, node: str) -> None:
        """Its agent answers nobody any more."""
        self.down.add(node)
        self.do(SetNodeState(name=node, state=NodeState.DOWN, reason="silent"))

    @staticmethod
    def digest(value: bytes) -> str:
        return sha256(value).hexdigest()

    def kept(self) -> list[SecretView]:
        now = [each for each in self.state.secrets.values() if each.current]
        return [SecretView(sort=each.sort, name=each.name, digest=each.digest, size=each.size) for each in now]

    def keep(self, request: PutSecretRequest) -> PutSecretReply:
        """The first time nobody can tell before what the digest will be."""
        known = any((each.sort, each.name) == (request.sort, request.name) for each in self.kept())
        digest = self.digest(request.value)
        if request.dry:
            return PutSecretReply(index=self.state.index, changed=False, digest=digest if known else "")
        self.contents[request.sort, request.name] = request.value
        size = len(request.value)
        self.do(PutSecret(sort=request.sort, name=request.name, digest=digest, size=size, sealed=b"s", wrapped=b"w", epoch=1))
        return PutSecretReply(index=self.state.index, changed=True, digest=digest)

    async def falls_behind(self, node: str) -> None:
        self.lagging[node] = await self.apps.list(AppsRequest(name="shop"))

    # --- what is asked

    async def connect(self, host: Host, access: Any, **options: Any) -> Door:
        if host.name in self.down:
            raise PeerUnreachable("no answer within 2 s", host=host.name)
        return Door(host.name, self.told, self.answer)

    def told(self) -> api.StateReply:
        return api.StateReply(index=self.state.index, leader=self.leader, term=1, nodes=[])

    async def answer(self, name: str, method: api.Method[Any, Any], request: Any) -> Any:
        self.asked.append((name, method.name))
        if name in self.down:
            raise ConnectionLost("nothing listens there any more", host=name)
        if method is WATCH and request.wait and self.lagging.pop(name, None) is None:
            (self.on_wait.pop(0) if self.on_wait else self.step)()
        with as_its_client_hears(name):
            return await self._answer(name, method, request)

    async def _answer(self, name: str, method: api.Method[Any, Any], request: Any) -> Any:
        apps = self.apps
        if method is WATCH:
            return await self.watches.watch(request)
        if method is RESOLVE:
            if self.is_old:
                raise InvalidRequest(f"unknown method {method.name}")
            known = self.images
            self.resolved.append(request)
            found = {name: Pinned(image=name, id=known.get(name, "")) for name in request.names if name not in self.gone}
            found |= {name: Pinned(image=f"{name}@{self.registry[name]}") for name in found.keys() & self.registry.keys()}
            kept = {name: replace(request.had[name], unasked=why) for name, why in self.silent.items() if name in request.had}
            found = {name: each for name, each in (found | kept).items() if name not in self.silent.keys() - kept.keys()}
            failed = {name: "no registry gives it; fix: look elsewhere" for name in request.names if name not in found}
            return ResolveReply(found=found, failed=failed)
        if method is api.REPORT:
            return self._report(name)
        if method is LIST_SECRETS:
            return SecretsReply(index=self.state.index, secrets=self.kept())
        if method is PUT_SECRET:
            return self.keep(request)
        if method is NAME_IMAGE:
            self.images[request.image.name] = request.image.id
            return api.ChangeReply(index=self.state.index, changed=True)
        if method is APPS:
            if (before := self.lagging.get(name)) is not None:
                return before
            reply = await apps.list(request)
            return reply if name == self.leader else replace(reply, waits={})
        if method is REBALANCE and not request.dry:
            self.step()
        changes = {
            REBALANCE: apps.rebalance,
            DEPLOY: apps.deploy,
            ROLLBACK: apps.rollback,
            SCALE: apps.scale,
            RESTART: apps.restart,
            REMOVE: apps.remove,
        }
        return await changes[method](request, ANN)

    def _report(self, name: str) -> NodeReport:
        trouble = self.troubled.get(name)
        state = ComponentState.DEGRADED if trouble else ComponentState.RUNNING
        return NodeReport(
            cluster="hm-a",
            name=name,
            address="198.18.0.9",
            role=Role.CONTROL,
            release="r1",
            uptime_seconds=60.0,
            health_score=1.0,
            reasons=[],
            containers=0,
            components={"network": ComponentReport(state=state, error=trouble, fix="ss -lntup" if trouble else None)},
            raft=RaftReport(role="follower"),
            formed=True,
            members=[],
            unpublished=[trouble.partition(" is not published")[0]] if trouble else [],
        )


def service(image: str = "web:1", replicas: int = 3, **more: Any) -> ServiceSpec:
    return ServiceSpec(container=ContainerSpec(image=image), replicas=replicas, **more)


def shop(image: str = "web:1", replicas: int = 3, **more: Any) -> AppSpec:
    return AppSpec(services={"web": service(image, replicas, **more), "db": service("db:1", 1)})
