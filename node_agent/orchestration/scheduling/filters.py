"""Who passes all filters: the numbers of the nodes on which one more of a service fits. Why the others do not: explaining.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.needs import Needs, Service


def fitting(ledger: Ledger, service: Service, needs: Needs, homes: Mapping[str, str], node: str = "") -> Sequence[int]:
    """In order of the numbers. `homes`: where volumes live, by Docker's names. `node`: only that one is asked for."""
    if (needs.published or needs.taken) and ledger.rival(service, needs) is not None:
        return ()
    fleet, pool = ledger.fleet, ledger.fleet.usable(needs)
    if only := only_on(needs, homes, node):
        number = fleet.numbers.get(only.pop()) if len(only) == 1 else None
        return (number,) if number is not None and number in pool.members and ledger.roomy(number, service, needs) else ()
    nodes = _with_room(ledger, needs, pool.order)
    if without := ledger.full(service, needs) | ledger.occupied(needs):
        nodes = [number for number in nodes if number not in without]
    return nodes


def only_on(needs: Needs, homes: Mapping[str, str], node: str) -> set[str]:
    """The names of nodes, to each of which it is bound (so it fits nowhere if there are two); empty: to none."""
    only = {homes[volume] for volume in needs.bound if volume in homes}
    return only | {node} if node else only


def _with_room(ledger: Ledger, needs: Needs, nodes: Sequence[int]) -> Sequence[int]:
    """A node that was given less than it holds still takes what reserves nothing of that."""
    room = ledger.room
    for wanted, least, free in ((needs.cpus, room.least_cpus, room.free_cpus), (needs.memory, room.least_memory, room.free_memory)):
        if wanted and least < wanted:
            nodes = [number for number in nodes if free[number] >= wanted]
    return nodes
