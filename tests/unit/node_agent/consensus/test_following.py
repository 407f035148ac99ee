"""A worker that watches a control node: it follows at once, resumes, begins anew when it must, and notices a copy that is not right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from control_node import ControlNode

from hmcore.api import StateReply
from hmcore.errors import FrameError, InvalidRequest
from hmcore.records import Instance, Node, Role
from hmcore.watch import Change, Entry, TablesReply, TablesRequest, WatchReply, WatchRequest
from node_agent.consensus.following.copy import Copy
from node_agent.consensus.following.follower import COMPARED, FOLLOWED
from node_agent.consensus.following.observer import EARLIER, INTERVAL, ObserverLayer
from node_agent.consensus.statemachine.commands import FormCluster, Proposal, PutInstances, PutKey, PutNode, encode, encode_batch
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import encode as encode_record

CONTROL = ["node1", "node2", "node3"]


class Bench:
    """One control node, as it is in the product, and a worker that asks it."""

    def __init__(self) -> None:
        self.control = ControlNode()
        self.put = self.control.put
        clock = lambda: asyncio.get_running_loop().time()  # noqa: E731
        self.questions: list[WatchRequest] = []
        self.begun = 0
        self.applied = 0
        self.serves = True
        self.put(FormCluster(id="hm-a", bootstrap="b1", level=2))
        self.put(node("w1", "r1"))
        self.layer = ObserverLayer(
            "worker1",
            "hm-abc123defg",
            "b1",
            control_nodes=lambda: CONTROL,
            connected=lambda: frozenset(CONTROL),
            watch=self._watch,
            tables=self._tables,
            ask=self._ask,
            on_applied=self._applied,
            clock=clock,
        )

    async def _watch(self, request: WatchRequest, names: Sequence[str]) -> WatchReply:
        if not self.serves:
            raise InvalidRequest("no method 'cluster.watch' here")
        if not request.prefix:  # what shall run on the worker itself it follows apart
            self.questions.append(request)
        return await self.control.watches.watch(request)

    async def _tables(self, request: TablesRequest, names: Sequence[str]) -> TablesReply:
        if not self.serves:
            raise InvalidRequest("no method 'cluster.tables' here")
        self.begun += not request.prefix
        return await self.control.watches.tables(request)

    async def _ask(self, request: object, names: Sequence[str]) -> StateReply:
        state = self.control.state
        return StateReply(index=state.index, leader="node1", term=1, nodes=list(state.nodes.values()), waited=INTERVAL)

    def _applied(self) -> None:
        self.applied += 1


def node(name: str, release: str) -> PutNode:
    return PutNode(node=Node(name=name, address="10.0.0.1", port=7443, role=Role.WORKER, release=release))


@pytest.fixture
def play(virtual) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def whole() -> None:
            bench = Bench()
            await bench.layer.initialize()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(bench.layer.run())
                await asyncio.sleep(0.1)
                await scenario(bench)
                running.cancel()

        virtual(whole())

    return run


def test_what_changes_is_known_at_once_and_what_does_not_concern_workers_wakes_nobody(play):
    async def scenario(bench: Bench) -> None:
        layer = bench.layer
        assert (layer.index, layer.leader, list(layer.nodes), bench.begun) == (2, "node1", ["w1"], 1)
        nodes = layer.nodes
        asked = len(bench.questions)
        for number in range(500):
            bench.put(PutKey(key="k", value=b"%d" % number))
            await asyncio.sleep(0.001)
        assert len(bench.questions) == asked, "keys are none of a worker's business"
        made = Instance(id="w1/web", service="web", node="w1", address="10.0.0.1")
        bench.put(PutInstances(node="w1", incarnation=0, revision=7, instances=(made,)))
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        assert layer.registrations["w1"].instances == (made,)
        assert layer.nodes is nodes, "a table that has not changed is the same object"
        await asyncio.sleep(3 * INTERVAL)
        assert (layer.index, bench.begun, await layer.check()) == (bench.control.state.index, 1, None)

    play(scenario)


def test_a_busy_log_is_not_asked_for_entry_by_entry(play):
    async def scenario(bench: Bench) -> None:
        asked = len(bench.questions)
        for number in range(200):
            bench.put(node("w1", f"r{number}"))
            await asyncio.sleep(0.01)
        assert len(bench.questions) - asked <= 2.0 / 0.2 + 5
        await asyncio.sleep(0.3)
        assert bench.layer.nodes["w1"].release == "r199"

    play(scenario)


def test_another_leader_is_known_at_once_and_none_is_a_trouble(play):
    async def scenario(bench: Bench) -> None:
        bench.control.leader = "node2"
        bench.control.watches.leader_changed()
        await asyncio.sleep(0.01)
        assert bench.layer.leader == "node2"
        bench.control.leader = None
        bench.control.watches.leader_changed()
        await asyncio.sleep(0.01)
        assert await bench.layer.check() == "the control nodes have no leader"
        bench.control.leader = "node3"
        bench.control.watches.leader_changed()
        await asyncio.sleep(1.1)
        assert (await bench.layer.check(), bench.layer.leader) == (None, "node3")
        asked = len(bench.questions)
        await asyncio.sleep(INTERVAL)
        assert len(bench.questions) - asked <= 2

    play(scenario)


def test_what_was_lost_is_read_anew(play):
    async def scenario(bench: Bench) -> None:
        control = bench.control
        control.history = History()
        control.history.restart(control.state.index + 1)  # a snapshot was installed: what it holds came about unseen
        batch = encode_batch([Proposal("c", encode(node("w2", "r1")))])
        control.state = apply_batch(control.state, batch, control.state.index + 1).state
        control.watches.applied()
        await asyncio.sleep(0.1)
        assert (set(bench.layer.nodes), bench.begun) == ({"w1", "w2"}, 2)

    play(scenario)


def test_a_copy_that_is_not_what_the_control_nodes_have_is_noticed_said_and_read_anew(play, caplog):
    async def scenario(bench: Bench) -> None:
        copy = bench.layer._follower.copy
        assert copy is not None
        wrong = Change("nodes", "w1", encode_record(node("w1", "wrong").node))
        copy._change([wrong])  # a bug, or a bit of memory
        assert bench.layer._follower.copy is copy
        await asyncio.sleep(COMPARED + 2 * INTERVAL)
        assert bench.layer.nodes["w1"].release == "r1"
        assert bench.begun == 2
        await asyncio.sleep(3 * COMPARED)
        assert bench.begun == 2

    play(scenario)
    assert caplog.text.count("our copy of nodes at log index 2 is not what the control nodes have") == 1


def test_a_reader_who_must_know_more_does_not_wait_for_something_to_change(play):
    async def scenario(bench: Bench) -> None:
        for number in range(3):
            bench.put(PutKey(key="k", value=b"%d" % number))
        assert bench.layer.index == 2
        await bench.layer.reach(bench.control.state.index, 1.0)
        assert bench.layer.index == 5

        async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
            reaching = tasks.create_task(bench.layer.reach(6, 3.0))
            await asyncio.sleep(0.1)
            assert not reaching.done()
            bench.put(PutKey(key="k", value=b"4"))
        assert bench.layer.index == 6

    play(scenario)


def test_control_nodes_that_cannot_be_watched_are_asked_as_before_until_they_can(play):
    async def scenario(bench: Bench) -> None:
        bench.serves = False
        await asyncio.sleep(2 * INTERVAL)
        bench.put(node("w2", "r1"))
        await asyncio.sleep(INTERVAL)
        assert set(bench.layer.nodes) == {"w1", "w2"}
        assert await bench.layer.check() is None
        bench.serves = True
        asked = len(bench.questions)
        await asyncio.sleep(2 * EARLIER)
        assert len(bench.questions) > asked
        assert bench.begun == 2
        bench.put(node("w3", "r1"))
        await asyncio.sleep(0.01)
        assert set(bench.layer.nodes) == {"w1", "w2", "w3"}

    play(scenario)


@pytest.mark.parametrize("bad", [Change("keys", "k", b""), Change("nodes", "w1", b"\xc1"), Change("nodes", "w1", b"\x80")])
def test_what_cannot_be_read_leaves_the_copy_as_it_was(bad):
    good = Change("nodes", "w1", encode_record(node("w1", "r1").node))
    copy = Copy(3, FOLLOWED, [good])
    before = dict(copy.tables)
    with pytest.raises(FrameError):
        copy.take(3, WatchReply(index=4, entries=[Entry(4, (Change("nodes", "w1", None), bad))]))
    assert (copy.index, copy.tables) == (3, before)
