"""Which instance of a service gets the next call: filters, failover by priority, locality, strategies. Pure.

Both ends use it: agents choose with it, `hmctl service resolve` shows with it what they would choose and why. Randomness, counters and
latencies are arguments. All health here is what a registry says after everything it knows: the instance's own word, its node's state
and whether anybody has vouched for it lately (node_agent/registry/fitness.py).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from operator import itemgetter

from hmcore.records import Instance, InstanceHealth, Maintenance

MOST_PLACES = 4096  # keys whose place a pool remembers

_WORD = (1 << 64) - 1


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
class Candidate:
    """An instance with all that matters for choosing it. `labels` are its node's."""

    instance: Instance
    maintenance: Maintenance | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class Locality:
    """Who asks: instances on its own node come first, then those whose node has the same value of `label`."""

    node: str = ""
    label: str = ""
    value: str = ""


ANYWHERE = Locality()


@dataclass(frozen=True)
class Pool:
    """The instances that the next call may go to, equally good; `weights` are added up. Empty: none is fit."""

    members: tuple[Candidate, ...] = ()
    weights: tuple[int, ...] = ()

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """What the consistent hash knows each member by."""
        return tuple(_number(each.instance.id) for each in self.members)

    @cached_property
    def in_order(self) -> tuple[tuple[str, Candidate], ...]:
        """The members and their ids, by id."""
        return tuple(sorted(((each.instance.id, each) for each in self.members), key=itemgetter(0)))

    @cached_property
    def places(self) -> dict[str, Candidate]:
        """Where the consistent hash has put the latest keys: a pool never changes, so neither do they."""
        return {}


def gather(candidates: Iterable[Candidate], *, locality: Locality = ANYWHERE, allow_unknown: bool = False) -> Pool:
    """Who shares the traffic: of the healthy ones those of the lowest priority number, of these the nearest.

    Degraded ones only when none is healthy; unknown ones only when `allow_unknown` and there is nobody better; unhealthy ones, those of
    weight 0 and those in maintenance never.
    """
    tiers = (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED, *([InstanceHealth.UNKNOWN] if allow_unknown else []))
    fit = [each for each in candidates if each.maintenance is None and each.instance.weight > 0 and each.instance.health in tiers]
    for health in tiers:
        tier = [each for each in fit if each.instance.health is health]
        if tier:
            first = min(each.instance.priority for each in tier)
            members = _nearest([each for each in tier if each.instance.priority == first], locality)
            return Pool(tuple(members), tuple(accumulate(each.instance.weight for each in members)))
    return Pool()


def _nearest(candidates: list[Candidate], locality: Locality) -> list[Candidate]:
    if locality.node and (here := [each for each in candidates if each.instance.node == locality.node]):
        return here
    if locality.label and (near := [each for each in candidates if each.labels.get(locality.label) == locality.value]):
        return near
    return candidates


def choose(
    pool: Pool, strategy: Strategy, *, chance: float = 0.0, turn: int = 0, latency: Mapping[str, float] | None = None, key: str = ""
) -> Candidate | None:
    """One of the pool; None if it is empty. `chance` in [0, 1) for weighted, `turn` a counter for round-robin, `latency` by instance id,
    `key` for the consistent hash. What a strategy does not need is ignored."""
    members = pool.members
    if len(members) < 2:
        return members[0] if members else None
    match strategy:
        case Strategy.WEIGHTED:
            return members[min(bisect_right(pool.weights, chance * pool.weights[-1]), len(members) - 1)]
        case Strategy.ROUND_ROBIN:
            return members[turn % len(members)]
        case Strategy.LEAST_LATENCY:
            known = latency or {}
            unasked = next((each for id, each in pool.in_order if id not in known), None)  # at most as many are passed by as are known
            return unasked or min(pool.in_order, key=lambda each: known[each[0]])[1]
        case Strategy.CONSISTENT_HASH:
            return _place(pool, key)


def _place(pool: Pool, key: str) -> Candidate:
    places = pool.places
    place = places.get(key)
    if place is None:
        place = _rendezvous(pool, key)
        if len(places) >= MOST_PLACES:
            del places[next(iter(places))]
        places[key] = place
    return place


def _rendezvous(pool: Pool, key: str) -> Candidate:
    """The highest random weight (Thaler & Ravishankar 1998), weighted by the logarithmic method (Schindelhauer & Schomaker 2005).

    Each member's score depends on nothing but itself and the key: one that comes takes keys from all others, one that goes gives its
    own away, and no other key moves. Linear in the members: a key that is asked for again is remembered by its pool.
    """
    question = _number(key)
    scores = [_score(question ^ seed, each.instance.weight) for seed, each in zip(pool.seeds, pool.members, strict=True)]
    best = max(scores)
    return min((each for score, each in zip(scores, pool.members, strict=True) if score == best), key=lambda each: each.instance.id)


def _score(number: int, weight: int) -> float:
    mixed = number * 0x9E3779B97F4A7C15 & _WORD
    mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 & _WORD
    mixed ^= mixed >> 32
    return -weight / math.log((mixed + 1) / (_WORD + 2))


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def why_not(candidate: Candidate, asked: Filter, pool: Pool) -> str | None:
    """Why a candidate is not in the pool that was gathered from all that `asked` let through; None when it is."""
    if reason := asked.why_not(candidate):
        return reason
    instance = candidate.instance
    if any(each.instance.id == instance.id for each in pool.members):
        return None
    if candidate.maintenance is not None:
        return f"in maintenance{f': {candidate.maintenance.reason}' if candidate.maintenance.reason else ''}"
    if instance.health in (InstanceHealth.UNHEALTHY, InstanceHealth.UNKNOWN):
        return _condition(instance)
    if instance.weight == 0:
        return "its weight is 0"
    best = pool.members[0].instance
    if instance.health is not best.health:
        return f"{_condition(instance)}; others are {best.health.value}"
    if instance.priority != best.priority:
        return f"priority {instance.priority}: stands by while one of priority {best.priority} is fit"
    return "another is nearer"


def _condition(instance: Instance) -> str:
    return f"{instance.health.value}{f': {instance.reason}' if instance.reason else ''}"


def covering(instance: Instance, maintenance: Mapping[str, Maintenance]) -> Maintenance | None:
    """What takes the instance out of traffic: its own maintenance, or that of its node."""
    return maintenance.get(instance.id) or maintenance.get(f"{instance.node}/")


def matching(candidates: Iterable[Candidate], asked: Filter) -> tuple[Candidate, ...]:
    return tuple(each for each in candidates if asked.why_not(each) is None)
