"""Many calls at once on one connection, over real UDP and the socket: between releases, beyond what the peer takes, and unread."""

from __future__ import annotations

import asyncio
import functools
import random
import socket
from pathlib import Path

import pytest
from stoq_talk import greeted
from stoq_world import PATIENCE, Recorder, World, dialled, identity, listening, local, network, pair, until

from hmcore.errors import Backpressure, CallTimeout, ConnectionLost
from hmcore.pki import Kind
from hmcore.stoq import dialling, endpoint, lane, outbox
from hmcore.stoq.calls import Calls
from hmcore.stoq.connection import Connection
from hmcore.stoq.frames import Ask, Hello, encode
from hmcore.stoq.greeting import Acceptor, Dialer, Peer
from hmcore.stoq.local import chunk, connect_unix, serve_unix

OLD = (1, 1)


async def ask_all(connection: Connection, bodies: list[bytes], timeout: float = PATIENCE * 3) -> list[bytes]:
    return await asyncio.gather(*(connection.call("echo", body, timeout=timeout) for body in bodies))


@pytest.mark.long
@pytest.mark.parametrize("older", ["dialer", "acceptor", "neither"])
async def test_releases_with_and_without_lanes_call_each_other(older: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if older == "dialer":
        monkeypatch.setattr(dialling, "Dialer", functools.partial(Dialer, protocols=OLD))
    elif older == "acceptor":
        monkeypatch.setattr(endpoint, "Acceptor", functools.partial(Acceptor, protocols=OLD))
    ours, theirs = Recorder(hold=asyncio.Event()), Recorder(hold=asyncio.Event())
    bodies = [b"%d" % number for number in range(50)] + [bytes(100_000), bytes(3_000_000)]
    async with pair(world, theirs, service=ours) as (connection, listener):
        await until(lambda: listener.connections)
        [accepted] = listener.connections
        assert connection.peer.protocol == accepted.peer.protocol == (2 if older == "neither" else 1)
        for end, service in ((connection, theirs), (accepted, ours)):
            assert await ask_all(end, bodies) == bodies
            with pytest.raises(CallTimeout):
                await end.call("wait", b"", timeout=0.05)
            await until(lambda service=service: service.cancelled)
        await until(lambda: connection.open_streams == accepted.open_streams == 0)
        assert connection._session._quota.held == accepted._session._quota.held == 0


async def test_more_calls_at_once_than_the_peer_takes(world: World) -> None:
    service = Recorder()
    async with pair(world, service) as (connection, listener):
        bodies = [b"%d" % number for number in range(lane.MAX_CALLS * 3)]
        assert await ask_all(connection, bodies) == bodies
        assert [body for _, _, body in service.calls] == bodies  # first come, first asked
        [accepted] = listener.connections
        assert not connection._calls
        assert not accepted._serving._tasks


async def test_whose_turn_does_not_come_is_told_that_the_peer_takes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_CALLS", 2)
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, _), asyncio.TaskGroup() as group:
        assert service.hold is not None
        waiting = [group.create_task(connection.call("wait", b"%d" % number, timeout=PATIENCE)) for number in range(2)]
        await until(lambda: len(service.calls) == 2)
        with pytest.raises(Backpressure, match=r"echo: the peer took nothing for 0\.05 s"):
            await connection.call("echo", b"in vain", timeout=0.05)
        assert len(connection._calls) == 2
        cancelled = group.create_task(connection.call("echo", b"cancelled", timeout=PATIENCE))
        await asyncio.sleep(0)
        last = group.create_task(connection.call("echo", b"last", timeout=PATIENCE))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await connection.call("echo", bytes(lane.SMALL), timeout=PATIENCE) == bytes(lane.SMALL)  # has a stream of its own
        service.hold.set()
        assert [await call for call in waiting] == [b"0", b"1"]
        assert await last == b"last"
        assert [body for _, _, body in service.calls if body != bytes(lane.SMALL)] == [b"0", b"1", b"last"]
        assert not connection._calls


async def test_a_call_that_is_cancelled_as_its_turn_comes_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_CALLS", 1)
    talk = greeted()
    calls = Calls(talk.dialer)
    sent, cancelled, last = (calls.begin("a", body) for body in (b"1", b"2", b"3"))
    assert sent.id is not None
    talk.dialer.abandon(sent.id)
    assert not calls.advance()  # the other end has to confirm that
    talk.run()
    cancelled.answer.cancel()
    assert calls.advance()
    assert (cancelled.id, last.id) == (None, sent.id - 2)


async def test_calls_that_are_given_up_make_room_for_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_CALLS", 2)
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, _), asyncio.TaskGroup() as group:
        given_up = [group.create_task(connection.call("wait", b"", timeout=PATIENCE)) for _ in range(2)]
        await until(lambda: len(service.calls) == 2)
        last = group.create_task(connection.call("echo", b"last", timeout=PATIENCE))
        await asyncio.sleep(0)
        for call in given_up:
            call.cancel()
        assert await last == b"last"
        assert service.cancelled == 2


async def test_losing_the_connection_ends_calls_that_wait_for_their_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_CALLS", 2)
    service = Recorder(hold=asyncio.Event())
    async with pair(world, service) as (connection, listener), asyncio.TaskGroup() as group:
        calls = [group.create_task(lost(connection)) for _ in range(4)]
        await until(lambda: len(service.calls) == 2)
        await listener.close()
        await asyncio.wait(calls)
        assert not connection._calls


async def lost(connection: Connection) -> None:
    with pytest.raises(ConnectionLost):
        await connection.call("wait", b"", timeout=PATIENCE)


async def test_calls_survive_a_network_that_loses_packets(world: World) -> None:
    count = 0

    def every_seventh_is_lost(to_server: bool) -> bool:
        nonlocal count
        count += 1
        return count % 7 != 0

    async with (
        listening(world.credentials("n1"), Recorder()) as listener,
        network(listener.port) as relay,
        dialled(relay.port, world.credentials("n2"), local("n2")) as connection,
    ):
        relay.passes = every_seventh_is_lost
        bodies = [b"%d" % number * 100 for number in range(200)] + [bytes(lane.SMALL * 2)] * 3
        assert await ask_all(connection, bodies, timeout=PATIENCE * 5) == bodies


async def test_calls_given_up_in_any_moment_leave_nothing(world: World) -> None:
    """Before they are asked, while they are answered, and while a large answer comes."""
    rng = random.Random(4)
    async with pair(world, Generous()) as (connection, listener):
        answered: list[bool] = []
        for _ in range(10):
            attempts = [give_up(connection, rng.choice([10, 20_000, 300_000]), rng.random() * 0.05) for _ in range(20)]
            answered += await asyncio.gather(*attempts)
        assert {True, False} == set(answered)
        await until(lambda: connection.open_streams == 0)
        [accepted] = listener.connections
        await until(lambda: accepted.open_streams == 0)
        assert len(await connection.call("10", b"", timeout=PATIENCE)) == 10
        for end in (connection, accepted):
            assert end._session._quota.held == 0
            assert not end._session._dropped
            assert not end._calls


async def give_up(connection: Connection, size: int, after: float) -> bool:
    """Ask for an answer of this size, with so little patience. Whether it came in time."""
    try:
        return len(await connection.call(str(size), b"", timeout=after)) == size
    except (CallTimeout, Backpressure):
        return False


class Generous(Recorder):
    """Answers at length."""

    async def call(self, peer: Peer, method: str, body: bytes) -> bytes:
        self.calls.append((peer, method, body))
        return bytes(int(method))


@pytest.mark.parametrize("size", [10_000, 200_000])
async def test_who_asks_and_never_reads_is_hung_up_on(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_UNTAKEN", 2_000_000)
    service = Generous()
    listener = await serve_unix(str(tmp_path / "agent.sock"), service, local=local("n1"))
    try:
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(listener.path)
            deaf.sendall(chunk(0, encode(Hello(1, 2, "", "", "", "")), end=True))
            await until(lambda: listener._connections)
            [accepted] = listener._connections
            number = 0
            while not accepted.closed and number * size < 20_000_000:
                number += 1
                deaf.sendall(chunk(4, encode(Ask(number, str(size), b""))))
                await until(lambda: accepted.closed or len(service.calls) == number)  # noqa: B023 - is over by the next turn
            await until(lambda: accepted.closed)
        assert "over 2000000 bytes were asked for and not taken" in accepted.reason
        assert number * size < 4_000_000  # the socket's own buffers hold some, too
        other = await connect_unix(listener.path)
        assert len(await other.call("10", b"", timeout=PATIENCE)) == 10
        await other.close()
    finally:
        await listener.close()


async def test_the_socket_has_lanes_too(tmp_path: Path) -> None:
    service = Recorder()
    listener = await serve_unix(str(tmp_path / "agent.sock"), service, local=local("n1"))
    try:
        connection = await connect_unix(listener.path, author="alice")
        bodies = [b"%d" % number for number in range(2000)] + [bytes(100_000)] * 3
        assert await ask_all(connection, bodies) == bodies
        assert connection.peer.protocol == 2
        assert service.calls[0][0].identity == identity("alice", Kind.OPERATOR)
        await connection.close()
    finally:
        await listener.close()
