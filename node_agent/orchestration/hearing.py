"""What a control node heard from the others, kept in memory on every control node: whoever becomes leader knows at once who lives.

Silence counts only while we could have heard it. Two things keep us from hearing: standing still (a paused machine, a stalled loop),
for which there is a clock that stands still with us; and a cut link, which shows by the silence of *all*: when that ends, or when we are
made leader in spite of it, every node gets its full window again. Pure: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hmcore.api import Heartbeat
from hmcore.records import Node


@dataclass(frozen=True, slots=True)
class Heard:
    """The last heartbeat of a node, when it came, and since when its heartbeats have been complaining (None: they do not)."""

    beat: Heartbeat
    at: float
    ill_since: float | None


@dataclass(frozen=True, slots=True)
class View:
    """What the leader knows from listening. Nodes it never heard get one full window from `leader_since` on; silence before
    `listening_since` does not count for any."""

    heard: Mapping[str, Heard]
    leader_since: float
    listening_since: float

    def of(self, node: Node) -> Heard | None:
        """The last heartbeat of the node's latest start. One of an earlier start says nothing about it."""
        heard = self.heard.get(node.name)
        return None if heard is None or heard.beat.incarnation < node.incarnation else heard

    def last(self, node: Node) -> float:
        """When the node's silence began, as far as it counts."""
        heard = self.of(node)
        return max(self.leader_since if heard is None else heard.at, self.listening_since)


class Hearing:
    """The last heartbeat of every node. `now` is in seconds on a monotonic clock; all that comes out is by `clock`."""

    def __init__(self, me: str, now: float, *, heartbeat: float, suspect: float) -> None:
        self._me = me
        self._suspect = suspect
        self._heartbeat = heartbeat
        self._heard: dict[str, Heard] = {}
        self._awake = now
        self._stood_still = 0.0
        self._last_voice = now
        self._leader_since = now
        self._listening_since = now

    def clock(self, now: float) -> float:
        """The time by the clock that stands still when we do. Must be asked at least once a heartbeat: a longer gap was a standstill."""
        gap = now - self._awake
        if gap > 1.5 * self._heartbeat:
            self._stood_still += gap - self._heartbeat
        self._awake = now
        return now - self._stood_still

    def hear(self, name: str, beat: Heartbeat, now: float) -> bool:
        """Note a heartbeat. Returns whether it says anything new: only then need the leader look at it.

        Heartbeats of an earlier start of the agent are ignored, as is what follows a good-bye.
        """
        at = self.clock(now)
        if name != self._me:
            self._unless_deaf(at)
            self._last_voice = at
        before = self._heard.get(name)
        if before is not None:
            if beat.incarnation < before.beat.incarnation or (beat.incarnation == before.beat.incarnation and before.beat.leaving):
                return False
            if beat == before.beat and at - before.at <= self._suspect:
                self._heard[name] = replace(before, at=at)
                return False
        ill_before = None if before is None else before.ill_since
        ill_since = (at if ill_before is None else ill_before) if beat.reasons else None
        self._heard[name] = Heard(beat, at, ill_since)
        return True

    def lead(self, now: float) -> None:
        """We became leader, so the others can reach us, even if their heartbeats have not arrived yet."""
        self._leader_since = self.clock(now)
        self._unless_deaf(self._leader_since)

    def view(self) -> View:
        return View(self._heard, self._leader_since, self._listening_since)

    def _unless_deaf(self, at: float) -> None:
        if at - self._last_voice > self._suspect / 2:  # half: the other half is what a healthy node's heartbeat may take
            self._listening_since = at
