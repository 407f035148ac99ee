"""All nodes by their burden, kept in order while the burdens change: who bears least is found without a look at each node."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from node_agent.orchestration.scheduling.bits import bits


class Shelves:
    """A shelf is the set (bits.py) of the nodes with the same burden; none is empty."""

    def __init__(self, burdens: Sequence[int]) -> None:
        by_burden: dict[int, list[int]] = {}
        for number, burden in enumerate(burdens):
            by_burden.setdefault(burden, []).append(number)
        self._shelf = {burden: bits(numbers, len(burdens)) for burden, numbers in by_burden.items()}
        self._order = sorted(self._shelf)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[int]:
        """The lowest burden first."""
        return map(self._shelf.__getitem__, self._order)

    def move(self, number: int, before: int, after: int) -> None:
        """A node's burden has changed."""
        bit = 1 << number
        left = self._shelf[before] ^ bit
        if left:
            self._shelf[before] = left
        else:
            del self._shelf[before], self._order[bisect_left(self._order, before)]
        there = self._shelf.get(after)
        if there is None:
            insort(self._order, after)
        self._shelf[after] = (there or 0) | bit
