"""The protocol between two peers, without sockets, tasks or clocks: bytes of numbered streams in, events and writes out.

The dialer opens stream 0 with Hello; the acceptor answers Welcome or Refuse. Nothing else may be sent before. Then either side opens
streams (the dialer 4, 8, ..., the acceptor 1, 5, ..., as in QUIC): one per call, one for many small calls (lanes.py), or one that carries
messages both ways. How much may be under way on one of those is window.py's; what the other end may make us keep, quota.py's. A call's id
is its stream's, or negative on a lane.

Every method takes effect at once and queues what must be done: `take_writes` for the wire, `take_events` for the application.
"""

from __future__ import annotations

from enum import Enum, auto

from hmcore.errors import FrameError
from hmcore.stoq.events import (
    Abandoned,
    Abort,
    Answered,
    Called,
    Credited,
    Ended,
    Event,
    Opened,
    Received,
    Refused,
    Welcomed,
    Write,
)
from hmcore.stoq.frames import (
    MAX_FRAME,
    MAX_HELLO,
    Call,
    Credit,
    Fault,
    Frame,
    FrameReader,
    Hello,
    Item,
    Open,
    Refuse,
    Reply,
    Welcome,
    encode,
)
from hmcore.stoq.greeting import LANES, Acceptor, Dialer, Peer, met
from hmcore.stoq.lanes import Lanes
from hmcore.stoq.quota import Quota
from hmcore.stoq.streams import Stream, Use
from hmcore.stoq.window import OVERHEAD, Window

HELLO_STREAM = 0


class _Phase(Enum):
    GREETING = auto()
    OPEN = auto()
    OVER = auto()


class Session:
    """One connection. Methods that read bytes raise FrameError when the other end breaks the protocol: then hang up."""

    def __init__(self, greeting: Acceptor | Dialer) -> None:
        self._greeting = greeting
        self.dials = isinstance(greeting, Dialer)
        self._phase = _Phase.GREETING
        self._streams: dict[int, Stream] = {HELLO_STREAM: Stream(HELLO_STREAM, Use.HELLO, FrameReader(MAX_HELLO))}
        self._next = 4 if self.dials else 1
        self._dropped: set[int] = set()  # streams that we abandoned while the other end may still send on them
        self._early: list[tuple[int, bytes, bool]] = []
        self._quota = Quota()
        self._lanes = Lanes(self, self._quota)
        self._writes: list[Write | Abort] = []
        self._events: list[Event] = []
        if isinstance(greeting, Dialer):
            self._write(self._streams[HELLO_STREAM], greeting.hello(), end=True)

    # what the shell takes

    def take_writes(self) -> list[Write | Abort]:
        writes, self._writes = self._writes, []
        return writes

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    @property
    def streams(self) -> int:
        """How many calls and streams are not finished. Lanes never are, and do not count."""
        return len(self._streams) + self._lanes.calls

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called, unless more bytes come first."""
        return self._quota.deadline

    def expire(self, now: float) -> None:
        """Raises FrameError if a frame has been incomplete for too long."""
        try:
            self._quota.expire(now)
        except FrameError:
            self._phase = _Phase.OVER
            raise

    # what the application does; a frame over 16 MiB raises FrameError and changes nothing

    def may_call(self, method: str, body: bytes) -> bool:
        """Whether the other end would take this call by now."""
        return self._lanes.room or not self._lanes.takes(method, body)

    def call(self, method: str, body: bytes) -> int:
        """Only when `may_call`."""
        if self._lanes.takes(method, body):
            return self._lanes.ask(method, body)
        stream = self.open_with(Use.CALLER, Call(method, body), end=True)
        self._streams[stream].method = method
        return stream

    def open(self, kind: str) -> int:
        return self.open_with(Use.MESSAGES, Open(kind))

    def answer(self, stream: int, answer: Reply | Fault) -> None:
        """Answer a call; in vain when the caller has abandoned it."""
        if stream < 0:
            self._lanes.answer(stream, answer)
        elif (state := self._streams.get(stream)) is not None:
            self._write(state, answer, end=True)
            self._quota.let_go(state.held)
            state.held = 0
            self._finish(state)

    def knows(self, stream: int) -> bool:
        """Whether the stream is not finished."""
        return stream in self._streams

    def may_send(self, stream: int) -> bool:
        state = self._streams.get(stream)
        return state is not None and state.window is not None and not state.sent_end and state.window.open

    def send(self, stream: int, payload: bytes) -> None:
        """Only when `may_send`."""
        state = self._streams[stream]
        assert state.window is not None
        self._write(state, Item(payload))
        state.window.send(payload)

    def taken(self, stream: int, payload: bytes) -> None:
        """The application has taken this message."""
        state = self._streams.get(stream)
        if state is not None and state.window is not None and (credit := state.window.take(payload)) and not state.sent_end:
            self._write(state, Credit(credit))

    def end(self, stream: int) -> None:
        """We shall send no more on this stream."""
        state = self._streams.get(stream)
        if state is not None and not state.sent_end:
            state.sent_end = True
            self._writes.append(Write(stream, b"", end=True))
            self._finish(state)

    def abandon(self, stream: int) -> None:
        """We no longer want this call, or this stream in either direction."""
        if stream < 0:
            self._lanes.abandon(stream)
            return
        state = self._streams.get(stream)
        if state is not None:
            if not state.got_end:
                self._dropped.add(stream)
            self._writes.append(Abort(stream))
            self._remove(state)

    # what lanes need of us, too

    def open_with(self, use: Use, frame: Frame, *, end: bool = False, number: int = 0) -> int:
        """A new stream of ours, and its first frame."""
        stream = Stream(self._next, use, window=Window() if use is Use.MESSAGES else None, number=number)
        self._write(stream, frame, end=end)
        self._streams[stream.id] = stream
        self._next += 4
        return stream.id

    def say(self, stream: int, frame: Frame) -> None:
        self._writes.append(Write(stream, encode(frame)))

    def tell(self, event: Event) -> None:
        self._events.append(event)

    # what the wire brings

    def aborted(self, stream: int) -> None:
        """The wire says that the other end stopped this stream."""
        if stream in self._dropped:
            self._dropped.discard(stream)
            return
        state = self._streams.get(stream)
        if state is None:
            if self._is_foreign(stream):  # stopped before we saw a byte of it: stop our half too
                self._writes.append(Abort(stream))
            return
        if state.use in (Use.HELLO, Use.ASKING, Use.ANSWERING):
            raise self._violation(f"{'hello' if state.use is Use.HELLO else 'a lane'} was cut off")
        self._writes.append(Abort(stream))
        self._remove(state)
        if state.use in (Use.CALLER, Use.CALLEE, Use.MESSAGES):
            self._events.append(Abandoned(stream))

    def receive(self, stream: int, data: bytes, end: bool, now: float) -> None:
        """Bytes that came, in order, on `stream`."""
        if self._is(_Phase.OVER):
            return
        if self._is(_Phase.GREETING) and stream != HELLO_STREAM:
            self._hold(stream, data, end)
            return
        state = self._streams.get(stream)
        if state is None and (stream in self._dropped or not self._is_foreign(stream)):
            if end:
                self._dropped.discard(stream)
            return
        try:
            if state is None:
                state = self._accept(stream)
            for frame in self._read(state, data, now):
                self._handle(state, frame)
            if end and not self._is(_Phase.OVER):
                self._ended(state)
        except FrameError:
            self._phase = _Phase.OVER
            raise
        if self._early and self._is(_Phase.OPEN):
            self._release(now)

    def _read(self, state: Stream, data: bytes, now: float) -> list[Frame]:
        before = state.reader.pending
        frames = state.reader.feed(data)
        after = state.reader.pending
        if after or before:
            self._quota.read(state.id, before, after, now)
        return frames

    def _handle(self, state: Stream, frame: Frame) -> None:
        match state.use, frame:
            case Use.MESSAGES, Item(payload):
                assert state.window is not None
                state.window.receive(payload)
                self._events.append(Received(state.id, payload))
            case Use.MESSAGES, Credit(size):
                assert state.window is not None
                if state.window.credit(size):
                    self._events.append(Credited(state.id))
            case Use.NEW, Call(method, body):
                state.use = Use.CALLEE
                state.held = len(method) + len(body)
                self._quota.hold(state.held)
                self._events.append(Called(state.id, method, body))
            case Use.NEW, Open(kind):
                state.use, state.window = Use.MESSAGES, Window()
                self._events.append(Opened(state.id, kind))
            case Use.CALLER, (Reply() | Fault()) as answer if not state.answered:
                state.answered = True
                self._lanes.learn(state.method, answer)
                self._events.append(Answered(state.id, answer))
            case Use.HELLO, (Hello() | Welcome() | Refuse()) if self._is(_Phase.GREETING):
                self._greet(state, frame)
            case use, _:
                if not self._lanes.received(state, frame):
                    raise FrameError(f"a frame {type(frame).__name__.lower()} where none may be ({use.name.lower()})")

    def _greet(self, state: Stream, frame: Hello | Welcome | Refuse) -> None:
        verdict, said = met(self._greeting, frame)
        if said is not None:
            self._write(state, said, end=True)
        match verdict:
            case Refuse(kind, reason):
                self._phase = _Phase.OVER
                self._events.append(Refused(kind, reason))
            case Peer() as peer:
                self._phase = _Phase.OPEN
                self._lanes.usable = peer.protocol >= LANES
                self._events.append(Welcomed(peer))

    def _ended(self, state: Stream) -> None:
        if state.reader.pending:
            raise FrameError("the stream ended within a frame")
        if state.use is Use.NEW or (state.use is Use.CALLER and not state.answered) or self._is(_Phase.GREETING):
            raise FrameError("the stream ended before it said anything")
        if state.use in (Use.ASKING, Use.ANSWERING):
            raise FrameError("a lane ended")
        state.got_end = True
        if state.use is Use.MESSAGES:
            self._events.append(Ended(state.id))
        self._finish(state)

    def _hold(self, stream: int, data: bytes, end: bool) -> None:
        """The acceptor may speak right after Welcome, and Welcome may arrive later than what follows it on other streams."""
        if not self.dials:
            raise self._violation("it spoke before it was welcomed")
        self._quota.hold(len(data) + OVERHEAD)
        if self._quota.held > MAX_FRAME:
            raise self._violation("it spoke too much before its welcome came")
        self._early.append((stream, data, end))

    def _release(self, now: float) -> None:
        early, self._early = self._early, []
        self._quota.let_go(sum(len(data) + OVERHEAD for _, data, _ in early))
        for stream, data, end in early:
            self.receive(stream, data, end, now)

    def _is(self, phase: _Phase) -> bool:
        return self._phase is phase

    def _is_foreign(self, stream: int) -> bool:
        return stream % 4 == (1 if self.dials else 0)

    def _accept(self, stream: int) -> Stream:
        self._quota.open_stream()
        state = self._streams[stream] = Stream(stream, Use.NEW)
        return state

    def _write(self, stream: Stream, frame: Frame, *, end: bool = False) -> None:
        self._writes.append(Write(stream.id, encode(frame), end))
        stream.sent_end = stream.sent_end or end

    def _finish(self, state: Stream) -> None:
        if state.sent_end and state.got_end:
            self._remove(state)

    def _remove(self, state: Stream) -> None:
        if self._streams.pop(state.id, None) is not None:
            self._quota.forget(state.id, state.reader.pending + state.held)
            self._lanes.over(state)
            if state.id != HELLO_STREAM and self._is_foreign(state.id):
                self._quota.close_stream()

    def _violation(self, reason: str) -> FrameError:
        self._phase = _Phase.OVER
        return FrameError(reason)
