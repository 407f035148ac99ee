"""What is taken on each node, while a plan is made: room, ports, and how many of a service are where. A plan takes no entry
out again.

So whoever does not fit will not fit later in the same plan, and whoever comes later in the order of preference never comes earlier again:
what choosing.py is built on. Entries are taken out only where it is asked what would be (outlook.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hmcore.apps.ports import Number
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.needs import Needs, Service, clash
from node_agent.orchestration.scheduling.room import Room

_NOWHERE: Mapping[int, int] = MappingProxyType({})


class Ledger:
    """Everything by the number of a node. `version` grows with every entry."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.room = Room([each.capacity for each in fleet.candidates])
        self.version = 0
        self._ports: dict[Number, dict[int, list[str]]] = {}  # by node, the addresses
        self._replicas: dict[Service, dict[int, int]] = {}
        self._present: dict[Service, dict[int, int]] = {}
        self._published: dict[Number, set[Service]] = {}
        self._taken: dict[Number, set[Service]] = {}

    def add(self, number: int | None, service: Service, needs: Needs, *, stops: bool = False, leaves: bool = False) -> None:
        """An allocation on a node (None: one that is no candidate). `stops`: it takes up room, and is no more. `leaves`: another is
        to replace it, so it is no replica that counts."""
        self.version += 1
        if not stops:
            for port in needs.published:
                self._published.setdefault(port, set()).add(service)
            for port, _ in needs.taken:
                self._taken.setdefault(port, set()).add(service)
        if number is None:
            return
        _count(self._present, service, number)
        if not stops and not leaves:
            _count(self._replicas, service, number)
        for port, address in needs.taken:
            self._ports.setdefault(port, {}).setdefault(number, []).append(address)
        self.room.put(number, needs)

    def take_out(self, number: int | None, service: Service, needs: Needs) -> None:
        """What an entry takes up on its node; who has which published port stays as it is."""
        self.version += 1
        if number is None:
            return
        self._present[service][number] -= 1
        for port, address in needs.taken:
            self._ports[port][number].remove(address)
        self.room.put(number, needs, -1)

    def leave(self, number: int, service: Service) -> None:
        """A replica there counts no more, and takes up its room until it is gone."""
        self.version += 1
        self._replicas[service][number] -= 1

    def replicas(self, service: Service) -> Mapping[int, int]:
        """How many count, by node; some may be 0."""
        return self._replicas.get(service, _NOWHERE)

    def present(self, service: Service) -> Mapping[int, int]:
        """How many are there, whatever becomes of them."""
        return self._present.get(service, _NOWHERE)

    def roomy(self, number: int, service: Service, needs: Needs) -> bool:
        """Whether one more fits on a node."""
        return self.holds(number, needs) and (not needs.max_per_node or self.present(service).get(number, 0) < needs.max_per_node)

    def holds(self, number: int, needs: Needs) -> bool:
        """Whether a node has room and the ports for one more of any service with such needs."""
        return (
            (not needs.cpus or self.room.free_cpus[number] >= needs.cpus)
            and (not needs.memory or self.room.free_memory[number] >= needs.memory)
            and (not needs.taken or not any(self.in_use(number, taken) for taken in needs.taken))
        )

    def in_use(self, number: int, taken: tuple[Number, str]) -> bool:
        """Whether somebody has that port of the node, at that address."""
        port, address = taken
        return any(clash(address, other) for other in self._ports.get(port, {}).get(number, ()))

    def users(self, taken: tuple[Number, str]) -> set[int]:
        """The nodes where somebody has that port at that address."""
        return {number for number in self._ports.get(taken[0], ()) if self.in_use(number, taken)}

    def occupied(self, needs: Needs) -> set[int]:
        """The nodes that lack one of its ports."""
        return {number for taken in needs.taken for number in self.users(taken)}

    def full(self, service: Service, needs: Needs) -> set[int]:
        """The nodes that have as many of a service as they may."""
        if not needs.max_per_node:
            return set()
        return {number for number, count in self.present(service).items() if count >= needs.max_per_node}

    def rival(self, service: Service, needs: Needs) -> tuple[Number, Service] | None:
        """A port that another service has: published on every node, or wanted so and taken on some node."""
        for port in needs.published:
            for owners in (self._published, self._taken):
                if others := owners.get(port, set()) - {service}:
                    return port, min(others)
        for port, _ in needs.taken:
            if others := self._published.get(port, set()) - {service}:
                return port, min(others)
        return None


def _count(table: dict[Service, dict[int, int]], service: Service, number: int) -> None:
    counts = table.setdefault(service, {})
    counts[number] = counts.get(number, 0) + 1
