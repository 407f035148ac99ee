"""What only the leader's memory has: since when, by its own clock, it has seen each replica fit and each node away.

A new leader begins with an empty memory and so grants full terms again. What it cannot see it does not hold against anybody: a replica
that was there before it, and had restarted before its first status, is not blamed for that (docs/adr/0093).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from hmcore.apps.records import Allocation, AllocationStatus, Phase
from hmcore.records import InstanceHealth, NodeState

PRESENT = (NodeState.READY, NodeState.DEGRADED, NodeState.DRAINING, NodeState.DRAINED)  # their agents are heard
FIT = (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED)
SHUNNED = 600.0  # seconds for which nothing of a kind is placed on a node that could not start one

Kind = tuple[str, str]  # a service, and the revision of what it is made of


@dataclass(frozen=True, slots=True)
class Seen:
    """Of a replica. `forgiven`: restarts that do not count against it; None until its first status. Times are seconds: when it became fit,
    when it had been so for the whole of `monitor` (for ever, whatever comes then), when it was first known as failed."""

    forgiven: int | None
    restarts: int = 0
    fit_since: float | None = None
    good: float | None = None
    failed: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Of one app. `began`: when this leader first looked; None: it has not yet. `away`: by node, when it was last heard.
    `dockerless`: by node, since when it says that its Docker does not answer. `shunned`: by kind and node, until when none is tried there,
    because one could not be started."""

    began: float | None = None
    replicas: Mapping[str, Seen] = field(default_factory=dict)  # by the allocation's id; those that shall run
    away: Mapping[str, float] = field(default_factory=dict)
    dockerless: Mapping[str, float] = field(default_factory=dict)
    shunned: Mapping[tuple[Kind, str], float] = field(default_factory=dict)


def is_fit(status: AllocationStatus | None) -> bool:
    return status is not None and status.phase is Phase.RUNNING and status.health in FIT


def observe(
    before: Observed,
    allocations: Mapping[str, Allocation],
    statuses: Mapping[str, AllocationStatus],
    nodes: Mapping[str, NodeState],
    heard: Mapping[str, float],
    dockerless: Collection[str],
    monitor: Mapping[str, float],
    failed: Collection[str],
    now: float,
) -> Observed:
    """The memory after a look at `now`. `monitor` by service, in seconds; `failed`: ids that are recorded as failed."""
    newcomer = Seen(forgiven=None if before.began is None else 0)
    replicas: dict[str, Seen] = {}
    shunned = {what: until for what, until in before.shunned.items() if now < until}
    for id, allocation in allocations.items():
        if allocation.stop:
            continue
        status = statuses.get(id)
        if status is not None and status.stuck:
            shunned[(allocation.service, allocation.revision), allocation.node] = now + SHUNNED
        elif shunned and status is not None and status.phase is Phase.RUNNING:
            shunned.pop(((allocation.service, allocation.revision), allocation.node), None)
        seen = _told(before.replicas.get(id, newcomer), status, nodes.get(allocation.node) in PRESENT, now)
        if seen.good is None and seen.fit_since is not None and now >= seen.fit_since + monitor.get(allocation.service, 0.0):
            seen = replace(seen, good=seen.fit_since + monitor.get(allocation.service, 0.0))
        if seen.failed is None and id in failed:
            seen = replace(seen, failed=now)
        replicas[id] = seen
    away: dict[str, float] = {}
    for node in {allocation.node for allocation in allocations.values()}:
        if nodes.get(node) not in PRESENT:
            away[node] = min(now, heard.get(node, before.away.get(node, now)))
    there = {allocation.node for allocation in allocations.values()}
    without = {node: before.dockerless.get(node, now) for node in dockerless if node in there}
    return Observed(now if before.began is None else before.began, replicas, away, without, shunned)


def _told(seen: Seen, status: AllocationStatus | None, present: bool, now: float) -> Seen:
    if status is None:
        return replace(seen, fit_since=None)
    known = seen.forgiven is not None
    unbroken = known and status.restarts == seen.restarts and seen.fit_since is not None
    fit_since = (seen.fit_since if unbroken else now) if present and is_fit(status) else None
    if known and (status.restarts, fit_since) == (seen.restarts, seen.fit_since):
        return seen  # as of nearly all, at nearly every look
    return replace(seen, forgiven=seen.forgiven if known else status.restarts, restarts=status.restarts, fit_since=fit_since)
