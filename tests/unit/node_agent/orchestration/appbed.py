"""A cluster with one app: the product's rollout, scheduler and replicated state; nodes do at once what they shall."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from hmcore.apps.records import AllocationStatus, Phase
from hmcore.apps.spec import AppSpec, ContainerSpec, Resources, ServiceSpec
from hmcore.records import InstanceHealth, Node, NodeState, Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import (
    Applied,
    Command,
    FormCluster,
    PutNode,
    PutStatuses,
    decode_result,
    encode,
)
from node_agent.consensus.statemachine.machine import Proposal, apply_batch, encode_batch
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.appplan import Cluster, steps
from node_agent.orchestration.rollout import Observed, Terms
from node_agent.orchestration.scheduling.model import Candidate

NAMES = ("node1", "node2", "node3")
ROOMY = Resources(cpus=4000, memory=8 << 30)


class Bed:
    """A cluster whose nodes do at once what they shall; `sick`: images whose containers never become fit."""

    def __init__(self) -> None:
        self.state = State()
        self.memory = Observed()
        self.now = 0.0
        self.sick: set[str] = set()
        self.unable: dict[str, set[str]] = {}  # by node, images of which it can start none
        self.closed: set[str] = set()  # nodes that run no apps
        self.dockerless: set[str] = set()
        self.labels: dict[str, dict[str, str]] = {}  # by node
        self.volumes: dict[str, str] = {}  # by Docker's name, where each is
        self.waits: Mapping[str, str] = {}
        self.least = 0  # replicas that shall run and do, at any moment since a test set it to what there is
        self.tells: set[str] = set()  # nodes that do as told though they are not ready
        self.stops: list[str] = []  # the reasons of all that were told to stop
        self.do(FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST))
        for name in NAMES:
            self.do(PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=Role.CONTROL, release="r1")))

    def do(self, command: Command) -> None:
        index = self.state.index + 1
        self.state, receipts, _ = apply_batch(self.state, encode_batch([Proposal(f"r{index}", encode(command))]), index)
        assert isinstance(decode_result(receipts[0].result), Applied)

    def run(self, seconds: float = 60.0) -> None:
        """Until nothing is to be done any more."""
        end = self.now + seconds
        while self.now < end:
            if "shop" not in self.state.apps:
                return
            candidates = tuple(
                Candidate(
                    node=replace(node, labels=self.labels.get(node.name, {})),
                    capacity=ROOMY,
                    apps=node.name not in self.closed,
                    engine=node.name not in self.dockerless,
                )
                for node in self.state.nodes.values()
            )
            cluster = Cluster(candidates, homes=self.volumes)
            made = steps(self.state, ["shop"], cluster, {"shop": self.memory}, self.now, Terms(fence_after=10.0))["shop"]
            self.memory, self.waits = made.observed, made.waits
            if made.command is not None:
                self.do(made.command)
                self.stops += [stop.reason for stop in made.command.stops]
                self.least = min(self.least, len(self.running()))
            elif made.next is None and not self.obey():
                return
            self.obey()
            self.now = max(self.now + 0.1, min(made.next or 0.0, end))

    def obey(self) -> bool:
        """Whether any node had something new to tell."""
        before = self.state.statuses
        for name in NAMES:
            if self.state.nodes[name].state is NodeState.READY or name in self.tells:
                if name in self.dockerless:
                    continue
                told = tuple(self._status(key) for key in sorted(self.state.allocations) if key.startswith(f"{name}/"))
                self.do(PutStatuses(node=name, incarnation=0, allocations=told))
        return {name: each.allocations for name, each in before.items()} != {n: e.allocations for n, e in self.state.statuses.items()}

    def _status(self, key: str) -> AllocationStatus:
        each = self.state.allocations[key]
        if each.stop:
            return AllocationStatus(id=each.id, phase=Phase.DONE)
        image = self.state.generations[f"shop@{each.generation}"].spec.services[each.service].container.image
        if image in self.unable.get(each.node, ()):
            return AllocationStatus(id=each.id, phase=Phase.PULLING, error="no room", stuck=True)
        if image in self.sick:
            return AllocationStatus(id=each.id, phase=Phase.FAILED, error="it ends at once", exit_code=1)
        return AllocationStatus(id=each.id, phase=Phase.RUNNING, health=InstanceHealth.HEALTHY)

    def running(self) -> list[tuple[str, int, str]]:
        return sorted((each.service, each.generation, each.node) for each in self.state.allocations.values() if not each.stop)


def web(replicas: int, image: str = "web:1", **named: object) -> AppSpec:
    return AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image=image), replicas=replicas, **named)})
