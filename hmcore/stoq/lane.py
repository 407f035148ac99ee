"""Many small calls on one stream, a lane: asked one after the other, answered in any order on its other half. Pure.

A stream costs both ends more than a small call does. So each end opens one lane, with its first small call and for the connection's life.
What is large has a stream of its own, lest small ones wait behind it: a large call as without lanes, and so the calls of a method whose
latest answer was large; a large answer that was not foreseen goes on a stream that the answering end opens, which costs a little more.

On the lane every Ask is settled exactly once, by Said, Denied, Apart (the answer has its own stream) or, if it was dropped, Dropped. So
both ends know how many are under way, and no answer can be taken for another call's.
"""

from __future__ import annotations

from hmcore.errors import FrameError
from hmcore.stoq.frames import Ask, Drop
from hmcore.stoq.quota import Quota
from hmcore.stoq.window import OVERHEAD

SMALL = 4 * 1024  # bytes of a call or an answer that goes on the lane; a larger one is only allowed to
MAX_CALLS = 1024  # on one lane and not settled
MAX_APART = 256  # large answers under way on streams of their own; one more goes on the lane all the same


class Asking:
    """The calls that we make."""

    __slots__ = ("_apart", "_last", "_lengthy", "_owed", "_waiting")

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[int, str] = {}  # not settled, and wanted: method
        self._owed: set[int] = set()  # not settled, and no longer wanted: abandoned, or its large answer overtook Apart
        self._apart: set[int] = set()  # settled, and the answer is still to come on its own stream
        self._lengthy: set[str] = set()  # methods whose latest answer was large

    @property
    def under_way(self) -> int:
        return len(self._waiting) + len(self._owed) + len(self._apart)

    @property
    def room(self) -> bool:
        """Whether one more may be asked."""
        return self.under_way < MAX_CALLS

    def suits(self, method: str, body: bytes) -> bool:
        """Whether such a call goes on the lane."""
        return method not in self._lengthy and len(method) + len(body) <= SMALL

    def learn(self, method: str, size: int) -> None:
        """So large was an answer that had a stream of its own."""
        if size > SMALL:
            self._lengthy.add(method)
        else:
            self._lengthy.discard(method)

    def ask(self, method: str, body: bytes) -> Ask:
        """Only when there is room."""
        self._last += 1
        self._waiting[self._last] = method
        return Ask(self._last, method, body)

    def drop(self, number: int) -> Drop | None:
        """The answer is no longer wanted: what is to be told the other end, if anything."""
        if self._waiting.pop(number, None) is not None:
            self._owed.add(number)
        elif number in self._apart:
            self._apart.discard(number)
        else:
            return None
        return Drop(number)

    def settle(self, number: int) -> bool:
        """The lane brought the answer: whether it is still wanted. Raises FrameError if it answers nothing."""
        if self._waiting.pop(number, None) is not None:
            return True
        self._pay(number)
        return False

    def apart(self, number: int) -> None:
        """The answer has its own stream. Raises FrameError if it answers nothing."""
        if (method := self._waiting.pop(number, None)) is not None:
            self._lengthy.add(method)
            self._apart.add(number)
        else:
            self._pay(number)

    def dropped(self, number: int) -> None:
        """The other end heeded our Drop. Raises FrameError if there was none."""
        self._pay(number)

    def arrived(self, number: int) -> bool:
        """A large answer came on its own stream: whether it is wanted. Raises FrameError if it answers no call that we ever made."""
        if number in self._apart:
            self._apart.discard(number)
            return True
        if (method := self._waiting.pop(number, None)) is not None:
            self._lengthy.add(method)
            self._owed.add(number)
            return True
        if not 0 < number <= self._last:
            raise FrameError(f"an answer to call {number}, which was never made")
        return False

    def _pay(self, number: int) -> None:
        if number not in self._owed:
            raise FrameError(f"call {number} was settled that was not under way")
        self._owed.discard(number)


class Answering:
    """The calls that the other end makes."""

    __slots__ = ("_apart", "_held", "_last", "_quota")

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._last = 0
        self._held: dict[int, int] = {}  # not settled: bytes
        self._apart: dict[int, int] = {}  # answered on this stream, which is not finished

    @property
    def under_way(self) -> int:
        return len(self._held)

    def asked(self, ask: Ask) -> None:
        """Raises FrameError for a number out of order, and for more calls or bytes than we keep for one peer."""
        if ask.number != self._last + 1:
            raise FrameError(f"call {ask.number} after call {self._last}")
        if len(self._held) >= MAX_CALLS:
            raise FrameError(f"over {MAX_CALLS} calls at once")
        self._last = ask.number
        cost = len(ask.method) + len(ask.body) + OVERHEAD
        self._quota.hold(cost)
        self._held[ask.number] = cost

    def waits(self, number: int) -> bool:
        """Whether the other end still wants the answer."""
        return number in self._held

    @property
    def may_part(self) -> bool:
        """Whether a large answer may have a stream of its own."""
        return len(self._apart) < MAX_APART

    def settle(self, number: int) -> None:
        """It is answered."""
        self._quota.let_go(self._held.pop(number))

    def part(self, number: int, stream: int) -> None:
        """The answer is under way on `stream`, until `join`."""
        self._apart[number] = stream

    def join(self, number: int) -> None:
        self._apart.pop(number, None)

    def apart(self, number: int) -> int | None:
        """The stream on which the answer is under way."""
        return self._apart.get(number)

    def drop(self, number: int) -> bool:
        """The other end no longer wants the answer: whether there was none yet. Raises FrameError for a call that it never made."""
        if not 0 < number <= self._last:
            raise FrameError(f"call {number} was dropped, which was never made")
        if not self.waits(number):
            return False
        self.settle(number)
        return True
