"""What keeps a replica from its first start, and when that has lasted so long that a rollout is to hear of it (docs/adr/0103). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hmcore.errors import HyperMeshError, LayerDown, NoLease, SecretsLocked

LASTING = 30.0  # seconds from the first try that failed to the last
TRIES = 3  # that failed

_OF_OTHERS = (LayerDown, NoLease, SecretsLocked)  # Docker or the control nodes are away: that says nothing of the replica


@dataclass(frozen=True, slots=True)
class Hindrance:
    """`tries` in a row failed, the first `since` and the last `until`: seconds of the agent's monotonic clock, when each was over."""

    tries: int = 0
    since: float = 0.0
    until: float = 0.0

    @property
    def lasting(self) -> bool:
        """What counts is what failed, not the time that went by: a try that is under way may take as long as it likes."""
        return self.tries >= TRIES and self.until - self.since >= LASTING

    def after(self, error: HyperMeshError, now: float) -> Hindrance:
        """With one more try that failed. What is not about the replica ends the row: nobody knows what it would have come to meanwhile."""
        if isinstance(error, _OF_OTHERS):
            return FREE
        return Hindrance(self.tries + 1, self.since if self.tries else now, now)


FREE = Hindrance()
