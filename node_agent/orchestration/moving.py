"""Which replicas are moved next when an operator wants them more even: of what were better off elsewhere (scheduling/rebalancing.py) no
more of a service at a time than an update would replace, and none where not all is well. Pure; asked again until nothing is left to move.

A move is one command: the new place and the end of the old one. So a leader's death leaves nothing half done, and whoever asked may go
away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hmcore.apps.records import Allocation, AllocationStatus, App, Stage, allocation_id, statuses_key, wanted_revision
from hmcore.apps.spec import ServiceSpec
from node_agent.consensus.statemachine.appcommands import PlanApp, Stop, Told
from node_agent.orchestration.appplan import Cluster, View, placed
from node_agent.orchestration.rollouts.memory import is_fit
from node_agent.orchestration.scheduling.model import Move
from node_agent.orchestration.scheduling.rebalancing import rebalance

MOST = 200  # moves that are looked for at once
REASON = "rebalanced"

Service = tuple[str, str]  # app, service


@dataclass(frozen=True, slots=True)
class Moves:
    """`commands`, one for an app, make the moves in `now`; `later`: those that come after them. `waits`: by `app/service`, why it has to
    wait. Of all three nothing: all is even, and what was moved is fit; but for nodes that are `absent`: with why nothing goes there now."""

    commands: tuple[PlanApp, ...] = ()
    now: tuple[Move, ...] = ()
    later: tuple[Move, ...] = ()
    waits: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def next_moves(view: View, cluster: Cluster, name: str = "") -> Moves:
    """Of all apps, or only of the one called `name`."""
    replicas = _replicas(view, name)
    waits = {f"{app}/{service}": why for (app, service), there in replicas.items() if (why := _under_way(view, there))}
    now: list[Move] = []
    later: list[Move] = []
    counts: Counter[Service] = Counter()
    for move in rebalance(cluster.candidates, placed(view), cluster.homes, limit=MOST, apps=frozenset({name}) if name else None):
        key = move.allocation.app, move.allocation.service
        spec = _spec(view, key)
        if spec is None or spec.exclusive or move.allocation.done:
            continue  # what must not run twice stays where it is: to move it would be to stop it
        if (why := waits.get("/".join(key)) or _unwell(view, key, spec, replicas[key])) or counts[key] >= _at_once(spec):
            waits |= {"/".join(key): why} if why else {}
            later.append(move)
        else:
            counts[key] += 1
            now.append(move)
    absent = {each.name: each.obstacle for each in cluster.candidates if each.obstacle and not each.emptied}
    return Moves(tuple(_commands(view, now)), tuple(now), tuple(later), waits, absent)


def _replicas(view: View, name: str) -> dict[Service, list[Allocation]]:
    found: dict[Service, list[Allocation]] = defaultdict(list)
    for each in view.allocations.values():
        if name in ("", each.app):
            found[each.app, each.service].append(each)
    return dict(sorted(found.items()))


def _spec(view: View, key: Service) -> ServiceSpec | None:
    """As it shall be; None: it shall not be any more."""
    app = view.apps.get(key[0])
    if app is None or app.stopping:
        return None
    return view.generations[f"{app.name}@{app.generation}"].spec.services.get(key[1])


def _at_once(spec: ServiceSpec) -> int:
    """Of a service, and never all of it, if it has more than one."""
    return max(1, min(spec.update.parallelism or 1, spec.replicas - 1))


def _under_way(view: View, there: Iterable[Allocation]) -> str:
    """What an earlier move has not come to yet."""
    moved = [each for each in there if each.reason.startswith(REASON)]
    leaving = next((each for each in moved if each.stop), None)
    if leaving is not None:
        return f"{leaving.replica} is still leaving {leaving.node}"
    coming = next((each for each in moved if not _fit(view, each)), None)
    return "" if coming is None else f"{coming.replica} is not fit yet on {coming.node}"


def _unwell(view: View, key: Service, spec: ServiceSpec, there: Iterable[Allocation]) -> str:
    """Why nothing of the service may be taken down now."""
    rollout = view.apps[key[0]].rollouts.get(key[1])
    if rollout is None or rollout.stage is not Stage.STEADY or rollout.generation != view.apps[key[0]].generation:
        return "its rollout is paused" if rollout is not None and rollout.stage is Stage.PAUSED else "its rollout is under way"
    live = [each for each in there if not each.stop]
    fit = sum(_fit(view, each) for each in live)
    if fit < max(spec.replicas, len(live)):
        return f"only {fit} of {spec.replicas} replicas are fit"
    return ""


def _fit(view: View, allocation: Allocation) -> bool:
    told = view.statuses.get(statuses_key(allocation.node))
    status: AllocationStatus | None = next((each for each in told.allocations if each.id == allocation.id), None) if told else None
    return is_fit(status) or allocation.done


def _commands(view: View, moves: Iterable[Move]) -> Iterable[PlanApp]:
    by_app: dict[str, list[Move]] = defaultdict(list)
    for move in moves:
        by_app[move.allocation.app].append(move)
    for name, own in by_app.items():
        app = view.apps[name]
        yield PlanApp(
            app=name,
            basis=app.index,
            rollouts=dict(app.rollouts),
            healthy=app.healthy,
            starts=tuple(_start(view, app, move, app.serial + number) for number, move in enumerate(own, 1)),
            stops=tuple(Stop(key=move.allocation.key, reason=REASON) for move in own),
            events=tuple(_told(move) for move in own),
        )


def _start(view: View, app: App, move: Move, serial: int) -> Allocation:
    old = move.allocation
    return Allocation(
        id=allocation_id(app.name, old.service, old.slot, serial),
        app=app.name,
        service=old.service,
        slot=old.slot,
        node=move.node,
        generation=app.generation,
        revision=wanted_revision(app, view.generations[f"{app.name}@{app.generation}"].spec, old.service),
        reason=f"{REASON}: in place of {old.located}",
    )


def _told(move: Move) -> Told:
    old = move.allocation
    return Told(kind="replica.moved", subject=old.id, message=f"from {old.node} to {move.node}; {move.reason}")
