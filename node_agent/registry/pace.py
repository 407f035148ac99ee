"""How often a node's instances may be told anew, so that one that comes and goes does not flood the log. Pure.

A change after a quiet time is told at once. What follows within `least` seconds waits for their end and is told together; while it goes
on like that the wait doubles up to `most`, and a quiet time as long as the last wait and `least` more ends it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """`told`: when something was told last; `wait`: what must pass from then on. Seconds on a monotonic clock."""

    least: float = 1.0
    most: float = 16.0
    told: float = float("-inf")
    wait: float = 0.0

    def due(self) -> float:
        """When the next change may be told."""
        return self.told + self.wait

    def tell(self, now: float) -> Pace:
        """A change is told, at or after `due()`."""
        quiet = now - self.due()
        wait = self.least if quiet >= self.wait + self.least else min(max(2 * self.wait, self.least), self.most)
        return Pace(self.least, self.most, now, wait)
