"""One service's candidates, by node, and what has been asked about them. Pure: changed by what changed, never made anew for it.

What is worked out of a node's candidates holds until they are others. An answer costs a look at every node, not at every instance, and an
answer is remembered until something of the service changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from hmcore.pool import Candidate, Cell, Kind, Locality, Pool, cells, share, share_out
from hmcore.ring import Ring, Share
from hmcore.selection import Filter

REMEMBERED = 16  # answers of each sort: those given first make room for others

_NOBODY: tuple[Candidate, ...] = ()

K = TypeVar("K")
V = TypeVar("V")


class Roster:
    """All candidates at one moment, and their ring, made when it is asked for first and from then on from that of the moment before."""

    def __init__(self, by_node: Mapping[str, tuple[Candidate, ...]], ring: Ring | None = None) -> None:
        """`by_node` in the order of the nodes' names."""
        self.by_node = by_node
        self._ring = ring

    def changed(self, changes: Mapping[str, tuple[Candidate, ...]]) -> Roster:
        """With other candidates for some nodes; none takes a node away."""
        by_node = {name: candidates for name, candidates in {**self.by_node, **changes}.items() if candidates}
        if not self.by_node.keys() >= by_node.keys():
            by_node = dict(sorted(by_node.items()))
        if self._ring is None:
            return Roster(by_node)
        before = {each for name in changes for each in _shares(self.by_node.get(name, _NOBODY))}
        after = {each for candidates in changes.values() for each in _shares(candidates)}
        return Roster(by_node, self._ring.changed(before - after, after - before) if before != after else self._ring)

    def ring(self) -> Ring:
        if self._ring is None:
            self._ring = Ring.of({each for candidates in self.by_node.values() for each in _shares(candidates)})
        return self._ring


class Index:
    """What it returns never changes: the next change makes new ones."""

    def __init__(self) -> None:
        self._roster = Roster({})
        self._cells: dict[str, tuple[Cell, ...]] = {}  # by node, of those that were looked at since they are as they are
        self._found: dict[Filter, tuple[Candidate, ...]] = {}
        self._pools: dict[tuple[object, ...], Pool] = {}

    def change(self, changes: Mapping[str, tuple[Candidate, ...]]) -> None:
        self._roster = self._roster.changed(changes)
        self._found.clear()
        self._pools.clear()
        for name in changes:
            self._cells.pop(name, None)

    def __bool__(self) -> bool:
        return bool(self._roster.by_node)

    def __len__(self) -> int:
        return sum(map(len, self._roster.by_node.values()))

    def __iter__(self) -> Iterator[Candidate]:
        return chain.from_iterable(self._roster.by_node.values())

    def lookup(self, asked: Filter) -> tuple[Candidate, ...]:
        found = self._found.get(asked)
        if found is None:
            found = tuple(chain.from_iterable(cell.found for cell in self._asked(asked)))
            _remember(self._found, asked, found)
        return found

    def pool(self, asked: Filter, locality: Locality, allow_unknown: bool, reach: frozenset[str] | None, but: frozenset[str]) -> Pool:
        question = (asked, locality, allow_unknown, reach, but)
        pool = self._pools.get(question)
        if pool is None:
            some, ring = self._asked(asked, reach), self._roster.ring
            pool = share_out(some, locality=locality, allow_unknown=allow_unknown, but=but, ring=ring)
            _remember(self._pools, question, pool)
        return pool

    def _asked(self, asked: Filter, reach: frozenset[str] | None = None) -> Iterator[Cell]:
        """What the filter lets through on the nodes within reach, by node. It is asked once for each kind, and once for each node."""
        anywhere = replace(asked, node="", labels=())
        somewhere = replace(Filter(labels=asked.labels), include_maintenance=True) if asked.labels else None
        passes: dict[Kind, bool] = {}
        for name in self._names(asked.node):
            if reach is not None and name not in reach:
                continue
            of_node = self._cells.get(name)
            if of_node is None:
                of_node = self._cells[name] = cells(self._roster.by_node[name])
            if somewhere is not None and somewhere.why_not(of_node[0].found[0]) is not None:
                continue
            for cell in of_node:
                passed = passes.get(cell.kind)
                if passed is None:
                    passed = passes[cell.kind] = anywhere.why_not(cell.found[0]) is None
                if passed:
                    yield cell

    def _names(self, only: str) -> Iterable[str]:
        if not only:
            return self._roster.by_node
        return [only] if only in self._roster.by_node else []


def _shares(candidates: tuple[Candidate, ...]) -> Iterator[Share]:
    return (share(each.instance) for each in candidates if each.instance.weight > 0)


def _remember(known: dict[K, V], question: K, answer: V) -> None:
    if len(known) >= REMEMBERED:
        del known[next(iter(known))]
    known[question] = answer
