"""Where one replica goes, by the same order of preference as in choosing.py, without a number made for each node.

For a service of few replicas that order is hardly worth making. So what comes before the burden parts the nodes into sets (bits.py), and
the shelves (shelves.py) have them by burden already. Whether there is room on a node is only asked of those that would be taken: one that
has none will have none in the same plan (ledger.py), and is not asked again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hmcore.apps.ports import Number
from node_agent.orchestration.scheduling.bits import bits, first, numbers
from node_agent.orchestration.scheduling.filters import only_on
from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.needs import Needs, Service

Level = Sequence[tuple[int, int]]  # a count and the nodes that have it, in bits; those in none of its sets have 0

_FEW = 4  # nodes for a shelf: if fewer are left, each of them is looked at instead of each shelf


class Picker:
    """Of one plan."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._without: dict[tuple[int, int, tuple[tuple[Number, str], ...]], int] = {}  # who was found to have no room for that

    def take(self, service: Service, needs: Needs, homes: Mapping[str, str], *, node: str = "", image: str = "") -> int | None:
        """The first node, on which a replica is then entered in the ledger; None: no node fits. `homes`, `node`: as in filters.py. Where
        volumes have no home yet, a node that has most of them comes before all others: data of an app that was here before."""
        if (needs.published or needs.taken) and self._ledger.rival(service, needs) is not None:
            return None
        passing = self._passing(service, needs, homes, node)
        levels = self._levels(service, needs, homes) if passing.bit_count() > 1 else ()
        for part in _parts(passing, levels):
            number = self._lightest(part, service, needs, image)
            if number is not None:
                self._ledger.add(number, service, needs)
                return number
        return None

    def _passing(self, service: Service, needs: Needs, homes: Mapping[str, str], node: str) -> int:
        """All filters but for room and ports."""
        fleet = self._ledger.fleet
        passing = fleet.usable(needs).bits & ~self._without.get(_wanted(needs), 0)
        if only := only_on(needs, homes, node):
            number = fleet.numbers.get(only.pop()) if len(only) == 1 else None
            passing &= 0 if number is None else 1 << number
        if full := self._ledger.full(service, needs):
            passing &= ~bits(full, len(fleet))
        return passing

    def _levels(self, service: Service, needs: Needs, homes: Mapping[str, str]) -> Iterator[Level]:
        """What comes before the burden, the most important first; of each, less is better."""
        fleet, replicas = self._ledger.fleet, self._ledger.replicas(service)
        held = Counter(number for volume in needs.bound if volume not in homes for number in fleet.holding(volume))
        if held:
            yield [(-count, 1 << number) for number, count in held.items()]
        if replicas:
            yield from self._branches(needs, replicas)
            yield self._by_count(replicas)

    def _branches(self, needs: Needs, replicas: Mapping[int, int]) -> Iterator[Level]:
        paths, members = self._ledger.fleet.paths(needs.spread), self._ledger.fleet.branches(needs.spread)
        for level in range(len(needs.spread)):
            counts: Counter[int] = Counter()
            for number, count in replicas.items():
                counts[paths[number][level]] += count
            yield [(count, members[branch]) for branch, count in counts.items()]

    def _by_count(self, replicas: Mapping[int, int]) -> Level:
        having: dict[int, list[int]] = defaultdict(list)
        for number, count in replicas.items():
            having[count].append(number)
        return [(count, bits(there, len(self._ledger.fleet))) for count, there in having.items()]

    def _lightest(self, part: int, service: Service, needs: Needs, image: str) -> int | None:
        """The first by burden, image and place on the circle that has room."""
        fleet, shelves = self._ledger.fleet, self._ledger.room.shelves
        start, having = fleet.start(*service), fleet.bits_having(image)
        if part.bit_count() * _FEW < len(shelves):
            return self._lightest_of(numbers(part), needs, start, having)
        for shelf in shelves:
            if here := shelf & part:
                number = self._nearest(here, needs, start, having)
                if number is not None:
                    return number
                part ^= here
                if not part:
                    break
        return None

    def _nearest(self, nodes: int, needs: Needs, start: int, having: int) -> int | None:
        """Of nodes with the same burden."""
        while nodes:
            number = first(nodes & having or nodes, start)
            if self._ledger.holds(number, needs):
                return number
            nodes ^= 1 << number
            self._without[_wanted(needs)] = self._without.get(_wanted(needs), 0) | 1 << number
        return None

    def _lightest_of(self, few: Iterable[int], needs: Needs, start: int, having: int) -> int | None:
        burdens, size = self._ledger.room.burdens, len(self._ledger.fleet)
        return min(
            (number for number in few if self._ledger.holds(number, needs)),
            key=lambda number: (burdens[number], not having >> number & 1, (number - start) % size),
            default=None,
        )


def _parts(nodes: int, levels: Iterable[Level]) -> Iterator[int]:
    """The nodes in sets, which are equal in all levels, the best first."""
    parts = [nodes] if nodes else []
    for level in levels:
        parts = [better for part in parts for better in _parted(part, level)]
    return iter(parts)


def _parted(nodes: int, level: Level) -> list[int]:
    found: dict[int, int] = {}
    for count, members in level:
        if here := nodes & members:
            found[count] = found.get(count, 0) | here
            nodes ^= here
    if nodes:
        found[0] = found.get(0, 0) | nodes
    return [found[count] for count in sorted(found)]


def _wanted(needs: Needs) -> tuple[int, int, tuple[tuple[Number, str], ...]]:
    return needs.cpus, needs.memory, needs.taken
