"""From an app to its replicas, through the commands that the state takes: rollout and scheduler together."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hmcore.apps.records import AllocationStatus, Phase, Stage
from hmcore.apps.spec import AppSpec, ContainerSpec, Resources, ServiceSpec, Update
from hmcore.records import InstanceHealth, Node, NodeState, Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import PutApp, PutStatuses, StopApp
from node_agent.consensus.statemachine.commands import Applied, Command, FormCluster, PutNode, SetNodeState, decode_result, encode
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
        self.closed: set[str] = set()  # nodes that run no apps
        self.waits: Mapping[str, str] = {}
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
                Candidate(node=node, capacity=ROOMY, apps=node.name not in self.closed) for node in self.state.nodes.values()
            )
            made = steps(self.state, ["shop"], Cluster(candidates), {"shop": self.memory}, self.now, Terms(fence_after=10.0))["shop"]
            self.memory, self.waits = made.observed, made.waits
            if made.command is not None:
                self.do(made.command)
            elif made.next is None and not self.obey():
                return
            self.obey()
            self.now = max(self.now + 0.1, min(made.next or 0.0, end))

    def obey(self) -> bool:
        """Whether any node had something new to tell."""
        before = self.state.statuses
        for name in NAMES:
            if self.state.nodes[name].state is NodeState.READY:
                told = tuple(self._status(key) for key in sorted(self.state.allocations) if key.startswith(f"{name}/"))
                self.do(PutStatuses(node=name, incarnation=0, allocations=told))
        return {name: each.allocations for name, each in before.items()} != {n: e.allocations for n, e in self.state.statuses.items()}

    def _status(self, key: str) -> AllocationStatus:
        each = self.state.allocations[key]
        if each.stop:
            return AllocationStatus(id=each.id, phase=Phase.DONE)
        image = self.state.generations[f"shop@{each.generation}"].spec.services[each.service].container.image
        if image in self.sick:
            return AllocationStatus(id=each.id, phase=Phase.FAILED, error="it ends at once", exit_code=1)
        return AllocationStatus(id=each.id, phase=Phase.RUNNING, health=InstanceHealth.HEALTHY)

    def running(self) -> list[tuple[str, int, str]]:
        return sorted((each.service, each.generation, each.node) for each in self.state.allocations.values() if not each.stop)


def web(replicas: int, image: str = "web:1", **named: object) -> AppSpec:
    return AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image=image), replicas=replicas, **named)})


def test_an_app_is_spread_and_becomes_healthy():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    assert [node for _, _, node in bed.running()] == [name for name in NAMES for _ in range(2)]
    app = bed.state.apps["shop"]
    assert (app.healthy, app.rollouts["web"].stage, app.serial) == (1, Stage.STEADY, 6)


def test_another_image_replaces_all_and_stops_at_that():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(3)))
    bed.run()
    bed.do(PutApp(name="shop", spec=web(3, "web:2")))
    bed.run()
    assert {generation for _, generation, _ in bed.running()} == {2}
    assert (len(bed.state.allocations), bed.state.apps["shop"].healthy) == (3, 2)


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_a_version_that_fails_is_taken_back_by_itself(order):
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(3)))
    bed.run()
    bed.sick.add("web:2")
    bed.do(PutApp(name="shop", spec=web(3, "web:2", update=Update(failure_action="rollback", order=order))))
    bed.run()
    app = bed.state.apps["shop"]
    assert (app.generation, app.healthy, bed.state.generations["shop@3"].origin) == (3, 3, 1)
    specs = {bed.state.generations[f"shop@{generation}"].spec.services["web"].container.image for _, generation, _ in bed.running()}
    assert (specs, len(bed.running())) == ({"web:1"}, 3)
    assert "app.rollback" in {event.kind for event in bed.state.events}


def test_what_a_dead_node_ran_runs_elsewhere():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    bed.do(SetNodeState(name="node1", state=NodeState.DOWN))
    bed.run()
    assert [node for _, _, node in bed.running()] == ["node2"] * 3 + ["node3"] * 3


def test_a_node_that_runs_no_apps_gets_none_and_loses_what_it_has():
    bed = Bed()
    bed.closed = {"node1"}
    agents = ServiceSpec(container=ContainerSpec(image="agent:1"), mode="global")
    bed.do(PutApp(name="shop", spec=AppSpec(services={**web(4).services, "agent": agents})))
    bed.run()
    assert [(service, node) for service, _, node in bed.running()] == [
        *(("agent", node) for node in ("node2", "node3")),
        *(("web", node) for node in ("node2", "node2", "node3", "node3")),
    ]
    bed.closed = {"node2"}
    bed.run()
    assert {node for _, _, node in bed.running()} == {"node1", "node3"}
    assert len(bed.running()) == 6
    bed.closed = set(NAMES)
    bed.run()
    assert bed.waits["web"] == "role: 3 of 3 nodes run no apps"
    assert sum(service == "web" for service, _, _ in bed.running()) == 3, "no more is taken down at a time than an update would"


def test_who_finds_no_room_is_told_why_and_nothing_is_recorded_again_and_again():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(2, reservations=Resources(memory=9 << 30))))
    bed.run(5.0)
    index = bed.state.apps["shop"].index
    bed.run(5.0)
    assert (bed.running(), bed.state.apps["shop"].index) == ([], index)
    assert "memory" in bed.waits["web"]


def test_a_removed_app_leaves_nothing():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(4)))
    bed.run()
    bed.do(StopApp(name="shop"))
    bed.run()
    assert (bed.state.apps, bed.state.allocations, bed.state.generations) == ({}, {}, {})
