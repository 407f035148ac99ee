"""Where replicas go: filters, then an order of preference. Pure: no clock, no chance, and no order in which anything was given matters.

What is placed is never moved here: every request gets a node that has room beside all that is there, or waits, with the reason. A service
that nobody asks for is not looked at. Who shall move after all, when an operator asks: scheduling/rebalancing.py. docs/adr/0092.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hmcore.apps.spec import ServiceSpec, Volume
from node_agent.orchestration.scheduling.choosing import Choice
from node_agent.orchestration.scheduling.explaining import Explainer, Sieve, sift_fixed
from node_agent.orchestration.scheduling.filters import fitting
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.model import Assignment, Candidate, Eligibility, Outcome, Pending, Placed, Request
from node_agent.orchestration.scheduling.needs import Needs, Service, Wants, needs_of
from node_agent.orchestration.scheduling.outlook import outlooks
from node_agent.orchestration.scheduling.standing import enter, homes_of


def plan(
    candidates: Iterable[Candidate], placed: Iterable[Placed], requests: Iterable[Request], homes: Mapping[str, str]
) -> tuple[Outcome, ...]:
    """An outcome for each request, in the order in which they were decided: those whose node is given or whose volumes live somewhere come
    first, and else by app, service and slot. `placed`: all allocations that there are, also those that stop. `homes`: by the Docker names
    of volumes the nodes where their data is; where one is missing, an allocation that mounts it tells."""
    wants = Wants()
    asked = sorted(((wants.of(request.spec, request.volumes), request) for request in requests), key=_turn)
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

    def place(self, needs: Needs, group: list[Request]) -> list[Outcome]:
        """Requests that differ in nothing that matters, in order."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(group):
            placed = self._place_some(needs, group[len(outcomes) :])
            if not placed:
                break
            outcomes += placed
        waiting = group[len(outcomes) :]
        if waiting:
            first = waiting[0]
            why = self._explainer.explain((first.app, first.service), needs, self._homes, first.node)
            outcomes += [Pending(request, why) for request in waiting]
        return outcomes

    def _place_some(self, needs: Needs, group: list[Request]) -> list[Outcome]:
        """As many as find a place by what is known now: only one while a volume of theirs has no home yet."""
        first = group[0]
        service = first.app, first.service
        nodes = fitting(self._ledger, service, needs, self._homes, first.node)
        homeless = [volume for volume in needs.bound if volume not in self._homes]
        if homeless:
            nodes, group = self._with_most(homeless, nodes), group[:1]
        if not nodes:
            return []
        choice = Choice(self._ledger, service, needs, nodes, image=first.image_id)
        outcomes: list[Outcome] = []
        for request in group:
            number = choice.take()
            if number is None:
                break
            outcomes.append(Assignment(request, self._ledger.fleet.name(number)))
            for volume in homeless:
                self._homes[volume] = self._ledger.fleet.name(number)
        return outcomes

    def _with_most(self, volumes: list[str], nodes: Iterable[int]) -> list[int]:
        """Those of the nodes where most of the volumes are: data of an app that was here before."""
        there = {number: len(self._ledger.fleet.candidates[number].volumes.intersection(volumes)) for number in nodes}
        most = max(there.values(), default=0)
        return [number for number, count in there.items() if count == most]


def _turn(asked: tuple[Needs, Request]) -> tuple[bool, str, str, int, str, tuple[str, ...], str, str, Needs]:
    """What has only one place to go comes before what may go anywhere."""
    needs, request = asked
    free = not (request.node or needs.bound)
    return free, request.app, request.service, request.slot, request.node, request.instead_of, request.image_id, request.reason, needs
