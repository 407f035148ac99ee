"""The server of /metrics with clients of every kind: polite ones, strangers, slow ones and many."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import pytest

from hmcore.config.settings import Metrics
from hmcore.errors import LayerDown, NoQuorum, PkiError
from hmcore.pki import Identity, KeyPair, Kind, create_authority, issue
from node_agent.platform import exposition
from node_agent.platform.exposition import CONNECTIONS, Exposition, Proof, listen
from node_agent.platform.http import Response, text

CLUSTER = "hm-metrics111"
GET = b"GET /metrics HTTP/1.1\r\nHost: node1\r\n\r\n"


def well() -> Response:
    return text(HTTPStatus.OK, "hypermesh_up 1")


@asynccontextmanager
async def serving(
    answer: Callable[[], Response] = well, *, tls: str = "off", directory: Path = Path("/nonexistent")
) -> AsyncIterator[Exposition]:
    metrics = Metrics.model_construct(address="127.0.0.1", port=0, tls=tls, interval=10.0)
    server = Exposition(metrics, Proof(directory, CLUSTER), answer)
    server.open()
    task = asyncio.create_task(server.serve())
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=2)
        server.close()
        assert task.cancelled(), task


async def ask(port: int, request: bytes = GET, context: ssl.SSLContext | None = None, name: str = "node1.hm-metrics111.hm") -> bytes:
    """All that is answered until the connection is closed. Raises OSError when it is refused."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name if context else None)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def crowd(port: int) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """As many clients as there are places, all of them silent."""
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    try:
        yield clients
    finally:
        for _, writer in clients:
            writer.close()


async def cut_off(reader: asyncio.StreamReader) -> bool:
    """Whether the other end closes or resets the connection without an answer."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def gets_nothing(port: int, context: ssl.SSLContext | None) -> bool:
    """TLS 1.3 tells a client of its refusal only after the handshake is over for it: at the first read."""
    try:
        return await ask(port, context=context) == b""
    except OSError:
        return True


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET, b"200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET /secrets HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"what?\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
    ],
)
async def test_each_request_has_its_answer(request_, status):
    async with serving() as server:
        assert (await ask(server.port, request_)).split(b"\r\n")[0] == b"HTTP/1.1 " + status
        assert b"hypermesh_up 1" in await ask(server.port)  # and the next one is served


async def test_only_the_headers_are_sent_when_only_they_are_asked_for():
    async with serving() as server:
        answer = await ask(server.port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert b"Content-Length: 15" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_what_cannot_be_collected_is_unavailable_and_what_breaks_is_logged(caplog):
    def down() -> Response:
        raise NoQuorum("not now")

    def broken() -> Response:
        raise RuntimeError("surprise")

    async with serving(down) as server:
        assert b"503 Service Unavailable" in (answer := await ask(server.port))
        assert b"not now" in answer
    async with serving(broken) as server:
        with caplog.at_level(logging.ERROR):
            assert b"500 Internal Server Error" in (answer := await ask(server.port))
        assert b"surprise" not in answer
        assert "surprise" in caplog.text


async def test_idle_and_slow_clients_lose_their_place(monkeypatch):
    monkeypatch.setattr(exposition, "DEADLINE", 0.3)
    async with serving() as server, crowd(server.port) as idle:
        for _, writer in idle[:3]:
            writer.write(b"GET /met")
        assert b"200 OK" in await ask(server.port)
        assert all([await cut_off(reader) for reader, _ in idle])


async def test_who_goes_away_while_asking_leaves_nothing_behind():
    async with serving() as server:
        for _ in range(2 * CONNECTIONS):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(GET[:10])
            writer.transport.abort()
        assert b"200 OK" in await ask(server.port)


async def test_a_client_that_waits_is_cut_off_when_the_server_stops():
    async with serving() as server:
        port = server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET[:10])
        assert b"200 OK" in await ask(port)
    async with asyncio.timeout(2):
        assert await cut_off(reader)
    writer.close()
    with pytest.raises(OSError):
        await ask(port)


def test_a_port_that_is_taken_is_named_with_who_to_ask():
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(LayerDown, match=rf"cannot be served on TCP 127\.0\.0\.1:{port}: Address already in use") as caught:
        listen("127.0.0.1", port)
    assert f"sport = :{port}" in (caught.value.fix or "")
    first.close()


def test_an_address_that_is_another_nodes_is_said_to_be_so():
    with pytest.raises(LayerDown, match=r"cannot be served on TCP 192\.0\.2\.1:0: Cannot assign") as caught:
        listen("192.0.2.1", 0)
    assert "settings.metrics.address 127.0.0.1 or 0.0.0.0" in (caught.value.fix or "")


def test_both_families():
    for address in ("::1", "::", "0.0.0.0"):
        listen(address, 0).close()


# --- mutual TLS


@pytest.fixture
def authority(tmp_path) -> KeyPair:
    """The cluster's, whose node certificate is in tmp_path."""
    made = create_authority(CLUSTER, datetime.now(UTC))
    node = issue(made, Identity(CLUSTER, Kind.NODE, "node1"), datetime.now(UTC))
    for name, content in (("ca.pem", made.certificate), ("node.pem", node.certificate), ("node.key", node.key)):
        (tmp_path / name).write_bytes(content)
    return made


def client(tmp_path: Path, authority: KeyPair, proof: KeyPair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    if proof is not None:
        (tmp_path / "proof.pem").write_bytes(proof.certificate + proof.key)
        context.load_cert_chain(tmp_path / "proof.pem")
    return context


@pytest.mark.parametrize("kind", list(Kind))
async def test_every_identity_of_the_cluster_may_look(tmp_path, authority, kind):
    proof = issue(authority, Identity(CLUSTER, kind, "somebody"), datetime.now(UTC))
    async with serving(tls="mutual", directory=tmp_path) as server:
        assert b"hypermesh_up 1" in await ask(server.port, context=client(tmp_path, authority, proof))


async def test_nobody_else_may(tmp_path, authority):
    now = datetime.now(UTC)
    stranger = issue(create_authority(CLUSTER, now), Identity(CLUSTER, Kind.OPERATOR, "mallory"), now)
    async with serving(tls="mutual", directory=tmp_path) as server:
        for context in (client(tmp_path, authority, None), client(tmp_path, authority, stranger), None):
            assert await gets_nothing(server.port, context)
        elsewhere = issue(authority, Identity("hm-another11", Kind.OPERATOR, "eve"), now)
        answer = await ask(server.port, context=client(tmp_path, authority, elsewhere))
        assert b"403 Forbidden" in answer
        assert b"belongs to cluster hm-another11" in answer


async def test_who_never_finishes_the_handshake_loses_its_place(tmp_path, authority, monkeypatch):
    monkeypatch.setattr(exposition, "DEADLINE", 0.3)
    proof = issue(authority, Identity(CLUSTER, Kind.VIEWER, "prometheus"), datetime.now(UTC))
    async with serving(tls="mutual", directory=tmp_path) as server, crowd(server.port):
        assert b"200 OK" in await ask(server.port, context=client(tmp_path, authority, proof))


async def test_a_certificate_that_is_none(tmp_path, authority):
    (tmp_path / "node.pem").write_text("nothing")
    with pytest.raises(PkiError, match="metrics cannot use the certificate in"):
        async with serving(tls="mutual", directory=tmp_path):
            pass
