"""Commands on their way into the log: those that arrive while a batch is in flight form the next one. One log entry a batch.

What comes of a proposal is told to `done`: its receipt, or the error that the caller shall see. pysyncobj may forget a batch (a lost
leadership), so whoever owns this abandons it then; `done` is called exactly once all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hmcore.errors import HyperMeshError
from node_agent.consensus.statemachine.commands import Proposal, Receipt, encode_batch

Done = Callable[[Receipt | HyperMeshError], None]

_MAX_PROPOSALS = 1000  # a batch: an entry must not keep the loop busy for long


class Proposals:
    """`propose(batch, done)` puts a batch into the log and calls `done` with a receipt for each proposal, or with None if it was lost.

    Of batches, up to `in_flight` are on their way at a time, of up to `max_bytes` each (a larger command travels alone).
    """

    def __init__(
        self, propose: Callable[[bytes, Callable[[list[Receipt] | None], None]], None], *, max_bytes: int, in_flight: int = 1
    ) -> None:
        self._propose = propose
        self._max_bytes = max_bytes
        self._in_flight = in_flight
        self._waiting: deque[tuple[Proposal, Done]] = deque()
        self._flying: dict[int, list[tuple[Proposal, Done]]] = {}  # by a number that only tells them apart
        self._count = 0
        self._held = False

    @property
    def settled(self) -> bool:
        """Whether none is on its way into the log."""
        return not self._flying

    def hold(self) -> None:
        """Let what comes from now on wait until `release`."""
        self._held = True

    def release(self) -> None:
        self._held = False
        self._flush()

    def offer(self, proposal: Proposal, done: Done) -> None:
        self._waiting.append((proposal, done))
        self._flush()

    def abandon(self, error: HyperMeshError) -> None:
        """Nobody will answer these any more: tell their callers `error`. They may have been applied all the same."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self.lose(error)
        for _, done in waiting:
            done(error)

    def lose(self, error: HyperMeshError) -> None:
        """The same for what is on its way into the log; what waits goes on waiting."""
        lost = [item for batch in self._flying.values() for item in batch]
        self._flying.clear()
        for _, done in lost:
            done(error)

    def _flush(self) -> None:
        while self._waiting and not self._held and len(self._flying) < self._in_flight:
            self._send(self._take())

    def _send(self, batch: list[tuple[Proposal, Done]]) -> None:
        encoded = encode_batch([proposal for proposal, _ in batch])
        self._count += 1
        number = self._count
        self._flying[number] = batch

        def settled(receipts: list[Receipt] | None) -> None:
            if receipts is None or len(receipts) != len(batch) or self._flying.pop(number, None) is None:
                return  # lost, or it could not be carried out here: it will be abandoned; or it was already
            for (_, done), receipt in zip(batch, receipts, strict=True):
                done(receipt)
            self._flush()

        self._propose(encoded, settled)

    def _take(self) -> list[tuple[Proposal, Done]]:
        batch: list[tuple[Proposal, Done]] = []
        size = 0
        while self._waiting and len(batch) < _MAX_PROPOSALS:
            size += len(self._waiting[0][0].command)
            if batch and size > self._max_bytes:
                break
            batch.append(self._waiting.popleft())
        return batch
