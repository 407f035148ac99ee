"""Counting what happens, for /metrics: plain numbers, cheap enough for every call. Nothing here knows how they are shown.

Whoever causes them calls `add`; the collector reads them at a scrape. Everything is on the event loop's thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

CALL_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds
SYNC_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds

METHODS = 64  # names that are told apart; there are fewer, unless somebody else chooses them
OTHER = "other"


class Histogram:
    """How often values fell between `bounds`; `counts` has one more place, for what is above the last."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bounds as Prometheus writes them, each with how many values were at most that."""
        total = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*map(repr, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


@dataclass(slots=True)
class Calls:
    """Calls by method: how long each took, and how those that failed did. An `outcome` is "" when all went well."""

    durations: dict[str, Histogram] = field(default_factory=dict)
    failures: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, method: str, outcome: str, seconds: float) -> None:
        durations = self.durations.get(method)
        if durations is None:
            method = method if len(self.durations) < METHODS else OTHER
            durations = self.durations.setdefault(method, Histogram(CALL_BOUNDS))
        durations.add(seconds)
        if outcome:
            self.failures[method, outcome] = self.failures.get((method, outcome), 0) + 1


@dataclass(slots=True)
class Tally:
    """All that one agent counts."""

    served: Calls = field(default_factory=Calls)
    made: Calls = field(default_factory=Calls)
    syncs: Histogram = field(default_factory=lambda: Histogram(SYNC_BOUNDS))
