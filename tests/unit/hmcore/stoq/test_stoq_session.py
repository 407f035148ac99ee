"""Whole conversations between two sessions, without a socket; and everything a peer may not say."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stoq_talk import Talk, acceptor, dialer, greeted
from stoq_world import CLUSTER, identity, local
from test_stoq_frames import frames

from hmcore.errors import FrameError
from hmcore.pki import Identity, Kind
from hmcore.stoq import quota
from hmcore.stoq.events import Abandoned, Answered, Called, Credited, Ended, Opened, Received, Refused, Welcomed, Write
from hmcore.stoq.frames import Apart, Ask, Call, Credit, Drop, Fault, Frame, Hello, Item, Open, Reply, Said, Welcome, encode
from hmcore.stoq.greeting import PROTOCOLS, Acceptor, Dialer, certified, vouched
from hmcore.stoq.session import Session
from hmcore.stoq.window import OVERHEAD, WINDOW

HELLO = Hello(1, 1, CLUSTER, "n2", "control", "r1")


def test_greeting_tells_each_who_the_other_is() -> None:
    talk = Talk()
    [welcomed] = talk.heard(talk.acceptor)
    assert isinstance(welcomed, Welcomed)
    peer = welcomed.peer
    assert (peer.identity, peer.role, peer.release, peer.protocol) == (identity("n2"), "control", "r1", PROTOCOLS[1])
    [welcomed] = talk.heard(talk.dialer)
    assert isinstance(welcomed, Welcomed)
    assert welcomed.peer.identity == identity("n1")
    assert talk.dialer.streams == talk.acceptor.streams == 0


@pytest.mark.parametrize(
    ("left", "right", "kind", "reason"),
    [
        (
            dialer(protocols=(2, 3)),
            acceptor(protocols=(1, 1)),
            "protocol",
            "this node speaks STOQ/1, the dialer STOQ/2 to STOQ/3: upgrade the older one",
        ),
        (
            dialer(protocols=(1, 1)),
            acceptor(protocols=(2, 2)),
            "protocol",
            "this node speaks STOQ/2, the dialer STOQ/1: upgrade the older one",
        ),
        (dialer(), Session(Acceptor(local("n1"), certified(identity("n3")))), "identity", "hello names n2"),
        (dialer(), Session(Acceptor(local("n1"), certified(identity("n2", cluster="hm-other")))), "identity", "of hm-other"),
        (dialer(), acceptor(admit=lambda peer: f"{peer.identity} is here already"), "not-admitted", "node n2 is here already"),
        (Session(Dialer(None, author="No Label")), Session(Acceptor(local("n1"), vouched(CLUSTER))), "identity", "is no name"),
    ],
)
def test_refusals_reach_both_ends_with_their_reason(left: Session, right: Session, kind: str, reason: str) -> None:
    talk = Talk(left, right)
    for end in (talk.dialer, talk.acceptor):
        [refused] = talk.heard(end)
        assert isinstance(refused, Refused)
        assert refused.kind == kind
        assert reason in refused.reason


def test_the_highest_common_version_is_spoken() -> None:
    talk = Talk(dialer(protocols=(1, 4)), acceptor(protocols=(2, 3)))
    [welcomed] = talk.heard(talk.acceptor)
    assert isinstance(welcomed, Welcomed)
    assert welcomed.peer.protocol == 3


def test_a_socket_that_root_opened_speaks_for_an_operator() -> None:
    talk = Talk(Session(Dialer(None, author="alice")), Session(Acceptor(local("n1"), vouched(CLUSTER))))
    [welcomed] = talk.heard(talk.acceptor)
    assert isinstance(welcomed, Welcomed)
    assert welcomed.peer.identity == Identity(CLUSTER, Kind.OPERATOR, "alice")


def at_other_end(call: int) -> int:
    """The call's id there: calls on lanes are numbered for each end."""
    return call if call >= 0 else call - 1


RELEASES = [((1, 1), (1, 1)), ((1, 1), (1, 2)), ((1, 2), (1, 1)), ((1, 2), (1, 2))]  # what the dialer speaks, and the acceptor
between_releases = pytest.mark.parametrize("speaking", RELEASES, ids=lambda speaking: f"{speaking[0][1]}-{speaking[1][1]}")


def between(speaking: tuple[tuple[int, int], tuple[int, int]]) -> Talk:
    return greeted(dialer(protocols=speaking[0]), acceptor(protocols=speaking[1]))


@between_releases
@pytest.mark.parametrize("size", [0, 1_000_000])
def test_calls_are_answered_and_leave_nothing_behind(speaking: tuple[tuple[int, int], tuple[int, int]], size: int) -> None:
    talk = between(speaking)
    one, two, three = (bytes([number]) + bytes(size) for number in (1, 2, 3))
    for end, other in ((talk.dialer, talk.acceptor), (talk.acceptor, talk.dialer)):
        calls = first, second = end.call("a", one), end.call("b", two)
        talk.run()
        assert talk.heard(other) == [Called(at_other_end(first), "a", one), Called(at_other_end(second), "b", two)]
        other.answer(at_other_end(second), Reply(three))
        other.answer(at_other_end(first), Fault("no-quorum", "1 of 3"))
        talk.run()
        assert talk.heard(end) == [Answered(second, Reply(three)), Answered(first, Fault("no-quorum", "1 of 3"))]
        assert [call < 0 for call in calls] == [speaking == ((1, 2), (1, 2)) and not size] * 2
        assert end.streams == other.streams == 0
        assert end._quota.held == other._quota.held == 0


@between_releases
def test_an_abandoned_call_is_told_to_who_answers_it(speaking: tuple[tuple[int, int], tuple[int, int]]) -> None:
    talk = between(speaking)
    call = talk.dialer.call("a", b"")
    talk.run()
    talk.heard(talk.acceptor)
    talk.dialer.abandon(call)
    talk.run()
    assert talk.heard(talk.acceptor) == [Abandoned(at_other_end(call))]
    talk.acceptor.answer(at_other_end(call), Reply(b"too late"))
    talk.run()
    assert talk.heard(talk.dialer) == []
    assert talk.dialer.streams == talk.acceptor.streams == 0
    assert talk.acceptor._quota.held == 0
    assert not talk.dialer._dropped


@between_releases
def test_an_answer_that_crosses_with_abandoning_is_dropped(speaking: tuple[tuple[int, int], tuple[int, int]]) -> None:
    talk = between(speaking)
    call = talk.dialer.call("a", b"")
    talk.run()
    talk.acceptor.answer(at_other_end(call), Reply(b"crossing"))
    talk.dialer.abandon(call)
    talk.run()
    assert talk.heard(talk.dialer) == []
    assert talk.dialer.streams == talk.acceptor.streams == 0
    assert not talk.dialer._dropped


def test_a_stream_carries_messages_both_ways_until_both_end_it() -> None:
    talk = greeted()
    stream = talk.dialer.open("raft")
    talk.dialer.send(stream, b"there")
    talk.run()
    assert talk.heard(talk.acceptor) == [Opened(stream, "raft"), Received(stream, b"there")]
    talk.acceptor.send(stream, b"back")
    talk.dialer.end(stream)
    talk.run()
    assert talk.heard(talk.dialer) == [Received(stream, b"back")]
    assert talk.heard(talk.acceptor) == [Ended(stream)]
    talk.acceptor.end(stream)
    talk.run()
    assert talk.heard(talk.dialer) == [Ended(stream)]
    assert talk.dialer.streams == talk.acceptor.streams == 0


def test_a_window_that_is_used_up_opens_when_messages_are_taken() -> None:
    talk = greeted()
    stream = talk.dialer.open("raft")
    message = bytes(WINDOW // 4 - OVERHEAD)
    for _ in range(4):
        assert talk.dialer.may_send(stream)
        talk.dialer.send(stream, message)
    assert not talk.dialer.may_send(stream)
    talk.run()
    talk.acceptor.taken(stream, message)
    talk.run()
    assert not talk.dialer.may_send(stream)  # credit comes in halves of a window, not message by message
    talk.acceptor.taken(stream, message)
    talk.run()
    assert talk.heard(talk.dialer) == [Credited(stream)]
    assert talk.dialer.may_send(stream)


def test_what_comes_before_its_welcome_waits_for_it() -> None:
    """The network may reorder streams: the acceptor's first call can overtake its Welcome."""
    left, right = dialer(), acceptor()
    [hello] = left.take_writes()
    assert isinstance(hello, Write)
    right.receive(hello.stream, hello.data, True, 0.0)
    right.call("early", b"")
    welcome, call = right.take_writes()
    for write in (call, welcome):
        assert isinstance(write, Write)
        left.receive(write.stream, write.data, write.end, 0.0)
    assert [type(event) for event in left.take_events()] == [Welcomed, Called]


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["raft", "heartbeat"]), st.binary(max_size=80)), max_size=30),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_messages_arrive_once_and_in_order_whatever_the_wire_does_to_them(sent: list[tuple[bool, str, bytes]], sizes: list[int]) -> None:
    endless = itertools.cycle(sizes)

    def cut(data: bytes) -> list[bytes]:
        pieces = []
        while data:
            size = next(endless)
            pieces.append(data[:size])
            data = data[size:]
        return pieces or [b""]

    talk = Talk(cut=cut)
    streams = {(end, kind): end.open(kind) for end in (talk.dialer, talk.acceptor) for kind in ("raft", "heartbeat")}
    for by_dialer, kind, payload in sent:
        end = talk.dialer if by_dialer else talk.acceptor
        end.send(streams[end, kind], payload)
    talk.run()
    for (end, kind), stream in streams.items():
        other = talk.acceptor if end is talk.dialer else talk.dialer
        got = [event.payload for event in talk.events[other] if isinstance(event, Received) and event.stream == stream]
        assert got == [payload for by_dialer, k, payload in sent if k == kind and by_dialer == (end is talk.dialer)]


WRONG_TO_ACCEPTOR: list[tuple[str, list[tuple[int, Frame | bytes, bool]]]] = [
    ("spoke before it was welcomed", [(4, Call("a", b""), True)]),
    ("greeted with welcome", [(0, Welcome(1, CLUSTER, "n1", "control", "r1"), False)]),
    ("call where none may be", [(0, Call("a", b""), True)]),
    ("hello where none may be", [(0, HELLO, False), (0, HELLO, True)]),
    ("ended before it said anything", [(0, b"", True)]),
    ("ended within a frame", [(0, b"\0\0", True)]),
    ("16384 at most", [(0, b"\0\1\0\0", False)]),
    ("not a frame", [(0, b"\0\0\0\1\xc1", False)]),
    ("reply where none may be", [(0, HELLO, True), (4, Reply(b""), True)]),
    ("item where none may be", [(0, HELLO, True), (4, Item(b""), True)]),
    ("call where none may be", [(0, HELLO, True), (4, Call("a", b""), False), (4, Call("a", b""), True)]),
    ("open where none may be", [(0, HELLO, True), (4, Open("a"), False), (4, Open("a"), True)]),
    ("ended before it said anything", [(0, HELLO, True), (4, b"", True)]),
    ("16777216 at most", [(0, HELLO, True), (4, b"\xff\0\0\0", False)]),
    ("credit for messages that were never sent", [(0, HELLO, True), (4, Open("a"), False), (4, Credit(1), False)]),
    ("credit for messages that were never sent", [(0, HELLO, True), (4, Open("a"), False), (4, Credit(-1), False)]),
]


@pytest.mark.parametrize(("reason", "said"), WRONG_TO_ACCEPTOR, ids=[f"{i}-{reason}" for i, (reason, _) in enumerate(WRONG_TO_ACCEPTOR)])
def test_what_a_dialer_may_not_say(reason: str, said: list[tuple[int, Frame | bytes, bool]]) -> None:
    session = acceptor()
    *before, (stream, frame, end) = said
    for earlier in before:
        session.receive(earlier[0], encode(earlier[1]) if not isinstance(earlier[1], bytes) else earlier[1], earlier[2], 0.0)
    with pytest.raises(FrameError, match=reason):
        session.receive(stream, frame if isinstance(frame, bytes) else encode(frame), end, 0.0)


@pytest.mark.parametrize(
    ("welcome", "reason"),
    [
        (Welcome(1, CLUSTER, "n3", "control", "r1"), "proved to be node n1 and says it is node n3"),
        (Welcome(3, CLUSTER, "n1", "control", "r1"), "chose STOQ/3, which was not offered"),
        (Welcome(1, CLUSTER, "not a name", "control", "r1"), "is no name"),
        (HELLO, "greeted with hello"),
    ],
)
def test_a_welcome_that_contradicts_the_certificate_is_none(welcome: Frame, reason: str) -> None:
    session = dialer()
    with pytest.raises(FrameError, match=reason):
        session.receive(0, encode(welcome), True, 0.0)
    assert session.take_events() == []


def test_a_flood_beyond_the_credit_ends_the_connection() -> None:
    session = acceptor()
    session.receive(0, encode(HELLO), True, 0.0)
    session.receive(4, encode(Open("raft")), False, 0.0)
    flood = encode(Item(bytes(WINDOW // 2)))
    session.receive(4, flood, False, 0.0)
    session.receive(4, flood, False, 0.0)
    with pytest.raises(FrameError, match="credit"):
        session.receive(4, flood, False, 0.0)


def test_what_one_connection_makes_us_keep_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_HELD", 1000)
    session = acceptor()
    session.receive(0, encode(HELLO), True, 0.0)
    session.receive(4, encode(Call("a" * 300, bytes(300))), True, 0.0)
    with pytest.raises(FrameError, match="incomplete frames and unanswered calls"):
        session.receive(8, encode(Call("a", bytes(600)))[:500], False, 0.0)


def test_how_many_streams_the_other_end_opens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_STREAMS", 3)
    session = acceptor()
    session.receive(0, encode(HELLO), True, 0.0)
    for stream in (4, 8, 12):
        session.receive(stream, encode(Call("a", b"")), True, 0.0)
    session.answer(4, Reply(b""))
    session.receive(16, encode(Call("a", b"")), True, 0.0)
    with pytest.raises(FrameError, match="over 3 streams"):
        session.receive(20, encode(Call("a", b"")), True, 0.0)


def test_a_frame_that_never_ends_is_noticed() -> None:
    session = acceptor()
    session.receive(0, encode(HELLO), True, 0.0)
    session.receive(4, b"\0\0", False, 10.0)
    session.receive(8, b"\0", False, 11.0)
    assert session.deadline == 10.0 + quota.STALL
    session.receive(4, b"\0", False, 12.0)  # a byte more, and the other is the oldest
    assert session.deadline == 11.0 + quota.STALL
    session.expire(11.0)
    with pytest.raises(FrameError, match="incomplete"):
        session.expire(11.0 + quota.STALL)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 4, 5, 8, 9, 400]), st.binary(max_size=60), st.booleans()), max_size=12), st.booleans())
def test_any_bytes_give_events_or_a_frame_error(said: list[tuple[int, bytes, bool]], accepting: bool) -> None:
    session = acceptor() if accepting else dialer()
    try:
        for stream, data, end in said:
            session.receive(stream, data, end, 0.0)
    except FrameError:
        pass
    assert not any(isinstance(event, Called | Opened) for event in session.take_events())  # nobody ever greeted


@pytest.mark.long
@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 4, 5, 8]),
            frames | st.sampled_from([Open("a"), Credit(40), Ask(1, "a", b"a"), Ask(2, "a", b"b"), Said(1, b""), Apart(1), Drop(1)]),
            st.booleans(),
            st.sampled_from(["", "", "", "abort", "abandon", "answer", "answer at length", "drop"]),
        ),
        max_size=20,
    ),
    st.integers(1, 2),
)
def test_any_frames_in_any_order_give_events_or_a_frame_error(said: list[tuple[int, Frame, bool, str]], protocol: int) -> None:
    session = acceptor()
    session.receive(0, encode(msgspec.structs.replace(HELLO, highest=protocol)), True, 0.0)
    ours = session.call("ours", b"")  # stream 1
    session.open("ours")  # stream 5
    called: list[int] = []
    try:
        for stream, frame, end, also in said:
            session.receive(stream, encode(frame), end, 0.0)
            called += [event.stream for event in session.take_events() if isinstance(event, Called)]
            match also:
                case "abort":
                    session.aborted(stream)
                case "abandon":
                    session.abandon(stream)
                case "drop":
                    session.abandon(ours)
                case "answer" | "answer at length" if called:
                    session.answer(called.pop(), Reply(bytes(20_000 if also == "answer at length" else 1)))
    except FrameError:
        pass
    session.take_writes()
    called += [event.stream for event in session.take_events() if isinstance(event, Called)]
    for call in called:
        session.answer(call, Reply(b""))
    assert session._quota.held == sum(state.reader.pending for state in session._streams.values())
