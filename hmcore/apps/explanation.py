"""Why a replica has no place: what each filter removed, with figures. Data for programs, and the same in words. Pure.

Every node is counted once, with the first filter that it does not pass, in the order of `Filter`: of a replica that waits, what was removed
adds up to all nodes.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

MOST_NAMED = 10  # nodes in a removal: the figures count all of them

_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


class Filter(StrEnum):
    """What a node must pass, in this order."""

    PUBLISHED = "published"  # the port is not another service's, on any node
    READY = "ready"
    STUCK = "stuck"  # one of the same could be started there, as far as is known
    ROLE = "role"  # it runs apps at all
    CONSTRAINT = "constraint"
    VOLUME = "volume"  # it has the data
    MAX_PER_NODE = "max-per-node"
    PORT = "port"  # of the node itself
    CPUS = "cpus"
    MEMORY = "memory"


class Removal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`filter` removed `removed` of the `of` nodes that had come so far; `nodes` are some of them, by name.

    `what`: the constraint, port (`8080/tcp`) or volume that it is about. `states`: of READY, how many are down, draining ... `wanted`, and
    the `most` that one of those removed has free, `best`: thousandths of a processor, or bytes; of MAX_PER_NODE `wanted` is the limit.
    `owner`: whose the port is (`app/service`), or the node where the volume lives (empty: it is external). `error`: why the constraint
    cannot be understood.
    """

    filter: Filter
    removed: int
    of: int
    nodes: tuple[str, ...] = ()
    what: str = ""
    states: dict[str, int] = {}
    wanted: int = 0
    most: int = 0
    best: str = ""
    owner: str = ""
    error: str = ""

    @property
    def text(self) -> str:
        """`memory: 3 of 5 nodes have less than 2 GiB free; the most is 1.2 GiB on node2`."""
        return f"{self.filter.value}: {self._words()}"

    def _words(self) -> str:
        match self.filter:
            case Filter.PUBLISHED:
                return f"{self.what} belongs to {self.owner}"
            case Filter.READY:
                states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
                return f"{self._count('is', 'are')} not ready ({states})"
            case Filter.STUCK:
                return f"{self._count('could', 'could')} not start one a while ago"
            case Filter.ROLE:
                return f"{self._count('runs', 'run')} no apps"
            case Filter.CONSTRAINT if self.error:
                return f"{self.what} cannot be understood: {self.error}"
            case Filter.CONSTRAINT:
                return f"{self._count('does', 'do')} not satisfy {self.what}"
            case Filter.VOLUME:
                lives = f", which lives on {self.owner}" if self.owner else ", which is external"
                return f"{self._count('does', 'do')} not have {self.what}{lives}"
            case Filter.MAX_PER_NODE:
                return f"{self._count('has', 'have')} {self.wanted} of the service already, the most that a node may have"
            case Filter.PORT:
                return f"{self._count('has', 'have')} {self.what} in use"
            case Filter.CPUS:
                return f"{self._count('has', 'have')} less than {_processors(self.wanted)} free; {self._best(f'{self.most / 1000:g}')}"
            case Filter.MEMORY:
                return (
                    f"{self._count('has', 'have')} less than {_size(self.wanted, up=True)} free; {self._best(_size(self.most, up=False))}"
                )

    def _count(self, one: str, many: str) -> str:
        return f"{self.removed} of {self.of} {'node' if self.of == 1 else 'nodes'} {one if self.removed == 1 else many}"

    def _best(self, most: str) -> str:
        return f"the most is {most} on {self.best}" if self.best else f"the most is {most}"


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of the `nodes` that were asked for, what each filter that removed any did, in order. `fit`: how many passed all."""

    nodes: int
    fit: int = 0
    removals: tuple[Removal, ...] = ()

    @property
    def text(self) -> str:
        """A line for each filter, or one that says that nothing is amiss."""
        if self.removals:
            return "\n".join(removal.text for removal in self.removals)
        return f"{self.fit} of {self.nodes} nodes fit" if self.nodes else "there are no nodes"


def _size(number: int, *, up: bool) -> str:
    """To a tenth: what is wanted up and what there is down, so that what does not suffice never looks as if it did."""
    for unit, size in _UNITS:
        if number >= size:
            tenths = -(-number * 10 // size) if up else number * 10 // size
            return f"{tenths / 10:g} {unit}"
    return f"{number} B"


def _processors(thousandths: int) -> str:
    return "1 processor" if thousandths == 1000 else f"{thousandths / 1000:g} processors"
