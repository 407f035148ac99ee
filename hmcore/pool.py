"""Who shares a service's traffic: failover by health and by priority, locality. Pure.

Candidates are kept apart by node and, there, by kind, so that a filter or the failover asks once for all that are alike. To say who shares
the traffic after a change costs a look at every node, not at every instance, whatever was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain, groupby
from typing import NamedTuple

from hmcore.records import Instance, InstanceHealth, Maintenance
from hmcore.ring import Circle, Ring, Share, heaviest, weight_class

FEW = 100  # a pool that has less than one in so many of a ring's instances makes a ring of its own rather than to pass by all others

_TIERS = (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED, InstanceHealth.UNKNOWN)
_RANK = {health: rank for rank, health in enumerate(_TIERS)}
_UNKNOWN = _RANK[InstanceHealth.UNKNOWN]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance with all that matters for choosing it. `labels` are its node's."""

    instance: Instance
    maintenance: Maintenance | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Locality:
    """Who asks: instances on its own node come first, then those whose node has the same value of `label`."""

    node: str = ""
    label: str = ""
    value: str = ""


ANYWHERE = Locality()


class Kind(NamedTuple):
    """What a filter, or the failover, may ask of an instance, but for where it is."""

    health: InstanceHealth
    priority: int
    version: str
    tags: tuple[str, ...]
    out: bool  # in maintenance


@dataclass(frozen=True)
class Group:
    """Instances of one node that are equally good, by id. What is worked out of them is kept with them, and they outlive the pools that
    they are in: another node's change does not concern them."""

    node: str
    labels: Mapping[str, str]
    members: tuple[Candidate, ...]

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """Added up."""
        return tuple(accumulate(each.instance.weight for each in self.members))

    @cached_property
    def by_id(self) -> Mapping[str, Candidate]:
        return {each.instance.id: each for each in self.members}

    @cached_property
    def classes(self) -> tuple[tuple[int, int], ...]:
        """How many members there are, by the class of their weight."""
        found: dict[int, int] = {}
        for each in self.members:
            number = weight_class(each.instance.weight)
            found[number] = found.get(number, 0) + 1
        return tuple(found.items())

    def without(self, ids: frozenset[str]) -> Group | None:
        left = tuple(each for each in self.members if each.instance.id not in ids)
        return Group(self.node, self.labels, left) if left else None


@dataclass(frozen=True, slots=True)
class Cell:
    """One node's instances of one kind. `standing`: lower is better; `fit`: those that may get traffic at all, None if there is none."""

    kind: Kind
    found: tuple[Candidate, ...]
    standing: tuple[int, int]
    fit: Group | None


def cells(candidates: Iterable[Candidate]) -> tuple[Cell, ...]:
    """Of one node."""
    kinds: dict[Kind, list[Candidate]] = {}
    for each in sorted(candidates, key=_id):
        one = each.instance
        kind = Kind(one.health, one.priority, one.version, tuple(one.tags), each.maintenance is not None)
        kinds.setdefault(kind, []).append(each)
    return tuple(_cell(kind, tuple(found)) for kind, found in kinds.items())


def _cell(kind: Kind, found: tuple[Candidate, ...]) -> Cell:
    rank = _RANK.get(kind.health)
    fit = () if rank is None or kind.out else tuple(each for each in found if each.instance.weight > 0)
    group = Group(found[0].instance.node, found[0].labels, fit) if fit else None
    return Cell(kind, found, (len(_TIERS) if rank is None else rank, kind.priority), group)


@dataclass(frozen=True)
class Pool:
    """The instances that the next call may go to, equally good, by node. Empty: none is fit.

    `ring`, if given, makes the ring of instances that include all of these; otherwise the consistent hash makes one of the members alone.
    """

    groups: tuple[Group, ...] = ()
    ring: Callable[[], Ring] | None = field(default=None, compare=False, repr=False)

    def __iter__(self) -> Iterator[Candidate]:
        return chain.from_iterable(group.members for group in self.groups)

    @cached_property
    def members(self) -> tuple[Candidate, ...]:
        return tuple(self)

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """Of the groups, added up."""
        return tuple(accumulate(group.weights[-1] for group in self.groups))

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Members of the groups, added up."""
        return tuple(accumulate(len(group.members) for group in self.groups))

    @cached_property
    def _by_node(self) -> Mapping[str, list[Group]]:
        found: dict[str, list[Group]] = {}
        for group in self.groups:
            found.setdefault(group.node, []).append(group)
        return found

    @cached_property
    def circles(self) -> tuple[tuple[int, Circle], ...]:
        """Where the consistent hash looks for members, and how heavy they are at most; the heaviest first, who are near most often."""
        wanted: dict[int, int] = {}
        for group in self.groups:
            for number, count in group.classes:
                wanted[number] = wanted.get(number, 0) + count
        shared = self.ring().circles if self.ring is not None else {}
        few = {number for number, count in wanted.items() if number not in shared or count * FEW < shared[number].size}
        own = Ring.of(share(each.instance) for each in self if weight_class(each.instance.weight) in few).circles if few else {}
        return tuple((heaviest(number), own[number] if number in own else shared[number]) for number in sorted(wanted, reverse=True))

    @cached_property
    def places(self) -> dict[str, Candidate]:
        """Where the consistent hash has put the latest keys: a pool never changes, so neither do they."""
        return {}

    def holds(self, node: str, id: str) -> bool:
        return any(id in group.by_id for group in self._by_node.get(node, ()))

    def __getitem__(self, where: tuple[str, str]) -> Candidate:
        """By node and id. Raises KeyError."""
        node, id = where
        for group in self._by_node.get(node, ()):
            if id in group.by_id:
                return group.by_id[id]
        raise KeyError(where)


def share(instance: Instance) -> Share:
    """What the ring has to know of an instance."""
    return Share(instance.id, instance.node, instance.weight)


def share_out(
    some: Iterable[Cell],
    *,
    locality: Locality = ANYWHERE,
    allow_unknown: bool = False,
    but: frozenset[str] = frozenset(),
    ring: Callable[[], Ring] | None = None,
) -> Pool:
    """Who shares the traffic, of cells in the order of their nodes, except the instances of `but`: see `gather`."""
    fewer = {id.partition("/")[0] for id in but}  # an instance's id begins with its node
    first: tuple[int, int] | None = None
    groups: list[Group] = []
    for cell in some:
        group, standing = cell.fit, cell.standing
        if group is None or (first is not None and standing > first) or (standing[0] == _UNKNOWN and not allow_unknown):
            continue
        if group.node in fewer and (group := group.without(but)) is None:
            continue
        if standing != first:
            first, groups = standing, []
        groups.append(group)
    return Pool(tuple(_nearest(groups, locality)), ring)


def gather(candidates: Iterable[Candidate], *, locality: Locality = ANYWHERE, allow_unknown: bool = False) -> Pool:
    """Who shares the traffic: of the healthy ones those of the lowest priority number, of these the nearest.

    Degraded ones only when none is healthy; unknown ones only when `allow_unknown` and there is nobody better; unhealthy ones, those of
    weight 0 and those in maintenance never.
    """
    nodes = groupby(sorted(candidates, key=_node), key=_node)
    return share_out(chain.from_iterable(cells(some) for _, some in nodes), locality=locality, allow_unknown=allow_unknown)


def _nearest(groups: list[Group], locality: Locality) -> list[Group]:
    if locality.node and (here := [each for each in groups if each.node == locality.node]):
        return here
    if locality.label and (near := [each for each in groups if each.labels.get(locality.label) == locality.value]):
        return near
    return groups


def _id(candidate: Candidate) -> str:
    return candidate.instance.id


def _node(candidate: Candidate) -> str:
    return candidate.instance.node
