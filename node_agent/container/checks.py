"""Whether a container is fit, by what a series of probes found. Pure: `probing.py` carries the probes out.

As Docker judges its own: one success makes it healthy, `retries` failures in a row make it unhealthy, and failures within the start
period do not count. But it does not wait a whole interval for the first look: until the first success it looks often, soon after the
start, and counts failures no faster than one in an interval; so a container that is up in a second is fit in a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hmcore.apps.spec import Probe
from hmcore.records import InstanceHealth

FIRST = 0.25  # seconds from the start to the first look; doubled until the probe's own pace
SHORTEST = 0.1  # seconds between two looks, whatever the spec says
LONGEST = 86_400.0


@dataclass(frozen=True, slots=True)
class Check:
    """Of one container. Times in seconds of the agent's monotonic clock. `begun`: when it was first looked after. `due`: of the next probe.
    `counted`: when a failure was counted last. `reason`: of the last failure, empty after a success."""

    probe: Probe
    begun: float
    due: float
    health: InstanceHealth = InstanceHealth.UNKNOWN
    tries: int = 0
    failures: int = 0
    counted: float = -math.inf
    reason: str = ""

    @property
    def timeout(self) -> float:
        """Of one probe, in seconds."""
        return _pace(self.probe.timeout)


def begin(probe: Probe, now: float) -> Check:
    return Check(probe, now, now + FIRST)


def after(check: Check, failure: str, now: float) -> Check:
    """With the outcome of one more probe, that was over at `now`. `failure`: why it failed; empty: it did not."""
    interval = _pace(check.probe.interval)
    if not failure:
        return replace(check, health=InstanceHealth.HEALTHY, failures=0, due=now + interval, tries=check.tries + 1, reason="")
    if check.health is not InstanceHealth.UNKNOWN:
        return _failed(replace(check, due=now + interval, tries=check.tries + 1), failure, now)
    pace = min(FIRST * 2.0 ** min(check.tries + 1, 20), interval, _pace(check.probe.start_interval))
    waiting = replace(check, due=now + pace, tries=check.tries + 1)
    counts = now - check.begun >= max(0.0, check.probe.start_period) and now - check.counted >= interval
    return _failed(waiting, failure, now) if counts else replace(waiting, reason=failure)


def _failed(check: Check, failure: str, now: float) -> Check:
    failures = check.failures + 1
    health = InstanceHealth.UNHEALTHY if failures >= max(1, check.probe.retries) else check.health
    return replace(check, health=health, failures=failures, counted=now, reason=failure)


def _pace(seconds: float) -> float:
    return min(max(seconds, SHORTEST), LONGEST) if not math.isnan(seconds) else LONGEST
