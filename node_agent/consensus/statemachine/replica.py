"""This node's copy of the replicated state: a thin cell around the pure machine.py that never lets an exception into pysyncobj."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hmcore.errors import ConsensusError, ReleaseTooOld
from node_agent.consensus.statemachine import levels, machine
from node_agent.consensus.statemachine.checkpoints import Checkpoints
from node_agent.consensus.statemachine.commands import Receipt
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.state import Change, State, pieces, seal


class Replica:
    """`failure` must stop this node: it could not apply what the others apply. `history`: what came of the latest entries."""

    def __init__(
        self, on_changes: Callable[[int, list[Change]], None] = lambda index, changes: None, *, latest: int = levels.LATEST
    ) -> None:
        """`on_changes` hears what the log entry at an index changed in the state's tables, also when that is nothing. `latest`: the highest
        feature level that we know."""
        self._latest = latest
        self.state = State()
        self.checkpoints = Checkpoints()
        self.history = History()
        self.failure: ConsensusError | None = None
        self._on_changes = on_changes

    def apply(self, batch: bytes, index: int, *, configures: bool = False) -> list[Receipt]:
        """`configures`: the entry is one that changes the voters."""
        if self.failure is not None:
            return []
        try:
            before = self.state
            self.state, receipts, changes = machine.apply_batch(before, batch, index, configures=configures, latest=self._latest)
            self.checkpoints.note(before, self.state)
            self.history.add(index, changes)
            self._on_changes(index, changes)
        except ReleaseTooOld as error:
            self.failure = error
            return []
        except Exception as error:  # noqa: BLE001  # whatever it is, pysyncobj would apply the entry again for ever
            self.failure = ConsensusError(f"log entry {index} cannot be applied: {error!r}")
            self.failure.__cause__ = error
            return []
        return receipts

    def capture(self) -> Iterator[bytes]:
        if self.failure is not None:
            raise self.failure  # this state must not become a snapshot
        return pieces(self.state)

    def seal(self, pieces: list[bytes]) -> bytes:
        return seal(pieces)

    def verify(self, state: bytes) -> None:
        machine.restore(state, self._latest)

    def restore(self, state: bytes) -> None:
        self.state = machine.restore(state, self._latest)
        self.checkpoints.begin(self.state)
        self.history.restart(self.state.index)
