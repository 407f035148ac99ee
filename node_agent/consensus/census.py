"""A voter whose disk is empty, though the cluster exists: what the others must tell it before it may take part again. Pure.

It may have voted, and it may have acknowledged entries, in any term up to the highest that it ever saw, and remembers nothing. So it takes
a term above all that the others know of (`floor`): whoever it voted for, or acknowledged to, is among them and knows that term. It follows
from there, neither voting nor standing, until it has applied an entry of that term or a later one: the leader of such a term was elected
without it, hence holds everything that was committed with its help (docs/adr/0026).
"""

from __future__ import annotations

from collections.abc import Sequence

from node_agent.consensus.messages import TellStanding


class Census:
    def __init__(self, name: str, voters: Sequence[str]) -> None:
        self._others = sorted(set(voters) - {name})
        self._quorum = len(voters) // 2 + 1
        self._told: dict[str, TellStanding] = {}

    def hear(self, voter: str, tell: TellStanding) -> None:
        if voter in self._others:
            self._told[voter] = tell

    @property
    def cluster_exists(self) -> bool:
        return any(tell.member and tell.formed for tell in self._told.values())

    @property
    def voters(self) -> tuple[str, ...]:
        """Whose votes count, by the word of those who vote; empty while none of them has told."""
        return next((tell.voters for _, tell in sorted(self._told.items()) if tell.member and tell.voters), ())

    @property
    def floor(self) -> int | None:
        """The term to begin at; None until every other voter has told its own, and a quorum of them are members with a memory."""
        if set(self._told) != set(self._others) or sum(tell.member for tell in self._told.values()) < self._quorum:
            return None
        return max(tell.term for tell in self._told.values()) + 1

    @property
    def lacking(self) -> str:
        """What `floor` still waits for."""
        if silent := [name for name in self._others if name not in self._told]:
            return f"{', '.join(silent)} must say how far the cluster has come"
        return f"{self._quorum} of the other voters must still have their journals"
