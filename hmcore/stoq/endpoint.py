"""STOQ over QUIC: dial a peer (dialling.py), or serve (here). See connection.py for what one does with a connection.

With quic.py and mtls.py the only home of aioquic. What strangers can make a listener do is bounded: handshakes under way are counted, have
a deadline, and from some number on must first prove their address (Retry, RFC 9000 section 8.1.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import cast

from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from hmcore.errors import ConnectionLost, HyperMeshError, PeerUnreachable, TransportError
from hmcore.pki import Identity
from hmcore.stoq.complaints import Complaints
from hmcore.stoq.connection import Connection
from hmcore.stoq.dialling import dial
from hmcore.stoq.greeting import Acceptor, Admit, Local, Peer, admit_all, certified
from hmcore.stoq.messages import MessageStream
from hmcore.stoq.mtls import Credentials, configuration, judge
from hmcore.stoq.outbox import HIGH_WATER
from hmcore.stoq.quic import SILENCE, Address, Callbacks, QuicWire
from hmcore.stoq.service import Service
from hmcore.stoq.session import Session
from hmcore.stoq.udp import bound, place

__all__ = ["Connection", "Credentials", "Listener", "Local", "MessageStream", "Peer", "Service", "dial", "serve"]

HANDSHAKE_TIMEOUT = 5.0  # seconds an incoming connection has from its first packet to its welcome
CLOSE_TIMEOUT = 5.0  # seconds for cancelled handlers to end
MAX_HANDSHAKES = 256  # under way at once
PROVE_ADDRESS_FROM = 32  # handshakes under way, from which a new one must first prove its address
MAX_CONNECTIONS = 4096
MAX_PER_PEER = 64  # connections of one identity
MIN_INITIAL = 1200  # bytes; QUIC pads first packets, so that nobody can be made to send more than he got
CID = 8  # bytes of our connection ids

log = logging.getLogger("hypermesh.stoq")


class Listener(asyncio.DatagramProtocol):
    """Accepts connections on one UDP port. Made by `serve`."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        local: Local,
        service: Service | None,
        on_connection: Callable[[Connection], None],
        admit: Admit,
        high_water: int,
        silence: float,
    ) -> None:
        self._configuration = configuration(credentials, server=None)
        self._authority = credentials.ca
        self._local = local
        self._service = service
        self._on_connection = on_connection
        self._admit = admit
        self._high_water = high_water
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._released: asyncio.Future[None] = self._loop.create_future()
        self._wires: dict[bytes, QuicWire] = {}  # by connection id
        self._handshakes: dict[QuicWire, asyncio.TimerHandle] = {}
        self._connections: set[Connection] = set()
        self._retry = QuicRetryTokenHandler()
        self._complaints = Complaints(log)

    @property
    def port(self) -> int:
        assert self._transport is not None
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    @property
    def connections(self) -> frozenset[Connection]:
        """Those whose peer was welcomed."""
        return frozenset(self._connections)

    @property
    def handshakes(self) -> int:
        """Connections whose peer was not welcomed yet."""
        return len(self._handshakes)

    async def close(self) -> None:
        """Close every connection and the port. Peers are told; handlers are cancelled, and given some time to end."""
        connections = self.connections
        for connection in connections:
            connection.hang_up("the node stops listening")
        for wire in list(self._handshakes):
            wire.fail(ConnectionLost("the node stops listening"))
        if self._transport is not None:
            self._transport.close()
            await self._released
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for connection in connections:
                    await connection.close()
        except TimeoutError:
            log.warning("handlers of calls did not end within %g s of being cancelled", CLOSE_TIMEOUT)

    # asyncio.DatagramProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # loops do not inherit it

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._released.done():
            self._released.set_result(None)

    def error_received(self, exc: Exception) -> None:
        """An ICMP message about some peer: which one, the socket does not say. Silence will tell."""

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if not data:
            return
        if not data[0] & 0x80:  # a short header: an established connection's
            wire = self._wires.get(data[1 : 1 + CID])
            if wire is not None:
                wire.receive(data, addr)
            return
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CID)
        except ValueError:
            return
        wire = self._wires.get(header.destination_cid)
        if wire is not None:
            wire.receive(data, addr)
        elif len(data) >= MIN_INITIAL:
            self._first(header, data, addr)

    # inside

    def _first(self, header: QuicHeader, data: bytes, addr: Address) -> None:
        if header.version != QuicProtocolVersion.VERSION_1:
            if header.packet_type != QuicPacketType.VERSION_NEGOTIATION:
                versions = [int(QuicProtocolVersion.VERSION_1)]
                self._send(encode_quic_version_negotiation(header.destination_cid, header.source_cid, versions), addr)
            return
        if header.packet_type != QuicPacketType.INITIAL:
            return
        if len(self._handshakes) >= MAX_HANDSHAKES or len(self._connections) >= MAX_CONNECTIONS:
            self._complaints.add("too many connections: new ones are ignored")
            return
        original, retried = header.destination_cid, None
        if header.token:
            try:
                original = self._retry.validate_token(
                    address=addr, destination_cid=header.destination_cid, token=header.token, now=time.monotonic()
                )
            except ValueError:
                return
            retried = header.destination_cid
        elif len(self._handshakes) >= PROVE_ADDRESS_FROM:
            self._ask_for_address(header, addr)
            return
        self._accept(header.destination_cid, original, retried).receive(data, addr)

    def _ask_for_address(self, header: QuicHeader, addr: Address) -> None:
        assert header.version is not None
        cid = os.urandom(CID)
        token = self._retry.create_token(
            address=addr,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=cid,
            now=time.monotonic(),
        )
        self._send(
            encode_quic_retry(
                version=header.version,
                source_cid=cid,
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=token,
            ),
            addr,
        )

    def _accept(self, first_cid: bytes, original: bytes, retried: bytes | None) -> QuicWire:
        quic = QuicConnection(
            configuration=self._configuration, original_destination_connection_id=original, retry_source_connection_id=retried
        )
        verdict = judge(quic, self._authority, cluster=self._local.identity.cluster, server=None)
        cids = {first_cid, quic.host_cid}

        def established(identity: Identity) -> Connection:
            session = Session(Acceptor(self._local, certified(identity), self._may_enter))
            return Connection(session, self._service, high_water=self._high_water, on_open=lambda c: self._opened(wire, c))

        def connection_id(cid: bytes, issued: bool) -> None:
            if issued:
                cids.add(cid)
                self._wires[cid] = wire
            else:
                cids.discard(cid)
                self._wires.pop(cid, None)

        def stopped(error: HyperMeshError) -> None:
            for cid in cids:
                self._wires.pop(cid, None)
            deadline = self._handshakes.pop(wire, None)
            if deadline is not None:
                deadline.cancel()
                self._complaints.add(f"no welcome for {place(quic.get_peer_address())}: {error.message}")

        wire = QuicWire(quic, verdict, Callbacks(self._send, established, stopped, connection_id), dialer=False, silence=self._silence)
        for cid in cids:
            self._wires[cid] = wire
        too_slow = PeerUnreachable(f"the handshake took over {HANDSHAKE_TIMEOUT:g} s")
        self._handshakes[wire] = self._loop.call_later(HANDSHAKE_TIMEOUT, wire.fail, too_slow)
        return wire

    def _may_enter(self, peer: Peer) -> str | None:
        if sum(connection.peer.identity == peer.identity for connection in self._connections) >= MAX_PER_PEER:
            return f"{peer.identity} has {MAX_PER_PEER} connections already"
        return self._admit(peer)

    def _opened(self, wire: QuicWire, connection: Connection) -> None:
        deadline = self._handshakes.pop(wire, None)
        if deadline is not None:
            deadline.cancel()
        self._connections.add(connection)
        connection.on_closed(self._connections.discard)
        self._on_connection(connection)

    def _send(self, data: bytes, addr: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, addr)


async def serve(
    host: str,
    port: int,
    *,
    credentials: Credentials,
    local: Local,
    service: Service | None,
    on_connection: Callable[[Connection], None] = lambda connection: None,
    admit: Admit = admit_all,
    high_water: int = HIGH_WATER,
    silence: float = SILENCE,
) -> Listener:
    """Listen on UDP `host`:`port` (0: any free one; see Listener.port). Raises TransportError if that cannot be.

    `admit` may refuse a peer that proved its identity, by giving the reason. `on_connection` gets every accepted connection, before
    anything else of it is delivered.
    """
    loop = asyncio.get_running_loop()
    try:
        sock = await bound(host, port)
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            _, listener = await loop.create_datagram_endpoint(
                lambda: Listener(
                    credentials=credentials,
                    local=local,
                    service=service,
                    on_connection=on_connection,
                    admit=admit,
                    high_water=high_water,
                    silence=silence,
                ),
                sock=sock,
            )
            undo.pop_all()
    except OSError as error:
        raise TransportError(f"cannot listen on UDP {host}:{port}: {error.strerror or error}", fix=f"ss -lunp 'sport = :{port}'") from error
    return listener
