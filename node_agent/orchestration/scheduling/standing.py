"""What there is already, entered into a plan's books."""

from __future__ import annotations

from collections.abc import Iterable, Set

from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.model import Placed
from node_agent.orchestration.scheduling.needs import Wants


def enter(ledger: Ledger, wants: Wants, placed: Iterable[Placed], *, leaving: Set[str] = frozenset()) -> None:
    """`leaving`: ids of allocations that are to be replaced."""
    numbers = ledger.fleet.numbers
    for each in placed:
        allocation = each.allocation
        ledger.add(
            numbers.get(allocation.node),
            (allocation.app, allocation.service),
            wants.of(each.spec, each.volumes),
            stops=allocation.stop,
            leaves=allocation.id in leaving,
        )


def homes_of(wants: Wants, placed: Iterable[Placed]) -> dict[str, str]:
    """Where volumes live by what mounts them: where several do, the first one tells."""
    homes: dict[str, str] = {}
    for each in placed:
        for volume in wants.of(each.spec, each.volumes).bound:
            homes.setdefault(volume, each.allocation.node)
    return homes
