"""The node's own resolvers, asked on behalf of containers: by UDP, or by TCP where the container asked so."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import struct
from pathlib import Path

from node_agent.network import message

PORT = 53
PATIENCE = 1.5  # seconds for one resolver
ALTOGETHER = 3.5  # seconds; Docker waits four for us
ROUNDS = 2
MOST = 3  # resolvers, as in resolv.conf(5)
FRESH = 2.0  # seconds for which resolv.conf is not looked at again


def nameservers(text: str) -> tuple[str, ...]:
    """Those of a resolv.conf. Total; where it names none, the node's own address, as resolv.conf(5) has it."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(str(ipaddress.ip_address(words[1])))
    return tuple(dict.fromkeys(found))[:MOST] or ("127.0.0.1",)


class Upstream:
    """`own`: our address, which is never asked: it would ask us."""

    def __init__(self, own: str, *, path: Path = Path("/etc/resolv.conf"), port: int = PORT) -> None:
        self._own = own
        self._path = path
        self._port = port
        self._known: tuple[str, ...] = ()
        self._read_at = float("-inf")

    def resolvers(self, now: float) -> tuple[str, ...]:
        """As the file says, which others change while we run. `now` in seconds, of any clock."""
        if now - self._read_at >= FRESH:
            self._read_at = now
            try:
                text = self._path.read_text(errors="replace")
            except OSError:
                text = ""
            self._known = tuple(each for each in nameservers(text) if each != self._own)
        return self._known

    async def ask(self, query: message.Query, data: bytes, *, tcp: bool) -> bytes | None:
        """The answer of the first resolver that has one, for the asker; None if none has within `ALTOGETHER` seconds. `data`: the query as
        it came."""
        number = secrets.randbelow(1 << 16)  # not the asker's: who guesses it could answer in the resolver's place
        sent = message.renumbered(data, number)
        resolvers = self.resolvers(asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALTOGETHER):
                for resolver in resolvers * ROUNDS:
                    answer = await self._one(resolver, sent, tcp=tcp)
                    if answer is not None and message.answers(answer, query.question, number):
                        return message.renumbered(answer, query.id)
        return None

    async def _one(self, resolver: str, sent: bytes, *, tcp: bool) -> bytes | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return await (self._by_tcp(resolver, sent) if tcp else self._by_udp(resolver, sent))
        except (OSError, EOFError):  # TimeoutError is an OSError
            return None

    async def _by_udp(self, resolver: str, sent: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Asking(answer, sent[:2]), remote_addr=(resolver, self._port))
        try:
            transport.sendto(sent)
            return await answer
        finally:
            transport.close()

    async def _by_tcp(self, resolver: str, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(resolver, self._port)
        try:
            writer.write(struct.pack(">H", len(sent)) + sent)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.transport.abort()


class _Asking(asyncio.DatagramProtocol):
    """Waits for a datagram with the id of the question; its socket takes none but the resolver's."""

    def __init__(self, answer: asyncio.Future[bytes], number: bytes) -> None:
        self._answer = answer
        self._number = number

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._answer.done() and data[:2] == self._number:
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionAbortedError())
