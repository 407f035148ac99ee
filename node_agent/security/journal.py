"""The latest events of a node, kept in memory for whoever follows them: bounded, numbered, and honest about what was lost.

`Journal` is pure; `Waiters` is the little that touches the event loop. Events are kept as they came (`T`) and turned into records only
when somebody reads them: ten thousand programs a second may begin while nobody looks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT = 8192
MOST = 1000  # events in one answer: some 300 kB
WAITERS = 32  # of long polls; whoever comes beyond them is answered at once
LONGEST_WAIT = 20.0  # seconds: less than what a caller's connection bears


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Numbered events. `last`: where to go on. Of the numbers after what was asked for up to `last`, `lost` are not kept any more."""

    events: tuple[tuple[int, T], ...]
    last: int
    lost: int


class Journal(Generic[T]):
    """The latest `kept` events. The first is number 1; a number that is missing stands for an event that nobody could keep."""

    def __init__(self, kept: int = KEPT) -> None:
        self._events: deque[tuple[int, T]] = deque(maxlen=kept)
        self.last = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, events: Iterable[T]) -> None:
        for event in events:
            self.last += 1
            self._events.append((self.last, event))

    def skip(self, count: int) -> None:
        """`count` events happened that never reached us."""
        self.last += max(0, count)

    def after(self, sequence: int, limit: int, wanted: Callable[[T], bool] = lambda event: True) -> Page[T]:
        """The first `limit` events after `sequence` that are `wanted`; the latest ones when it is negative.

        A sequence that was never given out is that of a journal before this one: its reader gets everything.
        """
        limit = max(1, min(limit, MOST))
        if sequence < 0:
            newest = islice((event for event in reversed(self._events) if wanted(event[1])), limit)
            return Page(tuple(reversed(list(newest))), self.last, 0)
        if sequence > self.last:
            sequence = 0
        found: list[tuple[int, T]] = []
        here = sequence
        seen = 0
        for number, event in islice(self._events, self._place(sequence), None):
            if len(found) == limit:
                return Page(tuple(found), here, here - sequence - seen)
            here, seen = number, seen + 1
            if wanted(event):
                found.append((number, event))
        return Page(tuple(found), self.last, self.last - sequence - seen)

    def _place(self, sequence: int) -> int:
        """How many of the kept events are not after `sequence`."""
        low, high = 0, len(self._events)
        while low < high:
            middle = (low + high) // 2
            if self._events[middle][0] <= sequence:
                low = middle + 1
            else:
                high = middle
        return low


class Waiters:
    """Those who wait for news. Bounded in number and in time."""

    def __init__(self, most: int = WAITERS, longest: float = LONGEST_WAIT) -> None:
        self._most = most
        self._longest = longest
        self._waiting: set[asyncio.Event] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def wake(self) -> None:
        """There is news. Cheap when nobody waits."""
        for waiting in self._waiting:
            waiting.set()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Waits until `condition` holds, for `seconds` at most; looks again at each `wake`. Whether it holds in the end."""
        if condition():
            return True
        if seconds <= 0 or len(self._waiting) >= self._most:
            return False
        woken = asyncio.Event()
        self._waiting.add(woken)
        try:
            async with asyncio.timeout(min(seconds, self._longest)):
                while not condition():
                    await woken.wait()
                    woken.clear()
        except TimeoutError:
            return condition()
        finally:
            self._waiting.discard(woken)
        return True
