"""What the latest log entries changed, for those who follow: in memory, bounded, filled by what this node applies. Pure.

Each table has a history of its own, so that a busy one does not push out what the others' followers may have missed. A table knows up to
which log index changes of it may be lost; whoever has come as far can go on, and everybody else is told to take the table anew.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter

from hmcore.watch import PORTION, Change, Entry
from node_agent.consensus.statemachine.state import TABLES

MOST_CHANGES = 10_000  # of a table: ten seconds of a very busy one, hours of those that tell of nodes and instances
MOST_BYTES = 8 << 20  # of a table, as kept
LEAST_BYTES = 512 << 10  # the same, where the table itself has less: a follower that is further behind is served sooner by the table
OVERHEAD = 300  # bytes that a change takes in memory beside its key and record


@dataclass(slots=True)
class _Track:
    """One table's changes, the oldest first. Those at log indexes up to `lost` may be missing. `there`: bytes of what is known to be in the
    table, by key; None: more than is counted."""

    changes: deque[tuple[int, Change]] = field(default_factory=deque)
    size: int = 0
    there: dict[str, int] | None = field(default_factory=dict)
    worth: int = 0  # the sum of that
    lost: int = 0
    last: int = 0  # the latest index at which something changed, or may have

    def note(self, change: Change, most: int) -> None:
        """What the table holds by now; counted up to `most` bytes."""
        if self.there is None:
            return
        self.worth -= self.there.pop(change.key, 0)
        if change.record is not None:
            self.there[change.key] = _cost(change)
            self.worth += _cost(change)
        if self.worth > most:
            self.there = None

    def behind(self, since: int) -> Iterator[tuple[int, Change]]:
        low, high = 0, len(self.changes)
        while low < high:
            middle = (low + high) // 2
            if self.changes[middle][0] <= since:
                low = middle + 1
            else:
                high = middle
        return islice(self.changes, low, None)


@dataclass(frozen=True, slots=True)
class Portion:
    """All that changed up to `index`: nothing else did, of what was asked for."""

    index: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """Changes that were asked for are not known any more. Those after `oldest` are."""

    oldest: int


class History:
    def __init__(self, *, changes: int = MOST_CHANGES, size: int = MOST_BYTES, least: int = LEAST_BYTES) -> None:
        """At most so many `changes` and so many bytes (`size`) of each table are kept; and no more than `least` bytes beyond what the table
        itself has."""
        self.index = 0  # what was applied last
        self._most = changes
        self._size = size
        self._least = least
        self._tracks: dict[str, _Track] = {table: _Track() for table in TABLES}

    def restart(self, index: int) -> None:
        """The state was replaced by a snapshot's: how it came about is unknown."""
        self.index = index
        self._tracks = {table: _Track(lost=index, last=index) for table in TABLES}

    def add(self, index: int, changes: Sequence[Change]) -> None:
        """What the log entry at `index` changed; it may be nothing."""
        self.index = index
        for change in changes:
            track = self._tracks[change.table]
            track.changes.append((index, change))
            track.size += _cost(change)
            track.last = index
            track.note(change, self._size)
            limit = self._size if track.there is None else min(self._size, self._least + track.worth)
            while len(track.changes) > self._most or track.size > limit:
                track.lost, dropped = track.changes.popleft()
                track.size -= _cost(dropped)

    def last(self, tables: Collection[str]) -> int:
        """The latest log index at which something in these tables changed, or may have."""
        return max(self._tracks[table].last for table in tables)

    def oldest(self, tables: Collection[str]) -> int:
        """The log index from which on all changes of these tables are known."""
        return max(self._tracks[table].lost for table in tables)

    def since(self, since: int, tables: Collection[str], prefix: str = "", *, size: int = PORTION) -> Portion | Lost:
        """What changed behind `since` in these tables, for keys that begin with `prefix`: the first `size` bytes of it, in whole entries,
        and one entry at least. Whoever is ahead of this node gets nothing, and an index before `since`."""
        if self.oldest(tables) > since:
            return Lost(self.oldest(tables))
        merged = heapq.merge(*(self._tracks[table].behind(since) for table in tables), key=itemgetter(0))
        entries: list[Entry] = []
        told = 0
        for index, group in groupby((each for each in merged if each[1].key.startswith(prefix)), key=itemgetter(0)):
            changes = tuple(change for _, change in group)
            told += sum(len(change.record or b"") + len(change.key) for change in changes)
            if entries and told > size:
                return Portion(entries[-1].index, tuple(entries))
            entries.append(Entry(index, changes))
        return Portion(self.index, tuple(entries))


def _cost(change: Change) -> int:
    return OVERHEAD + len(change.key) + len(change.record or b"")
