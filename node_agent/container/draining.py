"""When a replica that is to stop may be told to: once no other node leads anybody to it any more. Pure (docs/adr/0101).

From the moment that it is to stop, its node tells it as unfit (wanted.py). Others go on leading to it until they have applied that; a
container that has had its stop signal by then refuses what they send.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

ROUND = 0.3  # seconds that a node's packet filter and names may be behind what it has applied
MOST = 2.0  # seconds in all: whoever wants it stopped does not wait for a cluster that cannot write


@dataclass(frozen=True, slots=True)
class Drain:
    """Of a replica that the cluster knew as fit when it was to stop. Seconds of the agent's monotonic clock: `since` when it is to stop,
    and when the cluster was first seen to know it as `unfit`. `margin`: from then until the other nodes act by it, too."""

    since: float
    unfit: float | None = None
    margin: float = 0.0

    @property
    def due(self) -> float:
        """When it may have its stop signal."""
        return self.since + MOST if self.unfit is None else min(self.since + MOST, self.unfit + self.margin)


AT_ONCE = Drain(since=float("-inf"))


def drained(before: Drain | None, *, fit: bool | None, now: float, margin: float) -> Drain:
    """After a look. `before`: of the last one; None: it has only just come to be stopped. `fit`: as the cluster knows it; None: nobody can
    tell, for nobody leads. One that is known as unfit at the first look may have come to be known so a moment ago, by this very stop."""
    if fit is None:
        return AT_ONCE
    if before is None:
        return Drain(now, None if fit else now, margin)
    return before if fit or before.unfit is not None else replace(before, unfit=now)
