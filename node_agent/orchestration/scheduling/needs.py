"""What a service asks of a node, made once of its spec: what a scheduler compares a thousand times, in numbers and tuples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hmcore.apps.ports import ANY, Number, published, taken
from hmcore.apps.spec import ServiceSpec, Volume

Service = tuple[str, str]  # app and service


@dataclass(frozen=True, slots=True, order=True)
class Needs:
    """`cpus` in thousandths, `memory` in bytes. `taken`: ports of its node, with the address there; `published`: ports of all nodes.

    `bound`: volumes whose data is on one node, empty where every node has its own (a global service). `external`: those that must be
    there. `max_per_node` 0: any number. `shunned`: names of nodes.
    """

    constraints: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    max_per_node: int = 0
    cpus: int = 0
    memory: int = 0
    taken: tuple[tuple[Number, str], ...] = ()
    published: tuple[Number, ...] = ()
    bound: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    shunned: tuple[str, ...] = ()


class Wants:
    """Makes Needs, the same object for the same needs; within one plan."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[Needs, ServiceSpec, Sequence[Volume]]] = {}  # they are kept, so that their ids stay theirs
        self._known: dict[Needs, Needs] = {}

    def of(self, spec: ServiceSpec, volumes: tuple[Volume, ...], shunned: tuple[str, ...] = ()) -> Needs:
        seen = self._seen.get((id(spec), id(volumes)))
        if seen is None:
            needs = needs_of(spec, volumes)
            seen = self._known.setdefault(needs, needs), spec, volumes
            self._seen[id(spec), id(volumes)] = seen
        if shunned:
            needs = replace(seen[0], shunned=tuple(sorted(shunned)))
            return self._known.setdefault(needs, needs)
        return seen[0]


def needs_of(spec: ServiceSpec, volumes: Iterable[Volume] = ()) -> Needs:
    everywhere = spec.mode == "global"
    volumes = tuple(volumes)
    return Needs(
        constraints=spec.placement.constraints,
        spread=spec.placement.spread,
        max_per_node=0 if everywhere else max(0, spec.placement.max_per_node),
        cpus=max(0, spec.reservations.cpus),
        memory=max(0, spec.reservations.memory),
        taken=tuple(sorted(taken(spec))),
        published=tuple(sorted(published(spec))),
        bound=() if everywhere else bound(volumes),
        external=tuple(sorted({volume.name for volume in volumes if volume.external and volume.local})),
    )


def bound(volumes: Iterable[Volume]) -> tuple[str, ...]:
    """Docker's names of those whose data is on one node: what `homes` are kept for."""
    return tuple(sorted({volume.name for volume in volumes if not volume.external and volume.local}))


def clash(one: str, other: str) -> bool:
    """Whether the same port can not be had twice at these addresses of a node."""
    return one == other or ANY in (one, other)
