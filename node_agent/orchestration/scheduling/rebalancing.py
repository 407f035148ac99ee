"""Which few allocations to move, when an operator asks for it, so that everything is more even. Pure, and nothing moves by itself.

Every move makes things strictly better, in this order: replicas of a service over the branches of its labels, the most important first, and
over nodes; then the greater load of two nodes; then how many allocations they have. None of them may become worse for the sake of a later
one, so moves come to an end. A move is a new allocation first and the end of the old one then: both must fit at the same time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import product

from hmcore.apps.records import Allocation
from node_agent.orchestration.scheduling.filters import fitting
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.model import Candidate, Move, Placed
from node_agent.orchestration.scheduling.needs import Needs, Service, Wants
from node_agent.orchestration.scheduling.room import PER_MILLE, Room
from node_agent.orchestration.scheduling.standing import enter, homes_of

WORTH = PER_MILLE // 20  # by how much the greater load of two nodes must fall, for a move to be worth it
ENDS = 32  # nodes at either end of the order by load that are looked at


def rebalance(
    candidates: Iterable[Candidate], placed: Iterable[Placed], homes: Mapping[str, str], *, limit: int, apps: Set[str] | None = None
) -> tuple[Move, ...]:
    """At most `limit` moves, in the order in which they are to be made. `apps`: only theirs (None: of all). What stops, global services and
    what is bound to its node by a volume stay where they are; so does what is on a node where nothing new goes: what is to leave that
    does so without being asked."""
    wants, fleet = Wants(), Fleet(candidates)
    known = sorted(placed, key=lambda each: each.allocation.id)
    balance = _Balance(fleet, wants, known, {**homes_of(wants, known), **homes}, apps)
    moves: list[Move] = []
    while len(moves) < limit:
        moved = balance.even_services(limit - len(moves))
        if not moved:
            break
        moves += moved
    while len(moves) < limit and (move := balance.even_nodes()) is not None:
        moves.append(move)
    return tuple(moves)


@dataclass(slots=True)
class _Group:
    """Allocations of one service that may move, by the number of their node."""

    service: Service
    needs: Needs
    movable: dict[int, list[Allocation]] = field(default_factory=dict)


class _Balance:
    def __init__(self, fleet: Fleet, wants: Wants, placed: Sequence[Placed], homes: Mapping[str, str], apps: Set[str] | None) -> None:
        self._fleet = fleet
        self._homes = homes
        self._ledger = Ledger(fleet)  # of all that takes up room: also what has moved away, until it is gone
        enter(self._ledger, wants, placed)
        self._staying = Room([each.capacity for each in fleet.candidates])  # of what will be there in the end
        self._groups: dict[tuple[Service, Needs], _Group] = {}
        for each in placed:
            needs, number = wants.of(each.spec, each.volumes), fleet.numbers.get(each.allocation.node)
            if number is not None and not each.allocation.stop:
                self._staying.put(number, needs)
                self._join(each, needs, number, apps)

    def _join(self, placed: Placed, needs: Needs, number: int, apps: Set[str] | None) -> None:
        allocation = placed.allocation
        if placed.spec.mode == "global" or needs.bound or number not in self._fleet.open:
            return
        if apps is None or allocation.app in apps:
            service = allocation.app, allocation.service
            group = self._groups.setdefault((service, needs), _Group(service, needs))
            group.movable.setdefault(number, []).append(allocation)

    def even_services(self, limit: int) -> list[Move]:
        """A move for each service that it helps."""
        moves: list[Move] = []
        for key in sorted(self._groups):
            if len(moves) < limit and (move := self._even(self._groups[key])) is not None:
                moves.append(move)
        return moves

    def _even(self, group: _Group) -> Move | None:
        """The best move of a service, by the number of its replicas alone: of each branch the node with most, and the one with fewest."""
        counts, paths = self._ledger.replicas(group.service), self._fleet.paths(group.needs.spread)

        def standing(number: int) -> tuple[int, int, int]:
            return counts.get(number, 0), self._staying.burdens[number], number

        sources = {paths[number]: number for number in sorted(filter(group.movable.get, group.movable), key=standing)}
        fit = fitting(self._ledger, group.service, group.needs, self._homes)
        targets = {paths[number]: number for number in sorted(fit, key=standing, reverse=True)}
        branches = self._branches(group)
        pairs = [
            (self._gain(group, branches, source, target), source, target) for source in sources.values() for target in targets.values()
        ]
        best = max(pairs, key=lambda pair: (pair[0], -self._staying.burdens[pair[2]], pair), default=None)
        if best is None or best[0] <= (0,) * len(best[0]):
            return None
        gain, source, target = best
        return self._move(group, source, target, self._reason(group, branches, gain, source, target))

    def _reason(self, group: _Group, branches: Mapping[int, int], gain: tuple[int, ...], source: int, target: int) -> str:
        """At the first level where there is a gain, how many there are on either side."""
        counts, paths = self._ledger.replicas(group.service), self._fleet.paths(group.needs.spread)
        level = next(level for level, part in enumerate(gain) if part)
        names = self._fleet.name(source), self._fleet.name(target)
        if level < len(group.needs.spread):
            label = group.needs.spread[level]
            names = f"{label} of {names[0]}", f"{label} of {names[1]}"
            many, few = branches[paths[source][level]], branches[paths[target][level]]
        else:
            many, few = counts[source], counts.get(target, 0)
        return f"{'/'.join(group.service)}: {names[0]} has {many} replicas, {names[1]} has {few}"

    def _branches(self, group: _Group) -> dict[int, int]:
        paths = self._fleet.paths(group.needs.spread)
        branches: dict[int, int] = defaultdict(int)
        if not group.needs.spread:
            return branches
        for number, count in self._ledger.replicas(group.service).items():
            for branch in paths[number]:
                branches[branch] += count
        return branches

    def _gain(self, group: _Group, branches: Mapping[int, int], source: int, target: int) -> tuple[int, ...]:
        """Level by level, half of what the sum of the squared counts loses."""
        paths, counts = self._fleet.paths(group.needs.spread), self._ledger.replicas(group.service)
        levels = [
            0 if here == there else branches[here] - branches[there] - 1 for here, there in zip(paths[source], paths[target], strict=True)
        ]
        return *levels, 0 if source == target else counts.get(source, 0) - counts.get(target, 0) - 1

    def even_nodes(self) -> Move | None:
        """The first that helps two nodes and harms no service, the fullest and the emptiest node first."""
        order = sorted(range(len(self._fleet)), key=lambda n: (self._staying.burdens[n], n))
        targets = [number for number in order if number in self._fleet.open][:ENDS]
        for source in reversed(order[-ENDS:]):
            groups = [self._groups[key] for key in sorted(self._groups) if self._groups[key].movable.get(source)]
            for target, group in product(targets, groups):
                if (reason := self._helps(group, source, target)) and self._harmless(group, source, target):
                    return self._move(group, source, target, reason)
        return None

    def _harmless(self, group: _Group, source: int, target: int) -> bool:
        if not fitting(self._ledger, group.service, group.needs, self._homes, self._fleet.name(target)):
            return False
        gain = self._gain(group, self._branches(group), source, target)
        return gain >= (0,) * len(gain)

    def _helps(self, group: _Group, source: int, target: int) -> str:
        """Why the two nodes are better off; empty: they are not."""
        before = self._staying.load(source), self._staying.load(target)
        after = self._staying.load(source, group.needs, -1), self._staying.load(target, group.needs)
        names = self._fleet.name(source), self._fleet.name(target)
        if max(after) <= max(before) - WORTH:
            return f"{names[0]} is reserved to {before[0] / 10:g} %, {names[1]} to {before[1] / 10:g} %"
        held = self._staying.held[source], self._staying.held[target]
        if held[0] - held[1] > 1 and sorted(after, reverse=True) <= sorted(before, reverse=True):
            return f"{names[0]} has {held[0]} allocations, {names[1]} has {held[1]}"
        return ""

    def _move(self, group: _Group, source: int, target: int, reason: str) -> Move:
        """The youngest goes, and is not moved again."""
        allocation = max(group.movable[source], key=lambda each: (each.slot, each.id))
        group.movable[source].remove(allocation)
        self._ledger.leave(source, group.service)
        self._ledger.add(target, group.service, group.needs)
        self._staying.put(source, group.needs, -1)
        self._staying.put(target, group.needs)
        return Move(allocation, self._fleet.name(target), reason)
