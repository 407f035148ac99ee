"""When to dial again, and when not to wait for a peer at all. Pure: times are arguments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit breaker (Nygard, Release It!): after `threshold` failures in a row calls fail at once, for `open_for` seconds; then one
    is let through to try."""

    threshold: int
    open_for: float
    failures: int = 0
    opened: float | None = None  # when it opened, or last let one through

    def failed(self, now: float) -> Circuit:
        failures = self.failures + 1
        return Circuit(self.threshold, self.open_for, failures, now if failures >= self.threshold else None)

    def succeeded(self) -> Circuit:
        return Circuit(self.threshold, self.open_for)

    def is_open(self, now: float) -> bool:
        return self.opened is not None and now < self.opened + self.open_for

    def admit(self, now: float) -> tuple[bool, Circuit]:
        """Whether a call may wait for this peer, and the circuit afterwards: the one that tries keeps the others out meanwhile."""
        if self.is_open(now):
            return False, self
        if self.opened is None:
            return True, self
        return True, Circuit(self.threshold, self.open_for, self.failures, now)


def pause(attempt: int, shortest: float, longest: float, chance: float) -> float:
    """Seconds to wait before dialling for the `attempt`-th time (from 1) after a failure: doubling, and between half and all of that, as
    `chance` (0 to 1) has it, so that a cluster does not dial in step."""
    return float(min(longest, shortest * 2 ** min(attempt - 1, 30)) * (0.5 + chance / 2))


def dials(name: str, role: str, peer: str, peer_role: str) -> bool:
    """Whether `name` is the one of the two that dials: a worker dials control nodes, of equals the smaller name."""
    if role != peer_role:
        return role == "worker"
    return name < peer
