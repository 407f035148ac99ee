"""The accepting end: on a node's TCP port it says what content the node has, takes some and gives some, to whom it may.

What strangers can make it do is bounded: connections whose certificate was not judged yet are few and short, and nothing of theirs is read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from hmcore.errors import BlobBusy, ConnectionLost, FrameError, HyperMeshError, PermissionDenied, TransportError
from hmcore.pki import Identity, Kind
from hmcore.stoq.bulk.frames import (
    PROTOCOL,
    Done,
    Doubt,
    Found,
    Frame,
    Get,
    Go,
    Have,
    Held,
    Part,
    Put,
    Ready,
    bad_offset,
    fault_of,
)
from hmcore.stoq.bulk.streams import Sink, Source, fill, pour
from hmcore.stoq.bulk.tls import context, judge
from hmcore.stoq.bulk.wire import Wire
from hmcore.stoq.complaints import Complaints
from hmcore.stoq.mtls import Credentials
from hmcore.stoq.tasks import TaskScope
from hmcore.stoq.udp import place

HANDSHAKE_TIMEOUT = 5.0  # seconds until the certificate has been judged
MAX_HANDSHAKES = 32
MAX_CONNECTIONS = 64  # of those that were accepted
MAX_PER_PEER = 8
GIVING = 4  # contents that are sent at a time: whoever else wants one finds it elsewhere by then (docs/adr/0097)
IDLE = 60.0  # seconds without a question after which a connection is closed
LAST_WORD = 2.0  # seconds for the other end to read why it is refused
MAY = (Kind.NODE, Kind.OPERATOR)

log = logging.getLogger("hypermesh.bulk")


class Store(Protocol):
    """What the node keeps. See node_agent/transport/blobs.py."""

    def sizes(self, digests: Sequence[str]) -> list[int | None]: ...

    async def receive(self, digest: str, size: int) -> Sink | None:
        """Where it goes; None: it is there already. Raises BlobBusy (somebody else brings it), BlobStoreFull, BlobCorrupt."""

    async def leave(self, digest: str) -> None:
        """Its sink is not used any more, whether it was finished or not."""

    async def source(self, digest: str) -> Source:
        """Raises BlobMissing."""

    async def examine(self, digest: str) -> bool:
        """Whether what is there fits the digest; if not, it is there no more."""


class BulkListener:
    """Listens on TCP `host`:`port` from `open` to `close`. `admit` may refuse a node or operator that proved who it is, with a reason."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        credentials: Credentials,
        cluster: str,
        store: Store,
        admit: Callable[[Identity], str | None] = lambda identity: None,
    ) -> None:
        self._host = host
        self._port = port
        self._context = context(credentials, serving=True)
        self._authority = credentials.ca
        self._cluster = cluster
        self._store = store
        self._admit = admit
        self._socket: socket.socket | None = None
        self._scope = TaskScope("bulk listener", self._failed)
        self._handshakes = 0
        self._peers: Counter[Identity] = Counter()
        self._giving = 0
        self._complaints = Complaints(log)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1]) if self._socket is not None else self._port

    async def open(self) -> None:
        """Raises TransportError when the port cannot be had."""
        try:
            self._socket = await _bound(self._host, self._port)
        except OSError as error:
            raise TransportError(
                f"cannot listen on TCP {self._host}:{self._port}: {error.strerror or error}", fix=f"ss -ltnp 'sport = :{self._port}'"
            ) from error
        self._scope.spawn("bulk accept", self._accept(self._socket))

    async def close(self) -> None:
        """The port and every connection; what was under way can be resumed."""
        self._scope.cancel()
        await self._scope.wait()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _failed(self, error: BaseException) -> None:
        log.error("the bulk listener failed: %s", error, exc_info=error)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as error:  # out of descriptors, or it was gone before we came to it
                self._complaints.add(f"cannot accept a connection: {error.strerror or error}")
                await asyncio.sleep(0.1)
                continue
            if self._handshakes >= MAX_HANDSHAKES or self._peers.total() >= MAX_CONNECTIONS:
                self._complaints.add("too many bulk connections: new ones are closed")
                sock.close()
                continue
            self._handshakes += 1
            self._scope.spawn(f"bulk {place(address)}", self._connection(sock, place(address)))

    async def _connection(self, sock: socket.socket, where: str) -> None:
        wire = Wire()
        try:
            try:
                peer = await self._welcome(sock, wire)
            except (HyperMeshError, OSError, TimeoutError) as error:
                self._complaints.add(f"no bulk connection for {where}: {error or type(error).__name__}")
                return
            finally:
                self._handshakes -= 1
            self._peers[peer] += 1
            try:
                await self._serve(wire, peer)
            finally:
                self._peers -= Counter([peer])
        finally:
            wire.abort()

    async def _welcome(self, sock: socket.socket, wire: Wire) -> Identity:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: wire, sock, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT + 1
            )
            try:
                peer = judge(transport.get_extra_info("ssl_object"), self._authority, cluster=self._cluster, server=None)
                if refused := self._why_not(peer):
                    raise PermissionDenied(refused, host=peer.name)
            except HyperMeshError as error:
                await wire.send(fault_of(PermissionDenied(error.message)))
                await wire.close()
                raise
            wire.name = peer.name
            await wire.send(Ready(PROTOCOL))
            return peer

    def _why_not(self, peer: Identity) -> str | None:
        if peer.kind not in MAY:
            return f"{peer} may not put or get content"
        if self._peers[peer] >= MAX_PER_PEER:
            return f"{peer} has {MAX_PER_PEER} connections already"
        return self._admit(peer)

    async def _serve(self, wire: Wire, peer: Identity) -> None:
        try:
            while True:
                question = await wire.receive(IDLE)
                try:
                    await self._answer(wire, question)
                except ConnectionLost:
                    raise
                except Exception as error:
                    if not isinstance(error, HyperMeshError):
                        log.exception("a bulk %s of %s failed", type(question).__name__.lower(), peer)
                    await wire.send(fault_of(error))
                    if isinstance(question, Put) or isinstance(error, FrameError):  # it may still be sending
                        await wire.discard(LAST_WORD)
                        return
        except ConnectionLost as error:
            log.debug("bulk connection of %s: %s", peer, error.message)
        except FrameError as error:
            self._complaints.add(f"bulk connection of {peer}: {error.message}")

    async def _answer(self, wire: Wire, question: Frame | Part) -> None:
        match question:
            case Have(digests):
                await wire.send(Held(tuple(self._store.sizes(digests))))
            case Put(digest, size):
                await self._take(wire, digest, size)
            case Get(digest, offset):
                await self._give(wire, digest, offset)
            case Doubt(digest):
                await self._store.examine(digest)
                await wire.send(Done())
            case _:
                raise FrameError(f"a frame {type(question).__name__.lower()} where a question was due")

    async def _take(self, wire: Wire, digest: str, size: int) -> None:
        sink = await self._store.receive(digest, size)
        if sink is not None:
            try:
                await wire.send(Go(sink.offset))
                await fill(wire, sink)
            finally:
                await self._store.leave(digest)
        await wire.send(Done())

    async def _give(self, wire: Wire, digest: str, offset: int) -> None:
        if self._giving >= GIVING:
            raise BlobBusy(f"{GIVING} contents are being sent already")
        source = await self._store.source(digest)
        self._giving += 1
        try:
            if wrong := bad_offset(offset, source.size):
                raise FrameError(wrong)
            await wire.send(Found(source.size))
            await pour(wire, source, offset)
        finally:
            self._giving -= 1
            source.close()


async def _bound(host: str, port: int) -> socket.socket:
    info = (await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))[0]
    listening = socket.create_server(info[4][:2], family=info[0], backlog=128)
    listening.setblocking(False)
    return listening
