"""Until when the leader lets each lock live. Pure: times are seconds by a clock of the leader's that stands still when its agent does.

The log knows who holds a lock, and no time (docs/adr/0074). Whoever leads gives every lock a full term, from when it became leader or saw
the lock taken, and anew with each renewal that a majority has confirmed since it came. Two rules make that safe for a holder which counts
its own term from when it sent the renewal:

- what was counted in an earlier leadership of ours counts for nothing in this one, neither a renewal nor an end;
- once the end of a lock has been proposed it cannot be renewed any more in this leadership: the proposal may be committed at any time,
  also when its proposer was told that it failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hmcore.records import Lock
from node_agent.consensus.statemachine.commands import ExpireLock


@dataclass(frozen=True, slots=True)
class Due:
    """`ended`: to be proposed, again and again until they are gone. `next`: when to look again though nothing happens."""

    ended: tuple[ExpireLock, ...] = ()
    next: float | None = None


class Leases:
    """Of all locks, as the leader of one term counts them. `locks` is always the replicated table as this node holds it now."""

    def __init__(self) -> None:
        self._term: int | None = None
        self._began: dict[tuple[str, int], float] = {}  # by name and token: when the present term of each began
        self._ended: set[tuple[str, int]] = set()  # proposed to end

    def lead(self, term: int) -> None:
        """This node leads in `term`. Harmless if that was known; else all begins anew."""
        if term != self._term:
            self._term = term
            self._began.clear()
            self._ended.clear()

    def due(self, locks: Mapping[str, Lock], now: float) -> Due:
        """What has ended. A lock that is seen for the first time begins its term now."""
        held = {(lock.name, lock.token): lock for lock in locks.values()}
        for gone in self._began.keys() - held.keys():
            del self._began[gone]
            self._ended.discard(gone)
        times: list[float] = []
        for key, lock in held.items():
            end = self._began.setdefault(key, now) + lock.ttl
            if now >= end:
                self._ended.add(key)
            elif key not in self._ended:
                times.append(end)
        ended = tuple(ExpireLock(name=name, token=token) for name, token in sorted(self._ended))
        return Due(ended, min(times, default=None))

    def renew(self, locks: Mapping[str, Lock], name: str, token: int, now: float) -> str | None:
        """Let a lock's term begin anew; or why not. Only once a majority has confirmed, after the holder's word came, that we lead in
        this term: then nobody who leads later can have given the lock its full term before that word was sent."""
        lock = locks.get(name)
        if lock is None:
            return "nobody holds it"
        if lock.token != token:
            return f"{lock.holder} holds it with token {lock.token}"
        if (name, token) in self._ended:
            return f"it was not renewed for {lock.ttl:g} s"
        self._began[name, token] = now
        return None

    def left(self, lock: Lock, now: float) -> float:
        """Seconds that a lock has if nobody renews it."""
        key = (lock.name, lock.token)
        return 0.0 if key in self._ended else max(0.0, self._began.get(key, now) + lock.ttl - now)
