"""Nodes with pools: on a network of their own in virtual time, where connections break as told; or on real UDP."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hmcore import pki
from hmcore.config.settings import Calls, Transport
from hmcore.errors import ConnectionLost, HandshakeRefused, PeerUnreachable
from hmcore.pki import Identity, Kind
from hmcore.stoq.connection import Connection
from hmcore.stoq.endpoint import Credentials, Local, MessageStream, Peer, Service
from hmcore.stoq.greeting import Acceptor, Dialer, certified
from hmcore.stoq.session import Session
from node_agent.transport.circuit import dials
from node_agent.transport.link import PeerAddress
from node_agent.transport.pool import Answers, Pool

CLUSTER = "hm-0123456789"
NOW = datetime.now(UTC)
PATIENCE = 5.0
NO_CREDENTIALS = Credentials(b"", b"", b"")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - conditions of foreign objects have no event
            await asyncio.sleep(0.002)


def local(name: str, role: str = "control", kind: Kind = Kind.NODE) -> Local:
    return Local(Identity(CLUSTER, kind, name), role, "r1")


class Certificates:
    def __init__(self) -> None:
        self.authority = pki.create_authority(CLUSTER, NOW)

    def of(self, name: str, kind: Kind = Kind.NODE) -> Credentials:
        pair = pki.issue(self.authority, Identity(CLUSTER, kind, name), NOW)
        return Credentials(self.authority.certificate, pair.certificate, pair.key)


class Echo:
    """The calls of a node under test."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.hold: asyncio.Event | None = None

    async def call(self, peer: Peer, method: str, body: bytes) -> bytes:
        self.calls.append((peer.identity.name, method))
        if self.hold is not None:
            await self.hold.wait()
        return body

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        """None of ours."""


@dataclass
class Node:
    """A pool and everything that it ever reported."""

    name: str
    role: str = "control"
    log: list[tuple[str, ...]] = field(default_factory=list)
    echo: Echo = field(default_factory=Echo)
    on_message: Callable[[str, str, bytes], None] = lambda peer, kind, payload: None

    def make_pool(self, credentials: Credentials, transport: Transport, calls: Calls, **options: object) -> Pool:
        def message(peer: str, kind: str, payload: bytes) -> None:
            self.log.append(("message", peer, kind, payload.decode()))
            self.on_message(peer, kind, payload)

        return Pool(
            local=local(self.name, self.role),
            credentials=credentials,
            transport=transport,
            calls=calls,
            service=self.echo,
            on_up=lambda peer: self.log.append(("up", peer)),
            on_down=lambda peer: self.log.append(("down", peer)),
            on_message=message,
            **options,  # type: ignore[arg-type]
        )

    def about(self, peer: str) -> list[tuple[str, ...]]:
        return [entry for entry in self.log if entry[1] == peer]


class PipeWire:
    """One end of a wire in memory. What was written arrives after `delay`; a break loses what is under way."""

    rtt = 0.001

    def __init__(self, delay: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay = delay
        self.connection: Connection | None = None
        self.other: PipeWire | None = None
        self.cut = False
        self._under_way: deque[Callable[[], None]] = deque()

    @property
    def backlog(self) -> int:
        return 0

    def write(self, stream: int, data: bytes, end: bool) -> None:
        self._deliver(lambda: self._there().wire_received(stream, data, end))

    def abort(self, stream: int) -> None:
        self._deliver(lambda: self._there().wire_aborted(stream))

    def hang_up(self, *, refused: bool, reason: str) -> None:
        error = HandshakeRefused(reason) if refused else ConnectionLost(f"the peer closed the connection: {reason}")
        self._deliver(lambda: self._there().wire_lost(error))
        self.cut = True

    async def wait_released(self) -> None:
        """Nothing is held."""

    def _there(self) -> Connection:
        assert self.other is not None
        assert self.other.connection is not None
        return self.other.connection

    def _deliver(self, arrival: Callable[[], None]) -> None:
        if not self.cut:
            self._under_way.append(arrival)
            self._loop.call_later(self._delay, self._arrive)

    def _arrive(self) -> None:
        if self._under_way:
            self._under_way.popleft()()

    def lose(self) -> None:
        self.cut = True
        self._under_way.clear()


@dataclass
class Net:
    """Addresses are ("net", n). Nodes may be down, connections may break; either end notices when told to."""

    delay: float = 0.001
    nodes: dict[int, tuple[Node, Pool]] = field(default_factory=dict)
    connections: list[tuple[frozenset[str], PipeWire, PipeWire]] = field(default_factory=list)
    black_holes: set[int] = field(default_factory=set)  # addresses that do not even say that nothing is there
    dialled: list[tuple[float, str, str]] = field(default_factory=list)

    async def dial(
        self,
        host: str,
        port: int,
        *,
        credentials: Credentials,
        local: Local,
        server: Identity,
        service: Service,
        timeout: float,
        on_connection: Callable[[Connection], None],
        high_water: int,
    ) -> Connection:
        self.dialled.append((asyncio.get_running_loop().time(), local.identity.name, server.name))
        if port in self.black_holes:
            await asyncio.sleep(timeout)
            raise PeerUnreachable("no answer")
        await asyncio.sleep(self.delay)
        if port not in self.nodes:
            raise PeerUnreachable("nothing listens there")
        there, pool = self.nodes[port]
        session = Session(Acceptor(_local_of(there), certified(local.identity), pool.admit))
        left = Connection(Session(Dialer(local, server)), service, on_open=on_connection)
        right = Connection(session, Answers(there.echo, pool), on_open=pool.accepted)
        near, far = PipeWire(self.delay), PipeWire(self.delay)
        near.connection, far.connection, near.other, far.other = left, right, far, near
        self.connections.append((frozenset({local.identity.name, server.name}), near, far))
        left.start(near)
        right.start(far)
        try:
            async with asyncio.timeout(timeout):
                await left.wait_open()
        except (ConnectionLost, TimeoutError) as error:
            raise PeerUnreachable(str(error)) from error
        if left.failure is not None:
            raise PeerUnreachable(left.failure.message)
        return left

    def break_between(self, one: str, other: str, *, noticed: tuple[float, float]) -> None:
        """Every connection between the two loses what is under way; its ends notice after so many seconds."""
        loop = asyncio.get_running_loop()
        for names, *wires in self.connections:
            if names == {one, other}:
                for wire, after in zip(wires, noticed, strict=True):
                    assert wire.connection is not None
                    wire.lose()
                    loop.call_later(after, wire.connection.wire_lost, ConnectionLost("broken"))


def _local_of(node: Node) -> Local:
    return local(node.name, node.role)


def addresses(nodes: dict[str, int], roles: dict[str, str], name: str) -> dict[str, PeerAddress]:
    """What `name` is told of the others."""
    role = roles.get(name, "control")
    return {
        peer: PeerAddress("net", port, dials(name, role, peer, roles.get(peer, "control"))) for peer, port in nodes.items() if peer != name
    }
