"""The agent's name server for containers, on the bridge's gateway address: UDP and TCP port 53.

Containers ask here by their own resolv.conf. What asks Docker's server in the container all the same, that one passes on, and does so from
within the container's network namespace: so the source address says which container asks. What askers can hold is bounded: questions that
wait for the node's resolvers, and connections.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import secrets
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from hmcore.errors import LayerDown
from node_agent.network import message
from node_agent.network.message import Query, Rcode
from node_agent.network.names import TTL, Called, Directory, Elsewhere, Empty, Found, NotYet, Unknown
from node_agent.network.upstream import Upstream

PORT = 53
WAITING = 256  # questions at once that others are asked, or that are held
HOLD = 3.0  # seconds for which a container that has just been started is waited for to be known; resolvers give up after five
CONNECTIONS = 32
BACKLOG = 64
IDLE = 10.0  # seconds for which a connection may say nothing
LIFE = 120.0  # seconds of a connection
RECEIVE_BUFFER = 1 << 20

log = logging.getLogger(__name__)

_FREEBIND = 15  # IP_FREEBIND: the address may come later (Docker makes the bridge), and come again
_TRANSIENT = frozenset({errno.ECONNABORTED, errno.EAGAIN, errno.EINTR, errno.EPROTO, errno.EMFILE, errno.ENFILE, errno.ENOBUFS})


@dataclass(frozen=True, slots=True)
class Held:
    """A question of somebody who was not known when it was looked up; `news`: more is known since."""

    query: Query
    news: asyncio.Event


class NameServer:
    """`open`, then `serve` until cancelled, then `close`.

    `directory`: what is known at the moment, asked for each question. `subnet`: whose questions are answered.
    """

    def __init__(self, gateway: str, subnet: str, directory: Callable[[], Directory], upstream: Upstream, *, port: int = PORT) -> None:
        self._gateway = gateway
        self._subnet = ipaddress.IPv4Network(subnet)
        self._directory = directory
        self._upstream = upstream
        self._port = port
        self._datagrams: socket.socket | None = None
        self._streams: socket.socket | None = None
        self._waiting = 0
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._news = asyncio.Event()
        self.asked = 0  # questions since the start
        self.failed = 0  # of them, those that nobody could answer

    @property
    def port(self) -> int:
        assert self._datagrams is not None
        port: int = self._datagrams.getsockname()[1]
        return port

    def open(self) -> None:
        """Take the address. Raises LayerDown when somebody else has it."""
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._datagrams = self._bind(socket.SOCK_DGRAM, self._port)
        try:
            self._streams = self._bind(socket.SOCK_STREAM, self.port)
            self._streams.listen(BACKLOG)
        except LayerDown:
            self.close()
            raise

    def close(self) -> None:
        for each in (self._datagrams, self._streams):
            if each is not None:
                each.close()
        self._datagrams = self._streams = None

    async def serve(self) -> None:
        assert self._datagrams is not None
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self, tasks), sock=self._datagrams)
            try:
                await self._accept(tasks)
            finally:
                transport.close()

    def _bind(self, kind: socket.SocketKind, port: int) -> socket.socket:
        bound = socket.socket(socket.AF_INET, kind)
        try:
            bound.setblocking(False)
            bound.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            if kind is socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            bound.bind((self._gateway, port))
        except OSError as error:
            bound.close()
            name = "UDP" if kind is socket.SOCK_DGRAM else "TCP"
            fix = f"ss -lnp 'sport = :{port}': it must leave {self._gateway} alone"
            raise LayerDown(f"names cannot be served on {name} {self._gateway}:{port}: {error.strerror}", fix=fix) from error
        return bound

    async def _accept(self, tasks: asyncio.TaskGroup) -> None:
        assert self._streams is not None
        loop = asyncio.get_running_loop()
        while True:
            await self._slots.acquire()
            try:
                client, (address, _) = await loop.sock_accept(self._streams)
            except OSError as error:
                self._slots.release()
                if error.errno not in _TRANSIENT:
                    raise LayerDown(f"names cannot be served: {error.strerror}") from error
                await asyncio.sleep(0.1 if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS) else 0)
            else:
                tasks.create_task(self._converse(client, address), name="dns connection")

    async def _converse(self, client: socket.socket, address: str) -> None:
        """One connection, whatever the client does. Raises nothing but cancellation."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(LIFE):
                reader, writer = await asyncio.open_connection(sock=client)
                while data := await _next(reader):
                    answer = await self.answer(data, address, tcp=True)
                    if answer is None:
                        break
                    writer.write(struct.pack(">H", len(answer)) + answer)
                    async with asyncio.timeout(IDLE):
                        await writer.drain()
        except (OSError, EOFError) as error:  # TimeoutError is an OSError
            log.debug("a connection of %s ended: %s", address, error)
        finally:
            if writer is not None:
                writer.transport.abort()
            else:
                client.close()
            self._slots.release()

    def renewed(self) -> None:
        """The directory is another."""
        self._news.set()
        self._news = asyncio.Event()

    def at_once(self, data: bytes, asker: str, *, tcp: bool) -> Query | Held | bytes | None:
        """The answer, if it is known here; None if there shall be none; or the question, if others are to be asked, or it has to wait."""
        self.asked += 1
        query = message.parse(data)
        return self._known(query, asker, tcp=tcp) if isinstance(query, Query) else query

    def _known(self, query: Query, asker: str, *, tcp: bool) -> Query | Held | bytes:
        if ipaddress.IPv4Address(asker) not in self._subnet:
            return message.nothing(query, Rcode.REFUSED)
        if not query.internet:
            return query
        match self._directory().resolve(asker, query.name, query.kind, secrets.randbelow(1 << 16)):
            case Found(addresses):
                return message.addresses(query, addresses, TTL, limit=message.LARGEST if tcp else query.size)
            case Called(name):
                return message.pointer(query, name, TTL)
            case Empty():
                return message.nothing(query, Rcode.NOERROR, TTL)
            case Unknown():
                return message.nothing(query, Rcode.NXDOMAIN, TTL)
            case NotYet():
                return Held(query, self._news)
            case Elsewhere():
                return query

    async def answer(self, data: bytes, asker: str, *, tcp: bool) -> bytes | None:
        """Also what others know."""
        known = self.at_once(data, asker, tcp=tcp)
        return known if known is None or isinstance(known, bytes) else await self.later(known, data, asker, tcp=tcp)

    async def later(self, known: Query | Held, data: bytes, asker: str, *, tcp: bool) -> bytes:
        """The answer of the node's resolvers, or ours once it is known who asks; or that there is none."""
        answer: bytes | None = None
        query = known.query if isinstance(known, Held) else known
        if not self.busy:
            self._waiting += 1
            try:
                found = await self._held(known, asker, tcp=tcp) if isinstance(known, Held) else known
                answer = await self._upstream.ask(found, data, tcp=tcp) if isinstance(found, Query) else found
            finally:
                self._waiting -= 1
        if answer is None:
            self.failed += 1
            return message.nothing(query, Rcode.SERVFAIL)
        return answer

    async def _held(self, held: Held, asker: str, *, tcp: bool) -> Query | bytes | None:
        """Who asks has just been started, and Docker's word of it is on its way."""
        try:
            async with asyncio.timeout(HOLD):
                while True:
                    await held.news.wait()
                    known = self._known(held.query, asker, tcp=tcp)
                    if not isinstance(known, Held):
                        return known
                    held = known
        except TimeoutError:
            return None

    @property
    def busy(self) -> bool:
        return self._waiting >= WAITING


async def _next(reader: asyncio.StreamReader) -> bytes:
    """The next question of a connection; empty at its end."""
    async with asyncio.timeout(IDLE):
        try:
            head = await reader.readexactly(2)
        except asyncio.IncompleteReadError:
            return b""
        return await reader.readexactly(struct.unpack(">H", head)[0])


class _Datagrams(asyncio.DatagramProtocol):
    """Answers what is known at once, and has the others wait in tasks of their own."""

    def __init__(self, server: NameServer, tasks: asyncio.TaskGroup) -> None:
        self._server = server
        self._tasks = tasks
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's own base class, for all kinds

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        known = self._server.at_once(data, addr[0], tcp=False)
        if isinstance(known, bytes):
            self._send(known, addr)
        elif known is not None and self._server.busy:
            self._send(message.nothing(known.query if isinstance(known, Held) else known, Rcode.SERVFAIL), addr)
        elif known is not None:
            self._tasks.create_task(self._later(known, data, addr), name="dns question")

    async def _later(self, known: Query | Held, data: bytes, addr: tuple[str, int]) -> None:
        self._send(await self._server.later(known, data, addr[0], tcp=False), addr)

    def _send(self, answer: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        log.debug("an answer could not be sent: %s", exc)
