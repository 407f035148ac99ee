"""What finds no place beside all that is there: would it, once others have gone? Asked only of replicas that are to replace some.

Their predecessors run as long as they wait. Where it is these that are in the way (most of a service on a node, a port of the node, room),
waiting leads nowhere; where it is what was stopped and is still there, it does. docs/adr/0093.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from node_agent.orchestration.scheduling.filters import fitting
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.model import Assignment, Outcome, Outlook, Pending, Placed, Request
from node_agent.orchestration.scheduling.needs import Needs, Service, Wants
from node_agent.orchestration.scheduling.standing import enter

_Asked = tuple[Service, Needs, str]  # and the node


def outlooks(
    fleet: Fleet, wants: Wants, placed: Sequence[Placed], outcomes: Sequence[Outcome], homes: Mapping[str, str]
) -> tuple[Outcome, ...]:
    """The outcomes, with what is known of those that wait and replace others. Two never count on the same place."""
    waiting = [each.request for each in outcomes if isinstance(each, Pending) and each.request.instead_of]
    if not waiting:
        return tuple(outcomes)
    ledger = Ledger(fleet)
    enter(ledger, wants, _remaining(placed, waiting))
    for each in outcomes:
        if isinstance(each, Assignment):
            _add(ledger, each.request, _needs(wants, each.request), fleet.numbers[each.node])
    runs = {each.allocation.id: each for each in placed if not each.allocation.stop}
    full: set[_Asked] = set()
    found: list[Outcome] = []
    for each in outcomes:
        if isinstance(each, Pending) and each.request.instead_of:
            replaced = [runs[id] for id in each.request.instead_of if id in runs]
            each = replace(each, outlook=_outlook(ledger, wants, each.request, replaced, homes, full))
            if each.outlook is Outlook.INSTEAD:
                for id in each.request.instead_of:
                    runs.pop(id, None)
        found.append(each)
    return tuple(found)


def _outlook(
    ledger: Ledger, wants: Wants, request: Request, replaced: Sequence[Placed], homes: Mapping[str, str], full: set[_Asked]
) -> Outlook:
    """`full`: what has found no place so far is not looked for again. It is added to."""
    needs, service = _needs(wants, request), (request.app, request.service)
    asked = service, needs, request.node
    if asked not in full and (nodes := fitting(ledger, service, needs, homes, request.node)):
        _add(ledger, request, needs, nodes[0])
        return Outlook.SOON
    full.add(asked)
    numbers = ledger.fleet.numbers
    for each in replaced:
        owner = each.allocation.app, each.allocation.service
        ledger.take_out(numbers.get(each.allocation.node), owner, wants.of(each.spec, each.volumes))
    for node in sorted({each.allocation.node for each in replaced}):
        if there := fitting(ledger, service, needs, homes, request.node or node):
            _add(ledger, request, needs, there[0])
            return Outlook.INSTEAD
    enter(ledger, wants, replaced)
    return Outlook.NONE


def _remaining(placed: Iterable[Placed], waiting: Iterable[Request]) -> list[Placed]:
    """Without what stops, but for slots of the same services that another replica is yet to come to: it is to find its place."""
    placed = list(placed)
    replicas = {(each.app, each.service): each.spec.replicas for each in waiting}
    lives = {_slot(each) for each in placed if not each.allocation.stop}
    return [
        each
        for each in placed
        if not each.allocation.stop
        or (each.allocation.slot <= replicas.get((each.allocation.app, each.allocation.service), -1) and _slot(each) not in lives)
    ]


def _slot(each: Placed) -> tuple[str, str, int, str]:
    allocation = each.allocation
    return allocation.app, allocation.service, allocation.slot, "" if allocation.slot else allocation.node


def _needs(wants: Wants, request: Request) -> Needs:
    return wants.of(request.spec, request.volumes, request.shunned)


def _add(ledger: Ledger, request: Request, needs: Needs, number: int) -> None:
    ledger.add(number, (request.app, request.service), needs)
