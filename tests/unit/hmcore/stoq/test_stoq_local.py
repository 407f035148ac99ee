"""The agent's socket, and the relay's pair of streams: the same calls, by root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stoq_world import PATIENCE, Recorder, identity, local, until

from hmcore.errors import CallTimeout, ConnectionLost, FrameError, HandshakeRefused, NotLeader, PeerUnreachable, TransportError
from hmcore.pki import Kind
from hmcore.stoq import local as sockets
from hmcore.stoq.connection import Connection
from hmcore.stoq.frames import Call, encode
from hmcore.stoq.local import Chunks, UnixListener, chunk, connect_streams, connect_unix, serve_unix


@contextlib.asynccontextmanager
async def agent(tmp_path: Path, service: Recorder) -> AsyncIterator[UnixListener]:
    listener = await serve_unix(str(tmp_path / "agent.sock"), service, local=local("n1"))
    try:
        yield listener
    finally:
        await listener.close()


@contextlib.asynccontextmanager
async def connected(tmp_path: Path, service: Recorder, **options: str) -> AsyncIterator[Connection]:
    async with agent(tmp_path, service) as listener:
        connection = await connect_unix(listener.path, **options)  # type: ignore[arg-type]
        try:
            yield connection
        finally:
            await connection.close()


async def test_root_calls_as_an_operator(tmp_path: Path) -> None:
    service = Recorder()
    async with connected(tmp_path, service) as connection:
        assert await connection.call("echo", b"hello", timeout=PATIENCE) == b"hello"
        assert connection.peer.identity == identity("n1")
        assert connection.rtt is None
        [(peer, _, _)] = service.calls
        assert peer.identity == identity("root", Kind.OPERATOR)


async def test_a_relay_speaks_for_its_ssh_user(tmp_path: Path) -> None:
    service = Recorder()
    async with connected(tmp_path, service, author="alice") as connection:
        await connection.call("echo", b"", timeout=PATIENCE)
        assert service.calls[0][0].identity == identity("alice", Kind.OPERATOR)


async def test_an_author_that_is_no_name_is_refused(tmp_path: Path) -> None:
    async with agent(tmp_path, Recorder()) as listener:
        with pytest.raises(HandshakeRefused, match="is no name"):
            await connect_unix(listener.path, author="../../etc")


async def test_the_socket_is_roots_alone(tmp_path: Path) -> None:
    async with agent(tmp_path, Recorder()) as listener:
        assert stat.S_IMODE(os.stat(listener.path).st_mode) == 0o600
    assert os.listdir(tmp_path) == []


async def test_another_user_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_peer_uid", lambda sock: 12345)
    service = Recorder()
    async with agent(tmp_path, service) as listener:
        with pytest.raises(PeerUnreachable):
            await connect_unix(listener.path)
        assert service.calls == []


async def test_the_socket_of_an_agent_that_was_killed_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / "agent.sock"
    left.touch()
    async with connected(tmp_path, Recorder()) as connection:
        await connection.call("echo", b"", timeout=PATIENCE)


async def test_calls_at_once_are_answered_as_they_are_ready(tmp_path: Path) -> None:
    service = Recorder(hold=asyncio.Event())
    async with connected(tmp_path, service) as connection, asyncio.TaskGroup() as group:
        slow = group.create_task(connection.call("wait", b"slow", timeout=PATIENCE))
        await until(lambda: service.calls)
        big = bytes(3_000_000)
        assert await connection.call("echo", big, timeout=PATIENCE) == big
        assert not slow.done()
        assert service.hold is not None
        service.hold.set()
        assert await slow == b"slow"


async def test_errors_and_deadlines_are_those_of_the_network(tmp_path: Path) -> None:
    service = Recorder(hold=asyncio.Event(), error=None)
    async with connected(tmp_path, service) as connection:
        with pytest.raises(CallTimeout):
            await connection.call("wait", b"", timeout=0.05)
        await until(lambda: service.cancelled)
        service.error = NotLeader("ask n3", leader="n3")
        with pytest.raises(NotLeader) as refused:
            await connection.call("echo", b"", timeout=PATIENCE)
        assert (refused.value.leader, refused.value.host) == ("n3", "n1")
        assert connection.open_streams == 0


async def test_streams_work_too(tmp_path: Path) -> None:
    async with connected(tmp_path, Recorder()) as connection:
        stream = await connection.open_stream("echo")
        for number in range(10):
            await stream.send(b"%d" % number)
        assert [await stream.receive() for _ in range(10)] == [b"%d" % number for number in range(10)]
        stream.close()
        assert await stream.receive() is None


async def test_a_slow_reader_stops_the_writer(tmp_path: Path) -> None:
    service = Recorder(hold=asyncio.Event())
    async with connected(tmp_path, service) as connection:
        stream = await connection.open_stream("deaf")
        sent = 0
        while stream.send_nowait(bytes(100_000)):
            sent += 1
            await asyncio.sleep(0)
        assert sent * 100_000 < 5_000_000
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            waiting = group.create_task(stream.send(b"blocked"))
            await until(lambda: connection._wire.backlog == 0)  # type: ignore[union-attr]
            assert not waiting.done()
            assert service.hold is not None
            service.hold.set()


async def test_an_agent_that_goes_away_mid_call(tmp_path: Path) -> None:
    service = Recorder(hold=asyncio.Event())
    async with agent(tmp_path, service) as listener:
        connection = await connect_unix(listener.path)
        async with asyncio.TaskGroup() as group:
            group.create_task(lost(connection))
            await until(lambda: service.calls)
            await listener.close()
        await connection.close()
        assert service.cancelled == 1


async def test_a_caller_whose_patience_ends_with_the_welcome_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Connection.wait_open

    async def cut_short(self: Connection) -> None:
        await genuine(self)
        raise asyncio.CancelledError

    async with agent(tmp_path, Recorder()) as listener:
        monkeypatch.setattr(Connection, "wait_open", cut_short)
        with pytest.raises(asyncio.CancelledError):
            await connect_unix(listener.path, timeout=PATIENCE)
        await until(lambda: not listener._connections)
        await until(lambda: not [task for task in asyncio.all_tasks() if "stoq" in task.get_name()])


async def lost(connection: Connection) -> None:
    with pytest.raises(ConnectionLost):
        await connection.call("wait", b"", timeout=PATIENCE)


async def test_no_agent_there(tmp_path: Path) -> None:
    with pytest.raises(PeerUnreachable) as error:
        await connect_unix(str(tmp_path / "none.sock"))
    assert error.value.fix == "systemctl status hypermesh-agent"
    with pytest.raises(TransportError, match="cannot listen"):
        await serve_unix(str(tmp_path / "no" / "such" / "dir.sock"), Recorder(), local=local("n1"))


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n" * 10, os.urandom(500), chunk(0, b"\xff" * 8), chunk(4, encode(Call("steal", b""))), chunk(0, b"", end=True)],
    ids=["http", "random", "oversized frame", "a call before hello", "nothing"],
)
async def test_garbage_closes_its_own_connection(garbage: bytes, tmp_path: Path) -> None:
    service = Recorder()
    async with connected(tmp_path, service) as bystander:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "agent.sock"))
        writer.write(garbage)
        async with asyncio.timeout(PATIENCE):
            await reader.read()
        writer.close()
        assert service.calls == []
        assert await bystander.call("echo", b"unmoved", timeout=PATIENCE) == b"unmoved"


async def test_who_says_no_hello_is_shown_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_TIMEOUT", 0.05)
    async with agent(tmp_path, Recorder()) as listener:
        reader, writer = await asyncio.open_unix_connection(listener.path)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()
        await until(lambda: not listener._connections)


async def test_a_relay_that_ends_or_says_nothing(tmp_path: Path) -> None:
    held: list[asyncio.StreamWriter] = []
    where = "sudo hypermesh-agent relay"
    async with await asyncio.start_unix_server(lambda reader, writer: writer.close(), str(tmp_path / "ends.sock")):
        with pytest.raises(PeerUnreachable, match=f"{where}: the (peer closed the socket|socket broke)"):
            await connect_streams(*await asyncio.open_unix_connection(str(tmp_path / "ends.sock")), where=where)
    async with await asyncio.start_unix_server(lambda reader, writer: held.append(writer), str(tmp_path / "mute.sock")):
        with pytest.raises(PeerUnreachable, match=f"{where}: no welcome within"):
            await connect_streams(*await asyncio.open_unix_connection(str(tmp_path / "mute.sock")), timeout=0.05, where=where)
        for writer in held:
            writer.close()


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=50), st.booleans()), max_size=6),
    st.lists(st.integers(0, 30), max_size=30),
)
def test_chunks_survive_any_cutting(sent: list[tuple[int, bytes, bool]], sizes: list[int]) -> None:
    data = b"".join(chunk(stream, piece, end=end) for stream, piece, end in sent)
    chunks, got = Chunks(), []
    for size in [*sizes, len(data)]:
        got += chunks.feed(data[:size])
        data = data[size:]
    assert got == [(stream, int(end), piece) for stream, piece, end in sent]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_give_chunks_or_a_frame_error(pieces: list[bytes]) -> None:
    chunks = Chunks()
    with contextlib.suppress(FrameError):
        for piece in pieces:
            chunks.feed(piece)
