"""All instances that this node knows of, found by service. Pure: built from the replicated records, changed by what changed in them.

An update looks at every node's records but only at those whose records are others than before at their instances: with 10,000 instances
on 500 nodes, one node's change costs as much as its own instances, and what was looked up before is remembered until its service changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from hmcore.pool import ANYWHERE, Candidate, Locality, Pool
from hmcore.records import Instance, Maintenance, Node, Registration
from hmcore.selection import Filter, covering
from node_agent.registry.fitness import fitness
from node_agent.registry.index import Index

ALL = Filter()
_NOTHING: Mapping[str, Maintenance] = {}
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Records:
    """What one node's candidates were made from."""

    registration: Registration
    node: Node | None
    maintenance: Mapping[str, Maintenance]


class Catalogue:
    """Candidates by service. What it returns never changes: the next update makes new ones."""

    def __init__(self) -> None:
        self._seen: tuple[Mapping[str, Node], Mapping[str, Registration], Mapping[str, Maintenance]] = ({}, {}, {})
        self._records: dict[str, _Records] = {}  # by node
        self._of_node: dict[str, Mapping[str, tuple[Candidate, ...]]] = {}  # by node and service
        self._services: dict[str, Index] = {}

    def update(
        self, nodes: Mapping[str, Node], registrations: Mapping[str, Registration], maintenance: Mapping[str, Maintenance]
    ) -> frozenset[str]:
        """Take in the records as they are now. Returns the services of which something has changed."""
        now = (nodes, registrations, maintenance)
        if all(new is old for new, old in zip(now, self._seen, strict=True)):
            return frozenset()
        self._seen = now
        apart = _by_node(maintenance)
        changes: dict[str, dict[str, tuple[Candidate, ...]]] = {}  # by service and node
        for name in self._records.keys() - registrations.keys():
            del self._records[name]
            self._put(name, {}, changes)
        for name, registration in registrations.items():
            node, out, known = nodes.get(name), apart.get(name, _NOTHING), self._records.get(name)
            if known is not None and known.registration is registration and known.node is node and known.maintenance == out:
                continue  # nothing that is the same object needs to be compared
            records = _Records(registration, node, out)
            self._records[name] = records  # also if it is equal: the next time it is the same object
            if records != known:
                self._put(name, _candidates(records), changes)
        for service, others in changes.items():
            index = self._services.setdefault(service, Index())
            index.change(others)
            if not index:
                del self._services[service]
        return frozenset(changes)

    def _put(
        self, node: str, candidates: Mapping[str, tuple[Candidate, ...]], changes: dict[str, dict[str, tuple[Candidate, ...]]]
    ) -> None:
        """Replace all that is known of a node, and note the services whose candidates are others now in `changes`."""
        before = self._of_node.pop(node, {})
        if candidates:
            self._of_node[node] = candidates
        for service in before.keys() | candidates.keys():
            now = candidates.get(service, ())
            if before.get(service, ()) != now:
                changes.setdefault(service, {})[node] = now

    def services(self) -> list[str]:
        return sorted(self._services)

    def __len__(self) -> int:
        return sum(map(len, self._services.values()))

    def __iter__(self) -> Iterator[Candidate]:
        """All, by service."""
        for service in self.services():
            yield from self._services[service]

    def lookup(self, service: str, asked: Filter = ALL) -> tuple[Candidate, ...]:
        """The instances of `service` that `asked` lets through, whatever their health unless it says so."""
        index = self._services.get(service)
        return index.lookup(asked) if index is not None else ()

    def pool(
        self,
        service: str,
        asked: Filter = ALL,
        *,
        locality: Locality = ANYWHERE,
        allow_unknown: bool = False,
        reach: frozenset[str] | None = None,
        but: frozenset[str] = _NOBODY,
    ) -> Pool:
        """Those of them that the next call may go to: on the nodes within `reach` (None: on all), except the instances of `but`."""
        index = self._services.get(service)
        return index.pool(asked, locality, allow_unknown, reach, but) if index is not None else Pool()


def _candidates(records: _Records) -> dict[str, tuple[Candidate, ...]]:
    """A node's candidates, by service."""
    labels = records.node.labels if records.node is not None else {}
    found: dict[str, list[Candidate]] = {}
    for instance in records.registration.instances:
        candidate = Candidate(_as_it_counts(instance, records), covering(instance, records.maintenance), labels)
        found.setdefault(instance.service, []).append(candidate)
    return {service: tuple(candidates) for service, candidates in found.items()}


def _as_it_counts(instance: Instance, records: _Records) -> Instance:
    health, reason = fitness(instance, records.node, records.registration)
    return instance if health is instance.health else replace(instance, health=health, reason=reason)


def _by_node(maintenance: Mapping[str, Maintenance]) -> dict[str, dict[str, Maintenance]]:
    apart: dict[str, dict[str, Maintenance]] = {}
    for target, entry in maintenance.items():
        apart.setdefault(target.partition("/")[0], {})[target] = entry
    return apart
