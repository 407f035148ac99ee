"""Hashes of this node's own states by log index, kept to be compared with those of others (divergence/agreement.py)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.state import State, state_hash

EVERY = 1024  # log indexes between checkpoints: at a thousand entries a second, each is told in two heartbeats
KEPT = 4096  # hashes of our own: one that lags by so much is compared all the same
Claim = tuple[int, str]  # a log index, and the hash of the state as of it


class Checkpoints:
    """The hashes of one node's own states. Nothing below level TRUSTED, where hashing takes long."""

    def __init__(self, every: int = EVERY) -> None:
        self._every = every
        self._hashes: dict[int, str] = {}  # by index, the oldest first
        self._checkpoint: Claim | None = None

    def begin(self, state: State) -> None:
        """The state was loaded. Whether a checkpoint lies behind it cannot be told."""
        self._hashes.clear()
        self._checkpoint = None
        self._keep(state)

    def note(self, before: State, state: State) -> None:
        """A log entry was applied."""
        self._keep(state)
        if before.index // self._every < state.index // self._every and state.index in self._hashes:
            self._checkpoint = state.index, self._hashes[state.index]

    def _keep(self, state: State) -> None:
        if state.level < levels.TRUSTED:
            return
        self._hashes[state.index] = state_hash(state)
        if len(self._hashes) > 2 * KEPT:
            self._hashes = dict(islice(self._hashes.items(), KEPT, None))

    @property
    def hashes(self) -> Mapping[int, str]:
        return self._hashes

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What to tell the others: the latest, and the latest checkpoint."""
        if not self._hashes:
            return ()
        latest, checkpoint = next(reversed(self._hashes.items())), self._checkpoint
        return (latest,) if checkpoint is None or checkpoint == latest else (latest, checkpoint)
