"""How full each node is: what is reserved of it, and how many allocations it has."""

from __future__ import annotations

from collections.abc import Sequence

from hmcore.apps.spec import Resources
from node_agent.orchestration.scheduling.needs import Needs
from node_agent.orchestration.scheduling.shelves import Shelves

PER_MILLE = 1000
BURDEN = 1 << 21  # the unit of `burdens`: beneath it there is room for what is compared after them
LIGHTER = BURDEN << 27  # more than any burden

_MOST_HELD = (1 << 16) - 1  # allocations of a node that are told apart in its burden
_MOST_LOAD = (1 << 11) - 1


class Room:
    """Everything by the number of a node. `free_cpus` and `free_memory`: capacity less reservations, below 0 where a node has shrunk.

    `least_cpus` and `least_memory`: no node ever had less free. `burdens`: a node's load and, where that is equal, its allocations.
    """

    def __init__(self, capacities: Sequence[Resources]) -> None:
        self._capacities = capacities
        self.free_cpus = [each.cpus for each in capacities]
        self.free_memory = [each.memory for each in capacities]
        self.least_cpus = min(self.free_cpus, default=0)
        self.least_memory = min(self.free_memory, default=0)
        self.held = [0] * len(capacities)
        self.burdens = [0] * len(capacities)
        self._shelves: Shelves | None = None

    @property
    def shelves(self) -> Shelves:
        """The nodes by burden: made when they are first asked for, as not every plan does."""
        if self._shelves is None:
            self._shelves = Shelves(self.burdens)
        return self._shelves

    def put(self, number: int, needs: Needs, times: int = 1) -> None:
        self.free_cpus[number] -= times * needs.cpus
        self.free_memory[number] -= times * needs.memory
        self.least_cpus = min(self.least_cpus, self.free_cpus[number])
        self.least_memory = min(self.least_memory, self.free_memory[number])
        self.held[number] += times
        before = self.burdens[number]
        after = (min(self.load(number), _MOST_LOAD) * (_MOST_HELD + 1) + min(self.held[number], _MOST_HELD)) * BURDEN
        self.burdens[number] = after
        if self._shelves is not None:
            self._shelves.move(number, before, after)

    def load(self, number: int, more: Needs | None = None, times: int = 1) -> int:
        """Of what the node has, how much is reserved: per mille of cpus or of memory, the greater. `more`: if that came (or went)."""
        has = self._capacities[number]
        cpus, memory = has.cpus - self.free_cpus[number], has.memory - self.free_memory[number]
        if more is not None:
            cpus, memory = cpus + times * more.cpus, memory + times * more.memory
        return max(_share(cpus, has.cpus), _share(memory, has.memory))


def _share(part: int, whole: int) -> int:
    """What is reserved of nothing is all of it."""
    if part <= 0:
        return 0
    return part * PER_MILLE // whole if whole > 0 else PER_MILLE
