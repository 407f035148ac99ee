"""Wait until the cluster is healthy, and say what keeps it from being so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError
from hmcore.health import COMPONENT, complaints
from hmcore.records import CheckReport, ComponentState, NodeReport, NodeState
from hmctl.phases.agents import Agents

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

OPTIONAL = frozenset({"container", "security", "metrics"})  # layers that a node can do without (design section 3)
POLL = 0.1  # seconds between two questions; a question takes some milliseconds
SOAK_POLL = 1.0  # seconds between two questions while a batch soaks
PATIENCE = 3.0  # seconds for one answer
GRACE = 5.0  # seconds that degraded layers get once the cluster works: Docker may still be starting, a peer connecting
SETTLE = 10.0  # seconds in which what was well before a restart has to be so again: a layer tries anew after pauses that grow
DAMAGED = "damaged"  # the role of a voter that does not load what is on its disk (docs/adr/0032)
METRICS = "metrics"  # an optional phase that is no component: its check tells how it went

Ailments = Mapping[str, CheckReport]  # by name: what a node complains of; muted checks are no complaint


@dataclass(frozen=True, slots=True)
class Verdict:
    """`waiting`: what is not yet as it must be, by host; `degraded`: layers that the node does without, or that work with less, and what
    else its checks complain of. `ailing`: these checks. `worse`: hosts that complain of more than they did before they were touched.
    `level`: the feature level in force, 0 where nobody tells. `stuck`: of those in `waiting`, whom no waiting mends."""

    leader: str | None
    formed: bool
    waiting: Mapping[str, str]
    degraded: Mapping[str, str]
    ailing: Mapping[str, Ailments] = field(default_factory=dict)
    worse: Mapping[str, Ailments] = field(default_factory=dict)
    level: int = 0
    stuck: frozenset[str] = frozenset()

    @property
    def healthy(self) -> bool:
        return not self.waiting and not self.degraded


def judge(
    hosts: Sequence[str], answers: Mapping[str, NodeReport | HyperMeshError], before: Mapping[str, Ailments] | None = None
) -> Verdict:
    """What the answers of `hosts` come to. `before`: what hosts complained of already, of those that must not get worse. Pure."""
    reports = {name: answer for name, answer in answers.items() if isinstance(answer, NodeReport)}
    leaders = {report.raft.leader for report in reports.values() if report.raft.leader}
    leader = leaders.pop() if len(leaders) == 1 else None
    seen = _members(reports, leader)
    waiting: dict[str, str] = {}
    degraded: dict[str, str] = {}
    for name in hosts:
        answer = answers.get(name)
        if not isinstance(answer, NodeReport):
            waiting[name] = answer.message if isinstance(answer, HyperMeshError) else "not asked"
            continue
        bad = {part: found for part, found in answer.components.items() if not _well(part, found.state)}
        coming = {part: found for part, found in bad.items() if _coming(part, found.state)}
        needed = [f"{part} is {found.state}{_why(found.error)}" for part, found in coming.items()]
        if answer.raft.role == DAMAGED:
            waiting[name] = _damage(answer)
        elif not answer.formed:
            waiting[name] = "the cluster is not formed"
        elif answer.raft.leader is None or leader is None:
            waiting[name] = "no leader yet"
        elif needed:
            waiting[name] = needed[0]
        elif seen.get(name) not in (NodeState.READY, NodeState.DEGRADED):
            waiting[name] = f"the leader calls it {seen[name]}" if name in seen else "the leader has not taken it in yet"
        else:
            worrying = {part: found for part, found in bad.items() if part not in _muted(answer)}
            said = [f"{part} is {found.state}{_why(found.error)}" for part, found in worrying.items()]
            checks = [check for check in ailments(answer).values() if check.name.removeprefix(COMPONENT) not in worrying]
            if said := said + [check.reason or check.name for check in checks]:
                degraded[name] = "; ".join(said)
    ailing = {name: ailments(report) for name, report in reports.items()}
    more = {
        name: {check: said for check, said in ailing[name].items() if check not in (before or {})[name]}
        for name in before or ()
        if name in ailing
    }
    worse = {name: found for name, found in more.items() if found}
    level = max((report.raft.level for report in reports.values()), default=0)
    stuck = frozenset(name for name, report in reports.items() if report.raft.role == DAMAGED)
    return Verdict(leader, any(report.formed for report in reports.values()), waiting, degraded, ailing, worse, level, stuck)


def ailments(report: NodeReport) -> Ailments:
    """What a node complains of. Pure. Metrics that are still to be served are no better than those that are not: the agent does not wait
    for them before it calls itself started, and its check says nothing until then."""
    found = {check.name: check for check in complaints(report.checks)}
    metrics = next((check for check in report.checks if check.name == METRICS and not check.muted), None)
    if metrics is not None and report.phases and METRICS not in {phase.name for phase in report.phases}:
        found[METRICS] = CheckReport(name=METRICS, weight=metrics.weight, worth=0.0, reason="metrics are not served yet")
    return found


def _members(reports: Mapping[str, NodeReport], leader: str | None) -> dict[str, NodeState]:
    """The members as the leader sees them, or as anybody does while the leader is not among those asked."""
    source = reports.get(leader) if leader else None
    if source is None:
        source = max(reports.values(), key=lambda report: (bool(report.members), report.raft.applied_index), default=None)
    return {node.name: node.state for node in source.members} if source else {}


def _well(part: str, state: ComponentState) -> bool:
    """An optional layer that is up and has nothing to do (eBPF switched off) is well; the others are there to work."""
    return state is ComponentState.RUNNING or (state is ComponentState.READY and part in OPTIONAL)


def _coming(part: str, state: ComponentState) -> bool:
    """Whether it is worth waiting for. A layer that works with less does so for as long as one waits; one that is about to say what it
    can do (eBPF programs are compiled for seconds on a busy host) does not, and its own timeouts bound it."""
    return state is ComponentState.INITIALIZING or (part not in OPTIONAL and state is not ComponentState.DEGRADED)


def _muted(report: NodeReport) -> frozenset[str]:
    return frozenset(check.name.removeprefix(COMPONENT) for check in report.checks if check.muted)


def _damage(report: NodeReport) -> str:
    consensus = report.components.get("consensus")
    if consensus is None or not consensus.error:
        return "what it keeps of the cluster's state is damaged"
    return f"{consensus.error}; to mend it: {consensus.fix}" if consensus.fix else consensus.error


def _why(error: str | None) -> str:
    return f" ({error})" if error else ""


async def wait_healthy(
    hosts: Sequence[Host],
    agents: Agents,
    *,
    timeout: float,
    heard: Callable[[Verdict], None] | None = None,
    grace: float = GRACE,
    before: Mapping[str, Ailments] | None = None,
) -> Verdict:
    """Asks again and again until all is well, or `grace` seconds more once only degraded layers are left (`SETTLE` while there are more
    of them than `before`) and hosts that no waiting mends, or until `timeout`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    usable_since: float | None = None
    while True:
        verdict = judge([host.name for host in hosts], await agents.reports(hosts, timeout=PATIENCE), before)
        if heard is not None:
            heard(verdict)
        now = loop.time()
        usable_since = (usable_since or now) if verdict.waiting.keys() <= verdict.stuck else None
        waited = usable_since is not None and now - usable_since >= (max(grace, SETTLE) if verdict.worse else grace)
        if verdict.healthy or waited or now >= deadline:
            return verdict
        await asyncio.sleep(min(POLL, max(0.0, deadline - now)))


async def wait_steady(
    hosts: Sequence[Host], agents: Agents, *, timeout: float, soak: float, before: Mapping[str, Ailments] | None = None
) -> Verdict:
    """Waits until all work, and then for `soak` seconds that they go on working. What they can do without is not waited for, but for what
    they did have `before`."""
    verdict = await wait_healthy(hosts, agents, timeout=timeout, grace=0.0, before=before)
    loop = asyncio.get_running_loop()
    until = loop.time() + soak
    while not verdict.waiting and (left := until - loop.time()) > 0:
        await asyncio.sleep(min(SOAK_POLL, left))
        verdict = judge([host.name for host in hosts], await agents.reports(hosts, timeout=PATIENCE), before)
    return verdict
