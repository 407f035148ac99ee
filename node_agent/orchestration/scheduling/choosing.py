"""Who comes first among the nodes that fit, for replicas of one service one after the other.

The order of preference: where fewest replicas of the service are, by the labels that they are spread over, the most important first; then
on the node itself; the lowest burden (room.py); the image is there already; the circle (fleet.py).

All but the first is one whole number for each node, so that the nodes of a branch are a heap of numbers. These heaps are in another one,
whose entries may be out of date: the counts of branches only grow, so an entry that is still right when it comes up is the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from operator import add

from node_agent.orchestration.scheduling.fleet import Path
from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.needs import Needs, Service
from node_agent.orchestration.scheduling.room import BURDEN, LIGHTER

IMAGE = BURDEN >> 1  # it is taken off where the image is
PLACE = IMAGE - 1  # on the circle
REPLICA = LIGHTER

_FEW = 8  # less than a part of so many of all nodes: their numbers are made one by one


class Choice:
    """`nodes`: who fits (filters.py), by number; so all of them do until something is placed elsewhere than here."""

    def __init__(self, ledger: Ledger, service: Service, needs: Needs, nodes: Sequence[int], *, image: str = "") -> None:
        fleet = ledger.fleet
        if len(fleet) > PLACE:
            raise ValueError(f"at most {PLACE} nodes, not {len(fleet)}")
        self._ledger = ledger
        self._service = service
        self._needs = needs
        self._start = fleet.start(*service)
        self._having = fleet.having(image)
        keys = self._all_keys(nodes) if len(nodes) * _FEW > len(fleet) else [self._key(number) for number in nodes]
        self._paths = fleet.paths(needs.spread) if needs.spread else None
        self._branches: dict[int, int] = defaultdict(int)
        self._heaps = self._by_path(nodes, keys)
        for heap in self._heaps.values():
            heapify(heap)
        self._first = [(self._counts(path), heap[0], path) for path, heap in self._heaps.items()]
        heapify(self._first)

    def take(self) -> int | None:
        """The first node, on which a replica is then entered in the ledger; None: no node fits any more."""
        heap, path = self._best()
        if heap is None:
            return None
        number = self._number(heap[0])
        self._ledger.add(number, self._service, self._needs)
        for branch in path:
            self._branches[branch] += 1
        if self._ledger.roomy(number, self._service, self._needs):
            heapreplace(heap, self._key(number))
        else:
            heappop(heap)
        return number

    def _best(self) -> tuple[list[int] | None, Path]:
        first = self._first
        while first:
            path = first[0][2]
            heap = self._heaps[path]
            if not heap:
                heappop(first)
                continue
            now = self._counts(path), heap[0], path
            if now == first[0]:
                return heap, path
            heapreplace(first, now)
        return None, ()

    def _counts(self, path: Path) -> tuple[int, ...]:
        return tuple([self._branches[branch] for branch in path])

    def _by_path(self, nodes: Sequence[int], keys: list[int]) -> dict[Path, list[int]]:
        if self._paths is None:
            return {(): keys} if keys else {}
        for number, count in self._ledger.replicas(self._service).items():
            for branch in self._paths[number]:
                self._branches[branch] += count
        if len(nodes) == len(self._ledger.fleet):
            parts = self._ledger.fleet.parts(self._needs.spread)
            return {path: [keys[number] for number in part] for path, part in parts.items()}
        heaps: dict[Path, list[int]] = {}
        for number, key in zip(nodes, keys, strict=True):
            heaps.setdefault(self._paths[number], []).append(key)
        return heaps

    def _number(self, key: int) -> int:
        return ((key & PLACE) + self._start) % len(self._ledger.fleet)

    def _key(self, number: int) -> int:
        return (
            self._ledger.replicas(self._service).get(number, 0) * REPLICA
            + self._ledger.room.burdens[number]
            - (IMAGE if number in self._having else 0)
            + (number - self._start) % len(self._ledger.fleet)
        )

    def _all_keys(self, nodes: Sequence[int]) -> list[int]:
        """The same for many: of all nodes at once, and then what is particular to a few."""
        ledger = self._ledger
        keys = list(map(add, ledger.room.burdens, ledger.fleet.ranks(self._start)))
        for number in self._having:
            keys[number] -= IMAGE
        for number, count in ledger.replicas(self._service).items():
            keys[number] += count * REPLICA
        return [keys[number] for number in nodes] if len(nodes) < len(keys) else keys
