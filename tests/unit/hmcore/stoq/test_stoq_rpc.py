"""Typed calls and the table of who may call what, without a wire between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stoq_world import identity

from hmcore.api import PING, Empty, Method, PingReply
from hmcore.errors import (
    Backpressure,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    FrameError,
    InternalFault,
    InvalidRequest,
    NothingListens,
    NotLeader,
    PeerUnreachable,
    PermissionDenied,
)
from hmcore.pki import Kind
from hmcore.stoq.faults import kind_of
from hmcore.stoq.greeting import Peer
from hmcore.stoq.rpc import Router, invoke

NODE = Peer(identity("n2"), "control", "r1", 1)
VIEWER = Peer(identity("eve", Kind.VIEWER), "", "", 1)


class Wired:
    """A Caller that hands calls straight to a service, as `peer`."""

    def __init__(self, router: Router, peer: Peer = NODE) -> None:
        self.router, self.peer = router, peer

    async def call(self, method: str, body: bytes, *, timeout: float) -> bytes:
        return await self.router.call(self.peer, method, body)


async def ping(peer: Peer, request: Empty) -> PingReply:
    return PingReply(name=peer.identity.name, unix_time=1.5)


class ProposeRequest(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    command: bytes


class ProposeReply(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    result: bytes


PROPOSE = Method("cluster.propose", ProposeRequest, ProposeReply)


async def propose(peer: Peer, request: ProposeRequest) -> ProposeReply:
    match request.command:
        case b"not here":
            raise NotLeader("ask n3", leader="n3")
        case b"slow":
            raise CallTimeout("n3 did not answer", fix="look at n3")
        case b"bug":
            raise ValueError("s3cret")
        case command:
            return ProposeReply(index=7, result=command)


ROUTER = Router({PING: ({Kind.NODE, Kind.OPERATOR, Kind.VIEWER}, ping), PROPOSE: ({Kind.NODE, Kind.OPERATOR}, propose)})


async def test_requests_and_answers_are_typed() -> None:
    assert await invoke(Wired(ROUTER), PING, Empty(), timeout=1) == PingReply(name="n2", unix_time=1.5)
    assert await invoke(Wired(ROUTER), PROPOSE, ProposeRequest(id="1", command=b"x"), timeout=1) == ProposeReply(index=7, result=b"x")


async def test_who_may_not_call_is_denied_before_the_body_is_read() -> None:
    denied = []
    router = Router({PROPOSE: ({Kind.NODE}, propose)}, denied=lambda peer, method: denied.append((str(peer.identity), method)))
    with pytest.raises(PermissionDenied, match=r"viewer eve may not call cluster\.propose"):
        await router.call(VIEWER, PROPOSE.name, b"\xc1 no body at all")
    assert denied == [("viewer eve", "cluster.propose")]


async def test_an_unknown_method_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match=r"no method 'no\.such' here"):
        await ROUTER.call(NODE, "no.such", b"")


@given(st.binary(max_size=60))
async def test_any_body_is_answered_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest, NotLeader):
        msgspec.msgpack.decode(await ROUTER.call(NODE, PROPOSE.name, body), type=ProposeReply)


async def test_a_refusal_passes_as_it_is() -> None:
    with pytest.raises(NotLeader) as refused:
        await invoke(Wired(ROUTER), PROPOSE, ProposeRequest(id="1", command=b"not here"), timeout=1)
    assert refused.value.leader == "n3"


async def test_another_error_of_ours_keeps_its_words(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InternalFault, match="n3 did not answer") as fault:
        await invoke(Wired(ROUTER), PROPOSE, ProposeRequest(id="1", command=b"slow"), timeout=1)
    assert fault.value.fix == "look at n3"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_bug_is_logged_once_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InternalFault) as fault:
        await invoke(Wired(ROUTER), PROPOSE, ProposeRequest(id="1", command=b"bug"), timeout=1)
    assert "ValueError" in fault.value.message
    assert "s3cret" not in fault.value.message
    [record] = caplog.records
    assert record.exc_info is not None


async def test_an_answer_of_another_type_is_a_frame_error() -> None:
    async def lie(peer: Peer, request: Empty) -> Empty:
        return Empty()

    method: Method[Empty, PingReply] = Method("node.ping", Empty, PingReply)
    with pytest.raises(FrameError, match=r"node\.ping: the answer is no PingReply"):
        await invoke(Wired(Router({method: ({Kind.NODE}, lie)})), PING, Empty(), timeout=1)


async def test_how_every_call_ended_is_observed_and_strangers_choose_no_names() -> None:
    seen: list[tuple[str, str]] = []

    def observe(method: str, outcome: str, seconds: float) -> None:
        assert 0 <= seconds < 5
        seen.append((method, outcome))

    router = Router({PING: ({Kind.NODE, Kind.VIEWER}, ping), PROPOSE: ({Kind.NODE}, propose)}, observe=observe)

    async def call(peer: Peer, method: str, body: bytes) -> None:
        with contextlib.suppress(CallRefused):
            await router.call(peer, method, body)

    await call(NODE, PING.name, msgspec.msgpack.encode(Empty()))
    await call(VIEWER, PROPOSE.name, b"")
    await call(NODE, PROPOSE.name, b"\xc1")
    for command in (b"not here", b"slow", b"bug"):
        await call(NODE, PROPOSE.name, msgspec.msgpack.encode(ProposeRequest(id="1", command=command)))
    await call(NODE, "no.such.thing", b"")
    assert seen == [
        (PING.name, ""),
        (PROPOSE.name, "permission-denied"),
        (PROPOSE.name, "invalid-request"),
        (PROPOSE.name, "not-leader"),
        (PROPOSE.name, "internal"),
        (PROPOSE.name, "internal"),
        ("unknown", "invalid-request"),
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CallTimeout("slow"), "timeout"),
        (PeerUnreachable("gone"), "unreachable"),
        (NothingListens("nobody"), "unreachable"),
        (ConnectionLost("broken"), "connection-lost"),
        (Backpressure("full"), "backpressure"),
        (FrameError("garbage"), "frame"),
        (NotLeader("ask n3", leader="n3"), "not-leader"),
        (asyncio.CancelledError(), "cancelled"),
        (ValueError("a bug"), "internal"),
    ],
)
def test_what_kept_a_call_from_being_answered_has_a_word(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind
