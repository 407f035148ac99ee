"""Many small calls on one stream: whatever the wire reorders, each is settled once; and everything a peer may not say on a lane."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stoq_talk import Talk, acceptor, dialer, greeted
from stoq_world import CLUSTER

from hmcore.errors import FrameError
from hmcore.stoq import lane, quota
from hmcore.stoq.events import Abandoned, Abort, Answered, Called, Event, Write
from hmcore.stoq.frames import Apart, Ask, Call, Denied, Drop, Dropped, Fault, Frame, Hello, Item, Reply, Said, Welcome, encode
from hmcore.stoq.lane import MAX_CALLS, SMALL
from hmcore.stoq.session import Session

HELLO = Hello(1, 2, CLUSTER, "n2", "control", "r1")
LARGE = bytes(SMALL + 1)


def idle(talk: Talk) -> bool:
    ends = (talk.dialer, talk.acceptor)
    return all(end.streams == 0 and end._quota.held == 0 and not end._dropped for end in ends)


def called(talk: Talk) -> list[int]:
    """The calls that the acceptor has heard of since the last look."""
    return [event.stream for event in talk.heard(talk.acceptor) if isinstance(event, Called)]


def test_small_calls_share_a_stream_that_stays() -> None:
    talk = greeted()
    for _ in range(3):
        calls = [talk.dialer.call("a", b"") for _ in range(5)]
        talk.run()
        heard = called(talk)
        for call in reversed(heard):
            talk.acceptor.answer(call, Reply(b"%d" % call))
        talk.run()
        assert talk.heard(talk.dialer) == [
            Answered(ours, Reply(b"%d" % theirs)) for ours, theirs in reversed(list(zip(calls, heard, strict=True)))
        ]
    assert {write.stream for write in talk.writes} == {4}
    assert not any(isinstance(write, Abort) or write.end for write in talk.writes)
    assert idle(talk)


@pytest.mark.parametrize(("size", "streams"), [(SMALL - 1, 1), (SMALL, 2)])
def test_a_large_call_has_a_stream_of_its_own(size: int, streams: int) -> None:
    talk = greeted()
    talk.dialer.call("a", b"")
    talk.dialer.call("b", bytes(size))
    talk.run()
    assert len({write.stream for write in talk.writes}) == streams
    for call in called(talk):
        talk.acceptor.answer(call, Reply(b""))
    talk.run()
    assert len(talk.heard(talk.dialer)) == 2
    assert idle(talk)


def test_a_large_answer_has_a_stream_of_its_own() -> None:
    talk = greeted()
    large, small = talk.dialer.call("large", b""), talk.dialer.call("small", b"")
    talk.run()
    first, second = called(talk)
    talk.acceptor.answer(first, Reply(LARGE))
    talk.acceptor.answer(second, Reply(bytes(SMALL)))
    assert [(write.stream, len(write.data) > SMALL) for write in talk.acceptor._writes if isinstance(write, Write)] == [
        (1, True),
        (4, False),  # that it comes on another stream
        (4, True),
    ]
    talk.run()
    assert talk.heard(talk.dialer) == [Answered(large, Reply(LARGE)), Answered(small, Reply(bytes(SMALL)))]
    assert idle(talk)


def test_calls_of_a_method_with_large_answers_have_streams_of_their_own_until_one_is_small() -> None:
    talk = greeted()
    streams = []
    for size in (len(LARGE), len(LARGE), SMALL, SMALL):
        ours = talk.dialer.call("a", b"")
        talk.run()
        [call] = called(talk)
        talk.acceptor.answer(call, Reply(bytes(size)))
        talk.run()
        assert talk.heard(talk.dialer) == [Answered(ours, Reply(bytes(size)))]
        streams.append({write.stream for write in talk.writes})
        talk.writes.clear()
        assert idle(talk)
    assert streams == [{4, 1}, {8}, {12}, {4}]


def test_a_large_answer_to_a_large_call_is_learnt_from_too() -> None:
    talk = greeted()
    talk.dialer.call("a", LARGE)
    talk.run()
    [call] = called(talk)
    talk.acceptor.answer(call, Reply(LARGE))
    talk.run()
    assert talk.dialer.call("a", b"") > 0


def test_what_is_learnt_of_a_method_does_not_depend_on_which_stream_comes_first() -> None:
    talk = greeted()
    talk.dialer.call("a", b"")
    talk.run()
    [call] = called(talk)
    talk.acceptor.answer(call, Reply(LARGE))
    apart, word = talk.acceptor.take_writes()
    for write in (word, apart):
        assert isinstance(write, Write)
        talk.dialer.receive(write.stream, write.data, write.end, 0.0)
    talk.run()
    assert len(talk.heard(talk.dialer)) == 1
    assert talk.dialer.call("a", b"") > 0
    assert talk.dialer.call("b", b"") < 0


def test_many_large_answers_at_once_do_not_use_up_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_APART", 2)
    talk = greeted()
    calls = [talk.dialer.call("a", b"") for _ in range(5)]
    again = talk.dialer.call("b", b"")
    talk.run()
    *many, last = called(talk)
    for call in many:
        talk.acceptor.answer(call, Reply(LARGE))
    assert {write.stream for write in talk.acceptor._writes} == {1, 4, 5}
    talk.run()
    assert sorted(event.stream for event in talk.heard(talk.dialer) if isinstance(event, Answered)) == sorted(calls)
    talk.acceptor.answer(last, Reply(LARGE))
    assert {write.stream for write in talk.acceptor._writes} == {4, 9}  # those that arrived count no longer
    talk.run()
    assert talk.heard(talk.dialer) == [Answered(again, Reply(LARGE))]
    assert idle(talk)


def test_a_reply_that_is_too_large_changes_nothing() -> None:
    talk = greeted()
    ours = talk.dialer.call("a", b"")
    talk.run()
    [call] = called(talk)
    with pytest.raises(FrameError, match="too large"):
        talk.acceptor.answer(call, Reply(bytes(17 * 1024 * 1024)))
    assert talk.acceptor._writes == []
    talk.acceptor.answer(call, Fault("internal", "too large"))
    talk.run()
    assert talk.heard(talk.dialer) == [Answered(ours, Fault("internal", "too large"))]
    assert idle(talk)


def test_a_large_answer_that_nobody_wants_any_more_is_not_sent_to_its_end() -> None:
    talk = greeted()
    ours = talk.dialer.call("a", b"")
    talk.run()
    [call] = called(talk)
    talk.acceptor.answer(call, Reply(LARGE))
    apart, word = talk.acceptor.take_writes()
    assert isinstance(apart, Write)
    assert isinstance(word, Write)
    talk.dialer.receive(apart.stream, apart.data[:1000], False, 0.0)
    talk.dialer.receive(word.stream, word.data, False, 0.0)
    talk.dialer.abandon(ours)
    talk.run()
    assert [write for write in talk.writes if isinstance(write, Abort)] == [Abort(apart.stream)] * 2  # each end its half
    assert talk.heard(talk.dialer) == talk.heard(talk.acceptor) == []
    assert idle(talk)


def test_one_more_than_the_other_end_takes_has_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_CALLS", 3)
    talk = greeted()
    ours = [talk.dialer.call("a", b"") for _ in range(3)]
    assert not talk.dialer.may_call("a", b"")
    assert talk.dialer.may_call("a", LARGE)
    talk.dialer.abandon(ours[0])
    assert not talk.dialer.may_call("a", b"")  # the other end has to say so
    talk.run()
    assert talk.dialer.may_call("a", b"")
    talk.acceptor.answer(called(talk)[1], Reply(b""))
    talk.run()
    for _ in range(2):
        assert talk.dialer.may_call("a", b"")
        talk.dialer.call("a", b"")
    assert not talk.dialer.may_call("a", b"")
    talk.run()


class Disorder:
    """Two sessions whose streams overtake each other. `rng` decides what is delivered next; each stream stays in order."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ends = (dialer(), acceptor())
        self.waiting: tuple[dict[int, deque[Write | Abort]], ...] = ({}, {})  # for the end with this index
        self.outcomes: dict[tuple[int, int], list[str]] = {}  # (end, call) -> what became of it
        self.bodies: dict[tuple[int, int], bytes] = {}
        self.asked: tuple[dict[int, bytes], ...] = ({}, {})  # at this end, not answered: call -> body
        while self.deliver():
            pass

    def deliver(self) -> bool:
        for number, end in enumerate(self.ends):
            for write in end.take_writes():
                queue = self.waiting[1 - number].setdefault(write.stream, deque())
                if isinstance(write, Abort) and self.rng.random() < 0.5:
                    queue.clear()  # QUIC may discard what an aborted stream still carried
                queue.append(write)
        full = [(number, stream) for number, queues in enumerate(self.waiting) for stream, queue in queues.items() if queue]
        if not full:
            return False
        number, stream = self.rng.choice(full)
        write, end = self.waiting[number][stream].popleft(), self.ends[number]
        if isinstance(write, Abort):
            end.aborted(stream)
        elif len(write.data) > 1 and self.rng.random() < 0.3:
            at = self.rng.randrange(len(write.data))
            self.waiting[number][stream].appendleft(Write(stream, write.data[at:], write.end))
            end.receive(stream, write.data[:at], False, 0.0)
        else:
            end.receive(stream, write.data, write.end, 0.0)
        for event in end.take_events():
            self.heard(number, event)
        return True

    def heard(self, number: int, event: Event) -> None:
        match event:
            case Called(call, _, body):
                assert call not in self.asked[number]
                self.asked[number][call] = body
            case Answered(call, Reply(body)):
                assert body.startswith(self.bodies[number, call])  # and no other call's
                self.outcomes[number, call].append("answered")
            case Answered(call, Fault(_, message)):
                assert message.encode() == self.bodies[number, call]
                self.outcomes[number, call].append("denied")
            case Abandoned(call):
                del self.asked[number][call]

    def call(self, number: int, size: int) -> None:
        if self.ends[number].may_call("m", bytes(size)):
            body = b"%d.%d." % (number, len(self.outcomes)) + bytes(size)
            call = self.ends[number].call(self.rng.choice("mnopq"), body)
            self.outcomes[number, call], self.bodies[number, call] = [], body[: body.rindex(b".") + 1]

    def answer(self, number: int, *, large: bool, denied: bool) -> None:
        if self.asked[number]:
            call = self.rng.choice(sorted(self.asked[number]))
            body = self.asked[number].pop(call)
            name = body[: body.rindex(b".") + 1]
            self.ends[number].answer(call, Fault("no", name.decode()) if denied else Reply(name + (LARGE if large else b"")))

    def abandon(self, number: int) -> None:
        living = [call for (end, call), outcome in self.outcomes.items() if end == number and not outcome]
        if living:
            call = self.rng.choice(living)
            self.ends[number].abandon(call)
            self.outcomes[number, call].append("abandoned")


DOINGS = st.sampled_from(["call", "call", "long call", "answer", "long answer", "denied", "abandon", "wire", "wire", "wire"])


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(["call", "call", "long call", "answer", "long answer", "denied", "abandon", "wire", "wire"])),
    st.integers(0, 2**32),
)
def test_every_call_is_settled_once_whatever_overtakes_what(doing: list[str], seed: int) -> None:
    rng = random.Random(seed)
    world = Disorder(rng)
    for what in doing:
        end = rng.randrange(2)
        match what:
            case "call" | "long call":
                world.call(end, len(LARGE) if what == "long call" else 0)
            case "answer" | "long answer" | "denied":
                world.answer(end, large=what == "long answer", denied=what == "denied")
            case "abandon":
                world.abandon(end)
            case _:
                world.deliver()
    while world.deliver() or any(world.asked):
        for end in (0, 1):
            world.answer(end, large=rng.random() < 0.5, denied=False)
    assert all(len(outcome) == 1 for outcome in world.outcomes.values()), Counter(map(tuple, world.outcomes.values()))
    for session in world.ends:
        assert session.streams == 0
        assert session._quota.held == 0
        assert not session._dropped


def asked(numbers: int, *, answered: tuple[int, ...] = ()) -> Session:
    """A session whose dialer has made so many calls."""
    session = acceptor()
    session.receive(0, encode(HELLO), True, 0.0)
    for number in range(1, numbers + 1):
        session.receive(4, encode(Ask(number, "a", b"")), False, 0.0)
    for number in answered:
        session.answer(-2 * number - 1, Reply(b""))
    return session


@pytest.mark.parametrize(
    ("stream", "frame", "reason"),
    [
        (4, Ask(2, "a", b""), "call 2 after call 2"),  # one under way
        (4, Ask(1, "a", b""), "call 1 after call 2"),  # one that was answered
        (4, Ask(4, "a", b""), "call 4 after call 2"),
        (4, Ask(-1, "a", b""), "call -1 after call 2"),
        (8, Ask(3, "a", b""), "a second lane"),
        (4, Drop(3), "call 3 was dropped, which was never made"),
        (4, Drop(0), "call 0 was dropped, which was never made"),
        (4, Said(1, b""), r"said where none may be \(answering\)"),
        (4, Call("a", b""), "call where none may be"),
        (4, Item(b""), "item where none may be"),
        (8, Drop(1), "drop where none may be"),
        (8, Apart(1), "apart where none may be"),
        (8, Said(1, b""), "an answer to call 1, which was never made"),
        (4, b"", "a lane ended"),
    ],
    ids=str,
)
def test_what_a_caller_may_not_say(stream: int, frame: Frame | bytes, reason: str) -> None:
    session = asked(2, answered=(1,))
    with pytest.raises(FrameError, match=reason):
        session.receive(stream, frame if isinstance(frame, bytes) else encode(frame), True, 0.0)


@pytest.mark.parametrize(
    ("stream", "frame", "reason"),
    [
        (4, Said(1, b""), "call 1 was settled that was not under way"),  # answered already
        (4, Said(4, b""), "call 4 was settled that was not under way"),
        (4, Said(-2, b""), "call -2 was settled that was not under way"),
        (4, Denied(1, Fault("no", "")), "call 1 was settled that was not under way"),
        (4, Apart(1), "call 1 was settled that was not under way"),
        (4, Dropped(2), "call 2 was settled that was not under way"),  # nobody dropped it
        (1, Said(4, b""), "an answer to call 4, which was never made"),
        (4, Ask(1, "a", b""), r"ask where none may be \(asking\)"),
        (4, Drop(2), "drop where none may be"),
        (4, Reply(b""), "reply where none may be"),
        (4, b"", "a lane ended"),
    ],
    ids=str,
)
def test_what_an_answering_end_may_not_say(stream: int, frame: Frame | bytes, reason: str) -> None:
    session = dialer()
    session.receive(0, encode(Welcome(2, CLUSTER, "n1", "control", "r1")), True, 0.0)
    for _ in range(3):
        session.call("a", b"")
    session.receive(4, encode(Said(1, b"")), False, 0.0)
    with pytest.raises(FrameError, match=reason):
        session.receive(stream, frame if isinstance(frame, bytes) else encode(frame), True, 0.0)


@pytest.mark.parametrize("frame", [Ask(1, "a", b""), Said(1, b"")])
def test_an_end_without_lanes_is_not_asked_on_one(frame: Frame) -> None:
    session = acceptor(protocols=(1, 1))
    session.receive(0, encode(HELLO), True, 0.0)
    with pytest.raises(FrameError, match="where none may be"):
        session.receive(4, encode(frame), False, 0.0)


def test_a_lane_is_not_cut_off() -> None:
    session = asked(1)
    with pytest.raises(FrameError, match="a lane was cut off"):
        session.aborted(4)
    talk = greeted()
    talk.dialer.call("a", b"")
    with pytest.raises(FrameError, match="a lane was cut off"):
        talk.dialer.aborted(4)


def test_how_many_calls_are_under_way_is_bounded() -> None:
    session = asked(MAX_CALLS)
    with pytest.raises(FrameError, match="over 1024 calls at once"):
        session.receive(4, encode(Ask(MAX_CALLS + 1, "a", b"")), False, 0.0)
    session = asked(MAX_CALLS, answered=(7,))
    session.receive(4, encode(Ask(MAX_CALLS + 1, "a", b"")), False, 0.0)
    with pytest.raises(FrameError, match="over 1024 calls at once"):
        session.receive(4, encode(Ask(MAX_CALLS + 2, "a", b"")), False, 0.0)


def test_what_calls_make_us_keep_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_HELD", 10_000)
    session = asked(0)
    number = 0
    for _ in range(30):  # answered and dropped ones are not kept
        for frame in (Ask(number + 1, "a", bytes(4000)), Ask(number + 2, "a" * 4000, b"")):
            session.receive(4, encode(frame), False, 0.0)
        session.answer(-2 * (number + 1) - 1, Reply(b""))
        session.receive(4, encode(Drop(number + 2)), False, 0.0)
        number += 2
    assert session._quota.held == 0
    session.receive(4, encode(Ask(number + 1, "a" * 4000, bytes(4000))), False, 0.0)
    with pytest.raises(FrameError, match="incomplete frames and unanswered calls"):
        session.receive(4, encode(Ask(number + 2, "a", bytes(2000))), False, 0.0)


def test_dropping_again_and_again_leaves_nothing() -> None:
    session = asked(1)
    session.take_writes()
    for _ in range(3):
        session.receive(4, encode(Drop(1)), False, 0.0)
    assert session.take_writes() == [Write(4, encode(Dropped(1)))]
    assert session.streams == 0
