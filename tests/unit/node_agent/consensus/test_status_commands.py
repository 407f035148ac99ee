"""PutStatuses: a node's word on its replicas in the replicated state, and what people are told of it."""

from __future__ import annotations

import pytest

from hmcore.apps.records import Allocation, AllocationStatus, Machine, Phase
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.records import InstanceHealth, Node, Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import PlanApp, PutApp, PutStatuses, Stop
from node_agent.consensus.statemachine.commands import Applied, Command, FormCluster, PutNode, Refused, Result, decode_result, encode
from node_agent.consensus.statemachine.effects.statuses import MOST_EVENTS
from node_agent.consensus.statemachine.machine import Proposal, apply_batch, encode_batch
from node_agent.consensus.statemachine.state import State


class Bench:
    """Node `node1` with `replicas` of `shop/web`."""

    def __init__(self, replicas: int = 2) -> None:
        self.state = State()
        self.do(FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST))
        for name in ("node1", "node2"):
            self.do(PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=Role.CONTROL, release="r1")))
        service = ServiceSpec(container=ContainerSpec(image="web:1"), replicas=replicas)
        self.do(PutApp(name="shop", spec=AppSpec(services={"web": service})))
        self.ids = [f"shop/web.{number}.{number}" for number in range(1, replicas + 1)]
        self.plan(starts=tuple(_allocation(id) for id in self.ids))

    def do(self, command: Command) -> Result:
        index = self.state.index + 1
        self.state, receipts, _ = apply_batch(self.state, encode_batch([Proposal(f"r{index}", encode(command))]), index)
        return decode_result(receipts[0].result)

    def plan(self, **changes: object) -> None:
        app = self.state.apps["shop"]
        made = PlanApp(app="shop", basis=app.index, rollouts={}, healthy=0, **changes)  # type: ignore[arg-type]
        assert isinstance(self.do(made), Applied)

    def tell(self, *told: AllocationStatus, incarnation: int = 1, node: str = "node1", machine: Machine | None = None) -> Result:
        return self.do(PutStatuses(node=node, incarnation=incarnation, allocations=told, machine=machine))

    @property
    def news(self) -> list[tuple[str, str, str]]:
        return [(event.kind, event.subject, event.message) for event in self.state.events if event.kind.startswith("replica")]


def _allocation(id: str) -> Allocation:
    slot = int(id.split(".")[1])
    return Allocation(id=id, app="shop", service="web", slot=slot, node="node1", generation=1, revision="r1")


def status(id: str, phase: Phase = Phase.RUNNING, **more: object) -> AllocationStatus:
    return AllocationStatus(id=id, phase=phase, **more)  # type: ignore[arg-type]


def test_the_latest_word_counts_and_the_same_one_again_changes_nothing():
    bench = Bench()
    starting, runs = status(bench.ids[0], Phase.STARTING), status(bench.ids[0], health=InstanceHealth.HEALTHY)
    assert bench.tell(starting) == Applied(changed=True)
    assert bench.tell(runs) == Applied(changed=True)
    index = bench.state.index
    assert bench.tell(runs) == Applied(changed=False)
    assert (bench.state.statuses["node1/"].allocations, bench.state.statuses["node1/"].index) == ((runs,), index)


def test_an_earlier_start_of_an_agent_is_not_believed():
    """Its words may have been under way for long."""
    bench = Bench()
    bench.tell(status(bench.ids[0]), incarnation=8)
    assert bench.tell(status(bench.ids[0], Phase.FAILED), incarnation=7) == Refused("node1 has started again since")
    assert bench.state.statuses["node1/"].allocations == (status(bench.ids[0]),)
    assert bench.tell(status(bench.ids[0]), incarnation=9) == Applied(changed=True)


def test_who_is_no_member_has_no_word():
    bench = Bench()
    assert bench.tell(status(bench.ids[0]), node="node9") == Refused("there is no node node9")
    assert bench.state.statuses == {}


def test_what_a_node_has_stays_until_it_tells_otherwise_and_is_its_own():
    bench = Bench()
    machine = Machine(node="node2", cpus=4000, engine=True)  # whatever it says: of others it cannot speak
    assert bench.tell(machine=machine) == Applied(changed=True)
    bench.tell(status(bench.ids[0]))
    assert set(bench.state.machines) == {"node1"}
    assert (bench.state.machines["node1"].node, bench.state.machines["node1"].cpus) == ("node1", 4000)
    index = bench.state.machines["node1"].index
    assert bench.tell(status(bench.ids[0]), machine=machine) == Applied(changed=False)
    assert bench.state.machines["node1"].index == index


@pytest.mark.parametrize(
    ("phase", "kind"),
    [(Phase.BACKOFF, "replica.ended"), (Phase.FAILED, "replica.failed"), (Phase.DONE, "replica.done")],
)
def test_ends_that_nobody_wanted_are_told_once(phase, kind):
    bench = Bench()
    bench.tell(status(bench.ids[0]))
    for _ in range(3):
        bench.tell(status(bench.ids[0], phase, exit_code=3, restarts=1, since=1.0))
        bench.tell(status(bench.ids[0], phase, exit_code=3, restarts=1, since=2.0))
    assert bench.news == [(kind, bench.ids[0], "on node1: it ended with 3")]


def test_each_restart_is_told_and_why():
    bench = Bench()
    for number in (1, 2):
        bench.tell(status(bench.ids[0], Phase.BACKOFF, restarts=number, error="out of memory"))
    assert bench.news == [("replica.ended", bench.ids[0], "on node1: out of memory")] * 2


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.PULLING, Phase.STARTING, Phase.RUNNING, Phase.STOPPING])
def test_what_is_on_its_way_is_no_news(phase):
    bench = Bench()
    bench.tell(status(bench.ids[0], phase, restarts=1))
    assert bench.news == []


def test_the_end_of_what_was_to_stop_is_no_news():
    bench = Bench()
    bench.tell(status(bench.ids[0]))
    bench.plan(stops=(Stop(key=f"node1/{bench.ids[0]}", reason="scaled"),))
    bench.tell(status(bench.ids[0], Phase.DONE))
    bench.tell(status("shop/web.9.99", Phase.FAILED))  # and of what is no allocation
    assert bench.news == []


def test_many_ends_at_once_are_one_piece_of_news():
    bench = Bench(replicas=MOST_EVENTS + 1)
    bench.tell(*(status(id, Phase.FAILED) for id in bench.ids[:MOST_EVENTS]))
    assert len(bench.news) == MOST_EVENTS
    bench.tell(*(status(id, Phase.BACKOFF, restarts=1) for id in bench.ids))
    assert bench.news[-1] == ("replicas.ended", "node1", f"{MOST_EVENTS + 1} replicas ended or cannot be started")
    assert len(bench.news) == MOST_EVENTS + 1
