"""What a node must do to its containers: wanted, seen and remembered in; actions, and how each allocation fares, out. Pure.

Carried out in any part and order, with anything failing in between, and looked at again, it comes to what is wanted (docs/adr/0094).
Only containers that carry this cluster's label and an allocation's are ever acted on. What runs and is wanted is left alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from msgspec import structs

from hmcore.apps.records import AllocationStatus, Phase
from hmcore.apps.spec import Probe
from hmcore.records import InstanceHealth
from node_agent.container.actions import Action, Pull, rank
from node_agent.container.creation import NodeFacts, Wanted
from node_agent.container.info import CLUSTER, ContainerInfo
from node_agent.container.memory import Memory, Recall
from node_agent.container.replica import Surroundings, Turn, image_of, turn, uncounted

Health = tuple[InstanceHealth, str]  # and why it is not well, in words
_COMING = (Phase.PULLING, Phase.STARTING, Phase.BACKOFF)


@dataclass(frozen=True, slots=True)
class Seen:
    """What Docker told, and what else is known. `asked`: Memory.settled before Docker was. `images`: ids and names of those that are
    here (see `images_asked`). `healths`: by a container's id, what the agent's own probes found. `fit`: the allocations here that the
    cluster knows as fit; None: nobody can tell. `by_docker`: of `ends_asked`, the containers that ended because Docker, or the machine,
    went away, by id, and since when (seconds since 1970) there is one again. `now`: seconds of the agent's monotonic clock; `unix`: seconds
    since 1970, for people."""

    containers: Mapping[str, ContainerInfo]
    asked: int
    now: float
    unix: float = 0.0
    images: AbstractSet[str] = frozenset()
    healths: Mapping[str, Health] = field(default_factory=dict)
    fit: AbstractSet[str] | None = None
    by_docker: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """What the agent shall probe, where."""

    address: str
    port: int
    probe: Probe


@dataclass(frozen=True, slots=True)
class Verdict:
    """`actions`: the most urgent first, one for an allocation. `statuses`: by allocation. `targets`: by a container's id. `wake`: when to
    look again although nothing happened, by the agent's monotonic clock."""

    actions: tuple[Action, ...]
    statuses: Mapping[str, AllocationStatus]
    targets: Mapping[str, Target]
    memory: Memory
    wake: float = math.inf


def reconcile(wanted: Mapping[str, Wanted] | None, seen: Seen, memory: Memory, node: NodeFacts) -> Verdict:
    """`wanted`: this node's allocations by id, also those to be stopped. None: nobody knows yet, so nothing is done: an agent that has just
    started would take all it has for orphans."""
    if wanted is None:
        return Verdict((), {}, {}, memory)
    mine = _by_allocation(seen.containers, node.cluster)
    stops = {id: deadline for id, deadline in memory.stops.items() if id in seen.containers}
    around = Surroundings(seen.asked, seen.now, seen.images, stops, node, seen.fit, seen.by_docker)
    recalls: dict[str, Recall] = {}
    actions: list[Action] = []
    statuses: dict[str, AllocationStatus] = {}
    targets: dict[str, Target] = {}
    wake = math.inf
    for id in sorted({*wanted, *mine, *memory.acting}):
        want = wanted.get(id)
        found = turn(id, want, mine.get(id, ()), memory.of(id), around)
        recalls[id] = found.recall
        wake = min(wake, found.wake)
        if found.action is not None:
            actions.append(found.action)
        if want is not None:
            recalls[id] = _told(found, seen.unix)
            statuses[id] = _status(id, want, found, recalls[id], seen)
            targets |= _target(want, found, node)
            if found.container is not None and not want.allocation.stop:
                stops.pop(found.container.id, None)  # it was to end once, and is wanted again
    return Verdict(tuple(sorted(actions, key=rank)), statuses, targets, Memory(recalls, stops, memory.settled), wake)


def images_asked(wanted: Mapping[str, Wanted], memory: Memory) -> frozenset[str]:
    """The images of which `Seen.images` has to say whether they are here."""
    return frozenset(image_of(want.service, memory.of(id)) for id, want in wanted.items() if want.service is not None)


def ends_asked(wanted: Mapping[str, Wanted], containers: Mapping[str, ContainerInfo], memory: Memory, node: NodeFacts) -> frozenset[str]:
    """The containers, by id, of which `Seen.by_docker` has to say how they came to end."""
    mine = _by_allocation(containers, node.cluster)
    found = (uncounted(want, mine.get(id, ()), memory.of(id)) for id, want in wanted.items())
    return frozenset(container for container in found if container is not None)


def unanswered(statuses: Mapping[str, AllocationStatus]) -> dict[str, AllocationStatus]:
    """As they were told last, while Docker does not answer: they may run on, but nobody can tell. What is over is over."""
    over = (Phase.DONE, Phase.FAILED)
    unknown = {"health": InstanceHealth.UNKNOWN, "error": "Docker does not answer", "stuck": False}
    return {id: status if status.phase in over else structs.replace(status, **unknown) for id, status in statuses.items()}


def _by_allocation(containers: Mapping[str, ContainerInfo], cluster: str) -> dict[str, list[ContainerInfo]]:
    """Those that may be acted on. All others are somebody's own, also those that carry the cluster's label alone: started by hand."""
    mine = defaultdict(list)
    for container in containers.values():
        if container.allocation and cluster and container.labels.get(CLUSTER) == cluster:
            mine[container.allocation].append(container)
    return dict(mine)


def _told(found: Turn, unix: float) -> Recall:
    return found.recall if found.recall.told is found.phase else replace(found.recall, told=found.phase, told_since=unix)


def _status(id: str, want: Wanted, found: Turn, recall: Recall, seen: Seen) -> AllocationStatus:
    health, why = _health(want, found, seen)
    return AllocationStatus(
        id=id,
        phase=found.phase,
        health=health,
        container="" if found.container is None else found.container.id,
        restarts=recall.restarts,
        exit_code=recall.exit_code,
        error=found.error or why,
        stuck=_stuck(found),
        since=recall.told_since,
        stopped=found.stopped,
    )


def _stuck(found: Turn) -> bool:
    """Whether it does not get to its first start. A pull that is under way may be the one that succeeds."""
    recall = found.recall
    coming = found.phase in _COMING and not recall.tried and not isinstance(recall.acting, Pull)
    return coming and recall.hindrance.lasting


def _health(want: Wanted, found: Turn, seen: Seen) -> Health:
    """By the agent's probe where the spec has one, else by Docker's check; without either, what runs is well."""
    container = found.container
    if found.phase is not Phase.RUNNING or container is None:
        return InstanceHealth.UNKNOWN, ""
    if container.state != "running":
        return InstanceHealth.UNHEALTHY, f"it is {container.state}"
    if _probe(want) is not None:
        return seen.healths.get(container.id, (InstanceHealth.UNKNOWN, ""))
    match container.health:
        case "" | "healthy":
            return InstanceHealth.HEALTHY, ""
        case "starting":
            return InstanceHealth.UNKNOWN, ""
        case _:
            return InstanceHealth.UNHEALTHY, ": ".join(filter(None, ("its health check fails", container.complaint)))


def _target(want: Wanted, found: Turn, node: NodeFacts) -> dict[str, Target]:
    probe, container = _probe(want), found.container
    if probe is None or container is None or found.phase is not Phase.RUNNING or not container.running:
        return {}
    address = node.address if container.network == "host" else container.address
    return {container.id: Target(address, probe.port or container.port, probe)}


def _probe(want: Wanted) -> Probe | None:
    """The one that the agent carries out, if there is one."""
    probe = None if want.service is None else want.service.container.probe
    return None if probe is None or probe.kind == "docker" else probe
