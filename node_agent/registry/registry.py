"""All instances that this node knows of, found by service. Pure: built from the replicated records, changed by what changed in them.

An update looks at every node's records but only at those whose records are others than before at their instances: with 10,000 instances
on 500 nodes, one node's change costs as much as its own instances, and what was looked up before is remembered until its service changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from hmcore.records import Instance, Maintenance, Node, Registration
from hmcore.selection import ANYWHERE, Candidate, Filter, Locality, Pool, covering, gather, matching
from node_agent.registry.fitness import fitness

REMEMBERED = 64  # questions a service; more are answered, but looked up each time
POOLS = 16  # a service; they are as large as what they were made from, and those made first make room for others

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
        self._services: dict[str, dict[str, tuple[Candidate, ...]]] = {}  # by service and node
        self._found: dict[str, dict[Filter, tuple[Candidate, ...]]] = {}
        self._pools: dict[str, dict[tuple[object, ...], Pool]] = {}  # by service and question

    def update(
        self, nodes: Mapping[str, Node], registrations: Mapping[str, Registration], maintenance: Mapping[str, Maintenance]
    ) -> frozenset[str]:
        """Take in the records as they are now. Returns the services of which something has changed."""
        now = (nodes, registrations, maintenance)
        if all(new is old for new, old in zip(now, self._seen, strict=True)):
            return frozenset()
        self._seen = now
        apart = _by_node(maintenance)
        changed: set[str] = set()
        for name in self._records.keys() - registrations.keys():
            del self._records[name]
            changed |= self._put(name, {})
        for name, registration in registrations.items():
            node, out, known = nodes.get(name), apart.get(name, _NOTHING), self._records.get(name)
            if known is not None and known.registration is registration and known.node is node and known.maintenance == out:
                continue  # nothing that is the same object needs to be compared
            records = _Records(registration, node, out)
            if records != known:
                self._records[name] = records
                changed |= self._put(name, _candidates(records))
        for service in changed:
            self._found.pop(service, None)
            self._pools.pop(service, None)
        return frozenset(changed)

    def _put(self, node: str, candidates: Mapping[str, tuple[Candidate, ...]]) -> set[str]:
        """Replace all that is known of a node. Returns the services whose candidates are others now."""
        before = self._of_node.pop(node, {})
        if candidates:
            self._of_node[node] = candidates
        changed = {service for service in before.keys() | candidates.keys() if before.get(service) != candidates.get(service)}
        for service in changed:
            by_node = self._services.setdefault(service, {})
            by_node.pop(node, None)
            if service in candidates:
                by_node[node] = candidates[service]
            if not by_node:
                del self._services[service]
        return changed

    def services(self) -> list[str]:
        return sorted(self._services)

    def __len__(self) -> int:
        return sum(len(some) for by_node in self._services.values() for some in by_node.values())

    def __iter__(self) -> Iterator[Candidate]:
        """All, by service."""
        for service in self.services():
            yield from self._all(service)

    def lookup(self, service: str, asked: Filter = ALL) -> tuple[Candidate, ...]:
        """The instances of `service` that `asked` lets through, whatever their health unless it says so."""
        known = self._found.setdefault(service, {}) if service in self._services else {}
        found = known.get(asked)
        if found is None:
            found = matching(self._all(service), asked)
            if len(known) < REMEMBERED:
                known[asked] = found
        return found

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
        question = (asked, locality, allow_unknown, reach, but)
        known = self._pools.setdefault(service, {}) if service in self._services else {}
        pool = known.get(question)
        if pool is None:
            found = (
                each
                for each in self.lookup(service, asked)
                if (reach is None or each.instance.node in reach) and each.instance.id not in but
            )
            pool = gather(found, locality=locality, allow_unknown=allow_unknown)
            if len(known) >= POOLS:
                del known[next(iter(known))]
            known[question] = pool
        return pool

    def _all(self, service: str) -> Iterable[Candidate]:
        by_node = self._services.get(service, {})
        return (candidate for name in sorted(by_node) for candidate in by_node[name])


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
