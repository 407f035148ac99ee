"""Moving replicas for evenness: a few at a time, nothing where not all is well, and in the end as even as can be. On the real state."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.apps.records import AllocationStatus, Machine, Phase
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec, Update
from hmcore.records import InstanceHealth, Node, NodeState, Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import PutApp, PutStatuses
from node_agent.consensus.statemachine.commands import (
    Applied,
    Command,
    FormCluster,
    PutNode,
    Refused,
    Result,
    SetNodeState,
    decode_result,
    encode,
)
from node_agent.consensus.statemachine.machine import Proposal, apply_batch, encode_batch
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.appplan import Cluster, steps
from node_agent.orchestration.candidates import candidates, homes
from node_agent.orchestration.moving import Moves, next_moves
from node_agent.orchestration.rollout import Observed, Terms


class Bench:
    """`slow`: nodes that tell nothing new."""

    def __init__(self, nodes: int = 3) -> None:
        self.state = State()
        self.now = 0.0
        self.memories: dict[str, Observed] = {}
        self.slow: set[str] = set()
        self.do(FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST))
        for number in range(1, nodes + 1):
            self.join(f"node{number}")

    def join(self, name: str) -> None:
        self.do(PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=Role.CONTROL, release="r1")))
        machine = Machine(node=name, cpus=64_000, memory=64 << 30, engine=True)
        self.do(PutStatuses(node=name, incarnation=1, allocations=(), machine=machine))

    def do(self, command: Command) -> Result:
        index = self.state.index + 1
        self.state, receipts, _ = apply_batch(self.state, encode_batch([Proposal(f"r{index}", encode(command))]), index)
        return decode_result(receipts[0].result)

    @property
    def cluster(self) -> Cluster:
        return Cluster(candidates(self.state), homes=homes(self.state))

    def step(self) -> None:
        """The leader looks once, then every node does what it shall."""
        self.now += 10.0
        for name, made in steps(self.state, self.state.apps, self.cluster, self.memories, self.now, Terms(fence_after=5.0)).items():
            self.memories[name] = made.observed
            if made.command is not None:
                self.do(made.command)
        for node in self.state.nodes.keys() - self.slow:
            told = tuple(self._status(key) for key in sorted(self.state.allocations) if key.startswith(f"{node}/"))
            self.do(PutStatuses(node=node, incarnation=1, allocations=told))

    def _status(self, key: str) -> AllocationStatus:
        each = self.state.allocations[key]
        if each.stop:
            return AllocationStatus(id=each.id, phase=Phase.DONE)
        return AllocationStatus(id=each.id, phase=Phase.RUNNING, health=InstanceHealth.HEALTHY)

    def settle(self) -> None:
        for _ in range(12):
            self.step()

    def move(self, name: str = "") -> Moves:
        """And carry it out."""
        moves = next_moves(self.state, self.cluster, name)
        for command in moves.commands:
            assert self.do(command) == Applied()
        return moves

    def fit(self, app: str = "shop", service: str = "web") -> int:
        told = {status.id: status for each in self.state.statuses.values() for status in each.allocations}
        live = [each for each in self.state.allocations.values() if (each.app, each.service, each.stop) == (app, service, False)]
        return sum(each.id in told and told[each.id].health is InstanceHealth.HEALTHY for each in live)

    def spread(self, app: str = "shop") -> Counter[str]:
        return Counter(each.node for each in self.state.allocations.values() if each.app == app and not each.stop)


def spec(replicas: int, parallelism: int = 1, **more: object) -> AppSpec:
    update = Update(parallelism=parallelism, monitor=0.0)
    return AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="web:1"), replicas=replicas, update=update, **more)})  # type: ignore[arg-type]


def crowded(replicas: int = 6, parallelism: int = 1, **more: object) -> Bench:
    """Everything is on two nodes, and a third has come."""
    bench = Bench(nodes=2)
    bench.do(PutApp(name="shop", spec=spec(replicas, parallelism, **more)))
    bench.settle()
    bench.join("node3")
    bench.settle()
    assert "node3" not in bench.spread(), "nothing moves by itself"
    return bench


def test_one_at_a_time_until_all_is_even() -> None:
    bench = crowded()
    first = bench.move()
    ((move,), (later,)) = first.now, first.later
    assert (move.node, later.node) == ("node3", "node3")
    assert bench.fit() == 5
    bench.settle()
    assert bench.fit() == 6
    assert len(bench.move().now) == 1
    bench.settle()
    assert bench.move() == Moves()
    assert bench.spread() == {"node1": 2, "node2": 2, "node3": 2}
    assert [event.kind for event in bench.state.events].count("replica.moved") == 2


def test_as_many_at_a_time_as_an_update_would_replace_and_never_all() -> None:
    assert len(crowded(12, parallelism=3).move().now) == 3
    assert len(crowded(12, parallelism=0).move().now) == 1
    bench = Bench(nodes=1)
    bench.do(PutApp(name="shop", spec=spec(2, parallelism=5)))
    bench.settle()
    bench.join("node2")
    bench.join("node3")
    moves = bench.move()
    assert (len(moves.now), bench.fit()) == (1, 1)


def test_nothing_more_moves_before_what_moved_is_fit_and_what_left_is_gone() -> None:
    bench = crowded()
    (move,) = bench.move().now
    moves = bench.move()
    assert (moves.now, moves.waits) == ((), {"shop/web": f"{move.allocation.replica} is still leaving {move.allocation.node}"})
    bench.slow = {"node3"}
    bench.settle()
    moves = bench.move()
    assert moves.now == ()
    assert moves.waits["shop/web"].endswith("is not fit yet on node3")
    assert bench.fit() == 5
    bench.slow = set()
    bench.settle()
    assert len(bench.move().now) == 1


def test_nothing_moves_while_a_rollout_is_under_way() -> None:
    bench = crowded()
    bench.do(PutApp(name="shop", spec=spec(7)))
    moves = bench.move()
    assert (moves.now, moves.waits) == ((), {"shop/web": "its rollout is under way"})
    bench.settle()
    assert bench.move().now or bench.spread() == {"node1": 3, "node2": 2, "node3": 2}


def test_nothing_moves_while_not_all_are_fit() -> None:
    bench = crowded()
    told = bench.state.statuses["node1/"]
    sick = tuple(AllocationStatus(id=each.id, phase=Phase.RUNNING, health=InstanceHealth.UNHEALTHY) for each in told.allocations)
    bench.do(PutStatuses(node="node1", incarnation=1, allocations=sick))
    moves = bench.move()
    assert (moves.now, moves.waits) == ((), {"shop/web": "only 3 of 6 replicas are fit"})


def test_what_must_not_run_twice_stays() -> None:
    assert crowded(exclusive=True).move() == Moves()


def test_what_is_being_removed_and_other_apps_are_left_alone() -> None:
    bench = crowded()
    bench.do(PutApp(name="blog", spec=spec(3)))
    bench.settle()
    assert bench.move("blog") == Moves()
    assert {move.allocation.app for move in bench.move("shop").now} == {"shop"}


def test_a_plan_that_was_overtaken_is_refused_as_a_whole() -> None:
    bench = crowded()
    (command,) = next_moves(bench.state, bench.cluster).commands
    bench.do(PutApp(name="shop", spec=spec(5)))
    before = bench.state.allocations
    assert isinstance(bench.do(command), Refused)
    assert bench.state.allocations is before


def test_a_node_that_takes_nothing_new_gets_nothing() -> None:
    bench = crowded()
    bench.do(SetNodeState(name="node3", state=NodeState.SUSPECT))
    assert bench.move() == Moves(absent={"node3": "suspect"})


def test_a_node_that_is_emptied_is_not_missed() -> None:
    bench = crowded()
    bench.do(SetNodeState(name="node3", state=NodeState.DRAINED))
    assert bench.move() == Moves()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 3)), min_size=1, max_size=3), st.integers(1, 3), st.integers(1, 3))
def test_it_comes_to_an_end_and_takes_no_more_down_than_it_may(apps: list[tuple[int, int]], before: int, more: int) -> None:
    bench = Bench(nodes=before)
    for number, (replicas, parallelism) in enumerate(apps):
        bench.do(PutApp(name=f"app{number}", spec=spec(replicas, parallelism)))
    bench.settle()
    for number in range(more):
        bench.join(f"late{number}")
    for _ in range(60):
        moves = bench.move()
        for number, (replicas, parallelism) in enumerate(apps):
            assert bench.fit(f"app{number}") >= replicas - max(1, parallelism)
            assert replicas == 1 or bench.fit(f"app{number}") >= 1
        if moves == Moves():
            break
        bench.step()
    else:
        pytest.fail(f"it goes on and on: {moves}")
    for number, (replicas, _) in enumerate(apps):
        spread = bench.spread(f"app{number}")
        assert sum(spread.values()) == replicas
        assert max(spread.values()) - min(spread.get(name, 0) for name in bench.state.nodes) <= 1
