"""Which instance of a service gets the next call: filters and strategies. Who shares the traffic at all: hmcore/pool.py. Pure.

Both ends use it: agents choose with it, `hmctl service resolve` shows with it what they would choose and why. Randomness, counters and
latencies are arguments. All health here is what a registry says after everything it knows: the instance's own word, its node's state
and whether anybody has vouched for it lately (node_agent/registry/fitness.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hmcore.pool import Candidate, Group, Pool
from hmcore.records import Instance, InstanceHealth, Maintenance
from hmcore.ring import Near, probes

MOST_PLACES = 4096  # keys whose place a pool remembers


class Strategy(StrEnum):
    """How one of several equally good instances is chosen.

    weighted: by chance, by weight. round-robin: one after the other. least-latency: the one that answered fastest, those never asked first.
    consistent-hash: the same one for the same key, by weight; when instances come or go, only keys that must move do.
    """

    WEIGHTED = "weighted"
    ROUND_ROBIN = "round-robin"
    LEAST_LATENCY = "least-latency"
    CONSISTENT_HASH = "consistent-hash"


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for. Empty fields ask for nothing; `labels` are of the node; all of `tags` and `labels` must be there."""

    health: frozenset[InstanceHealth] = frozenset()
    tags: frozenset[str] = frozenset()
    version: str = ""
    node: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    include_maintenance: bool = False

    def why_not(self, candidate: Candidate) -> str | None:
        """Why the candidate is not asked for; None when it is."""
        instance = candidate.instance
        if self.node and instance.node != self.node:
            return f"it is on {instance.node}"
        if self.version and instance.version != self.version:
            return f"it is version {instance.version or '-'}"
        if missing := sorted(self.tags.difference(instance.tags)):
            return f"it has no tag {', '.join(missing)}"
        for label, value in self.labels:
            if candidate.labels.get(label) != value:
                return f"its node's {label} is {candidate.labels.get(label) or 'not set'}"
        if candidate.maintenance is not None and not self.include_maintenance:
            reason = candidate.maintenance.reason
            return f"in maintenance{f': {reason}' if reason else ''}"
        if self.health and instance.health not in self.health:
            return _condition(instance)
        return None


def choose(
    pool: Pool, strategy: Strategy, *, chance: float = 0.0, turn: int = 0, latency: Mapping[str, float] | None = None, key: str = ""
) -> Candidate | None:
    """One of the pool; None if it is empty. `chance` in [0, 1) for weighted, `turn` a counter for round-robin, `latency` by instance id,
    `key` for the consistent hash. What a strategy does not need is ignored."""
    if not pool.groups:
        return None
    match strategy:
        case Strategy.WEIGHTED:
            group, drawn = _part(pool, pool.weights, chance * pool.weights[-1])
            return group.members[min(bisect_right(group.weights, drawn), len(group.members) - 1)]
        case Strategy.ROUND_ROBIN:
            group, place = _part(pool, pool.counts, turn % pool.counts[-1])
            return group.members[int(place)]
        case Strategy.LEAST_LATENCY:
            known = latency or {}
            unasked = next((each for each in pool if each.instance.id not in known), None)  # at most as many are passed by as are known
            return unasked or min(pool, key=lambda each: known[each.instance.id])
        case Strategy.CONSISTENT_HASH:
            return _place(pool, key)


def _part(pool: Pool, sums: tuple[int, ...], wanted: float) -> tuple[Group, float]:
    """The group in which `wanted` lies, and how far inside."""
    number = min(bisect_right(sums, wanted), len(sums) - 1)
    return pool.groups[number], wanted - (sums[number - 1] if number else 0)


def _place(pool: Pool, key: str) -> Candidate:
    """Where a key belongs (hmcore/ring.py). A key that is asked for again is remembered by its pool."""
    place = pool.places.get(key)
    if place is None:
        place = _look(pool, key)
        if len(pool.places) >= MOST_PLACES:
            del pool.places[next(iter(pool.places))]
        pool.places[key] = place
    return place


def _look(pool: Pool, key: str) -> Candidate:
    looks = probes(key)
    near: Near | None = None
    for limit, circle in pool.circles:
        near = circle.nearest(looks, pool.holds, limit, near)
    assert near is not None, "every member is on one of the circles"
    return pool[near.node, near.id]


def why_not(candidate: Candidate, asked: Filter, pool: Pool) -> str | None:
    """Why a candidate is not in the pool that was gathered from all that `asked` let through; None when it is."""
    if reason := asked.why_not(candidate):
        return reason
    instance = candidate.instance
    if pool.holds(instance.node, instance.id):
        return None
    if candidate.maintenance is not None:
        return f"in maintenance{f': {candidate.maintenance.reason}' if candidate.maintenance.reason else ''}"
    if instance.health in (InstanceHealth.UNHEALTHY, InstanceHealth.UNKNOWN):
        return _condition(instance)
    if instance.weight == 0:
        return "its weight is 0"
    others = pool.groups[0].members[0].instance
    if instance.health is not others.health:
        return f"{_condition(instance)}; others are {others.health.value}"
    if instance.priority != others.priority:
        return f"priority {instance.priority}: stands by while one of priority {others.priority} is fit"
    return "another is nearer"


def _condition(instance: Instance) -> str:
    return f"{instance.health.value}{f': {instance.reason}' if instance.reason else ''}"


def covering(instance: Instance, maintenance: Mapping[str, Maintenance]) -> Maintenance | None:
    """What takes the instance out of traffic: its own maintenance, or that of its node."""
    return maintenance.get(instance.id) or maintenance.get(f"{instance.node}/")


def matching(candidates: Iterable[Candidate], asked: Filter) -> tuple[Candidate, ...]:
    return tuple(each for each in candidates if asked.why_not(each) is None)
