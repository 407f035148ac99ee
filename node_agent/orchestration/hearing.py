"""What a control node heard from the others, kept in memory on every control node: whoever becomes leader knows at once who lives.

Silence counts only while we could have heard. When our own loop stood still (a paused machine), or when nobody at all was heard for a
while (our link was cut), the silence before was ours, and every node gets its full window again. Pure: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hmcore.api import Heartbeat


@dataclass(frozen=True, slots=True)
class Heard:
    """The last heartbeat of a node, when it came, and since when its heartbeats have been complaining (None: they do not)."""

    beat: Heartbeat
    at: float
    ill_since: float | None


class Hearing:
    """The last heartbeat of every node. All times are seconds on one monotonic clock."""

    def __init__(self, me: str, now: float, *, heartbeat: float, suspect: float) -> None:
        self._me = me
        self._suspect = suspect
        self._stall = heartbeat + suspect / 2
        self._heard: dict[str, Heard] = {}
        self._last_voice = now
        self._last_awake = now
        self.listening_since = now

    @property
    def heard(self) -> Mapping[str, Heard]:
        return self._heard

    def hear(self, name: str, beat: Heartbeat, now: float) -> bool:
        """Note a heartbeat. Returns whether it says anything new: only then need the leader look at it.

        Heartbeats of an earlier start of the agent are ignored, as is what follows a good-bye.
        """
        if name != self._me:
            self._unless_deaf(now)
            self._last_voice = now
        before = self._heard.get(name)
        if before is not None:
            if beat.incarnation < before.beat.incarnation or (beat.incarnation == before.beat.incarnation and before.beat.leaving):
                return False
            if beat == before.beat and now - before.at <= self._suspect:
                self._heard[name] = replace(before, at=now)
                return False
        ill_before = None if before is None else before.ill_since
        ill_since = (now if ill_before is None else ill_before) if beat.reasons else None
        self._heard[name] = Heard(beat, now, ill_since)
        return True

    def awake(self, now: float) -> None:
        """To be called with every heartbeat of our own and before every decision: a gap shows that we stood still."""
        if now - self._last_awake > self._stall:
            self.listening_since = now
        self._last_awake = now

    def lead(self, now: float) -> None:
        """We became leader, so the others can reach us again, even if their heartbeats have not arrived yet."""
        self._unless_deaf(now)

    def _unless_deaf(self, now: float) -> None:
        if now - self._last_voice > self._suspect:
            self.listening_since = now
