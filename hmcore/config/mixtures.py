"""Settings that cannot run beside others while a change is rolled through a cluster: for some seconds, old and new ones meet. Pure.

Every node is sound by itself (conflicts.py); here one node's intervals meet another's patience. docs/adr/0059 says what was tried.
Nodes that a change leaves out meet it for longer: they stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hmcore.config.catalogue import value_at
from hmcore.config.conflicts import AFTER_LEASES
from hmcore.config.problems import Mistake
from hmcore.config.settings import Settings


@dataclass(frozen=True, slots=True)
class _Meeting:
    """One node sends every `interval`; another loses patience after `window`, which must be `factor` intervals at least."""

    interval: str
    window: str
    factor: float
    breaks: str

    def moved(self, present: Sequence[Settings], wanted: Settings) -> bool:
        return any(value_at(settings, path) != value_at(wanted, path) for settings in present for path in (self.interval, self.window))


_MEETINGS = (
    _Meeting("raft.heartbeat", "raft.election_min", 2, "voters would depose leaders that live"),
    _Meeting("membership.heartbeat", "membership.suspect", 2, "the leader would take nodes that live for dead"),
    _Meeting("registry.refresh", "registry.ttl", 1.25, "instances that are well would get no traffic"),
    _Meeting("fencing.lease", "fencing.after", AFTER_LEASES, "two replicas of an exclusive service could run"),
)


def unrollable(present: Sequence[Settings], wanted: Settings, staying: Mapping[str, Settings] | None = None) -> list[Mistake]:
    """Why nodes that run with `present` cannot be brought to `wanted` one by one, while those in `staying`, by name, keep theirs: paths
    below `settings`, each with the way that works. Whoever leaves nodes out of a change that meets none of theirs need not ask them."""
    found = [
        mistake for pair in _MEETINGS for mistake in _meet(pair, present, wanted, (staying or {}) if pair.moved(present, wanted) else {})
    ]
    ports = {settings.transport.port for settings in present} - {wanted.transport.port}
    if ports:
        old = " and ".join(map(str, sorted(ports)))
        why = f"agents find each other at the port that the cluster was formed with ({old}); moved one by one they would lose each other"
        found.append(Mistake(("transport", "port"), why, f"put it back to {old}; a host that is new may have a `port:` of its own"))
    return found


def meeting(present: Sequence[Settings], wanted: Settings) -> bool:
    """Whether bringing `present` to `wanted` changes anything that must go with what other nodes run with."""
    return any(pair.moved(present, wanted) for pair in _MEETINGS)


def _meet(pair: _Meeting, present: Sequence[Settings], wanted: Settings, staying: Mapping[str, Settings]) -> Iterator[Mistake]:
    """What meets already is not looked at: it is how the cluster runs, and the change may be what mends it."""
    met = [*present, *staying.values()]
    intervals, interval = [value_at(settings, pair.interval) for settings in met], value_at(wanted, pair.interval)
    windows, window = [value_at(settings, pair.window) for settings in met], value_at(wanted, pair.window)
    slowest, least = max(intervals, default=0.0), min(windows, default=float("inf"))
    if window < pair.factor * slowest:
        slow = [name for name, settings in staying.items() if window < pair.factor * value_at(settings, pair.interval)]
        first = f"apply {pair.interval}: {interval:g} alone first{_too(slow)}, and the rest afterwards"
        yield _mistake(pair.window, _why(pair, slowest, window, slow), first)
    if least < pair.factor * interval:
        hasty = [name for name, settings in staying.items() if value_at(settings, pair.window) < pair.factor * interval]
        first = f"apply the rest first{_too(hasty)}, and {pair.interval}: {interval:g} afterwards"
        yield _mistake(pair.interval, _why(pair, interval, least, hasty), first)


def _why(pair: _Meeting, interval: float, window: float, staying: Sequence[str]) -> str:
    when = f"{_names(staying)} would stay as {'it is' if len(staying) == 1 else 'they are'}, and" if staying else "while it is rolled,"
    return f"{when} nodes whose {pair.interval} is {interval:g} s meet nodes whose {pair.window} is {window:g} s: {pair.breaks}"


def _too(staying: Sequence[str]) -> str:
    return f", to {_names(staying)}, too" if staying else ""


def _names(names: Sequence[str], most: int = 5) -> str:
    shown = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _mistake(path: str, message: str, hint: str) -> Mistake:
    return Mistake(tuple(path.split(".")), message, hint)
