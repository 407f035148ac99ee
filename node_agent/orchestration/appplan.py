"""From what is known of apps to the one command for each that brings it a step further: what its rollout wants, where the scheduler finds
room for it, beside what all the others want at the same moment. Pure. What finds no room is left out, told as a wait, and decided again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, NodeStatuses, Stage, allocation_id, statuses_key
from hmcore.apps.spec import ContainerSpec, Volume
from hmcore.images.names import digest_in
from hmcore.records import STOPPED, Node, NodeState
from node_agent.consensus.statemachine.appcommands import PlanApp, Stop, Told
from node_agent.orchestration import rollout, scheduler
from node_agent.orchestration.rollout import Decision, Observed, Situation, Start, Terms
from node_agent.orchestration.rollouts.yielding import begins_on, gives_way
from node_agent.orchestration.scheduling.explaining import nowhere
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.model import Candidate, Outcome, Pending, Placed, Request, volumes_of
from node_agent.orchestration.scheduling.needs import bound, needs_of


class View(Protocol):
    """The replicated state, as of one log index."""

    @property
    def apps(self) -> Mapping[str, App]: ...
    @property
    def generations(self) -> Mapping[str, Generation]: ...
    @property
    def allocations(self) -> Mapping[str, Allocation]: ...
    @property
    def statuses(self) -> Mapping[str, NodeStatuses]: ...
    @property
    def nodes(self) -> Mapping[str, Node]: ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all apps share. `candidates`: the nodes as the scheduler sees them; `heard`: when the leader heard each last, by its clock;
    `asked`: when it was asked for each one's lease, by the same;
    `homes`: by the Docker names of volumes, the nodes where their data is."""

    candidates: tuple[Candidate, ...]
    heard: Mapping[str, float] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """Of an app. `command` None: there is nothing to do. `observed`: the memory for the next look. `next`: when that is due if nothing
    happens. `waits`: by service, what it waits for."""

    command: PlanApp | None
    observed: Observed
    next: float | None
    waits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Look:
    app: App
    situation: Situation
    decision: Decision


Key = tuple[str, str, int, str]  # app, service, slot, node


def steps(
    view: View, names: Iterable[str], cluster: Cluster, memories: Mapping[str, Observed], now: float, terms: Terms
) -> dict[str, Step]:
    """By app, of those that there are. `memories`: of their last looks."""
    own, common = by_app(view.allocations), _Common(view, cluster)
    looks: list[_Look] = []
    for name in sorted(set(names) & view.apps.keys()):
        situation = _situation_of(view, view.apps[name], own.get(name, {}), common)
        looks.append(_Look(view.apps[name], situation, rollout.decide(situation, memories.get(name, Observed()), now, terms)))
    outcomes = _place(view, looks, cluster)
    return {look.app.name: _step(look, outcomes) for look in looks}


def by_app(allocations: Mapping[str, Allocation]) -> dict[str, dict[str, Allocation]]:
    """By app and id."""
    found: dict[str, dict[str, Allocation]] = {}
    for each in allocations.values():
        found.setdefault(each.app, {})[each.id] = each
    return found


class _Common:
    """What the situations of all apps have in common, made once: there may be as many apps as replicas."""

    def __init__(self, view: View, cluster: Cluster) -> None:
        self.nodes: Mapping[str, NodeState] = {name: node.state for name, node in view.nodes.items()}
        self.stopped = frozenset(n for n, node in view.nodes.items() if node.state is NodeState.DOWN and node.state_reason == STOPPED)
        self.heard = cluster.heard
        self.closed = frozenset(each.name for each in cluster.candidates if not each.apps)
        self.no_place = _NoPlace(cluster)
        self.homes = cluster.homes
        self.asked = cluster.asked
        self.dockerless = frozenset(each.name for each in cluster.candidates if not each.engine)
        self.elsewhere = any(each.open for each in cluster.candidates)
        self._candidates = cluster.candidates

    def eligible(self, target: Generation) -> dict[str, tuple[str, ...]]:
        """Where global services run."""
        found = {}
        for name, spec in target.spec.services.items():
            if spec.mode == "global":
                where = scheduler.eligible(self._candidates, spec, volumes_of(target.spec, name))
                found[name] = (*where.nodes, *where.keep)
        return found


def _situation_of(view: View, app: App, own: Mapping[str, Allocation], common: _Common) -> Situation:
    told = (status for node in sorted({each.node for each in own.values()}) for status in _told(view, node))
    target = view.generations[f"{app.name}@{app.generation}"]
    return Situation(
        app=app,
        target=target,
        healthy=view.generations.get(f"{app.name}@{app.healthy}"),
        allocations=own,
        statuses={status.id: status for status in told if status.id in own},
        nodes=common.nodes,
        stopped=common.stopped,
        eligible=common.eligible(target),
        no_place=common.no_place(app, target),
        heard=common.heard,
        closed=common.closed,
        dockerless=common.dockerless,
        pinned=_pinned(view, own, common),
        asked=common.asked,
        anchors=_anchors(view, own, common),
    )


def _told(view: View, node: str) -> tuple[AllocationStatus, ...]:
    statuses = view.statuses.get(statuses_key(node))
    return () if statuses is None else statuses.allocations


def _anchors(view: View, own: Mapping[str, Allocation], common: _Common) -> frozenset[str]:
    """Those that were stopped on nodes which did not come to tell of the volumes that they made there."""
    stopped = (each for each in own.values() if each.stop and not each.done)
    return frozenset(each.id for each in stopped if any(common.homes.get(volume) != each.node for volume in _bound(view, each)))


def _pinned(view: View, own: Mapping[str, Allocation], common: _Common) -> frozenset[str]:
    """Of those on nodes without Docker."""
    there = (each for each in own.values() if each.node in common.dockerless)
    return frozenset(each.id for each in there if not common.elsewhere or _bound(view, each))


def _bound(view: View, allocation: Allocation) -> tuple[str, ...]:
    """Docker's names of the volumes that it can have on its node alone."""
    made = view.generations.get(f"{allocation.app}@{allocation.generation}")
    if made is None or (spec := made.spec.services.get(allocation.service)) is None or spec.mode == "global":
        return ()
    return bound(volumes_of(made.spec, allocation.service))


class _NoPlace:
    """What no node can take, as all of them are: of services that are still to come to what they shall be."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._fleet: Fleet | None = None

    def __call__(self, app: App, target: Generation) -> dict[str, str]:
        found = {}
        for name, spec in target.spec.services.items():
            if spec.mode == "global" or not _rolls(app, name):
                continue
            self._fleet = self._fleet or Fleet(self._cluster.candidates)
            why = nowhere(self._fleet, needs_of(spec, volumes_of(target.spec, name)), self._cluster.homes)
            if why is not None:
                found[name] = why.text.replace("\n", "; ")
        return found


def _rolls(app: App, service: str) -> bool:
    rollout = app.rollouts.get(service)
    return rollout is None or rollout.generation != app.generation or rollout.stage is Stage.ROLLING


def _place(view: View, looks: Iterable[_Look], cluster: Cluster) -> dict[Key, Outcome]:
    asked = [(start, _request(view, look, start)) for look in looks for start in look.decision.starts]
    return place(asked, cluster.candidates, placed(view), cluster.homes) if asked else {}


def place(
    asked: Sequence[tuple[Start, Request]], candidates: Sequence[Candidate], there: Sequence[Placed], homes: Mapping[str, str]
) -> dict[Key, Outcome]:
    """What becomes of each start: a node, or why there is none. Better once more where one could not be started than nowhere."""
    outcomes = _by_key(scheduler.plan(candidates, there, (request for _, request in asked), homes))
    if left := {key_of(request) for start, request in asked if not start.after and _vain(outcomes[key_of(request)])}:
        requests = [replace(request, shunned=()) if key_of(request) in left else request for _, request in asked]
        outcomes = _by_key(scheduler.plan(candidates, there, requests, homes))
    return outcomes


def key_of(request: Request) -> Key:
    return request.app, request.service, request.slot, request.node


def _by_key(outcomes: Iterable[Outcome]) -> dict[Key, Outcome]:
    return {key_of(each.request): each for each in outcomes}


def _vain(outcome: Outcome) -> bool:
    return isinstance(outcome, Pending) and bool(outcome.request.shunned)


def _request(view: View, look: _Look, start: Start) -> Request:
    spec = view.generations[f"{look.app.name}@{start.generation}"].spec
    service = spec.services[start.service]
    return Request(
        app=look.app.name,
        service=start.service,
        slot=start.slot,
        spec=service,
        image_id=_image(service.container),
        volumes=volumes_of(spec, start.service),
        reason=start.reason,
        node=start.node,
        instead_of=tuple(stop.allocation for stop in start.former),
        shunned=start.shunned,
    )


def _image(container: ContainerSpec) -> str:
    """What nodes that have it tell: of a registry's image the spec has no id, but the digest to pull it by."""
    return container.image_id or digest_in(container.image)


def placed(view: View) -> list[Placed]:
    """All allocations whose services are known."""
    found = []
    volumes: dict[tuple[str, str], tuple[Volume, ...]] = {}
    for each in view.allocations.values():
        generation = f"{each.app}@{each.generation}"
        made = view.generations.get(generation)
        spec = None if made is None else made.spec.services.get(each.service)
        if made is not None and spec is not None:
            mounted = volumes.get((generation, each.service))
            if mounted is None:
                mounted = volumes[generation, each.service] = volumes_of(made.spec, each.service)
            found.append(Placed(allocation=each, spec=spec, volumes=mounted))
    return found


def _step(look: _Look, outcomes: Mapping[Key, Outcome]) -> Step:
    app, decision = look.app, look.decision
    starts: list[Allocation] = []
    waits = dict(decision.waits)
    for start in decision.starts:
        outcome = outcomes[app.name, start.service, start.slot, start.node]
        if node := begins_on(start, outcome):
            starts.append(_allocation(app, start, node, serial=_serial(app) + len(starts) + 1))
        elif isinstance(outcome, Pending) and not start.after:
            waits[start.service] = outcome.explanation.text
        decision = replace(decision, stops=(*decision.stops, *gives_way(start, outcome)))
    return Step(_command(app, look.situation, decision, tuple(starts)), decision.observed, decision.next, waits)


def _serial(app: App) -> int:
    """The last one that was given out. The first of an app is one that none of its name can have had: a node that was away when such an
    app was removed may still have containers of it, and the cluster what that node told of them."""
    return app.serial or app.index


def _allocation(app: App, start: Start, node: str, *, serial: int) -> Allocation:
    return Allocation(
        id=allocation_id(app.name, start.service, start.slot, serial),
        app=app.name,
        service=start.service,
        slot=start.slot,
        node=node,
        generation=start.generation,
        revision=start.revision,
        reason=start.reason,
    )


def _command(app: App, situation: Situation, decision: Decision, starts: tuple[Allocation, ...]) -> PlanApp | None:
    """None if nothing is to be recorded: what was wanted and found no place changes nothing."""
    if not (starts or decision.app or decision.generation or decision.stops or decision.done or decision.forgets or decision.gone):
        return None
    after = decision.app or app
    back = decision.generation
    return PlanApp(
        app=app.name,
        basis=app.index,
        rollouts=dict(after.rollouts),
        healthy=after.healthy,
        starts=starts,
        stops=tuple(Stop(key=situation.allocations[stop.allocation].key, reason=stop.reason) for stop in decision.stops),
        done=tuple(situation.allocations[id].key for id in decision.done),
        forgets=tuple(situation.allocations[id].key for id in decision.forgets),
        events=tuple(Told(kind=each.kind, subject=each.subject, message=each.message) for each in decision.events),
        back_to=0 if back is None else back.origin,
        note="" if back is None else back.note,
        gone=decision.gone,
    )
