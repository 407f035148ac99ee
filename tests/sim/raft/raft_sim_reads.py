"""Clients that ask what is true now. What they are told must hold every write that was acknowledged, and every state that was told to
anybody, before they asked (linearizability; that states at equal log index are equal is checked elsewhere)."""

from __future__ import annotations

from collections import Counter

from hmcore.errors import HyperMeshError
from node_agent.consensus.member import Member


class Readers:
    """`broken`: the first promise that was. It is not raised where it is found: pysyncobj would swallow it."""

    def __init__(self, seen: Counter[str]) -> None:
        self._seen = seen
        self._known = 0  # log index of the latest that any client knows
        self.broken: str | None = None

    def acknowledged(self, index: int) -> None:
        """A client was told that its write is in the log at `index`."""
        self._known = max(self._known, index)

    def ask(self, member: Member, timeout: float) -> None:
        """Have a client read from `member`, whether or not it leads. It is answered exactly once."""
        floor = self._known
        answers = 0

        def done(outcome: int | HyperMeshError) -> None:
            nonlocal answers
            answers += 1
            if answers > 1:
                self.broken = self.broken or "a read was answered twice"
            if not isinstance(outcome, int):
                self._seen[f"read: {type(outcome).__name__}"] += 1
                return
            self._seen["read"] += 1
            if outcome < floor:
                self.broken = self.broken or "a stale read"
            if member.replica.state.index < outcome:
                self.broken = self.broken or "a read was answered before its state was there"
            self._known = max(self._known, outcome)

        member.barrier(done, timeout=timeout)
