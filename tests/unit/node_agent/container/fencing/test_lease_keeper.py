"""The agent's side: questions to the leader, the file for the fence, and the gates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hmcore.apps.calls import LeaseReply, LeaseRequest
from hmcore.errors import HyperMeshError, NoLease, NotLeader
from node_agent.container import info
from node_agent.container.fencing.fence import BEAT, LEASE
from node_agent.container.fencing.gates import Gates
from node_agent.container.fencing.keeper import Keeper
from node_agent.container.fencing.lease import Lease, encode, parse
from node_agent.container.info import ContainerInfo

DB, ONE = "shop/db.1.7", "1" * 64


class Node:
    """`LENGTH` of the leases; the boot's clock is the test's. `answers`: what the leader says."""

    LENGTH = 6.0

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1000.0
        self.known = 50
        self.asked: list[bool] = []
        self.index = 40
        self.refuses: HyperMeshError | None = None
        self.takes = 0.0
        self.changes = 0
        self.keeper = Keeper(
            root,
            self.ask,
            lease=self.LENGTH,
            known=lambda: self.known,
            on_change=self._changed,
            clock=lambda: self.now,
            boot=lambda: "b1",
        )
        self.beat()

    def _changed(self) -> None:
        self.changes += 1

    def beat(self) -> None:
        (self.root / BEAT).write_bytes(encode(Lease("b1", self.now)))

    async def ask(self, request: LeaseRequest) -> LeaseReply:
        self.asked.append(request.anew)
        if self.refuses is not None:
            raise self.refuses
        self.index += request.anew
        self.now += self.takes
        return LeaseReply(index=self.index, seconds=self.LENGTH)

    @property
    def written(self) -> float | None:
        try:
            lease = parse((self.root / LEASE).read_bytes())
        except FileNotFoundError:
            return None
        return None if lease is None else lease.until

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(self.keeper.run(), name="lease")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.keeper.poke()  # the clock is not the loop's: nothing else wakes it
                await asyncio.sleep(0.001)

    async def pass_by(self, seconds: float) -> None:
        """And the fence goes on."""
        self.now += seconds
        self.beat()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_nobody_asks_while_there_is_nothing_exclusive(node: Node) -> None:
    async with node.running():
        node.keeper.need(False)
        for _ in range(5):
            node.keeper.poke()
            await asyncio.sleep(0.001)
        assert node.asked == []
        node.keeper.need(True)
        await node.until(lambda: node.written == 1006.0)
    assert node.asked[0] is True
    assert node.keeper.permit().lease == 41


async def test_what_runs_behind_a_gate_is_asked_for_though_nobody_knows_yet_what_is_wanted(node: Node) -> None:
    Gates(node.root).open(DB)
    node.keeper.need(False)
    async with node.running():
        await node.until(lambda: node.written is not None)


async def test_a_lease_ends_once_what_is_exclusive_is_to_end_and_docker_cannot_end_it(node: Node) -> None:
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: node.written is not None)
        Gates(node.root).open(DB)
        node.keeper.need(True, forsaken=True)
        await node.until(lambda: node.keeper.trouble is None)
        asked = len(node.asked)
        for _ in range(8):
            await node.pass_by(1.0)
            node.keeper.poke()
            await asyncio.sleep(0.001)
        assert len(node.asked) <= asked + 1, "it may have been about to"
        assert node.keeper.permit().barred
        node.keeper.need(False)
        await node.until(lambda: len(node.asked) > asked + 1 or node.asked[-1])
        assert node.asked[-1] is True, "Docker is back: what it still has behind gates is seen to under a lease of its own"


async def test_a_lease_is_renewed_long_before_it_ends_and_then_without_the_log(node: Node) -> None:
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: len(node.asked) == 1)
        await node.pass_by(0.9)
        await asyncio.sleep(0.02)
        assert len(node.asked) == 1
        await node.pass_by(0.2)
        await node.until(lambda: node.written == pytest.approx(1007.1))
    assert node.asked == [True, False]
    assert node.keeper.permit().lease == 41


async def test_who_is_not_answered_until_its_end_begins_anew(node: Node) -> None:
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: node.written == 1006.0)
        node.refuses = NotLeader("not me", leader=None)
        await node.pass_by(5.9)
        await node.until(lambda: len(node.asked) > 1)
        assert (node.keeper.permit().barred, node.keeper.permit().held) == ("", "the leader does not answer this node")
        await node.pass_by(0.2)
        await node.until(lambda: bool(node.keeper.trouble and "no lease" in node.keeper.trouble))
        assert node.written == 1006.0
        node.refuses = None
        await node.pass_by(2.0)
        await node.until(lambda: node.written is not None and node.written > 1006.0)
    assert node.asked[-1] is True
    assert node.keeper.permit().lease == 42
    assert node.keeper.trouble is None


async def test_an_answer_that_takes_longer_than_the_lease_is_none(node: Node) -> None:
    node.takes = 6.0
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: len(node.asked) >= 2)
    assert node.written is None
    assert set(node.asked) == {True}


async def test_nothing_is_started_before_what_was_decided_meanwhile_is_known(node: Node) -> None:
    node.index = 60
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: node.written is not None)
        with pytest.raises(NoLease, match="not known here yet"):
            node.keeper.open(DB, 61)
        changes = node.changes
        node.known = 60
        node.keeper.state_changed()
        assert node.changes == changes
        node.known = 61
        node.keeper.state_changed()
        assert node.changes == changes + 1
        node.keeper.open(DB, 61)
        assert (node.root / "open" / "shop@db.1.7").exists()


async def test_a_start_is_let_through_under_the_lease_that_it_was_decided_under_alone(node: Node) -> None:
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: node.written is not None)
        node.keeper.open(DB, 41)
        node.keeper.enter(DB, ONE, 41)
        await node.pass_by(7.0)
        await node.until(lambda: node.keeper.permit().lease == 42)
        for step in (lambda: node.keeper.open(DB, 41), lambda: node.keeper.enter(DB, ONE, 41)):
            with pytest.raises(NoLease, match="the lease under which it was to be started has ended"):
                step()


async def test_a_start_that_was_held_up_on_its_way_is_refused_in_the_end(node: Node) -> None:
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: node.written is not None)
    node.keeper.open(DB, 41)
    node.now += 3.5  # more than the half of the lease is over
    node.beat()
    with pytest.raises(NoLease, match="does not answer"):
        node.keeper.enter(DB, ONE, 41)
    assert Gates(node.root).listed(shut=False) == {ONE}, "it is listed first: it may have been started all the same"
    Gates(node.root).shut()
    with pytest.raises(NoLease, match="its gate has been shut"):
        node.keeper.enter(DB, "2" * 64, 41)


async def test_without_a_fence_nothing_is_started_and_what_runs_goes_on(node: Node) -> None:
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: node.written is not None)
        (node.root / BEAT).unlink()
        with pytest.raises(NoLease, match="the fence does not run"):
            node.keeper.open(DB, 41)
        assert node.keeper.permit().barred == ""
        await node.until(lambda: node.keeper.trouble is None or "fence" in node.keeper.trouble)


async def test_what_runs_behind_no_gate_is_put_behind_one_but_never_without_a_lease(node: Node) -> None:
    labels = {info.EXCLUSIVE: "1", info.ALLOCATION: DB}
    containers = {ONE: ContainerInfo(id=ONE, name="db", service="shop/db", labels=labels)}
    node.keeper.cover(containers)
    assert not Gates(node.root).any
    node.keeper.need(True)
    async with node.running():
        await node.until(lambda: node.written is not None)
    node.keeper.cover(containers)
    assert Gates(node.root).listed(shut=False) == {ONE}
    node.keeper.leave(DB, ONE)
    assert not Gates(node.root).any
