"""/metrics over HTTP, plain or with mutual TLS. docs/adr/0056 says why the server is ours.

A scrape is answered on the event loop, between two steps of everything else: its figures belong together. What clients can hold is
bounded: `CONNECTIONS` at once (more wait in the kernel, handshakes included), each with one request and a deadline.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from cryptography import x509

from hmcore import pki
from hmcore.config.settings import Metrics
from hmcore.errors import HyperMeshError, LayerDown, PkiError
from node_agent.platform import http
from node_agent.platform.http import Request, Response, text

CONNECTIONS = 16
BACKLOG = 16
DEADLINE = 5.0  # seconds for a connection, from its acceptance to its end
PATH = "/metrics"

log = logging.getLogger(__name__)

_TRANSIENT = frozenset({errno.ECONNABORTED, errno.EAGAIN, errno.EINTR, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH})


@dataclass(frozen=True, slots=True)
class Proof:
    """For mutual TLS: the folder with ca.pem, node.pem and node.key, and whose cluster it is."""

    directory: Path
    cluster: str


class Exposition:
    """Serves `answer()` on `metrics.address` and `metrics.port`. `open`, then `serve` until cancelled, then `close`."""

    def __init__(self, metrics: Metrics, proof: Proof, answer: Callable[[], Response]) -> None:
        """`answer` is called on the event loop for each scrape. A HyperMeshError of it is a 503 with its words."""
        self._metrics = metrics
        self._proof = proof
        self._answer = answer
        self._authority = b""
        self._context: ssl.SSLContext | None = None
        self._socket: socket.socket | None = None
        self._slots = asyncio.Semaphore(CONNECTIONS)

    @property
    def port(self) -> int:
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    def open(self) -> None:
        """Listen. Raises LayerDown when the port is taken, PkiError when the certificate cannot be used."""
        if self._metrics.tls == "mutual":
            self._context = self._tls()
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._socket = listen(self._metrics.address, self._metrics.port)

    async def serve(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._slots.acquire()
                try:
                    client, _ = await loop.sock_accept(self._socket)
                except OSError as error:
                    self._slots.release()
                    if error.errno not in _TRANSIENT:
                        raise LayerDown(f"metrics cannot be served: {error.strerror}") from error
                else:
                    tasks.create_task(self._converse(client), name="scrape")

    def close(self) -> None:
        listening, self._socket = self._socket, None
        if listening is not None:
            listening.close()

    async def _converse(self, client: socket.socket) -> None:
        """One connection, whatever the client does. Raises nothing but cancellation."""
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(DEADLINE):
                reader, writer = await self._connect(client)
                transport = writer.transport  # type: ignore[assignment]  # typeshed has the base class here
                response, head = await self._respond(reader, writer)
                writer.write(http.encode(response, head=head))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, EOFError) as error:  # ssl.SSLError is an OSError
            log.debug("a scrape was not finished: %s", error)
        finally:
            if transport is not None:
                transport.abort()
            else:
                client.close()
            self._slots.release()

    async def _connect(self, client: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=http.HEAD_LIMIT, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        timeout = DEADLINE if self._context else None
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=self._context, ssl_handshake_timeout=timeout)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[Response, bool]:
        try:
            head = await reader.readuntil(http.HEAD_END)
        except asyncio.LimitOverrunError:
            return text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"over {http.HEAD_LIMIT} bytes of headers"), False
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                raise
            return text(HTTPStatus.BAD_REQUEST, "the request ended too early"), False
        asked = http.parse(head)
        if isinstance(asked, Response):
            return asked, False
        return self._refusal(writer) or self._page(asked), asked.head

    def _page(self, asked: Request) -> Response:
        if asked.path == "/":
            return text(HTTPStatus.OK, f"HyperMesh: the metrics of this node are at {PATH}")
        if asked.path != PATH:
            return text(HTTPStatus.NOT_FOUND, f"there is only {PATH}")
        try:
            return self._answer()
        except HyperMeshError as error:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception:
            log.exception("the metrics cannot be collected")
            return text(HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics cannot be collected; the agent's journal says more")

    def _refusal(self, writer: asyncio.StreamWriter) -> Response | None:
        """TLS has checked who signed the certificate; whether it is of this cluster, and what for, is ours to check."""
        if self._context is None:
            return None
        certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            if certificate is None:
                raise PkiError("a certificate of the cluster is required")
            parsed = x509.load_der_x509_certificate(certificate)
            pki.verify(parsed, self._authority, datetime.now(UTC), cluster=self._proof.cluster, serving=False)
        except (PkiError, ValueError) as error:
            return text(HTTPStatus.FORBIDDEN, str(error))
        return None

    def _tls(self) -> ssl.SSLContext:
        directory = self._proof.directory
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            self._authority = (directory / "ca.pem").read_bytes()
            context.load_verify_locations(cadata=self._authority.decode("ascii"))
            context.load_cert_chain(directory / "node.pem", directory / "node.key")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise PkiError(f"metrics cannot use the certificate in {directory}: {error}", fix="hmctl deploy") from error
        return context


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises LayerDown, naming address and port."""
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        fix = f"ss -ltnp 'sport = :{port}'; or another settings.metrics.port"
        if error.errno == errno.EADDRNOTAVAIL:
            fix = f"hmctl config apply with settings.metrics.address 127.0.0.1 or 0.0.0.0: {address} is no address of this node"
        raise LayerDown(f"metrics cannot be served on TCP {where}: {error.strerror}", fix=fix) from error
    return listening
