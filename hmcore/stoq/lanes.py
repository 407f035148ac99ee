"""Both ends' lanes of one connection: frames to events and back, by the accounts of lane.py. Part of the session. Pure."""

from __future__ import annotations

from typing import Protocol

from hmcore.errors import FrameError
from hmcore.stoq.events import Abandoned, Answered, Called, Event
from hmcore.stoq.frames import Apart, Ask, Denied, Drop, Dropped, Fault, Frame, Reply, Said
from hmcore.stoq.lane import SMALL, Answering, Asking
from hmcore.stoq.quota import Quota
from hmcore.stoq.streams import Stream, Use

# Among ids of streams, which are not negative, calls on lanes have negative ones: even those that we make, odd the other end's.


def ours(number: int) -> int:
    return -2 * number


def theirs(number: int) -> int:
    return -2 * number - 1


def number_of(id: int) -> int:
    return -id // 2


class Host(Protocol):
    """What lanes need of their session."""

    def open_with(self, use: Use, frame: Frame, *, end: bool = False, number: int = 0) -> int:
        """A new stream of ours, and its first frame. A frame that is too large raises FrameError and changes nothing."""

    def say(self, stream: int, frame: Frame) -> None:
        """Raises FrameError as above."""

    def end(self, stream: int) -> None: ...

    def abandon(self, id: int) -> None: ...

    def tell(self, event: Event) -> None: ...


class Lanes:
    """See lane.py. What breaks the protocol raises FrameError."""

    __slots__ = ("_answering", "_asking", "_host", "_our_lane", "_their_lane", "usable")

    def __init__(self, host: Host, quota: Quota) -> None:
        self.usable = False  # both ends know lanes
        self._host = host
        self._asking = Asking()
        self._answering = Answering(quota)
        self._our_lane: int | None = None  # since our first call
        self._their_lane: int | None = None

    @property
    def calls(self) -> int:
        """How many are under way, less the streams that they share."""
        lanes = (self._our_lane is not None) + (self._their_lane is not None)
        return self._asking.under_way + self._answering.under_way - lanes

    @property
    def room(self) -> bool:
        """Whether the other end would take one more call."""
        return self._asking.room

    def takes(self, method: str, body: bytes) -> bool:
        """Whether this call goes on our lane."""
        return self.usable and self._asking.suits(method, body)

    def learn(self, method: str, answer: Reply | Fault) -> None:
        """Of a call of ours that had a stream of its own."""
        if isinstance(answer, Reply):
            self._asking.learn(method, len(answer.body))

    # what the application does

    def ask(self, method: str, body: bytes) -> int:
        """Only when there is room. The call's id."""
        ask = self._asking.ask(method, body)
        if self._our_lane is None:
            self._our_lane = self._host.open_with(Use.ASKING, ask)
        else:
            self._host.say(self._our_lane, ask)
        return ours(ask.number)

    def abandon(self, id: int) -> None:
        """We no longer want the answer."""
        if (drop := self._asking.drop(number_of(id))) is not None:
            assert self._our_lane is not None
            self._host.say(self._our_lane, drop)

    def answer(self, id: int, answer: Reply | Fault) -> None:
        """In vain when the caller has dropped it. A reply over 16 MiB raises FrameError and changes nothing."""
        number = number_of(id)
        if not self._answering.waits(number):
            return
        assert self._their_lane is not None
        match answer:
            case Reply(body) if len(body) > SMALL and self._answering.may_part:
                stream = self._host.open_with(Use.APART, Said(number, body), end=True, number=number)
                self._answering.part(number, stream)
                self._host.say(self._their_lane, Apart(number))
            case Reply(body):
                self._host.say(self._their_lane, Said(number, body))
            case Fault():
                self._host.say(self._their_lane, Denied(number, answer))
        self._answering.settle(number)

    # what the wire brings

    def received(self, stream: Stream, frame: Frame) -> bool:
        """Take a frame, if it is one that may be on this stream."""
        match stream.use, frame:
            case Use.ASKING, Said(number, body):
                if self._asking.settle(number):
                    self._host.tell(Answered(ours(number), Reply(body)))
            case ((Use.ANSWERING | Use.NEW), Ask()) if self.usable:
                self._asked(stream, frame)
            case Use.ASKING, Denied(number, fault):
                if self._asking.settle(number):
                    self._host.tell(Answered(ours(number), fault))
            case Use.ASKING, Apart(number):
                self._asking.apart(number)
            case Use.ASKING, Dropped(number):
                self._asking.dropped(number)
            case Use.ANSWERING, Drop(number):
                self._drop(number)
            case Use.NEW, Said(number, body) if self.usable:
                stream.use = Use.ARRIVED
                if self._asking.arrived(number):
                    self._host.tell(Answered(ours(number), Reply(body)))
                self._host.end(stream.id)
            case _:
                return False
        return True

    def over(self, stream: Stream) -> None:
        """The stream is finished or abandoned."""
        if stream.use is Use.APART:
            self._answering.join(stream.number)

    def _asked(self, stream: Stream, ask: Ask) -> None:
        if stream.use is Use.NEW:
            if self._their_lane is not None:
                raise FrameError("a second lane")
            stream.use, self._their_lane = Use.ANSWERING, stream.id
        self._answering.asked(ask)
        self._host.tell(Called(theirs(ask.number), ask.method, ask.body))

    def _drop(self, number: int) -> None:
        assert self._their_lane is not None
        if self._answering.drop(number):
            self._host.say(self._their_lane, Dropped(number))
            self._host.tell(Abandoned(theirs(number)))
        elif (stream := self._answering.apart(number)) is not None:
            self._host.abandon(stream)
