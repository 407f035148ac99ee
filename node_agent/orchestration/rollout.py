"""What becomes of an app's replicas next: which start, which stop, how far its rollouts are, and when one is taken back. Pure.

The leader looks whenever something has changed, and when it is told to look again. Whatever it decides and records shows in what it sees
next; what it decides and cannot record it decides again. Hence nothing is lost with a leader but the terms that its memory counted, and
those begin anew (rollouts/memory.py).

    observe -> judge (failed, paused, taken back) -> plan (starts, stops) -> finish (done, healthy)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from hmcore.apps.records import Generation, Rollout, Stage, wanted_revision
from hmcore.apps.spec import Update
from hmcore.records import NodeState
from node_agent.orchestration.rollouts.gates import gate
from node_agent.orchestration.rollouts.judging import comes_right_at, finish, judge
from node_agent.orchestration.rollouts.losing import fate, forgettable, replica_of, stays, terms_of
from node_agent.orchestration.rollouts.memory import Observed, observe
from node_agent.orchestration.rollouts.plan import Moves, plan
from node_agent.orchestration.rollouts.service import Aim, Replica, Service
from node_agent.orchestration.rollouts.situation import Decision, Happening, Situation, Start, Stop, Terms
from node_agent.orchestration.scheduling.model import volumes_of
from node_agent.orchestration.scheduling.needs import bound

__all__ = ["Decision", "Happening", "Observed", "Situation", "Start", "Stop", "Terms", "decide"]

_READY = (NodeState.READY, NodeState.DEGRADED)
_DRAINED = (NodeState.DRAINING, NodeState.DRAINED)


def decide(situation: Situation, memory: Observed, now: float, terms: Terms) -> Decision:
    """`memory`: of the last decision's `observed`; of a new leader, Observed()."""
    observed = _observe(situation, memory, now)
    services, others = _services(situation, observed, now, terms)
    base = _upkeep(situation, services, others, observed, now, terms)
    if situation.app.stopping:
        return _dismantled(situation, base, services, others)
    judgements = {name: judge(service, _subject(situation, name), can_revert=_can_revert(situation)) for name, service in services.items()}
    events = (*base.events, *(event for judgement in judgements.values() for event in judgement.events))
    reverts = [f"{name}: {judgement.revert}" for name, judgement in judgements.items() if judgement.revert]
    if reverts and situation.healthy is not None:
        return _reverted(situation, dataclasses.replace(base, events=events), situation.healthy, reverts[0])

    services = {name: dataclasses.replace(service, rollout=judgements[name].rollout) for name, service in services.items()}
    moves = {name: plan(service, _gate(situation, service, services), now) for name, service in services.items()}
    finished = {name: finish(service, _subject(situation, name), now, terms) for name, service in services.items()}
    rollouts = {name: judgement.rollout for name, judgement in finished.items()}
    after = [dataclasses.replace(service, rollout=rollouts[name]) for name, service in services.items()]
    app = replace(situation.app, rollouts=rollouts, healthy=_healthy(situation, after))
    events = (*events, *(event for judgement in finished.values() for event in judgement.events))
    if app.healthy != situation.app.healthy:
        events = (*events, Happening("app.healthy", app.name, f"generation {app.generation} runs as it shall"))
    return dataclasses.replace(
        base,
        app=app if app != situation.app else None,
        starts=tuple(start for move in moves.values() for start in move.starts),
        stops=(*base.stops, *_removed(others), *(stop for move in moves.values() for stop in move.stops)),
        events=events,
        waits=_waits(moves) | stays(services, observed, situation, terms, moves),
    )


# -- what is seen


def _observe(situation: Situation, memory: Observed, now: float) -> Observed:
    spec = situation.target.spec
    return observe(
        memory,
        situation.allocations,
        situation.statuses,
        situation.nodes,
        situation.heard,
        situation.dockerless,
        monitor={name: _how(situation, name).monitor for name in spec.services},
        failed={id for rollout in situation.app.rollouts.values() for id in rollout.failed},
        now=now,
    )


def _how(situation: Situation, service: str) -> Update:
    spec = situation.target.spec.services[service]
    return spec.rollback if situation.target.origin else spec.update


def _services(
    situation: Situation, observed: Observed, now: float, terms: Terms
) -> tuple[Mapping[str, Service], tuple[tuple[Replica, bool], ...]]:
    """The services that there shall be; and the replicas of those that there shall not, each with whether it must not run twice."""
    by_service: dict[str, list[Replica]] = {name: [] for name in sorted(situation.target.spec.services)}
    others: list[tuple[Replica, bool]] = []
    for allocation in sorted(situation.allocations.values(), key=lambda allocation: allocation.id):
        replica = replica_of(situation, allocation, observed, now, terms)
        if allocation.service in by_service:
            by_service[allocation.service].append(replica)
        else:
            others.append((replica, True))  # what it was is known to generations that may be forgotten
    return {name: _service(situation, observed, name, tuple(replicas)) for name, replicas in by_service.items()}, tuple(others)


def _service(situation: Situation, observed: Observed, name: str, replicas: tuple[Replica, ...]) -> Service:
    app, target, healthy = situation.app, situation.target, situation.healthy
    spec = target.spec.services[name]
    aim = Aim(target.number, wanted_revision(app, target.spec, name))
    rollout = app.rollouts.get(name)
    if rollout is None or (rollout.generation, rollout.revision) != (aim.generation, aim.revision):
        rollout = Rollout(generation=aim.generation, revision=aim.revision)
    elif rollout.stage is Stage.STEADY and any(each.live and each.allocation.revision != aim.revision for each in replicas):
        rollout = Rollout(generation=aim.generation, revision=aim.revision)  # whoever called it done, it is not
    before = healthy.spec.services.get(name) if healthy is not None else None
    return Service(
        name=name,
        spec=spec,
        how=_how(situation, name),
        aim=aim,
        rollout=rollout,
        replicas=replicas,
        exclusive=spec.exclusive or (before is not None and before.exclusive),
        fallback=Aim(healthy.number, wanted_revision(app, healthy.spec, name)) if healthy is not None and before is not None else None,
        count=before.replicas if before is not None else 0,
        proven=app.healthy,
        places=_places(situation, name, replicas) if spec.mode == "global" else frozenset(),
        rolling_back=bool(target.origin),
        no_place=situation.no_place.get(name, ""),
        shunned=_shunned(observed, name),
        bound=bool(bound(volumes_of(target.spec, name))),
    )


def _shunned(observed: Observed, service: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for (name, revision), node in sorted(observed.shunned):
        if name == service:
            found[revision] = (*found.get(revision, ()), node)
    return found


def _places(situation: Situation, name: str, replicas: Iterable[Replica]) -> frozenset[str]:
    """Nodes that a global service shall run on: one that is silent, or without Docker, keeps what it has, and gets nothing new."""
    served = {replica.allocation.node for replica in replicas if replica.live}
    return frozenset(
        node
        for node in situation.eligible.get(name, ())
        if ((state := situation.nodes.get(node)) in _READY and node not in situation.dockerless)
        or (node in served and state not in _DRAINED)
    )


def _subject(situation: Situation, service: str) -> str:
    return f"{situation.app.name}/{service}"


# -- what follows


def _upkeep(
    situation: Situation,
    services: Mapping[str, Service],
    others: Iterable[tuple[Replica, bool]],
    observed: Observed,
    now: float,
    terms: Terms,
) -> Decision:
    """What is due whatever the rollouts are up to: lost replicas are given up, jobs noted as done, and what is gone is forgotten."""
    every = [(replica, service.exclusive) for service in services.values() for replica in service.replicas] + list(others)
    lost = [replica for replica, _ in every if replica.lost and not replica.allocation.stop]
    by_node: dict[tuple[str, str], list[Replica]] = {}
    for replica in lost:
        by_node.setdefault((replica.allocation.service, replica.allocation.node), []).append(replica)
    return Decision(
        observed=observed,
        next=_next(situation, services, every, observed, now, terms),
        stops=tuple(Stop(replica.id, f"lost: {fate(replica)}") for replica in lost),
        done=tuple(replica.id for replica, _ in every if replica.live and replica.ended_well and not replica.allocation.done),
        forgets=tuple(r.id for r, exclusive in every if r.allocation.stop and not r.may_run(exclusive) and forgettable(situation, r)),
        events=tuple(
            Happening("replica.lost", _subject(situation, service), f"{len(there)} on {node}: {fate(there[0])}")
            for (service, node), there in by_node.items()
        ),
    )


def _next(
    situation: Situation,
    services: Mapping[str, Service],
    every: Sequence[tuple[Replica, bool]],
    observed: Observed,
    now: float,
    terms: Terms,
) -> float | None:
    times: list[float] = []
    for service in services.values():
        for replica in service.replicas:
            seen = replica.seen
            if seen.fit_since is not None and seen.good is None:
                times.append(seen.fit_since + service.how.monitor)
            times += [settled + service.how.delay for settled in (seen.good, seen.failed) if settled is not None]
        if (right := comes_right_at(service, terms)) is not None:
            times.append(right)
    for replica, exclusive in every:
        times += terms_of(situation, replica, observed, terms, exclusive=exclusive)
    if any(replica.stuck for replica, _ in every):
        times += observed.shunned.values()
    return min((time for time in times if time > now), default=None)


def _dismantled(situation: Situation, base: Decision, services: Mapping[str, Service], others: Iterable[tuple[Replica, bool]]) -> Decision:
    every = [replica for service in services.values() for replica in service.replicas] + [replica for replica, _ in others]
    stops = tuple(Stop(replica.id, "the app is being removed") for replica in every if replica.live)
    left = {replica.id for replica in every} - set(base.forgets)
    lost = {replica.id: replica.allocation.node for replica in every if replica.lost}
    gone = not left
    forgets = base.forgets if gone else tuple(id for id in base.forgets if id not in lost)  # to the last, that it can be told of them
    away = sorted(set(lost.values()))
    words = f"what {', '.join(away)} may still have of it is removed when it is back" if away else "nothing of it runs any more"
    events = (*base.events, Happening("app.removed", situation.app.name, words)) if gone else base.events
    return dataclasses.replace(base, stops=(*base.stops, *stops), forgets=forgets, events=events, gone=gone, done=())


def _removed(others: Iterable[tuple[Replica, bool]]) -> tuple[Stop, ...]:
    return tuple(Stop(replica.id, "its service was removed") for replica, _ in others if replica.live)


def _can_revert(situation: Situation) -> bool:
    """Not back from what is itself a way back, nor to what is the same."""
    healthy = situation.healthy
    return healthy is not None and not situation.target.origin and healthy.spec != situation.target.spec


def _reverted(situation: Situation, base: Decision, healthy: Generation, why: str) -> Decision:
    """Nothing else is decided: what is wanted next is another generation."""
    app, failed = situation.app, situation.target.number
    generation = Generation(
        app=app.name,
        number=failed + 1,
        spec=healthy.spec,
        digest=healthy.digest,
        origin=healthy.number,
        note=f"generation {failed} failed: {why}",
    )
    event = Happening("app.rollback", app.name, f"generation {failed} failed ({why}): back to what generation {healthy.number} was")
    return dataclasses.replace(
        base,
        app=replace(app, generation=generation.number, rollouts={}),
        generation=generation,
        events=(*base.events, event),
    )


def _gate(situation: Situation, service: Service, services: Mapping[str, Service]) -> str:
    if situation.app.healthy == situation.target.number or service.rollout.stage is Stage.STEADY:
        return ""
    return gate(service, services)


def _healthy(situation: Situation, services: Iterable[Service]) -> int:
    reached = all(service.rollout.stage is Stage.STEADY and not service.beyond for service in services)
    return situation.target.number if reached else situation.app.healthy


def _waits(moves: Mapping[str, Moves]) -> dict[str, str]:
    return {name: move.wait for name, move in moves.items() if move.wait}
