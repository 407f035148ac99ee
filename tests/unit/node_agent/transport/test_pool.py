"""The pool's decisions, in virtual time on a network in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from pool_world import NO_CREDENTIALS, Net, Node, addresses

from hmcore.api import Empty, Method
from hmcore.config.settings import Calls, Transport
from hmcore.errors import CallTimeout, ConnectionLost, PeerUnreachable
from node_agent.transport.link import PeerAddress
from node_agent.transport.pool import Pool

Run = Callable[[Coroutine[Any, Any, None]], None]
ECHO: Method[Empty, Empty] = Method("echo", Empty, Empty)
NAMES = {"n1": 1, "n2": 2}
LIMITS = Transport(reconnect_min=0.1, reconnect_max=2.0, circuit_failures=3, circuit_open=10.0)


def pool_of(net: Net, node: Node, calls: Calls = Calls(retries=1), limits: Transport = LIMITS) -> Pool:  # noqa: B008 - frozen
    loop = asyncio.get_running_loop()
    return node.make_pool(NO_CREDENTIALS, limits, calls, dial=net.dial, clock=loop.time, chance=lambda: 1.0)


@contextlib.asynccontextmanager
async def running(net: Net, *nodes: Node, names: dict[str, int] = NAMES) -> AsyncIterator[list[Pool]]:
    """Pools of these nodes, told of all `names`."""
    async with asyncio.TaskGroup() as group:
        pools = [pool_of(net, node) for node in nodes]
        tasks = [group.create_task(pool.run()) for pool in pools]
        for node, pool in zip(nodes, pools, strict=True):
            net.nodes[names[node.name]] = (node, pool)
            pool.set_peers(addresses(names, {n.name: n.role for n in nodes}, node.name))
        await asyncio.sleep(0.05)
        yield pools
        for task in tasks:
            task.cancel()


def test_the_larger_name_waits_to_be_dialled(virtual: Run) -> None:
    async def scenario() -> None:
        net = Net()
        async with running(net, Node("n2")) as [pool]:
            await asyncio.sleep(10)
            assert net.dialled == []
            assert [report.state for report in pool.reports()] == ["connecting"]
            with pytest.raises(PeerUnreachable, match="it has not dialled us"):
                await pool.call("n1", ECHO, Empty(), timeout=1.0)

    virtual(scenario())


def test_a_call_waits_for_the_connection_and_is_sent_once(virtual: Run) -> None:
    async def scenario() -> None:
        net = Net()
        late = Node("n2")
        async with running(net, Node("n1")) as [pool], asyncio.TaskGroup() as group:
            call = group.create_task(pool.call("n2", ECHO, Empty()))
            there = pool_of(net, late)
            task = group.create_task(there.run())
            await asyncio.sleep(0.01)
            net.nodes[2] = (late, there)
            assert await call == Empty()
            assert late.echo.calls == [("n1", "echo")]
            task.cancel()

    virtual(scenario())


def test_a_lost_call_is_never_sent_again(virtual: Run) -> None:
    async def scenario() -> None:
        net, there = Net(), Node("n2")
        there.echo.hold = asyncio.Event()
        async with running(net, Node("n1"), there) as [pool, _], asyncio.TaskGroup() as group:
            call = group.create_task(lost(pool))
            await asyncio.sleep(0.01)
            net.break_between("n1", "n2", noticed=(0.0, 0.0))
            await call
            await asyncio.sleep(5)
            assert pool.connected == {"n2"}
            assert there.echo.calls == [("n1", "echo")]

    async def lost(pool: Pool) -> None:
        with pytest.raises(ConnectionLost):
            await pool.call("n2", ECHO, Empty())

    virtual(scenario())


def test_connecting_is_tried_as_often_as_set(virtual: Run) -> None:
    async def scenario() -> None:
        net = Net(delay=0.0)
        async with running(net, Node("n1")) as [pool]:
            before = len(net.dialled)
            with pytest.raises(PeerUnreachable, match="nothing listens there"):
                await pool.call("n2", ECHO, Empty())
            assert len(net.dialled) - before == 2  # once, and one retry

    virtual(scenario())


def test_an_open_circuit_fails_calls_at_once_until_it_lets_one_through(virtual: Run) -> None:
    async def scenario() -> None:
        net = Net(delay=0.0)
        net.black_holes.add(2)  # every attempt takes its whole 2.5 s
        loop = asyncio.get_running_loop()
        async with running(net, Node("n1")) as [pool]:
            await asyncio.sleep(9)  # three failures
            assert [report.state for report in pool.reports()] == ["broken"]
            began = loop.time()
            with pytest.raises(PeerUnreachable, match="it failed 3 times in a row: no answer"):
                await pool.call("n2", ECHO, Empty())
            assert loop.time() == began
            there = Node("n2")
            async with asyncio.TaskGroup() as group:
                other = pool_of(net, there)
                task = group.create_task(other.run())
                await asyncio.sleep(0)
                net.black_holes.clear()
                net.nodes[2] = (there, other)
                await asyncio.sleep(5)
                assert [report.state for report in pool.reports()] == ["connected"]  # success closes it, before its time is up
                assert await pool.call("n2", ECHO, Empty()) == Empty()
                task.cancel()

    virtual(scenario())


def test_a_peer_that_answers_nothing_opens_its_circuit(virtual: Run) -> None:
    async def scenario() -> None:
        net, there = Net(), Node("n2")
        there.echo.hold = asyncio.Event()
        async with running(net, Node("n1"), there) as [pool, _]:
            for _ in range(3):
                with pytest.raises(CallTimeout):
                    await pool.call("n2", ECHO, Empty(), timeout=0.1)
            assert [report.state for report in pool.reports()] == ["connected"]
            there.echo.hold.set()
            assert await pool.call("n2", ECHO, Empty()) == Empty()

    virtual(scenario())


def test_an_unknown_peer_is_not_waited_for(virtual: Run) -> None:
    async def scenario() -> None:
        async with running(Net(), Node("n1")) as [pool]:
            with pytest.raises(PeerUnreachable, match="not a peer"):
                await pool.call("n9", ECHO, Empty())
            assert not pool.send("n9", "raft", b"")

    virtual(scenario())


def test_messages_are_not_queued_for_who_is_away(virtual: Run) -> None:
    async def scenario() -> None:
        net, here, there = Net(), Node("n1"), Node("n2")
        async with running(net, here, there) as [pool, _]:
            assert pool.send("n2", "raft", b"1")
            net.break_between("n1", "n2", noticed=(0.0, 0.0))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not pool.send("n2", "raft", b"2")
            await asyncio.sleep(1)
            assert pool.send("n2", "raft", b"3")
            await asyncio.sleep(1)
        assert there.about("n1") == [("up", "n1"), ("down", "n1"), ("up", "n1"), ("message", "n1", "raft", "3"), ("down", "n1")]

    virtual(scenario())


def test_a_restarted_peer_replaces_its_old_connection_at_once(virtual: Run) -> None:
    async def scenario() -> None:
        net, there = Net(), Node("n2")
        async with running(net, Node("n1"), there) as [_, pool]:
            [(_, near, far)] = net.connections
            near.lose()  # n1 crashed: nobody tells n2, and it hears nothing any more
            far.lose()
            again = Node("n1")
            async with running(net, again, names=NAMES) as [restarted]:
                await asyncio.sleep(0.1)
                assert there.about("n1") == [("up", "n1"), ("down", "n1"), ("up", "n1")]
                assert far.connection is not None
                assert far.connection.reason == "replaced by a newer connection"
                assert restarted.send("n2", "raft", b"new life")
                await asyncio.sleep(0.1)
                assert there.about("n1")[-1] == ("message", "n1", "raft", "new life")
                far.connection.wire_received(400, b"anything", False)  # what still comes from the old one
                assert pool.connected == {"n1"}
                assert len(there.about("n1")) == 4

    virtual(scenario())


def test_a_worker_that_nobody_told_us_of_may_connect_and_come_back(virtual: Run) -> None:
    async def scenario() -> None:
        net, control = Net(), Node("n1")
        async with running(net, control, names={"n1": 1}) as [pool]:
            for life in range(2):
                worker = Node("w1", role="worker")
                async with running(net, worker, names={"n1": 1, "w1": 5}) as [theirs]:
                    assert pool.connected == {"w1"}, theirs.reports()
                    assert theirs.send("n1", "heartbeat", b"%d" % life)
                    await asyncio.sleep(0.1)
                    [(_, near, _)] = net.connections[-1:]
                    near.lose()  # crashes: the next life finds the old connection still there
                assert control.about("w1")[-1] == ("message", "w1", "heartbeat", str(life))
            assert [report.name for report in pool.reports()] == ["w1"]
            net.break_between("w1", "n1", noticed=(0.0, 0.0))
            await asyncio.sleep(0.1)
            assert pool.reports() == []
        ups = [entry[0] for entry in control.about("w1")]
        assert ups == ["up", "message", "down", "up", "message", "down"]

    virtual(scenario())


def test_of_two_connections_both_ends_keep_the_same(virtual: Run) -> None:
    """Both dial, for whatever reason: the one that the smaller name dialled stays."""

    async def scenario() -> None:
        net, one, two = Net(), Node("n1"), Node("n2")
        async with asyncio.TaskGroup() as group:
            pools = {name: pool_of(net, node) for name, node in (("n1", one), ("n2", two))}
            tasks = [group.create_task(pool.run()) for pool in pools.values()]
            await asyncio.sleep(0)
            net.nodes = {1: (one, pools["n1"]), 2: (two, pools["n2"])}
            pools["n1"].set_peers({"n2": PeerAddress("net", 2, dial=True)})
            pools["n2"].set_peers({"n1": PeerAddress("net", 1, dial=True)})
            await asyncio.sleep(20)
            settled = len(one.log)
            assert pools["n1"].connected == {"n2"}
            assert pools["n2"].connected == {"n1"}
            assert pools["n2"]._links["n1"].dialled is False
            assert pools["n2"].admit(_peer("n1")) is None
            assert pools["n1"].admit(_peer("n2")) == "n1 is connected to n2 already"
            assert pools["n1"].admit(_peer("n1")) == "n1 is this node's own name"
            await asyncio.sleep(60)
            assert len(one.log) == settled
            for task in tasks:
                task.cancel()

    virtual(scenario())


def _peer(name: str) -> Any:
    from pool_world import local

    from hmcore.stoq.endpoint import Peer

    return Peer(local(name).identity, "control", "r1", 1)


def test_a_peer_that_is_no_longer_one_is_let_go(virtual: Run) -> None:
    async def scenario() -> None:
        net, here, there = Net(), Node("n1"), Node("n2")
        async with running(net, here, there) as [pool, _]:
            pool.set_peers({})
            await asyncio.sleep(10)
            assert pool.connected == frozenset()
            assert pool.reports() == []
            assert len(net.dialled) == 1
        assert here.log == [("up", "n2"), ("down", "n2")]
        assert there.about("n1")[-1] == ("down", "n1")

    virtual(scenario())


def test_a_peer_that_moved_is_dialled_at_its_new_address(virtual: Run) -> None:
    async def scenario() -> None:
        net, here, there = Net(), Node("n1"), Node("n2")
        async with running(net, here, there) as [pool, _]:
            net.nodes[7] = net.nodes.pop(2)
            pool.set_peers({"n2": PeerAddress("net", 7, dial=True)})
            await asyncio.sleep(1)
            assert pool.connected == {"n2"}
            assert [report.address for report in pool.reports()] == ["net:7"]

    virtual(scenario())


def test_nothing_is_delivered_after_down_not_even_what_had_arrived(virtual: Run) -> None:
    async def scenario() -> None:
        net, here, there = Net(), Node("n1"), Node("n2")
        async with running(net, here, there) as [pool, theirs]:
            there.on_message = lambda peer, kind, payload: theirs._links["n1"].connection.hang_up("enough")  # type: ignore[union-attr]
            for number in range(3):
                assert pool.send("n2", "raft", b"%d" % number)
            await asyncio.sleep(0.05)
        assert there.log[:3] == [("up", "n1"), ("message", "n1", "raft", "0"), ("down", "n1")]

    virtual(scenario())


def test_a_stream_of_a_replaced_connection_is_not_read(virtual: Run) -> None:
    class Unread:
        def deliver_to(self, sink: object) -> None:
            raise AssertionError

    async def scenario() -> None:
        net, here, there = Net(), Node("n1"), Node("n2")
        async with running(net, here, there) as [pool, _]:
            await pool.stream(_peer("n2"), "raft", Unread())  # type: ignore[arg-type] # a Peer, but not the one connected now
            await pool.stream(_peer("n9"), "raft", Unread())  # type: ignore[arg-type]

    virtual(scenario())


def test_a_second_stream_of_a_kind_or_the_end_of_the_first_breaks_the_connection(virtual: Run) -> None:
    """Only a break may lose or reorder messages, and a break is always reported."""

    async def scenario() -> None:
        net, here, there = Net(), Node("n1"), Node("n2")
        async with running(net, here, there) as [pool, _]:
            for misbehave in ("second", "end"):
                connection = pool._links["n2"].connection
                assert connection is not None
                stream = await connection.open_stream("raft")
                if misbehave == "second":
                    await connection.open_stream("raft")
                else:
                    await asyncio.sleep(0.01)
                    stream.close()
                await asyncio.sleep(0.01)
                assert "raft stream" in connection.reason
                await asyncio.sleep(1)
        assert [entry[0] for entry in there.log] == ["up", "down"] * 3

    virtual(scenario())


def test_what_a_callback_raises_ends_run(virtual: Run) -> None:
    async def scenario() -> None:
        net, here, there = Net(), Node("n1"), Node("n2")

        def broken(peer: str, kind: str, payload: bytes) -> None:
            raise RuntimeError("the journal is gone")

        there.on_message = broken

        async def provoke() -> None:
            async with running(net, here, there) as [pool, _]:
                pool.send("n2", "raft", b"x")
                await asyncio.sleep(1)

        with pytest.raises(ExceptionGroup) as failure:
            await provoke()
        assert failure.group_contains(RuntimeError, match="the journal is gone")

    virtual(scenario())


def test_stopping_says_goodbye(virtual: Run) -> None:
    async def scenario() -> None:
        net, here, there = Net(), Node("n1"), Node("n2")
        async with running(net, there, names=NAMES) as [pool]:
            async with running(net, here, names=NAMES):
                assert pool.connected == {"n1"}
            await asyncio.sleep(0.1)
            assert pool.connected == frozenset()
            assert [report.error for report in pool.reports()] == ["the peer closed the connection: the node stops"]
        assert here.log == [("up", "n2"), ("down", "n2")]

    virtual(scenario())
