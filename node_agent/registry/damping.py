"""Instances that come and go: bad news travels at once, good news of one that flaps must wait. Pure.

As routers do it with routes (RFC 2439): each time an instance falls out of fitness its penalty grows by one, and halves every `HALF_LIFE`
seconds. From `SUPPRESS` on it is told as unhealthy whatever it is, also while it is not there at all; it is told as it is again once it is
well and its penalty has sunk below `REUSE`. So an instance that flaps costs the log a handful of entries, and no other waits for it.

A replica of an app in another container than before is another instance, whatever it is called: an app that is removed and deployed again
has done nothing wrong, and restarts of one that crashes keep its container, and are slowed down by its restart policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

from msgspec.structs import replace

from hmcore.records import ALLOCATION, Instance, InstanceHealth

HALF_LIFE = 30.0  # seconds
SUPPRESS = 3.0
REUSE = 1.0
MOST = 6.0  # the longest wait is then HALF_LIFE * log2(MOST / REUSE): 78 s
LEAST = 0.2  # seconds between two tellings of a node's list: changes that come together are told together
CONTAINER = "container"  # the attribute of an instance that is a container: its id
REASON = "it came and went several times lately: it must be well for a while before it gets traffic"

_FIT = (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED)


@dataclass(frozen=True, slots=True)
class Track:
    """An instance's past: its penalty as of `at` (seconds, monotonic), whether it was fit then, and how it was last told as itself."""

    penalty: float
    at: float
    fit: bool
    suppressed: bool
    last: Instance

    def penalty_at(self, now: float) -> float:
        return self.penalty * float(0.5 ** (max(0.0, now - self.at) / HALF_LIFE))


@dataclass(frozen=True, slots=True)
class Damped:
    """What is to be told, the past to go on from, and when the next suppression may end (None: none is due)."""

    instances: tuple[Instance, ...]
    tracks: Mapping[str, Track]
    again_at: float | None


def damp(tracks: Mapping[str, Track], found: Sequence[Instance], now: float) -> Damped:
    """`found`, but for those that flap. The order of `found` is kept; suppressed ones that are not there come last."""
    here = {instance.id: instance for instance in found}
    kept: dict[str, Track] = {}
    ends: list[float] = []
    for id in [*here, *(id for id in tracks if id not in here)]:
        track = _follow(tracks.get(id), here.get(id), now)
        if track is None:
            continue
        kept[id] = track
        if track.suppressed:
            ends.append(now + HALF_LIFE * log2(track.penalty / REUSE))
    told = [_unwell(instance) if kept[instance.id].suppressed else instance for instance in found]
    told += [_unwell(track.last) for id, track in kept.items() if track.suppressed and id not in here]
    return Damped(tuple(told), kept, min(ends, default=None))


def _follow(track: Track | None, instance: Instance | None, now: float) -> Track | None:
    """The past with the present. None: gone, and nothing is held against it."""
    if track is None or (instance is not None and _is_another(track.last, instance)):
        return None if instance is None else Track(0.0, now, instance.health in _FIT, False, instance)
    fit = instance is not None and instance.health in _FIT
    penalty = track.penalty_at(now)
    # A hair above: a wait that rounding has made a little short must not find the suppression still standing.
    suppressed = track.suppressed and penalty > REUSE * 1.001
    if track.fit and not fit:
        penalty = min(penalty + 1.0, MOST)
    suppressed = suppressed or penalty >= SUPPRESS
    if instance is None and not suppressed and penalty < 0.1:
        return None
    return Track(penalty, now, fit, suppressed, track.last if instance is None else instance)


def _is_another(before: Instance, now: Instance) -> bool:
    return ALLOCATION in now.attributes and before.attributes.get(CONTAINER) != now.attributes.get(CONTAINER)


def _unwell(instance: Instance) -> Instance:
    return replace(instance, health=InstanceHealth.UNHEALTHY, reason=REASON)
