"""What shall run on a node, as it comes to know it: out of whole tables, or by following its part of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from control_node import ControlNode

from hmcore.apps.records import Allocation, AllocationStatus, Phase
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.errors import CallTimeout, HyperMeshError, InvalidRequest
from hmcore.records import Node, Role
from hmcore.watch import TablesReply, TablesRequest, WatchReply, WatchRequest
from node_agent.consensus.following.own import EARLIER, HELD, IMPATIENCE, OwnAllocations, OwnRecords
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import PlanApp, PutApp, PutStatuses, Stop
from node_agent.consensus.statemachine.commands import FormCluster, PutKey, PutNode


def allocation(node: str, number: int) -> Allocation:
    id = f"shop/web.{number}.{number}"
    return Allocation(id=id, app="shop", service="web", slot=number, node=node, generation=1, revision="r1")


class Bench:
    """A control node, as it is in the product, and a worker `w1` that follows its part. `failure`: what every question is answered with."""

    def __init__(self) -> None:
        self.control = ControlNode()
        self.put = self.control.put
        clock = lambda: asyncio.get_running_loop().time()  # noqa: E731
        self.failure: HyperMeshError | None = None
        self.reachable = ["node1"]
        self.asked = 0
        self.changes = 0
        self.put(FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST))
        for name in ("w1", "w10"):
            self.put(PutNode(node=Node(name=name, address="10.0.0.1", port=7443, role=Role.WORKER, release="r1")))
        self.put(PutApp(name="shop", spec=AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="web:1"))})))
        self.own = OwnRecords(
            "w1",
            control_nodes=lambda: self.reachable,
            watch=self._watch,
            tables=self._tables,
            on_change=self._changed,
            clock=clock,
        )

    def plan(self, *starts: Allocation, stops: tuple[str, ...] = (), forgets: tuple[str, ...] = ()) -> None:
        basis = self.control.state.apps["shop"].index
        ends = tuple(Stop(key=key, reason="scaled") for key in stops)
        self.put(PlanApp(app="shop", basis=basis, rollouts={}, healthy=0, starts=starts, stops=ends, forgets=forgets))

    async def _watch(self, request: WatchRequest, names: Sequence[str]) -> WatchReply:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return await self.control.watches.watch(request)

    async def _tables(self, request: TablesRequest, names: Sequence[str]) -> TablesReply:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return await self.control.watches.tables(request)

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def play(virtual) -> Callable[..., None]:
    def run(scenario: Callable[[Bench], Awaitable[None]], prepare: Callable[[Bench], None] = lambda bench: None) -> None:
        async def whole() -> None:
            bench = Bench()
            prepare(bench)
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(bench.own.follow())
                await asyncio.sleep(0.01)
                await scenario(bench)
                following.cancel()

        virtual(whole())

    return run


def test_that_nothing_is_wanted_here_is_something_else_than_not_knowing(play):
    async def scenario(bench: Bench) -> None:
        assert bench.own.allocations is None
        bench.reachable = ["node1"]
        await asyncio.sleep(IMPATIENCE + 0.1)
        assert bench.own.allocations == {}
        assert (bench.own.statuses, bench.changes) == (None, 1)

    play(scenario, lambda bench: bench.reachable.clear())


def test_its_own_is_known_at_once_and_nothing_of_others(play):
    async def scenario(bench: Bench) -> None:
        bench.plan(allocation("w1", 1), allocation("w10", 2))
        await asyncio.sleep(0.01)
        assert list(bench.own.allocations) == ["shop/web.1.1"]
        changes = bench.changes
        bench.plan(allocation("w10", 3))
        for number in range(20):
            bench.put(PutKey(key="k", value=b"%d" % number))
        await asyncio.sleep(0.01)
        assert bench.changes == changes, "what concerns others wakes nobody"
        bench.plan(stops=("w1/shop/web.1.1",))
        await asyncio.sleep(0.01)
        assert bench.own.allocations["shop/web.1.1"].stop
        bench.plan(forgets=("w1/shop/web.1.1",))
        await asyncio.sleep(0.01)
        assert bench.own.allocations == {}

    play(scenario)


def test_what_it_told_before_it_started_comes_back(play):
    told = AllocationStatus(id="shop/web.1.1", phase=Phase.DONE)

    async def scenario(bench: Bench) -> None:
        assert bench.own.statuses is not None
        assert bench.own.statuses.allocations == (told,)

    play(scenario, lambda bench: bench.put(PutStatuses(node="w1", incarnation=4, allocations=(told,))))


def test_while_nobody_answers_what_is_known_stays_and_it_is_said(play):
    async def scenario(bench: Bench) -> None:
        bench.plan(allocation("w1", 1))
        await asyncio.sleep(0.01)
        bench.failure = CallTimeout("no answer within 3 s")
        await asyncio.sleep(3 * HELD)
        assert list(bench.own.allocations) == ["shop/web.1.1"]
        assert bench.own.trouble is not None
        assert "no answer within 3 s" in bench.own.trouble
        asked = bench.asked
        await asyncio.sleep(10 * IMPATIENCE)
        assert 8 <= bench.asked - asked <= 12
        bench.failure = None
        bench.plan(allocation("w1", 2))
        await asyncio.sleep(IMPATIENCE + 0.01)
        assert (len(bench.own.allocations), bench.own.trouble) == (2, None)

    play(scenario)


def test_control_nodes_of_an_earlier_release_are_asked_seldom_until_they_know(play):
    async def scenario(bench: Bench) -> None:
        bench.failure = InvalidRequest("there is no table 'allocations'")
        await asyncio.sleep(HELD)
        asked = bench.asked
        await asyncio.sleep(4 * EARLIER)
        assert 3 <= bench.asked - asked <= 5
        assert bench.own.trouble is None
        bench.failure = None
        bench.plan(allocation("w1", 1))
        await asyncio.sleep(EARLIER)
        assert list(bench.own.allocations) == ["shop/web.1.1"]

    play(scenario)


def test_questions_are_held_back_while_nothing_happens(play):
    async def scenario(bench: Bench) -> None:
        asked, changes = bench.asked, bench.changes
        await asyncio.sleep(20 * HELD)
        assert bench.changes == changes, "no news"
        assert 18 <= bench.asked - asked <= 22

    play(scenario)


def test_out_of_whole_tables_they_are_looked_for_when_these_have_changed():
    own = OwnAllocations("w1")
    table = {each.key: each for each in (allocation("w1", 1), allocation("w10", 2), allocation("w2", 3))}
    found = own.of(table)
    assert list(found) == ["shop/web.1.1"]
    assert own.of(table) is found
    assert own.of({}) == {}
