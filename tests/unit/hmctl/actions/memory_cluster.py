"""A cluster in memory: machines, their agents, an operator's store; and deploy or reset run on it."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from hmcore.api import BarrierReply, ChangeReply, Formation, FormRequest, RaiseReply, RaiseRequest
from hmcore.config.agent import AgentConfig, parse_agent_config
from hmcore.config.inventory import Host, Inventory, Places, parse_inventory
from hmcore.errors import (
    ChangeUnfinished,
    HyperMeshError,
    InvalidRequest,
    LevelTooLow,
    NoQuorum,
    NotLeader,
    PeerUnreachable,
    Unreachable,
)
from hmcore.records import FEATURE_LEVEL, ComponentReport, ComponentState, Node, NodeReport, RaftReport, Role
from hmcore.voters import ConfigureRequest, RaftStatus
from hmctl import layout
from hmctl.actions.claim import Claim
from hmctl.actions.deploy import Deploy
from hmctl.actions.hosts import Options
from hmctl.actions.report import Report
from hmctl.actions.reset import Reset
from hmctl.bundle.build import Target
from hmctl.bundle.store import Release
from hmctl.output import Output
from hmctl.phases import probe
from hmctl.remote.base import FirstContact
from hmctl.remote.fake import FakeRemote, Fuse, Machine
from hmctl.render import Renderer
from hmctl.state import OperatorStore

T = TypeVar("T")

COMPONENTS = ("transport", "consensus", "container", "orchestration")


@cache
def config(content: bytes) -> AgentConfig:
    return parse_agent_config(content, "agent.yaml")


@cache
def renderer() -> Renderer:
    return Renderer()


@dataclass
class World:
    """Everything outside hmctl: the machines, and what their agents have agreed on."""

    machines: dict[str, Machine]
    formed: str | None = None  # the bootstrap id that the cluster was formed with
    founders: tuple[str, ...] = ()  # whose votes counted then
    electorate: tuple[str, ...] = ()  # whose votes count now
    learner: str = ""
    yielded: str = ""  # who led, and has handed over
    fewest: int = 99  # voters that there ever were
    answers_left: int | None = None  # of questions about the voters; then hmctl is killed
    permitted: dict[str, tuple[str, ...]] = field(default_factory=dict)  # who was told to form, and with whom
    forms: int = 0
    dies: bool = False  # hmctl is killed once it has sent `form`
    down: set[str] = field(default_factory=set)
    strange: set[str] = field(default_factory=set)  # hosts whose SSH key nobody knows
    level: int = FEATURE_LEVEL
    unconfirmed: str = ""  # why no majority confirms what the leader says
    confirmed: int = 0  # how often it was asked to
    holding_back: str = ""  # the node that runs a release which knows no higher level

    def __post_init__(self) -> None:
        for machine in self.machines.values():
            machine.before_aside = lambda name=machine.name: self.must_not_vote(name)  # type: ignore[misc]

    def must_not_vote(self, name: str) -> None:
        assert name not in self.electorate, f"{name} loses its memory, and votes"

    def control(self, name: str) -> bool:
        """Whether its agent runs as a control node."""
        running = self.machines[name].running
        return self.alive(name) and running is not None and config(running).role is Role.CONTROL

    def votes(self, name: str) -> bool:
        return name in self.electorate and self.control(name) and self.machines[name].journal

    def alive(self, name: str) -> bool:
        return name not in self.down and self.machines[name].active

    def bootstrap(self, name: str) -> str:
        return config(self.machines[name].files[layout.CONFIG]).bootstrap

    def voters(self, name: str) -> list[str]:
        return [voter.name for voter in config(self.machines[name].files[layout.CONFIG]).voters]

    def in_use(self, name: str) -> tuple[str, ...]:
        """The voters that an agent counts."""
        return self.permitted.get(name, tuple(sorted(self.voters(name))))

    def knows(self, name: str) -> bool:
        """Whether an agent knows of the formed cluster: it can ask its voters only."""
        asked = {*self.in_use(name), *self.voters(name)}
        return self.formed is not None and any(self.alive(other) and other in self.permitted for other in asked)

    def form(self) -> None:
        """What the agents do without hmctl, as soon as they may: every majority by the same list elects its leader."""
        for founders in set(self.permitted.values()):
            agreed = [name for name in founders if self.permitted.get(name) == founders and self.alive(name)]
            if len(agreed) > len(founders) // 2:
                bootstrap = self.bootstrap(agreed[0])
                assert (self.formed, self.founders) in ((None, ()), (bootstrap, founders)), "two clusters"
                if self.formed is None:
                    self.electorate = founders
                self.formed, self.founders = bootstrap, founders

    def leader(self) -> str | None:
        voting = sorted((name for name in self.electorate if self.votes(name)), key=lambda name: name == self.yielded)
        return voting[0] if len(voting) > len(self.electorate) // 2 else None


class MemoryAgents:
    """The agents' side of forming and reporting."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def formation(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, Formation | HyperMeshError]:
        return {host.name: self._ask(host.name, self._formation) for host in hosts}

    async def form(self, hosts: Sequence[Host], request: FormRequest, *, timeout: float) -> Mapping[str, Formation | HyperMeshError]:
        self.world.forms += 1
        answers = {host.name: self._ask(host.name, lambda name: self._told(name, request)) for host in hosts}
        self.world.form()
        if self.world.dies:
            raise asyncio.CancelledError
        return answers

    async def reports(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]:
        return {host.name: self._ask(host.name, self._report) for host in hosts}

    async def raise_level(self, host: Host, request: RaiseRequest, *, timeout: float) -> RaiseReply | HyperMeshError:
        return self._ask(host.name, self._raised)

    def _raised(self, name: str) -> RaiseReply | HyperMeshError:
        world = self.world
        if name != world.leader():
            return NotLeader("does not lead", leader=world.leader(), host=name)
        if world.holding_back:
            return LevelTooLow(f"the feature level stays at {world.level}: {world.holding_back} runs a release that knows no other")
        before, world.level = world.level, FEATURE_LEVEL
        return RaiseReply(index=9, level=world.level, changed=before != world.level)

    def _spend(self) -> None:
        world = self.world
        if world.answers_left == 0:
            raise asyncio.CancelledError
        if world.answers_left is not None:
            world.answers_left -= 1

    async def barrier(self, host: Host, *, timeout: float) -> BarrierReply | HyperMeshError:
        self.world.confirmed += 1
        return self._ask(host.name, self._confirmed)

    def _confirmed(self, name: str) -> BarrierReply | HyperMeshError:
        if self.world.unconfirmed:
            return NoQuorum(self.world.unconfirmed, host=name)
        return BarrierReply(index=9) if name == self.world.leader() else NotLeader("does not lead", leader=self.world.leader(), host=name)

    async def raft(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, RaftStatus | HyperMeshError]:
        self._spend()
        return {host.name: self._ask(host.name, self._status) for host in hosts}

    def _status(self, name: str) -> RaftStatus:
        world, leader = self.world, self.world.leader()
        role = "leader" if name == leader else "follower" if world.votes(name) else "outsider" if world.control(name) else "observer"
        learners = [world.learner] if world.learner else []
        return RaftStatus(
            name=name,
            role=role,
            index=9,
            term=3,
            leader=leader,
            level=world.level,
            knows=2,
            voters=list(world.electorate),
            learners=learners,
        )

    async def configure(self, host: Host, request: ConfigureRequest, *, timeout: float) -> ChangeReply | HyperMeshError:
        answer = self._ask(host.name, lambda name: self._configured(name, request))
        self._spend()
        return answer

    def _configured(self, name: str, request: ConfigureRequest) -> ChangeReply | HyperMeshError:
        world, wanted = self.world, request.add or request.remove
        if name != world.leader():
            return NotLeader("does not lead", leader=world.leader(), host=name)
        if (wanted in world.electorate) == bool(request.add) and world.learner != wanted:
            return ChangeReply(index=9, changed=False)
        if request.add:
            if not world.control(wanted):
                return InvalidRequest(f"{wanted} is a worker")
            asked = [voter.name for voter in config(world.machines[wanted].running or b"").voters]
            if not any(world.votes(other) for other in asked) or world.learner != wanted:
                world.learner = wanted
                return ChangeUnfinished(f"{wanted} is not a voter after 2 s: {wanted} is a learner, and holds 1 of 9 log entries")
            world.learner = ""
            world.permitted[wanted] = world.founders
            world.electorate = tuple(sorted((*world.electorate, wanted)))
            return ChangeReply(index=9, changed=True)
        if wanted == world.learner:
            world.learner = ""
            return ChangeReply(index=9, changed=True)
        rest = tuple(voter for voter in world.electorate if voter != wanted)
        if len([voter for voter in rest if world.votes(voter)]) <= len(rest) // 2:
            return NoQuorum(f"without {wanted}, too few answer")
        if wanted == name:
            world.yielded = name
            return NotLeader("has handed over", leader=world.leader(), host=name)
        world.electorate, world.fewest = rest, min(world.fewest, len(rest))
        return ChangeReply(index=9, changed=True)

    async def close(self) -> None:
        """Nothing is open."""

    def _ask(self, name: str, answer: Callable[[str], T]) -> T | HyperMeshError:
        return answer(name) if self.world.alive(name) else PeerUnreachable("no answer", host=name)

    def _told(self, name: str, request: FormRequest) -> Formation | HyperMeshError:
        world = self.world
        mine = world.in_use(name)
        if request.bootstrap != world.bootstrap(name) or tuple(sorted(request.voters)) != mine or name not in mine:
            return InvalidRequest("set up otherwise", host=name)
        if not world.knows(name):
            world.permitted[name] = mine
        return self._formation(name)

    def _formation(self, name: str) -> Formation:
        world = self.world
        formed = world.knows(name)
        return Formation(
            bootstrap=world.bootstrap(name),
            voters=list(world.in_use(name)),
            empty=not formed,
            permitted=name in world.permitted,
            formed=formed,
            level=world.level if formed else 0,
        )

    def _heard(self, name: str) -> str | None:
        """Who leads, as far as a node is told: one that runs as a control node and has no vote is told nothing."""
        world = self.world
        return None if world.control(name) and not world.votes(name) else world.leader()

    def _report(self, name: str) -> NodeReport:
        world, machine = self.world, self.world.machines[name]
        components = {part: ComponentReport(state=ComponentState.RUNNING) for part in COMPONENTS}
        if machine.docker != "running":
            components["container"] = ComponentReport(state=ComponentState.DEGRADED, error="no Docker")
        members = [
            Node(name=other, address=it.address, port=7443, role=Role.CONTROL, release="")
            for other, it in world.machines.items()
            if world.alive(other)
        ]
        return NodeReport(
            cluster="hm-abc123defg",
            name=name,
            address=machine.address,
            role=Role.CONTROL if world.control(name) else Role.WORKER,
            release=machine.started_release or "",
            uptime_seconds=1.0,
            health_score=1.0,
            reasons=[],
            containers=0,
            components=components,
            raft=RaftReport(role=self._status(name).role, leader=self._heard(name), level=world.level),
            formed=world.knows(name),
            members=members,
        )


class MemoryHosts:
    """Connections to the machines. `fuses` cut some of them short."""

    def __init__(self, world: World, fuses: Mapping[str, Fuse]) -> None:
        self.world = world
        self.fuses = fuses
        self.trusted: set[str] = set()
        self.connected: list[str] = []

    async def connect(self, host: Host) -> FakeRemote:
        if host.name in self.world.down:
            raise Unreachable("no answer", host=host.name)
        if host.name in self.world.strange and host.name not in self.trusted:
            raise FirstContact(host=host.name, place=host.address, fingerprint="SHA256:abc", line=host.name)
        self.connected.append(host.name)
        return FakeRemote(host, self.world.machines[host.name], self.fuses.get(host.name))

    def trust(self, contact: FirstContact) -> None:
        self.trusted.add(contact.line)


class MemoryReleases:
    """Releases that need no building."""

    def __init__(self, archive: Path, digest: str = "a" * 64) -> None:
        archive.write_bytes(b"archive")
        self._release = Release(digest, "0.1.0", "3.11", "x86_64", True, 7, 7, sha256(b"archive").hexdigest(), 0.0, archive)

    def cached(self, target: Target) -> Release | None:
        return self._release

    def get(self, target: Target) -> Release:
        return self._release


@dataclass
class Bed:
    """Runs deploy and reset against one world, as one operator."""

    folder: Path
    world: World
    text: str
    digest: str = "a" * 64
    begun: bool = False  # whether the last deploy may have changed anything
    stderr: io.StringIO = field(default_factory=io.StringIO)

    @property
    def inventory(self) -> Inventory:
        return parse_inventory(self.text, "cluster.yaml", {}, Places(self.folder, self.folder))[0]

    @property
    def store(self) -> OperatorStore:
        return OperatorStore.open("hm-abc123defg", self.folder / "operator")

    def output(self) -> Output:
        return Output(stdout=io.StringIO(), stderr=self.stderr, stdin=io.StringIO(), environ={})

    async def deploy(
        self,
        fuses: Mapping[str, Fuse] | None = None,
        *,
        meanwhile: Callable[[], None] | None = None,
        claim: Claim | None = None,
        **options: object,
    ) -> Report:
        """`meanwhile` happens while the operator reads the plan."""
        chosen = Options(**{"yes": True, "timeout": 0.05, **options})  # type: ignore[arg-type]
        deploy = Deploy(
            inventory=self.inventory,
            store=self.store,
            hosts=MemoryHosts(self.world, fuses or {}),
            releases=MemoryReleases(self.folder / f"{self.digest}.tar.gz", self.digest),
            agents=lambda store, remotes: MemoryAgents(self.world),
            output=self.output(),
            options=chosen,
            renderer=renderer(),
            show_plan=lambda steps: meanwhile() if meanwhile else None,
            claim=claim or Claim(),
        )
        try:
            return await deploy.run()
        finally:
            self.begun = deploy.begun

    async def reset(
        self, fuses: Mapping[str, Fuse] | None = None, *, packages: bool = False, claim: Claim | None = None, **options: object
    ) -> Report:
        hosts = MemoryHosts(self.world, fuses or {})
        chosen = Options(**{"yes": True, **options})  # type: ignore[arg-type]
        reset = Reset(self.inventory, self.store, hosts, self.output(), chosen, packages, claim=claim or Claim())
        report = await reset.run()
        if not any(machine.journal for machine in self.world.machines.values()):
            self.world.formed, self.world.founders, self.world.electorate = None, (), ()
        self.world.permitted = {name: told for name, told in self.world.permitted.items() if self.world.machines[name].journal}
        return report

    def make_control(self, *names: str) -> None:
        """The operator edits the roles."""
        for name in self.world.machines:
            address = self.world.machines[name].address
            for old in ("control", "worker"):
                role = "control" if name in names else "worker"
                self.text = self.text.replace(f"address: {address}, role: {old}", f"address: {address}, role: {role}")


def make(folder: Path, count: int = 3, extra: str = "") -> Bed:
    machines = {f"node{i}": Machine(f"node{i}", f"10.0.0.{i}") for i in range(1, count + 1)}
    hosts = "".join(f"  - {{name: node{i}, address: 10.0.0.{i}, role: {'control' if i <= 3 else 'worker'}}}\n" for i in range(1, count + 1))
    text = f"name: test\nid: hm-abc123defg\nssh: {{user: root}}\n{extra}hosts:\n{hosts}"
    return Bed(folder, World(machines), text)


async def killed(bed: Bed, **options: object) -> None:
    """A deploy that is gone as soon as it has sent `form`: what it had in mind is lost, what it wrote is not."""
    bed.world.dies = True
    with contextlib.suppress(asyncio.CancelledError):
        await bed.deploy(**options)  # type: ignore[arg-type]
    bed.world.dies = False


async def no_probe(attempts: Sequence[probe.Attempt], remotes: object) -> list[object]:
    """Instead of probe.probe: a host in memory has no network."""
    return []
