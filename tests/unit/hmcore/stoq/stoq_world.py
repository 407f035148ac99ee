"""What the STOQ tests share: a cluster's certificates, good and bad; services that remember; a network that loses packets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hmcore import pki
from hmcore.pki import Identity, KeyPair, Kind
from hmcore.stoq.endpoint import Connection, Credentials, Listener, Local, MessageStream, Peer, dial, serve

CLUSTER = "hm-0123456789"
NOW = datetime.now(UTC)
PATIENCE = 20.0  # seconds that a condition may take on a busy machine


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - conditions of foreign objects have no event
            await asyncio.sleep(0.002)


def identity(name: str, kind: Kind = Kind.NODE, cluster: str = CLUSTER) -> Identity:
    return Identity(cluster, kind, name)


@dataclass
class World:
    """A cluster's CA, and credentials from it."""

    authority: KeyPair = field(default_factory=lambda: pki.create_authority(CLUSTER, NOW))

    def credentials(self, name: str, kind: Kind = Kind.NODE, *, cluster: str = CLUSTER, now: datetime = NOW) -> Credentials:
        pair = pki.issue(self.authority, identity(name, kind, cluster), now)
        return Credentials(self.authority.certificate, pair.certificate, pair.key)

    def strange(self, name: str, kind: Kind = Kind.NODE) -> Credentials:
        """A certificate that says the right things, signed by another CA; its holder trusts ours."""
        pair = pki.issue(pki.create_authority(CLUSTER, NOW), identity(name, kind), NOW)
        return Credentials(self.authority.certificate, pair.certificate, pair.key)

    def with_usage(self, name: str, usage: x509.ObjectIdentifier) -> Credentials:
        """A node's certificate that may be used for one thing only."""
        who = identity(name)
        key = ec.generate_private_key(ec.SECP256R1())
        signer = serialization.load_pem_private_key(self.authority.key, None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.load_pem_x509_certificate(self.authority.certificate).subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(hours=1))
            .not_valid_after(NOW + timedelta(days=1))
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(who.dns), x509.UniformResourceIdentifier(who.uri)]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        return Credentials(
            self.authority.certificate,
            certificate.public_bytes(pem),
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )

    def expired(self, name: str, kind: Kind = Kind.NODE) -> Credentials:
        return self.credentials(name, kind, now=NOW - timedelta(days=1000))

    def early(self, name: str, kind: Kind = Kind.NODE) -> Credentials:
        return self.credentials(name, kind, now=NOW + timedelta(days=1))

    def server_only(self, name: str) -> Credentials:
        return self.with_usage(name, ExtendedKeyUsageOID.SERVER_AUTH)

    def client_only(self, name: str) -> Credentials:
        return self.with_usage(name, ExtendedKeyUsageOID.CLIENT_AUTH)


def local(name: str, kind: Kind = Kind.NODE, cluster: str = CLUSTER) -> Local:
    return Local(identity(name, kind, cluster), "control", "r1")


@dataclass
class Recorder:
    """A Service that remembers who called what. `answers` may be replaced to do something else than echo."""

    calls: list[tuple[Peer, str, bytes]] = field(default_factory=list)
    streams: list[tuple[Peer, str, MessageStream]] = field(default_factory=list)
    cancelled: int = 0
    hold: asyncio.Event | None = None  # calls of "wait" and streams wait for it
    error: Exception | None = None

    async def call(self, peer: Peer, method: str, body: bytes) -> bytes:
        self.calls.append((peer, method, body))
        if self.error is not None:
            raise self.error
        if method == "wait":
            assert self.hold is not None
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return body

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        self.streams.append((peer, kind, stream))
        if kind == "echo":
            while (message := await stream.receive()) is not None:
                await stream.send(message)
        elif kind == "deaf":
            assert self.hold is not None
            await self.hold.wait()
            while await stream.receive() is not None:
                pass
        elif kind == "brief":
            await stream.receive()


@contextlib.asynccontextmanager
async def listening(credentials: Credentials, service: Recorder, name: str = "n1", **options: object) -> AsyncIterator[Listener]:
    listener = await serve("127.0.0.1", 0, credentials=credentials, local=local(name), service=service, **options)  # type: ignore[arg-type]
    try:
        yield listener
    finally:
        await listener.close()


@contextlib.asynccontextmanager
async def dialled(port: int, credentials: Credentials, who: Local, server: str = "n1", **options: object) -> AsyncIterator[Connection]:
    options.setdefault("timeout", PATIENCE)
    connection = await dial("127.0.0.1", port, credentials=credentials, local=who, server=identity(server), **options)  # type: ignore[arg-type]
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def pair(world: World, served: Recorder, **options: object) -> AsyncIterator[tuple[Connection, Listener]]:
    """A node n1 that serves, and n2 connected to it."""
    async with (
        listening(world.credentials("n1"), served) as listener,
        dialled(listener.port, world.credentials("n2"), local("n2"), **options) as connection,
    ):
        yield connection, listener


class Network(asyncio.DatagramProtocol):
    """A UDP relay in front of a listener. `passes` decides, packet by packet, what gets through; it is told the direction."""

    def __init__(self, port: int) -> None:
        self.passes: Callable[[bool], bool] = lambda to_server: True
        self.packets = 0
        self._server = ("127.0.0.1", port)
        self._client: object = None
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: object) -> None:
        assert self.transport is not None
        to_server = addr != self._server
        if to_server:
            self._client = addr
        if self.passes(to_server):
            self.packets += 1
            self.transport.sendto(data, self._server if to_server else self._client)

    @property
    def port(self) -> int:
        assert self.transport is not None
        return int(self.transport.get_extra_info("sockname")[1])


@contextlib.asynccontextmanager
async def network(port: int) -> AsyncIterator[Network]:
    transport, relay = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Network(port), local_addr=("127.0.0.1", 0))
    try:
        yield relay
    finally:
        transport.close()
