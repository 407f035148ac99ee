"""The node's named checks: what was observed in, CheckReports out (hmcore/health.py makes the score of them). Pure; vitals.py observes.

What a check says comes to the leader and is written to the log when it changes: words therefore stay the same while the trouble does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from hmcore.health import NODE_WEIGHTS, component_check, reasons, score, with_mutes
from hmcore.records import CheckReport, ComponentReport, ComponentState, Mute, Node, NodeState

LOW_MEMORY_SHARE = 0.05
LOW_MEMORY_BYTES = 256 << 20  # both: five percent of a large machine is plenty
OWN_MEMORY_BYTES = 512 << 20  # the agent works in a fifth of that; more is a leak
_GONE = (NodeState.SUSPECT, NodeState.DOWN)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: the host's whole and available memory, and what the agent itself keeps resident."""

    total: int
    available: int
    own: int


@dataclass(frozen=True, slots=True)
class Observations:
    """What the checks judge. `disk`, `certificate`: what is wrong with them. `unlinked`: nodes that have had no connection with us for a
    while. `events_lost`: those of the last interval that found the ring buffer full; None where no events are read. `metrics`: how serving
    them goes."""

    components: Mapping[str, ComponentReport]
    leader: str | None = None
    members: Mapping[str, Node] = field(default_factory=dict)
    unlinked: frozenset[str] = frozenset()
    peers: int = 0
    disk: str | None = None
    directory: str = ""
    certificate: str | None = None
    memory: Memory | None = None
    events_lost: int | None = None
    metrics: ComponentReport | None = None


@dataclass(frozen=True, slots=True)
class Health:
    score: float
    reasons: tuple[str, ...] = ()


def checks(seen: Observations, node: str = "", mutes: Mapping[str, Mute] | None = None) -> list[CheckReport]:
    """All checks of the node, components first; muted as the operators have it."""
    found = [disk(seen), certificate(seen), peers(seen)]
    found += [memory(seen.memory)] if seen.memory is not None else []
    found += [events(seen.events_lost)] if seen.events_lost is not None else []
    found += [metrics(seen.metrics)] if seen.metrics is not None else []
    said = {check.reason for check in found if check.reason}
    components = [_once(component_check(name, report), said) for name, report in seen.components.items()]
    return with_mutes([*components, *found], node, mutes or {})


def judge(found: Iterable[CheckReport]) -> Health:
    """The node's score, and why it is not 1."""
    known = list(found)
    return Health(score(known), tuple(reasons(known)))


def _once(check: CheckReport, said: Collection[str]) -> CheckReport:
    """A component that is degraded for what a check of its own says (the disk, the certificate) is not counted twice, nor muted twice."""
    return replace(check, worth=1.0, reason=None, fix=None) if check.reason in said else check


def _check(name: str, worth: float, reason: str | None = None, fix: str | None = None) -> CheckReport:
    well = worth >= 1.0
    return CheckReport(
        name=name, weight=NODE_WEIGHTS[name], worth=worth, reason=None if well else reason or name, fix=None if well else fix
    )


def disk(seen: Observations) -> CheckReport:
    """Room for the log and for releases."""
    fix = f"make room: du -xh -d 2 {seen.directory} / | sort -h | tail -20"
    return _check("disk", 0.5 if seen.disk else 1.0, seen.disk, fix)


def certificate(seen: Observations) -> CheckReport:
    """Thirty days before a node's certificate expires, its node begins to say so."""
    return _check("certificate", 0.5 if seen.certificate else 1.0, seen.certificate, "hmctl deploy")


def peers(seen: Observations) -> CheckReport:
    """The share of nodes that the leader hears and we are connected to. A link that only we miss is missed by nobody else.

    A node that the leader misses, too, is its own trouble, and who has no leader cannot tell the two apart.
    """
    if seen.leader is None:
        return _check("peers", 1.0)
    lost = sorted(name for name in seen.unlinked if name in seen.members and seen.members[name].state not in _GONE)
    worth = 1.0 - len(lost) / max(seen.peers, len(lost), 1)
    return _check("peers", worth, f"no connection to {', '.join(lost)}, whom the leader hears", "open UDP 7443 between the nodes")


def memory(seen: Memory) -> CheckReport:
    """The host's memory, and the agent's own."""
    if seen.available < LOW_MEMORY_BYTES and seen.available < seen.total * LOW_MEMORY_SHARE:
        reason = f"the host is nearly out of memory (under {LOW_MEMORY_SHARE:.0%} and {LOW_MEMORY_BYTES >> 20} MB available)"
        return _check("memory", 0.0, reason, "ps aux --sort=-rss | head: stop what needs too much, or move it")
    if seen.own > OWN_MEMORY_BYTES:
        reason = f"the agent keeps more than {OWN_MEMORY_BYTES >> 20} MB of memory"
        return _check("memory", 0.5, reason, "systemctl restart hypermesh-agent, and please report it")
    return _check("memory", 1.0)


def events(lost: int) -> CheckReport:
    """Whether the kernel had to drop events because we read them too slowly. What its rate limit drops is no complaint: that is how busy
    containers cost little."""
    return _check("events", 0.5 if lost else 1.0, "the agent does not keep up with the events of its kernel: it gets too little CPU time")


def metrics(report: ComponentReport) -> CheckReport:
    """Whether /metrics is served. Not yet, or no longer, is nothing to complain of."""
    well = report.state not in (ComponentState.DEGRADED, ComponentState.ERROR)
    return _check("metrics", 1.0 if well else 0.0, report.error or "metrics are not served", report.fix)
