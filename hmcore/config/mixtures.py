"""Settings that cannot run beside others while a change is rolled through a cluster: for some seconds, old and new ones meet. Pure.

Every node is sound by itself (conflicts.py); here one node's intervals meet another's patience. docs/adr/0059 says what was tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hmcore.config.problems import Mistake
from hmcore.config.settings import Settings, value_at


@dataclass(frozen=True, slots=True)
class _Meeting:
    """One node sends every `interval`; another loses patience after `window`, which must be `factor` intervals at least."""

    interval: str
    window: str
    factor: float
    breaks: str


_MEETINGS = (
    _Meeting("raft.heartbeat", "raft.election_min", 2, "voters would depose leaders that live"),
    _Meeting("membership.heartbeat", "membership.suspect", 2, "the leader would take nodes that live for dead"),
    _Meeting("registry.refresh", "registry.ttl", 1.25, "instances that are well would get no traffic"),
)


def unrollable(present: Sequence[Settings], wanted: Settings) -> list[Mistake]:
    """Why nodes that run with `present` cannot be brought to `wanted` one by one: paths below `settings`, each with the way that works."""
    found = [mistake for meeting in _MEETINGS for mistake in _meet(meeting, present, wanted)]
    ports = {settings.transport.port for settings in present} - {wanted.transport.port}
    if ports:
        old = " and ".join(map(str, sorted(ports)))
        why = f"agents find each other at the port that the cluster was formed with ({old}); moved one by one they would lose each other"
        found.append(Mistake(("transport", "port"), why, f"put it back to {old}; a host that is new may have a `port:` of its own"))
    return found


def _meet(meeting: _Meeting, present: Sequence[Settings], wanted: Settings) -> Iterator[Mistake]:
    """What meets already is not looked at: it is how the cluster runs, and the change may be what mends it."""
    intervals, interval = [value_at(settings, meeting.interval) for settings in present], value_at(wanted, meeting.interval)
    windows, window = [value_at(settings, meeting.window) for settings in present], value_at(wanted, meeting.window)
    slowest, least = max(intervals, default=0.0), min(windows, default=float("inf"))
    if window < meeting.factor * slowest:
        first = f"apply {meeting.interval}: {interval:g} alone first, and the rest afterwards"
        yield _mistake(meeting.window, _why(meeting, slowest, window), first)
    if least < meeting.factor * interval:
        first = f"apply the rest first, and {meeting.interval}: {interval:g} afterwards"
        yield _mistake(meeting.interval, _why(meeting, interval, least), first)


def _why(meeting: _Meeting, interval: float, window: float) -> str:
    return (
        f"while it is rolled, nodes whose {meeting.interval} is {interval:g} s meet nodes whose {meeting.window} is {window:g} s: "
        f"{meeting.breaks}"
    )


def _mistake(path: str, message: str, hint: str) -> Mistake:
    return Mistake(tuple(path.split(".")), message, hint)
