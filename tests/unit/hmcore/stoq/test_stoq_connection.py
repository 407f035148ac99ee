"""Calls and streams over real UDP: answers, refusals, deadlines, broken connections, back-pressure, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from stoq_world import PATIENCE, Network, Recorder, World, dialled, identity, listening, local, network, pair, until

from hmcore.errors import (
    Backpressure,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    FrameError,
    HandshakeRefused,
    HyperMeshError,
    InternalFault,
    InvalidRequest,
    NoQuorum,
    NotLeader,
    PermissionDenied,
    StorageFull,
)
from hmcore.stoq.connection import Connection
from hmcore.stoq.endpoint import MessageStream, dial, serve
from hmcore.stoq.quic import ACK_DELAY, QuicWire


@contextlib.asynccontextmanager
async def remote(world: World, **options: object) -> AsyncIterator[tuple[Connection, Network]]:
    """A connection through a network that can be made to lose packets."""
    async with (
        listening(world.credentials("n1"), Recorder()) as listener,
        network(listener.port) as relay,
        dialled(relay.port, world.credentials("n2"), local("n2"), **options) as connection,
    ):
        yield connection, relay


def quic_streams(connection: Connection) -> int:
    return len(connection._wire._quic._streams)  # type: ignore[union-attr]


async def test_a_call_is_answered(world: World) -> None:
    service = Recorder()
    async with pair(world, service) as (connection, _):
        assert await connection.call("echo", b"hello", timeout=PATIENCE) == b"hello"
        assert connection.rtt is not None
        assert 0 <= connection.rtt < PATIENCE
        [(peer, method, body)] = service.calls
        assert (peer.identity, peer.role, peer.release, method, body) == (identity("n2"), "control", "r1", "echo", b"hello")


async def test_the_acceptor_calls_too(world: World) -> None:
    ours = Recorder()
    async with pair(world, Recorder(), service=ours) as (_, listener):
        await until(lambda: listener.connections)
        [accepted] = listener.connections
        assert await accepted.call("echo", b"back", timeout=PATIENCE) == b"back"
        assert ours.calls[0][0].identity == identity("n1")


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (PermissionDenied("no", fix="ask"), PermissionDenied("no", host="n1", fix="ask")),
        (InvalidRequest("what"), InvalidRequest("what", host="n1")),
        (NotLeader("ask n3", leader="n3"), NotLeader("ask n3", leader="n3", host="n1")),
        (NoQuorum("1 of 3"), NoQuorum("1 of 3", host="n1")),
        (StorageFull("no room", fix="df"), InternalFault("no room", host="n1", fix="df")),
        (RuntimeError("secret"), InternalFault("unexpected RuntimeError; the agent's journal there says more", host="n1")),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_keeps_its_type_and_words(raised: Exception, seen: CallRefused, world: World) -> None:
    async with pair(world, Recorder(error=raised)) as (connection, _):
        with pytest.raises(CallRefused) as refused:
            await connection.call("a", b"", timeout=PATIENCE)
        assert type(refused.value) is type(seen)
        assert vars(refused.value) == vars(seen)


async def test_who_serves_nothing_says_so(world: World) -> None:
    async with pair(world, Recorder()) as (_, listener):
        await until(lambda: listener.connections)
        [accepted] = listener.connections
        with pytest.raises(InvalidRequest, match="nothing is served"):
            await accepted.call("a", b"", timeout=PATIENCE)


async def test_a_deadline_passes_and_the_handler_is_cancelled(world: World) -> None:
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, listener):
        with pytest.raises(CallTimeout, match=r"wait: no answer within 0\.05 s"):
            await connection.call("wait", b"", timeout=0.05)
        await until(lambda: service.cancelled)
        assert await connection.call("echo", b"goes on", timeout=PATIENCE) == b"goes on"
        [accepted] = listener.connections
        await until(lambda: connection.open_streams == accepted.open_streams == 0)


async def test_cancelling_a_call_cancels_its_handler(world: World) -> None:
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, _):
        async with asyncio.TaskGroup() as group:
            call = group.create_task(connection.call("wait", b"", timeout=PATIENCE))
            await until(lambda: service.calls)
            call.cancel()
        await until(lambda: service.cancelled)


async def test_a_connection_broken_mid_call_is_lost_on_both_ends(world: World) -> None:
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, listener):
        async with asyncio.TaskGroup() as group:
            call = group.create_task(expect_lost(connection))
            await until(lambda: service.calls)
            [accepted] = listener.connections
            await accepted.close()
            await call
        assert service.cancelled == 1
        with pytest.raises(ConnectionLost):
            await connection.call("echo", b"", timeout=PATIENCE)


async def expect_lost(connection: Connection) -> None:
    with pytest.raises(ConnectionLost, match="the peer closed the connection"):
        await connection.call("wait", b"", timeout=PATIENCE)


async def test_a_closed_listener_has_no_handlers_left(world: World) -> None:
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, listener), asyncio.TaskGroup() as group:
        group.create_task(lost(connection.call("wait", b"", timeout=PATIENCE)))
        await until(lambda: service.calls)
        await listener.close()
        assert service.cancelled == 1
        await listener.close()


async def test_closing_tells_the_peer_once_and_why(world: World) -> None:
    told: list[str] = []
    async with pair(world, Recorder()) as (connection, listener):
        connection.on_closed(lambda c: told.append(c.reason))
        await until(lambda: listener.connections)
        [accepted] = listener.connections
        accepted.hang_up("the node stops")
        accepted.hang_up("again")
        await connection.wait_closed()
        assert told == ["the peer closed the connection: the node stops"]
        assert listener.connections == frozenset()
        connection.on_closed(lambda c: told.append("late"))
        assert told[1:] == ["late"]


async def test_a_thousand_calls_leave_nothing_behind(world: World) -> None:
    async with pair(world, Recorder()) as (connection, listener):
        for number in range(1000):
            await connection.call("echo", b"%d" % number, timeout=PATIENCE)
        [accepted] = listener.connections
        assert connection.open_streams == accepted.open_streams == 0
        await until(lambda: quic_streams(connection) <= 1 and quic_streams(accepted) <= 1)
        assert not connection._calls
        assert not accepted._serving._tasks
        assert not connection._session._dropped


async def test_more_calls_at_once_than_quic_has_streams(world: World) -> None:
    async with pair(world, Recorder()) as (connection, _), asyncio.timeout(PATIENCE * 2):
        bodies = [b"%d" % number for number in range(400)]
        assert await asyncio.gather(*(connection.call("echo", body, timeout=PATIENCE * 2) for body in bodies)) == bodies


async def test_large_bodies_pass_and_oversized_ones_do_not(world: World) -> None:
    async with pair(world, Recorder()) as (connection, _):
        body = bytes(1_000_000)
        assert await connection.call("echo", body, timeout=PATIENCE * 2) == body
        with pytest.raises(FrameError, match="too large"):
            await connection.call("echo", bytes(17 * 1024 * 1024), timeout=PATIENCE)
        assert await connection.call("echo", b"goes on", timeout=PATIENCE) == b"goes on"


async def test_an_answer_that_is_too_large_is_a_fault(world: World) -> None:
    class Huge(Recorder):
        async def call(self, peer: object, method: str, body: bytes) -> bytes:
            return bytes(17 * 1024 * 1024)

    async with pair(world, Huge()) as (connection, _):
        with pytest.raises(InternalFault, match="too large"):
            await connection.call("a", b"", timeout=PATIENCE)


async def test_a_stream_of_messages_both_ways(world: World) -> None:
    async with pair(world, Recorder()) as (connection, listener):
        stream = await connection.open_stream("echo")
        for number in range(50):
            await stream.send(b"%d" % number)
        assert [await stream.receive() for _ in range(50)] == [b"%d" % number for number in range(50)]
        stream.close()
        assert await stream.receive() is None
        assert not stream.send_nowait(b"after close")
        with pytest.raises(ConnectionLost, match="closed"):
            await stream.send(b"after close")
        [accepted] = listener.connections
        await until(lambda: connection.open_streams == accepted.open_streams == 0)
        assert not connection._messages
        assert not accepted._messages


async def test_a_reader_that_does_not_read_stops_the_writer(world: World) -> None:
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, _):
        stream = await connection.open_stream("deaf")
        sent = 0
        while stream.send_nowait(bytes(100_000)):
            sent += 1
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            waiting = group.create_task(stream.send(b"blocked"))
            await until(lambda: connection._wire.backlog == 0)  # type: ignore[union-attr] # all acknowledged: only the reader is slow
            assert not waiting.done()
            assert 4_000_000 < sent * 100_000 < 4_400_000
            assert service.hold is not None
            service.hold.set()
        assert stream.send_nowait(b"again")


async def test_the_backlog_is_not_looked_at_while_it_cannot_matter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs a step for every call under way: with each call a look, a thousand callers would cost each other most of their time."""
    looks = 0
    backlog = QuicWire.backlog

    def counted(wire: QuicWire) -> int:
        nonlocal looks
        looks += 1
        return int(backlog.fget(wire))  # type: ignore[attr-defined]

    async with pair(world, Recorder(), high_water=100_000) as (connection, _):
        monkeypatch.setattr(QuicWire, "backlog", property(counted))
        for _ in range(200):
            await connection.call("echo", bytes(900), timeout=PATIENCE)
        assert 1 <= looks <= 3  # of 200 calls: once each time that as many bytes were written as are allowed


async def test_a_network_that_takes_nothing_stops_the_writer_at_the_high_water_mark(world: World) -> None:
    async with remote(world, high_water=100_000) as (connection, relay):
        stream = await connection.open_stream("echo")
        relay.passes = lambda to_server: False
        sent = 0
        while stream.send_nowait(bytes(1000)):
            sent += 1
        assert 99 <= sent <= 101
        with pytest.raises(Backpressure, match="took nothing"):
            await connection.call("echo", b"", timeout=0.05)
        relay.passes = lambda to_server: True
        assert await connection.call("echo", b"flows again", timeout=PATIENCE) == b"flows again"


async def test_a_handler_that_returns_early_closes_the_stream(world: World) -> None:
    async with pair(world, Recorder()) as (connection, _):
        stream = await connection.open_stream("brief")
        await stream.send(b"one")
        await until(lambda: not stream.alive)
        assert not stream.send_nowait(b"two")
        assert await stream.receive() is None
        await until(lambda: connection.open_streams == 0)


async def test_losing_the_connection_wakes_readers_and_writers(world: World) -> None:
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, listener):
        stream = await connection.open_stream("deaf")
        sent = 0
        while stream.send_nowait(bytes(100_000)):
            sent += 1
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(lost(stream.receive()))
            group.create_task(lost(stream.send(b"x")))
            await asyncio.sleep(0)
            [accepted] = listener.connections
            accepted.hang_up("gone")


async def lost(work: Coroutine[Any, Any, object]) -> None:
    with pytest.raises(ConnectionLost):
        await work


async def test_messages_go_straight_to_a_sink_those_that_waited_first(world: World) -> None:
    got: list[bytes] = []

    class Sink(Recorder):
        async def stream(self, peer: object, kind: str, stream: MessageStream) -> None:
            await until(lambda: len(stream._messages) == 2)
            stream.deliver_to(got.append)
            await stream.wait_ended()
            got.append(b"ended")

    async with pair(world, Sink()) as (connection, _):
        stream = await connection.open_stream("raft")
        await stream.send(b"1")
        await stream.send(b"2")
        await until(lambda: got == [b"1", b"2"])
        await stream.send(b"3")
        stream.close()
        await until(lambda: got == [b"1", b"2", b"3", b"ended"])


async def test_acknowledgements_that_wait_do_not_count_as_round_trips(world: World) -> None:
    async with pair(world, Recorder(hold=asyncio.Event())) as (connection, _):
        stream = await connection.open_stream("deaf")
        await until(lambda: connection._wire.backlog == 0)  # type: ignore[union-attr]
        samples = []
        while not samples or (min(samples) >= ACK_DELAY / 2 and len(samples) < 5):  # a busy machine may spoil some
            connection._wire._rtt = None  # type: ignore[union-attr] # the next sample counts whole
            await stream.send(b"one way")
            await until(lambda: connection._wire.backlog == 0)  # type: ignore[union-attr]
            assert connection.rtt is not None
            samples.append(connection.rtt)
        assert min(samples) < ACK_DELAY / 2


async def test_writing_to_a_stream_that_the_peer_just_stopped(world: World) -> None:
    """aioquic resets our half while we read the datagram that says so; the session hears of it a moment later."""
    async with pair(world, Recorder(hold=asyncio.Event())) as (connection, _):
        stream = await connection.open_stream("deaf")
        await connection.call("echo", b"", timeout=PATIENCE)
        connection._wire._quic._streams[stream._id].sender.reset(0)  # type: ignore[union-attr]
        stream.send_nowait(b"in vain")
        assert await connection.call("echo", b"goes on", timeout=PATIENCE) == b"goes on"


async def test_order_survives_a_network_that_loses_packets(world: World) -> None:
    async with remote(world) as (connection, relay):
        count = 0

        def every_seventh_is_lost(to_server: bool) -> bool:
            nonlocal count
            count += 1
            return count % 7 != 0

        relay.passes = every_seventh_is_lost
        stream = await connection.open_stream("echo")
        sent = [b"%d" % number * 300 for number in range(60)]
        for message in sent:
            await stream.send(message)
        async with asyncio.timeout(PATIENCE * 4):
            assert [await stream.receive() for _ in sent] == sent


async def test_a_silent_peer_is_given_up_while_it_owes_an_acknowledgement(world: World) -> None:
    async with remote(world, silence=0.2) as (connection, relay):
        await connection.call("echo", b"", timeout=PATIENCE)
        relay.passes = lambda to_server: False
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(ConnectionLost, match=r"silent for 0\.2 s"):
            await connection.call("echo", b"", timeout=PATIENCE)
        assert 0.2 <= loop.time() - began < PATIENCE


async def test_a_peer_whose_process_is_gone_is_noticed_at_once(world: World) -> None:
    async with listening(world.credentials("n1"), Recorder()) as listener:
        connection = await dial(
            "127.0.0.1", listener.port, credentials=world.credentials("n2"), local=local("n2"), server=identity("n1"), timeout=PATIENCE
        )
        listener._transport.abort()  # type: ignore[union-attr] # as kill -9 does: no goodbye
        with pytest.raises(ConnectionLost, match="nothing listens there any more"):
            await connection.call("echo", b"", timeout=PATIENCE)


async def test_a_port_that_is_taken_is_said(world: World) -> None:
    async with listening(world.credentials("n1"), Recorder()) as listener:
        with pytest.raises(HyperMeshError, match="cannot listen on UDP") as error:
            await serve("127.0.0.1", listener.port, credentials=world.credentials("n1"), local=local("n1"), service=None)
        assert error.value.fix is not None


async def test_a_refused_peer_never_becomes_a_connection(world: World) -> None:
    came: list[object] = []
    options = {"admit": lambda peer: f"{peer.identity} may not", "on_connection": came.append}
    async with listening(world.credentials("n1"), Recorder(), **options) as listener:
        with pytest.raises(HandshakeRefused, match="it refuses us: node n2 may not"):
            async with dialled(listener.port, world.credentials("n2"), local("n2")):
                pass
        assert came == []
        assert listener.handshakes == 0


async def test_on_connection_comes_before_anything_else(world: World) -> None:
    order: list[str] = []

    class Ordered(Recorder):
        async def call(self, peer: object, method: str, body: bytes) -> bytes:
            order.append("call")
            return b""

    def accepted(connection: Connection) -> None:
        order.append("connected")

    async with (
        listening(world.credentials("n1"), Ordered(), on_connection=accepted) as listener,
        dialled(listener.port, world.credentials("n2"), local("n2"), on_connection=accepted) as connection,
    ):
        await connection.call("a", b"", timeout=PATIENCE)
    assert order == ["connected", "connected", "call"]
