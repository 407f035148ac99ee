"""One connection to each peer, kept up. What consensus relies on, and nothing else keeps:

- `on_up` and `on_down` of a peer alternate, and every message comes between an `on_up` and its `on_down`.
- Messages of one kind from one peer arrive in the order sent, none twice; a break loses the last ones sent before it, no others.

A connection that is replaced or lost is out of the tables before anything of its successor is delivered, and what still comes from it is
dropped.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from hmcore.api import Method
from hmcore.config.settings import Calls, Transport
from hmcore.errors import CallTimeout, ConnectionLost, HyperMeshError, PeerUnreachable
from hmcore.pki import Kind
from hmcore.records import PeerReport
from hmcore.stoq import endpoint
from hmcore.stoq.endpoint import Connection, Credentials, Local, MessageStream, Peer, Service
from hmcore.stoq.faults import OK, kind_of
from hmcore.stoq.rpc import Observe, invoke
from node_agent.transport.circuit import Circuit, dials
from node_agent.transport.dialler import Dial, Dialler
from node_agent.transport.link import Link, PeerAddress

Req = TypeVar("Req")
Res = TypeVar("Res")

log = logging.getLogger("hypermesh.transport")


class Pool:
    """Calls and messages to other nodes by name. Also the Service.stream of connections that nodes dialled: see listener.py.

    `service` answers the calls of peers. The callbacks run on the event loop, must not block, and their exceptions end `run`.
    """

    def __init__(
        self,
        *,
        local: Local,
        credentials: Credentials,
        transport: Transport,
        calls: Calls,
        service: Service,
        on_up: Callable[[str], None],
        on_down: Callable[[str], None],
        on_message: Callable[[str, str, bytes], None],
        dial: Dial = endpoint.dial,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        observe: Observe = lambda method, outcome, seconds: None,
    ) -> None:
        self._local = local
        self._transport = transport
        self._calls = calls
        self._on_up = on_up
        self._on_down = on_down
        self._on_message = on_message
        self._clock = clock
        self._observe = observe
        self._links: dict[str, Link] = {}
        answers = Answers(service, self)
        self._dialler = Dialler(local, credentials, transport, answers, self._dialled, dial, clock, chance)
        self._group: asyncio.TaskGroup | None = None
        self._failed: asyncio.Future[None] | None = None

    # what the agent does

    @property
    def connected(self) -> frozenset[str]:
        return frozenset(link.name for link in self._links.values() if link.connection is not None)

    def set_peers(self, peers: Mapping[str, PeerAddress]) -> None:
        """The nodes to know. Those that are new are dialled if they are to be; connections to those that are gone are closed."""
        for link in list(self._links.values()):
            if link.address is not None and link.address != peers.get(link.name):
                self._forget(link)
        for name, address in peers.items():
            if name == self._local.identity.name:
                continue
            link = self._link(name)
            if link.address is None:
                link.address = address
                self._keep(link)

    async def run(self) -> None:
        """Keep connections up until cancelled. Raises what a callback raised."""
        self._failed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for link in self._links.values():
                    self._keep(link)
                await self._failed
        finally:
            self._group = None
            for link in list(self._links.values()):
                link.keeper = None
                if link.connection is not None:
                    link.connection.hang_up("the node stops")

    async def call(self, peer: str, method: Method[Req, Res], request: Req, timeout: float | None = None) -> Res:
        """Call `method` of a peer, by default within the cluster's call timeout. Only connecting is tried again, never the call.

        Raises PeerUnreachable (never sent), or what Connection.call raises.
        """
        began = self._clock()
        outcome = OK
        try:
            return await self._call(peer, method, request, timeout)
        except BaseException as error:
            outcome = kind_of(error)
            raise
        finally:
            self._observe(method.name, outcome, self._clock() - began)

    async def _call(self, peer: str, method: Method[Req, Res], request: Req, timeout: float | None) -> Res:
        timeout = self._calls.timeout if timeout is None else timeout
        deadline = self._clock() + timeout
        link = self._links.get(peer)
        if link is None:
            raise PeerUnreachable("not a peer of this node", host=peer)
        connection = await self._connected(link, timeout)
        try:
            answer = await invoke(connection, method, request, timeout=max(0.001, deadline - self._clock()))
        except (CallTimeout, ConnectionLost) as error:
            link.failed(error.message, self._clock())
            raise
        except HyperMeshError:
            link.circuit = link.circuit.succeeded()  # a refusal is an answer
            raise
        link.circuit = link.circuit.succeeded()
        return answer

    def send(self, peer: str, kind: str, payload: bytes) -> bool:
        """Send one way. False when it was not sent: not connected, or the peer has not kept up."""
        link = self._links.get(peer)
        if link is None or (connection := link.connection) is None:
            return False
        stream = link.streams.get(kind)
        if stream is None:
            stream = link.streams[kind] = connection.open_stream_nowait(kind)
        if stream.send_nowait(payload):
            return True
        if not stream.alive and not connection.closed:
            connection.hang_up(f"the peer gave up the {kind} stream")  # only a break may lose messages
        return False

    def reports(self) -> list[PeerReport]:
        now = self._clock()
        return [link.report(now) for link in sorted(self._links.values(), key=lambda link: link.name)]

    # what the listener does

    def admit(self, peer: Peer) -> str | None:
        """Why a node that dialled us may not connect; None if it may. It may replace an older connection, unless that is the one that
        both ends know to prefer (circuit.dials)."""
        ours = self._local
        if peer.identity.name == ours.identity.name:
            return f"{peer.identity.name} is this node's own name"
        link = self._links.get(peer.identity.name)
        if link is None or link.connection is None or not link.dialled:
            return None
        if self._dials(peer):
            return f"{ours.identity.name} is connected to {peer.identity.name} already"
        return None

    def accepted(self, connection: Connection) -> None:
        """A node has dialled us."""
        self._up(self._link(connection.peer.identity.name), connection, dialled=False)

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        """A node's messages of one kind. Runs as long as they come."""
        link = self._links.get(peer.identity.name)
        connection = link.connection if link is not None else None
        if link is None or connection is None or connection.peer is not peer:
            return  # of a connection that was replaced meanwhile
        if kind in link.incoming:
            connection.hang_up(f"a second {kind} stream")
            return
        link.incoming.add(kind)
        stream.deliver_to(partial(self._deliver, link, connection, kind))
        await stream.wait_ended()
        if link.connection is connection:
            connection.hang_up(f"the peer ended its {kind} stream")

    # inside

    def _dials(self, peer: Peer) -> bool:
        """Whether, of us two, it is us whose connection counts."""
        ours = self._local
        return dials(ours.identity.name, ours.role, peer.identity.name, peer.role)

    def _link(self, name: str) -> Link:
        link = self._links.get(name)
        if link is None:
            circuit = Circuit(self._transport.circuit_failures, self._transport.circuit_open)
            link = self._links[name] = Link(name, circuit)
        return link

    def _forget(self, link: Link) -> None:
        link.address = None
        if link.keeper is not None:
            link.keeper.cancel()
            link.keeper = None
        if link.connection is not None:
            link.connection.hang_up("no longer a peer")
        if link.connection is None:
            self._links.pop(link.name, None)

    def _keep(self, link: Link) -> None:
        address = link.address
        if self._group is not None and link.keeper is None and address is not None and (address.dial or address.fallback):
            link.keeper = self._group.create_task(self._dialler.keep_connected(link, address), name=f"keep {link.name} connected")

    async def _connected(self, link: Link, timeout: float) -> Connection:
        """The peer's connection, waiting for it as long as there is hope."""
        if link.connection is not None:
            return link.connection
        admitted, link.circuit = link.circuit.admit(self._clock())
        if not admitted:
            raise PeerUnreachable(f"it failed {link.circuit.failures} times in a row: {link.error}", host=link.name)
        patience = link.attempts + self._calls.retries + 1
        link.changed.beat()  # dial now
        try:
            async with asyncio.timeout(timeout):
                while link.connection is None:
                    if link.attempts >= patience:
                        raise PeerUnreachable(link.error or "not connected", host=link.name)
                    await link.changed.wait()
        except TimeoutError as error:
            link.circuit = link.circuit.failed(self._clock())
            raise PeerUnreachable(f"not connected within {timeout:g} s: {link.error or 'it has not dialled us'}", host=link.name) from error
        return link.connection

    def _dialled(self, link: Link, connection: Connection) -> None:
        self._up(link, connection, dialled=True)

    def _up(self, link: Link, connection: Connection, *, dialled: bool) -> None:
        old = link.connection
        if old is not None and dialled and not link.dialled and not self._dials(connection.peer):
            connection.hang_up(f"{link.name} has dialled {self._local.identity.name} meanwhile")
            return
        if self._failed is None or self._failed.done():
            connection.hang_up("the node is not ready")
            return
        if old is not None:
            self._down(link, old)
        link.connected(connection, dialled=dialled, now=self._clock())
        if old is not None:
            old.hang_up("replaced by a newer connection")
        connection.on_closed(partial(self._closed, link))
        log.info("connected to %s", link.name)
        self._guarded(self._on_up, link.name)
        link.changed.beat()

    def _down(self, link: Link, connection: Connection) -> None:
        if link.connection is not connection:
            return
        link.disconnected(connection.reason or "replaced by a newer connection", now=self._clock(), steady=self._transport.reconnect_max)
        log.info("connection to %s is gone: %s", link.name, link.error)
        self._guarded(self._on_down, link.name)
        link.changed.beat()

    def _closed(self, link: Link, connection: Connection) -> None:
        self._down(link, connection)
        if link.address is None and link.connection is None:
            self._links.pop(link.name, None)

    def _deliver(self, link: Link, connection: Connection, kind: str, payload: bytes) -> None:
        if link.connection is connection:
            self._guarded(self._on_message, link.name, kind, payload)

    def _guarded(self, callback: Callable[..., None], *args: object) -> None:
        try:
            callback(*args)
        except Exception as error:
            if self._failed is None or self._failed.done():
                log.exception("a callback of the pool failed while it was not running")
            else:
                self._failed.set_exception(error)


@dataclass(frozen=True, slots=True)
class Answers:
    """The Service of every connection: calls go to the agent's routes, streams of nodes to the pool."""

    calls: Service
    pool: Pool

    async def call(self, peer: Peer, method: str, body: bytes) -> bytes:
        return await self.calls.call(peer, method, body)

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        if peer.identity.kind is Kind.NODE:
            await self.pool.stream(peer, kind, stream)
        else:
            await self.calls.stream(peer, kind, stream)
