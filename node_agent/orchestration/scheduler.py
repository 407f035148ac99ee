"""Where replicas go: filters, then an order of preference. Pure: no clock, no chance, and no order in which anything was given matters.

What is placed is never moved here: every request gets a node that has room beside all that is there, or waits, with the reason. A service
that nobody asks for is not looked at. Who shall move after all, when an operator asks: scheduling/rebalancing.py. docs/adr/0092.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from hmcore.apps.spec import ServiceSpec, Volume
from node_agent.orchestration.scheduling.choosing import Choice
from node_agent.orchestration.scheduling.explaining import Explainer, Sieve, sift_fixed
from node_agent.orchestration.scheduling.filters import fitting
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.model import Assignment, Candidate, Eligibility, Outcome, Pending, Placed, Request
from node_agent.orchestration.scheduling.needs import Needs, Service, Wants, needs_of
from node_agent.orchestration.scheduling.outlook import outlooks
from node_agent.orchestration.scheduling.picking import Picker
from node_agent.orchestration.scheduling.standing import enter, homes_of

MANY = 128  # one replica for so many nodes: more of a service at once, and it pays to put the nodes in order for it


def plan(
    candidates: Iterable[Candidate], placed: Iterable[Placed], requests: Iterable[Request], homes: Mapping[str, str]
) -> tuple[Outcome, ...]:
    """An outcome for each request, in the order in which they were decided: those whose node is given or whose volumes live somewhere come
    first, and else by app, service and slot. `placed`: all allocations that there are, also those that stop. `homes`: by the Docker names
    of volumes the nodes where their data is; where one is missing, an allocation that mounts it tells."""
    wants = Wants()
    asked = sorted(((wants.of(request.spec, request.volumes, request.shunned), request) for request in requests), key=_turn)
    ledger = Ledger(Fleet(candidates))
    known = sorted(placed, key=lambda each: each.allocation.id)
    enter(ledger, wants, known, leaving=frozenset(id for _, request in asked for id in request.instead_of))
    groups: dict[tuple[Service, Needs, str, str], list[Request]] = {}
    for needs, request in asked:
        groups.setdefault(((request.app, request.service), needs, request.image_id, request.node), []).append(request)
    lives = {**homes_of(wants, known), **homes}
    planner = _Planner(ledger, lives)
    outcomes = tuple(outcome for (_, needs, *_), group in groups.items() for outcome in planner.place(needs, group))
    return outlooks(ledger.fleet, wants, known, outcomes, lives)


def eligible(candidates: Iterable[Candidate], spec: ServiceSpec, volumes: tuple[Volume, ...] = ()) -> Eligibility:
    """Where a global service must run, and where what is there may stay. Whether there is room is asked when a request is planned."""
    fleet, needs = Fleet(candidates), needs_of(spec, volumes)
    sieve = Sieve(fleet, fleet.by_name)
    sift_fixed(sieve, needs)
    satisfying = frozenset(fleet.by_name).intersection(*(fleet.satisfying(text) for text in needs.constraints))
    kept = [number for number in fleet.by_name if number in satisfying and _stays(fleet.candidates[number])]
    return Eligibility(tuple(map(fleet.name, sieve.left)), tuple(map(fleet.name, kept)), sieve.explanation())


def _stays(candidate: Candidate) -> bool:
    """What is there stays, though nothing new goes there: nobody knows how a node is that is not heard."""
    return bool(candidate.obstacle) and not candidate.emptied


class _Planner:
    """`homes` are added to as volumes get theirs."""

    def __init__(self, ledger: Ledger, homes: dict[str, str]) -> None:
        self._ledger = ledger
        self._homes = homes
        self._explainer = Explainer(ledger)
        self._picker = Picker(ledger)

    def place(self, needs: Needs, group: list[Request]) -> list[Outcome]:
        """Requests that differ in nothing that matters, in order."""
        outcomes: list[Outcome] = []
        take = self._taking(needs, group)
        for request in group:
            number = take()
            if number is None:
                break
            name = self._ledger.fleet.name(number)
            for volume in needs.bound:
                self._homes.setdefault(volume, name)
            outcomes.append(Assignment(request, name))
        waiting = group[len(outcomes) :]
        if waiting:
            first = waiting[0]
            why = self._explainer.explain((first.app, first.service), needs, self._homes, first.node)
            outcomes += [Pending(request, why) for request in waiting]
        return outcomes

    def _taking(self, needs: Needs, group: list[Request]) -> Callable[[], int | None]:
        """What finds a place for one after the other: both ways have the same answers. Where many are asked for it pays to put all nodes
        in order once; but not while the first place decides on all others, as that of a volume does."""
        first = group[0]
        service = first.app, first.service
        if len(group) <= max(1, len(self._ledger.fleet) // MANY) or needs.bound:
            return partial(self._picker.take, service, needs, self._homes, node=first.node, image=first.image_id)
        nodes = fitting(self._ledger, service, needs, self._homes, first.node)
        return Choice(self._ledger, service, needs, nodes, image=first.image_id).take if nodes else _nowhere


def _nowhere() -> None:
    return None


def _turn(asked: tuple[Needs, Request]) -> tuple[bool, str, str, int, str, tuple[str, ...], str, str, Needs]:
    """What has only one place to go comes before what may go anywhere."""
    needs, request = asked
    free = not (request.node or needs.bound)
    return free, request.app, request.service, request.slot, request.node, request.instead_of, request.image_id, request.reason, needs
