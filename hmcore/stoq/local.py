"""STOQ over one stream of bytes each way: the agent's unix socket, and hmctl's relay to it through SSH.

Here connections need streams of their own, as QUIC has: chunks of a 4-byte stream number, flags and a 4-byte length, big-endian. Who dials
the socket is root, says the kernel (SO_PEERCRED), hence the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from hmcore.errors import ConnectionLost, FrameError, HandshakeRefused, HyperMeshError, PeerUnreachable, TransportError
from hmcore.stoq.connection import Connection
from hmcore.stoq.greeting import Acceptor, Dialer, Local, vouched
from hmcore.stoq.outbox import HIGH_WATER
from hmcore.stoq.service import Service
from hmcore.stoq.session import Session
from hmcore.stoq.tasks import TaskScope

CHUNK = 64 * 1024  # bytes; large messages of one stream let those of others through in between
HEADER = struct.Struct(">IBI")
END, ABORT = 1, 2
HANDSHAKE_TIMEOUT = 5.0
_PEERCRED = struct.Struct("3i")

log = logging.getLogger("hypermesh.stoq")


class ByteReader(Protocol):
    async def read(self, n: int, /) -> bytes: ...


class ByteWriter(Protocol):
    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class Chunks:
    """Bytes in any pieces to chunks. Total: anything that is no chunk raises FrameError."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The chunks that `data` completes: stream, flags, bytes."""
        buffer = self._buffer
        buffer += data
        chunks: list[tuple[int, int, bytes]] = []
        start = 0
        while len(buffer) - start >= HEADER.size:
            stream, flags, size = HEADER.unpack_from(buffer, start)
            if size > CHUNK or flags > END | ABORT:
                raise FrameError(f"not a chunk: {size} bytes, flags {flags}")
            end = start + HEADER.size + size
            if len(buffer) < end:
                break
            chunks.append((stream, flags, bytes(buffer[start + HEADER.size : end])))
            start = end
        del buffer[:start]
        return chunks


def chunk(stream: int, data: bytes, *, end: bool = False, abort: bool = False) -> bytes:
    """One message of a stream, cut into chunks."""
    flags = (END if end else 0) | (ABORT if abort else 0)
    pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)] or [b""]
    last = len(pieces) - 1
    return b"".join(HEADER.pack(stream, flags if i == last else 0, len(piece)) + piece for i, piece in enumerate(pieces))


class ByteWire:
    """See hmcore.stoq.wire.Wire. One task reads, one writes; both end when the bytes do or when we hang up."""

    rtt = None

    def __init__(self, reader: ByteReader, writer: ByteWriter, stopped: Callable[[], None] = lambda: None) -> None:
        self._reader = reader
        self._writer = writer
        self._stopped = stopped
        self._connection: Connection | None = None
        self._out = bytearray()
        self._draining = 0
        self._more: asyncio.Future[None] | None = None
        self._over = False
        self._scope = TaskScope("stoq local wire", lambda failure: self._lost(ConnectionLost(f"internal error: {failure!r}")))

    def start(self, connection: Connection) -> None:
        self._connection = connection
        self._scope.spawn("stoq local read", self._read())
        self._scope.spawn("stoq local write", self._write())
        connection.start(self)

    @property
    def backlog(self) -> int:
        return len(self._out) + self._draining

    def write(self, stream: int, data: bytes, end: bool) -> None:
        self._put(chunk(stream, data, end=end))

    def abort(self, stream: int) -> None:
        self._put(chunk(stream, b"", abort=True))

    def hang_up(self, *, refused: bool, reason: str) -> None:
        if not self._over:
            self._over = True
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.write(bytes(self._out))  # a Refuse, perhaps: it says why
            self._finish()

    async def wait_released(self) -> None:
        await self._scope.wait()

    def _put(self, data: bytes) -> None:
        self._out += data
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._out:
                self._more = loop.create_future()
                await self._more
            data = bytes(self._out)
            self._out.clear()
            self._draining = len(data)
            try:
                self._writer.write(data)
                await self._writer.drain()
            except (OSError, EOFError) as error:
                self._lost(ConnectionLost(f"the socket broke: {error}"))
                return
            self._draining = 0
            if self._connection is not None:
                self._connection.wire_advanced()

    async def _read(self) -> None:
        chunks = Chunks()
        while True:
            try:
                data = await self._reader.read(CHUNK)
            except (OSError, EOFError) as error:
                self._lost(ConnectionLost(f"the socket broke: {error}"))
                return
            if not data:
                self._lost(ConnectionLost("the peer closed the socket"))
                return
            try:
                for stream, flags, piece in chunks.feed(data):
                    if self._connection is None or self._over:
                        return
                    if flags & ABORT:
                        self._connection.wire_aborted(stream)
                    else:
                        self._connection.wire_received(stream, piece, bool(flags & END))
            except FrameError as error:
                self._lost(error)
                return

    def _lost(self, error: HyperMeshError) -> None:
        if not self._over:
            self._over = True
            if self._connection is not None:
                self._connection.wire_lost(error)
            self._finish()

    def _finish(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()
        self._scope.cancel()
        self._stopped()


class UnixListener:
    """The agent's socket. Made by `serve_unix`."""

    def __init__(self, path: str, local: Local, service: Service, high_water: int) -> None:
        self.path = path
        self._local = local
        self._service = service
        self._high_water = high_water
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            await connection.close()
        if self._server is not None:
            await self._server.wait_closed()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _peer_uid(writer.get_extra_info("socket"))
        if uid not in (0, os.geteuid()):
            log.warning("refused user %d on %s", uid, self.path)
            writer.close()
            return
        loop = asyncio.get_running_loop()
        session = Session(Acceptor(self._local, vouched(self._local.identity.cluster)))

        def stopped() -> None:
            self._connections.discard(connection)
            deadline.cancel()

        wire = ByteWire(reader, writer, stopped)
        connection = Connection(session, self._service, high_water=self._high_water, on_open=lambda _: deadline.cancel())
        deadline = loop.call_later(HANDSHAKE_TIMEOUT, connection.hang_up, "no hello came")
        self._connections.add(connection)
        wire.start(connection)

    async def start(self) -> None:
        previous = os.umask(0o177)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)  # of an agent that was killed; a living one holds the UDP port, which is taken first
            self._server = await asyncio.start_unix_server(self.accept, self.path)
        except OSError as error:
            raise TransportError(f"cannot listen on {self.path}: {error.strerror or error}", fix=f"ls -ld {self.path}") from error
        finally:
            os.umask(previous)


async def serve_unix(path: str, service: Service, *, local: Local, high_water: int = HIGH_WATER) -> UnixListener:
    """Serve on a unix socket at `path`, mode 0600; callers are operators of `local`'s cluster. Raises TransportError."""
    listener = UnixListener(path, local, service, high_water)
    await listener.start()
    return listener


async def connect_unix(path: str, *, author: str = "", timeout: float = HANDSHAKE_TIMEOUT) -> Connection:
    """Connect to an agent's socket. Raises PeerUnreachable or HandshakeRefused."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path)
    except TimeoutError as error:
        raise PeerUnreachable(f"{path}: no answer within {timeout:g} s") from error
    except OSError as error:
        raise PeerUnreachable(f"{path}: {error.strerror or error}", fix="systemctl status hypermesh-agent") from error
    return await connect_streams(reader, writer, author=author, timeout=timeout, where=path)


async def connect_streams(
    reader: ByteReader, writer: ByteWriter, *, author: str = "", timeout: float = HANDSHAKE_TIMEOUT, where: str = "the relay"
) -> Connection:
    """Speak STOQ over a pair of byte streams that end at an agent's socket. `author`, a DNS label, is in whose name.

    Owns `writer` from here on. Raises PeerUnreachable or HandshakeRefused.
    """
    connection = Connection(Session(Dialer(None, author=author)), None)
    ByteWire(reader, writer).start(connection)
    handed_over = False  # by then somebody else closes it
    try:
        async with asyncio.timeout(timeout):
            await connection.wait_open()
        handed_over = not connection.closed
    except (HandshakeRefused, FrameError) as error:
        raise HandshakeRefused(f"{where}: {error.message}") from error
    except ConnectionLost as error:
        raise PeerUnreachable(f"{where}: {error.message}") from error
    except TimeoutError as error:
        raise PeerUnreachable(f"{where}: no welcome within {timeout:g} s") from error
    finally:
        if not handed_over:  # it may be open all the same: our caller's patience may end in the very moment of the welcome
            await connection.close()
    return connection


def _peer_uid(sock: socket.socket) -> int:
    _, uid, _ = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return int(uid)
