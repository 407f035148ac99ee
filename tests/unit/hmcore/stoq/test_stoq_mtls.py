"""Who gets in, over real UDP. Everybody else is refused before the service, or even the session, sees a byte of theirs.

The intruder is plain aioquic: it sends its Hello and a call the moment its own handshake is complete, without waiting for a welcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from aioquic import tls
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from stoq_world import CLUSTER, PATIENCE, Recorder, World, dialled, identity, listening, local, pair, until

from hmcore.api import Empty, Method
from hmcore.errors import HandshakeRefused, PeerUnreachable, PermissionDenied, PkiError
from hmcore.pki import Kind
from hmcore.stoq import mtls
from hmcore.stoq.endpoint import Credentials
from hmcore.stoq.frames import Call, Hello, encode
from hmcore.stoq.quic import QuicWire
from hmcore.stoq.rpc import Router, invoke
from hmcore.stoq.session import Session

Bad = Callable[[World], Credentials | None]


class Intruder(QuicConnectionProtocol):
    ended: ConnectionTerminated | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.ended = event


async def intrude(
    port: int,
    world: World,
    credentials: Credentials | None,
    *,
    name: str = "n2",
    alpn: str = "stoq/1",
    content: Callable[[], object] = lambda: False,
) -> ConnectionTerminated | None:
    """How the intruder's connection ended; None if `content` came first."""
    setup = QuicConfiguration(is_client=True, alpn_protocols=[alpn], server_name=identity("n1").dns)
    setup.cadata = world.authority.certificate
    if credentials is not None:
        setup.certificate = x509.load_pem_x509_certificate(credentials.certificate)
        setup.private_key = load_pem_private_key(credentials.key, None)
    async with connect("127.0.0.1", port, configuration=setup, create_protocol=Intruder, wait_connected=False) as peer:
        assert isinstance(peer, Intruder)
        for stream, frame in ((0, Hello(1, 1, CLUSTER, name, "control", "r1")), (4, Call("steal", b"everything"))):
            peer._quic.send_stream_data(stream, encode(frame), end_stream=True)
        peer.transmit()
        await until(lambda: peer.ended is not None or content())
        return peer.ended


@pytest.fixture
def session_bytes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every byte that any session was given."""
    seen: list[bytes] = []
    receive = Session.receive

    def spy(self: Session, stream: int, data: bytes, end: bool, now: float) -> None:
        seen.append(data)
        receive(self, stream, data, end, now)

    monkeypatch.setattr(Session, "receive", spy)
    return seen


NOT_WELCOME: dict[str, tuple[Bad, str]] = {
    "none": (lambda world: None, "a certificate of the cluster is required"),
    "stranger's CA": (lambda world: world.strange("n2"), "signed by another CA"),
    "expired": (lambda world: world.expired("n2"), "expired on"),
    "not yet valid": (lambda world: world.early("n2"), "not valid before"),
    "server-only usage": (lambda world: world.server_only("n2"), "may not be used to make connections"),
    "another cluster's": (lambda world: world.credentials("n2", cluster="hm-zzzzzzzzzz"), "belongs to cluster hm-zzzzzzzzzz"),
    "expired operator": (lambda world: world.expired("alice", Kind.OPERATOR), "expired on"),
    "the CA's own": (lambda world: Credentials(b"", world.authority.certificate, world.authority.key), "says not whom it was issued to"),
}


@pytest.mark.parametrize(("bad", "reason"), NOT_WELCOME.values(), ids=NOT_WELCOME.keys())
async def test_intruders_are_refused_before_a_byte_of_theirs_is_read(
    bad: Bad, reason: str, world: World, session_bytes: list[bytes]
) -> None:
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener:
        ended = await intrude(listener.port, world, bad(world))
        assert ended is not None
        assert reason in ended.reason_phrase
        assert ended.error_code == 0x100 + tls.AlertDescription.bad_certificate
        assert service.calls == []
        assert session_bytes == []
        assert listener.connections == frozenset()
        assert listener.handshakes == 0


async def test_the_intruder_gets_in_with_a_good_certificate(world: World) -> None:
    """The control experiment: what is refused above is the certificate, not the intruder's way of speaking."""
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener:
        assert await intrude(listener.port, world, world.credentials("n2"), content=lambda: service.calls) is None
        [(peer, method, _)] = service.calls
        assert (peer.identity, method) == (identity("n2"), "steal")


@pytest.mark.parametrize("case", [name for name in NOT_WELCOME if name != "none"])
async def test_the_dialer_learns_why_it_is_refused(case: str, world: World) -> None:
    bad, reason = NOT_WELCOME[case]
    credentials = bad(world)
    assert credentials is not None
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener:
        with pytest.raises(HandshakeRefused, match=reason) as refused:
            await enter(listener.port, replace(credentials, ca=world.authority.certificate))
        assert refused.value.host == "n1"
        assert refused.value.message.startswith("it refuses us: ")
        assert service.calls == []


async def enter(port: int, credentials: Credentials, timeout: float = PATIENCE) -> None:
    async with dialled(port, credentials, local("n2"), timeout=timeout) as connection:
        await connection.call("steal", b"", timeout=PATIENCE)


IMPOSTORS: dict[str, tuple[Callable[[World], Credentials], str]] = {
    "stranger's CA": (lambda world: world.strange("n1"), "signed by another CA"),
    "expired": (lambda world: world.expired("n1"), "expired on"),
    "not yet valid": (lambda world: world.early("n1"), "not valid before"),
    "client-only usage": (lambda world: world.client_only("n1"), "may not be used to accept connections"),
    "an operator": (lambda world: world.credentials("n1", Kind.OPERATOR), "may not be used to accept connections"),
    "another node": (lambda world: world.credentials("n3"), "belongs to node n3, not to node n1"),
    "another cluster's": (lambda world: world.credentials("n1", cluster="hm-zzzzzzzzzz"), "belongs to cluster hm-zzzzzzzzzz"),
}


@pytest.mark.parametrize(("impostor", "reason"), IMPOSTORS.values(), ids=IMPOSTORS.keys())
async def test_a_dialer_refuses_impostors(
    impostor: Callable[[World], Credentials], reason: str, world: World, session_bytes: list[bytes]
) -> None:
    async with listening(replace(impostor(world), ca=world.authority.certificate), Recorder()) as listener:
        with pytest.raises(HandshakeRefused, match=reason) as refused:
            await enter(listener.port, world.credentials("n2"))
        assert refused.value.message.startswith("its certificate is refused: ")
        assert session_bytes == []


async def test_hello_may_not_contradict_the_certificate(world: World) -> None:
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener:
        ended = await intrude(listener.port, world, world.credentials("n2"), name="n3")
        assert ended is not None
        assert "hello names n3" in ended.reason_phrase
        assert service.calls == []


async def test_another_protocol_is_refused_in_the_handshake(world: World, session_bytes: list[bytes]) -> None:
    async with listening(world.credentials("n1"), Recorder()) as listener:
        ended = await intrude(listener.port, world, world.credentials("n2"), alpn="h3")
        assert ended is not None
        assert "ALPN" in ended.reason_phrase
        assert session_bytes == []


async def test_the_peer_is_who_its_certificate_says(world: World) -> None:
    service = Recorder()
    async with (
        listening(world.credentials("n1"), service) as listener,
        dialled(listener.port, world.credentials("eve", Kind.VIEWER), local("eve", Kind.VIEWER)) as connection,
    ):
        await connection.call("look", b"", timeout=PATIENCE)
        [(peer, _, _)] = service.calls
        assert peer.identity == identity("eve", Kind.VIEWER)
        assert connection.peer.identity == identity("n1")


async def test_a_viewer_passes_tls_and_is_still_refused_what_operators_do(world: World) -> None:
    touched = []
    denied = []

    async def change(peer: object, request: Empty) -> Empty:
        touched.append(peer)
        return Empty()

    method = Method("cluster.change", Empty, Empty)
    router = Router({method: ({Kind.OPERATOR}, change)}, denied=lambda peer, name: denied.append((peer.identity.name, name)))
    async with listening(world.credentials("n1"), router) as listener:  # type: ignore[arg-type]
        async with dialled(listener.port, world.credentials("eve", Kind.VIEWER), local("eve", Kind.VIEWER)) as viewer:
            with pytest.raises(PermissionDenied, match=r"viewer eve may not call cluster\.change"):
                await invoke(viewer, method, Empty(), timeout=PATIENCE)
        assert touched == []
        assert denied == [("eve", "cluster.change")]
        async with dialled(listener.port, world.credentials("alice", Kind.OPERATOR), local("alice", Kind.OPERATOR)) as operator:
            await invoke(operator, method, Empty(), timeout=PATIENCE)
        assert len(touched) == 1


# When aioquic changes, the following must fail, loudly and closed.


def test_the_private_parts_that_we_rely_on_exist() -> None:
    assert callable(tls.Context._server_handle_certificate)
    assert callable(tls.Context._client_handle_certificate)
    context = tls.Context(is_client=False)
    assert context._request_client_certificate is False
    assert context._peer_certificate is None
    assert mtls.KEY_EXCHANGE in context._supported_groups


async def test_a_dialer_makes_one_key_for_the_exchange_and_not_one_for_each_that_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[list[int]] = []
    push = tls.push_client_hello

    def watched(buffer: tls.Buffer, hello: tls.ClientHello) -> None:
        offered.append([group for group, _ in hello.key_share])
        push(buffer, hello)

    monkeypatch.setattr(tls, "push_client_hello", watched)
    async with listening(world.credentials("n1"), Recorder()) as listener, dialled(listener.port, world.credentials("n2"), local("n2")):
        assert offered == [[mtls.KEY_EXCHANGE]]


async def test_a_server_that_no_longer_asks_for_certificates_lets_nobody_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls.Context, "_request_client_certificate", property(lambda self: False, lambda self, value: None), raising=False)
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener:
        with pytest.raises(HandshakeRefused, match="without a certificate that we judged"):
            await enter(listener.port, world.credentials("n2"))
        assert service.calls == []


async def test_a_hook_that_is_no_longer_called_lets_nobody_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """aioquic handles the certificate in a method of another name: ours is still there, and never called."""
    handle = tls.Context._server_handle_certificate
    message = tls.Context._handle_reassembled_message

    def renamed(self: tls.Context, message_type: int, input_buf: object, output_buf: object) -> None:
        if self.state == tls.State.SERVER_EXPECT_CERTIFICATE:
            handle(self, input_buf)  # type: ignore[arg-type]
        else:
            message(self, message_type=message_type, input_buf=input_buf, output_buf=output_buf)  # type: ignore[arg-type]

    monkeypatch.setattr(tls.Context, "_handle_reassembled_message", renamed)
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener:
        with pytest.raises(HandshakeRefused, match="without a certificate that we judged"):
            await enter(listener.port, world.credentials("n2"))
        assert service.calls == []


async def test_a_hook_that_is_gone_lets_nobody_in(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener:
        monkeypatch.delattr(tls.Context, "_server_handle_certificate")
        with pytest.raises(PeerUnreachable):
            await enter(listener.port, world.credentials("n2"), timeout=0.3)
        assert service.calls == []
        assert listener.connections == frozenset()
    assert "reading a datagram failed" in caplog.text


async def test_the_other_private_parts_that_we_use_exist(world: World) -> None:
    """Those of quic.py. Where one is gone this fails by name, rather than calls in strange ways."""
    async with pair(world, Recorder()) as (connection, _):
        stream = await connection.open_stream("echo")
        await stream.send(b"x")
        wire = connection._wire
        assert isinstance(wire, QuicWire)
        quic, sender = wire._quic, wire._quic._streams[stream._id].sender
        space = quic._spaces[tls.Epoch.ONE_RTT]
        for owner, names in (
            (quic, "_loss _close_event _close_pending _network_paths _ack_delay _remote_initial_source_connection_id"),
            (sender, "_buffer_start _buffer_stop _reset_error_code"),
            (quic._loss, "max_ack_delay on_ack_received _time_of_last_sent_ack_eliciting_packet"),
            (space, "ack_at ack_queue ack_eliciting_in_flight largest_received_time sent_packets"),
        ):
            assert [name for name in names.split() if not hasattr(owner, name)] == []


def test_without_a_ca_nothing_starts(world: World) -> None:
    """aioquic would fall back to the public certificate authorities."""
    credentials = replace(world.credentials("n1"), ca=b"")
    with pytest.raises(PkiError, match="no cluster CA"):
        mtls.configuration(credentials, server=None)


def test_the_key_stays_out_of_logs(world: World) -> None:
    credentials = world.credentials("n1")
    assert b"PRIVATE" in credentials.key
    assert "PRIVATE" not in repr(credentials)
