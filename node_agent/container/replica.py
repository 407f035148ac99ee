"""What to do next about one allocation: wanted, seen and remembered in; at most one action, and how it fares, out. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from hmcore.apps.records import Phase
from hmcore.apps.spec import AppSpec, ServiceSpec
from node_agent.container import restarts
from node_agent.container.actions import Action, Cancel, Kill, Pull, Remove, Run, Start, Stop
from node_agent.container.creation import NodeFacts, Wanted, container_name, creation, needed_volumes, second_name
from node_agent.container.draining import drained
from node_agent.container.hindrance import FREE
from node_agent.container.info import ALIVE, IDLE, ContainerInfo
from node_agent.container.memory import Recall


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`asked`: Memory.settled when Docker was asked for what it told. `images`: those that are known to be on this node, by id and by name.
    `stops`: see Memory. `fit`: the allocations that the cluster knows as fit; None: nobody can tell. `by_docker`: see reconcile.Seen.
    Times in seconds of the agent's monotonic clock."""

    asked: int
    now: float
    images: AbstractSet[str]
    stops: Mapping[str, float]
    node: NodeFacts
    fit: AbstractSet[str] | None = None
    by_docker: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """`wake`: when to look again although nothing happened. `container`: the one that counts. `stopped`: see AllocationStatus."""

    phase: Phase
    recall: Recall
    action: Action | None = None
    wake: float = math.inf
    container: ContainerInfo | None = None
    error: str = ""
    stopped: bool = False


def turn(id: str, want: Wanted | None, mine: Sequence[ContainerInfo], recall: Recall, around: Surroundings) -> Turn:
    """Of allocation `id`. `mine`: the containers that say they are its. Without `want` they are orphans."""
    ending = want is None or want.allocation.stop
    if recall.acting is not None:
        cancel = Cancel(id) if ending and isinstance(recall.acting, Pull) else None
        phase, stopped = _phase_of(recall.acting, recall, ending=ending), isinstance(recall.acting, Remove) and _stopped(want, mine)
        return Turn(phase, recall, cancel, container=_kept(want, mine), error=recall.error, stopped=stopped)
    if around.asked < recall.acted:  # Docker has not been asked since: what was seen says nothing of it
        return Turn(recall.told or Phase.STARTING, recall, container=_kept(want, mine), error=recall.error)
    if want is None or ending:
        left = _leaving(id, mine, recall, around)
        return replace(left, stopped=left.phase is Phase.STOPPING and _stopped(want, mine))
    recall = replace(recall, drain=None)
    kept = _kept(want, mine)
    found = _standing(id, want, kept, recall, around)
    if found.phase is Phase.WAITING:  # others keep it from its start, whatever did before
        found = replace(found, recall=replace(found.recall, hindrance=FREE))
    others = [container for container in mine if container is not kept]
    if not others:
        return found
    away = _ending(id, others, recall, around)  # they are in its way: their name, their ports, their volumes
    return replace(found, action=away.action, wake=min(found.wake, away.wake))


def uncounted(want: Wanted, mine: Sequence[ContainerInfo], recall: Recall) -> str | None:
    """The container of which `turn` will count that it ended, if it did so by itself; None: there is none."""
    if want.service is None or want.allocation.stop or want.allocation.done or recall.acting is not None or recall.ended or recall.refused:
        return None
    kept = _kept(want, mine)
    return kept.id if kept is not None and kept.state == "exited" else None


def _stopped(want: Wanted | None, mine: Sequence[ContainerInfo]) -> bool:
    """See AllocationStatus."""
    return want is not None and want.allocation.stop and all(container.state in IDLE for container in mine)


def image_of(service: ServiceSpec, recall: Recall) -> str:
    """What to ask for: what a pull came to, as this Docker calls it (where containerd keeps its images, by another id than the cluster);
    else the same bytes on every node, if they are known."""
    return recall.image or service.container.image_id or service.container.image


def _phase_of(acting: Action, recall: Recall, *, ending: bool) -> Phase:
    match acting:
        case Pull():
            return Phase.STOPPING if ending else Phase.PULLING
        case Run() | Start():
            return Phase.STOPPING if ending else Phase.STARTING
        case _:
            return Phase.STOPPING if ending else recall.told or Phase.BACKOFF


def _kept(want: Wanted | None, mine: Sequence[ContainerInfo]) -> ContainerInfo | None:
    """Of several the one that runs; of several of these the oldest."""
    right = [container for container in mine if want is None or container.revision == want.allocation.revision]
    return min(right, key=lambda c: (c.state not in ALIVE, c.state != "exited", c.started, c.id), default=None)


def _leaving(id: str, mine: Sequence[ContainerInfo], recall: Recall, around: Surroundings) -> Turn:
    """It shall not run any more, and its stop signal waits until nobody is led to it."""
    if not any(container.state in ALIVE and container.id not in around.stops for container in mine):
        return _ending(id, mine, recall, around)
    if not any(container.serves for container in mine):  # nobody is led to it
        return _ending(id, mine, recall, around)
    drain = drained(recall.drain, fit=None if around.fit is None else id in around.fit, now=around.now, margin=around.node.margin)
    recall = replace(recall, drain=drain)
    if around.now < drain.due:
        return Turn(Phase.STOPPING, recall, wake=drain.due, container=mine[0])
    return _ending(id, mine, recall, around)


def _ending(id: str, mine: Sequence[ContainerInfo], recall: Recall, around: Surroundings) -> Turn:
    """Stop, and remove what has ended. One step at a time; `DONE` once nothing is left."""
    if not mine:
        return Turn(Phase.DONE, recall)
    if around.now < recall.stop_hold:
        return Turn(Phase.STOPPING, recall, wake=recall.stop_hold, container=mine[0], error=recall.error)
    steps = [_away(id, container, around) for container in sorted(mine, key=lambda c: c.id)]
    action = next((action for action, _ in steps if action is not None), None)
    error = recall.error if recall.troubles else ""
    return Turn(Phase.STOPPING, recall, action, min(wake for _, wake in steps), mine[0], error)


def _away(id: str, container: ContainerInfo, around: Surroundings) -> tuple[Action | None, float]:
    if container.state in IDLE:
        return Remove(id, container.id), math.inf
    if container.state not in ALIVE:  # Docker is removing it, or is in a state that nobody has heard of
        return None, math.inf
    deadline = around.stops.get(container.id)
    if deadline is None:
        return Stop(id, container.id, container.grace), math.inf
    return (Kill(id, container.id), math.inf) if around.now >= deadline else (None, deadline)


def _standing(id: str, want: Wanted, kept: ContainerInfo | None, recall: Recall, around: Surroundings) -> Turn:
    """It shall run."""
    if want.app is None or (service := want.service) is None:
        why = "its generation is not known here yet" if want.app is None else f"its generation has no service {want.allocation.service}"
        alive = kept is not None and kept.state in ALIVE
        return Turn(Phase.RUNNING if alive else Phase.WAITING, recall, container=kept, error="" if alive else why)
    if want.barred and not want.allocation.done and recall.final is None:
        return _barred(id, want.barred, kept, recall, around.now)
    recall = _noticed(kept, service, recall, around)
    if kept is not None and kept.state in ALIVE:
        return Turn(Phase.RUNNING, recall, container=kept)
    if want.allocation.done:
        return Turn(Phase.DONE, recall, container=kept)
    if kept is not None and kept.state not in IDLE:
        return Turn(recall.told or Phase.STARTING, recall, container=kept, error=recall.error)
    if recall.final is not None:
        return Turn(recall.final, recall, container=kept, error=recall.error if recall.final is Phase.FAILED else "")
    untried = not recall.ended and not recall.restarts and (kept is None or kept.state == "created")
    if want.waiting and untried:
        return Turn(Phase.WAITING, recall, container=kept, error=want.waiting)
    if want.held or (want.exclusive and not want.lease):
        why = want.held or "nobody says whether this node has a lease"
        return Turn(Phase.BACKOFF if recall.ended else Phase.WAITING, recall, container=kept, error=why)
    action = _beginning(id, want, want.app, service, kept, recall, around)
    due = max(recall.not_before, recall.hold)
    if around.now >= due:
        phase = Phase.PULLING if isinstance(action, Pull) else Phase.STARTING
        return Turn(phase, recall, action, container=kept, error=recall.error)
    phase = Phase.PULLING if isinstance(action, Pull) and not recall.ended else Phase.BACKOFF
    return Turn(phase, recall, wake=due, container=kept, error=recall.error)


def _barred(id: str, why: str, kept: ContainerInfo | None, recall: Recall, now: float) -> Turn:
    """It may not run now: that it ends is not held against it, and its restart policy is not asked."""
    if kept is not None and kept.state in ALIVE:
        kill = Kill(id, kept.id) if now >= recall.stop_hold else None
        return Turn(Phase.BACKOFF, recall, kill, recall.stop_hold if kill is None else math.inf, kept, why)
    if recall.since is not None or (kept is not None and kept.state == "exited" and not recall.ended):
        recall = replace(recall, since=None, ended=True, refused=False, not_before=now, error=why)
    return Turn(Phase.WAITING, recall, container=kept, error=why)


def _beginning(
    id: str, want: Wanted, app: AppSpec, service: ServiceSpec, kept: ContainerInfo | None, recall: Recall, around: Surroundings
) -> Action:
    """The next step to a container that runs."""
    if kept is not None:
        return Remove(id, kept.id) if recall.remake or kept.state == "dead" else Start(id, kept.id, want.lease)
    image = image_of(service, recall)
    if recall.pull or not (recall.image or image in around.images):
        return Pull(id, service.container.image_id or service.container.image)
    name = (second_name if recall.renamed else container_name)(want.allocation, service)
    return Run(id, name, creation(want, app, service, around.node, image), needed_volumes(app, service), want.lease)


def _noticed(kept: ContainerInfo | None, service: ServiceSpec, recall: Recall, around: Surroundings) -> Recall:
    """What has become of it since it was looked at last: it runs, or has ended, and that is counted once."""
    now = around.now
    if kept is not None and kept.state in ALIVE:
        since = now if recall.since is None else recall.since
        return replace(recall, since=since, ended=False, refused=False, final=None, remake=False, error="", troubles=0)
    if recall.refused:
        return _counted(replace(recall, refused=False), service, now, recall.exit_code, recall.error, failed=True)
    if kept is not None and kept.state == "exited" and not recall.ended:
        docker = around.by_docker.get(kept.id)
        if docker is not None and docker != recall.spared:  # each Docker can have done it once: no clock makes it a loop without a pause
            return replace(recall, since=None, ended=True, not_before=now, spared=docker, error="it ended with Docker")
        return _counted(recall, service, now, kept.exit_code, _words(kept.exit_code), failed=kept.exit_code != 0)
    if (kept is None or kept.state == "dead") and recall.since is not None and not recall.ended:
        return _counted(recall, service, now, recall.exit_code, "its container was removed by somebody", failed=True)
    return recall


def _counted(recall: Recall, service: ServiceSpec, now: float, exit_code: int | None, error: str, *, failed: bool) -> Recall:
    policy = service.restart
    streak = restarts.streak_after(policy, recall.streak, 0.0 if recall.since is None else now - recall.since)
    final = restarts.final(policy, streak, failed=failed)
    return replace(
        recall,
        restarts=recall.restarts + (final is None),
        streak=streak,
        ended=True,
        since=None,
        not_before=now + restarts.pause(policy, streak),
        final=final,
        exit_code=exit_code,
        error=f"{error}, {streak} times in a row" if streak > 1 else error,
    )


def _words(exit_code: int | None) -> str:
    if exit_code is None:
        return "it ended, nobody knows how"
    return f"it ended with {exit_code}" + (f" (by signal {exit_code - 128})" if 128 < exit_code <= 192 else "")
