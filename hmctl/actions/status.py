"""What the nodes said, turned into the status document (docs/json.md). Pure: hmctl/client.py asks, hmctl/cli/status.py shows.

Nobody is believed alone: the leader is who the newest term's reports name, a node's state is the leader's word joined with our
own attempt to reach it, and the verdict is the worst of the checks (hmctl/actions/checks.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from hmcore import health
from hmcore.api import StateReply
from hmcore.records import CheckReport, ComponentState, Maintenance, Mute, Node, NodeReport, NodeState, Role

if TYPE_CHECKING:
    from hmcore.apps.calls import AppsReply
    from hmcore.errors import HyperMeshError


class Health(StrEnum):
    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"


class Verdict(StrEnum):
    """Of one check. `error` makes the cluster critical: nothing can be decided, or nobody answers."""

    OK = "ok"
    WARN = "warn"
    ERROR = "error"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    status: Verdict
    message: str
    fix: str | None = None
    muted: bool = False  # a warning that does not count; an error always does


class ComponentStatus(msgspec.Struct, frozen=True, kw_only=True):
    state: ComponentState
    init_seconds: float
    error: str | None


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """None stands for what nobody could tell us."""

    name: str
    address: str
    role: Role
    state: NodeState
    health_score: float
    reasons: list[str]
    release: str | None
    uptime_seconds: float | None
    rtt_ms: float | None
    containers: int | None
    components: dict[str, ComponentStatus]
    checks: list[CheckReport] = []
    through: str | None = None  # the control node that asked it for us
    apps: bool | None = None  # whether replicas may run there; None: it did not answer


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    desired: int
    running: int
    healthy: int


class AppStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    generation: int
    services: list[ServiceStatus]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl status -o json`. `apps` as the leader has them, empty while nobody leads. The score is hmcore/health.py's,
    made of `cluster_checks`. `index`: the log index of what is told of members, mutes and maintenance; `consistent`: whether it holds all
    that was changed before it was asked for, None if that was not asked for. `level`: the feature level in force, 0 where nobody tells;
    `level_known`: the highest that all who answered know."""

    cluster: str
    health: Health
    health_score: float
    leader: str | None
    term: int
    release: str
    checks: list[Check]
    nodes: list[NodeStatus]
    apps: list[AppStatus] = []
    mutes: list[Mute] = []
    maintenance: list[Maintenance] = []
    cluster_checks: list[CheckReport] = []
    index: int = 0
    consistent: bool | None = None
    level: int = 0
    level_known: int = 0

    @property
    def exit_code(self) -> int:
        return {Health.HEALTHY: 0, Health.WARNING: 3, Health.CRITICAL: 4}[self.health]


class Expected(msgspec.Struct, frozen=True):
    """A node as the inventory has it."""

    name: str
    address: str
    role: Role


class Answer(msgspec.Struct, frozen=True):
    """A node's report. `offset_seconds`: how far its clock is ahead of ours (behind: negative) for certain. `through`: the control node
    that asked it for us; `rtt_seconds` is by way of that then. `apps`: what it says of them if it leads, or why it does not."""

    report: NodeReport
    rtt_seconds: float
    offset_seconds: float = 0.0
    through: str | None = None
    apps: AppsReply | HyperMeshError | None = None


class Silence(msgspec.Struct, frozen=True):
    """Why a node did not answer, and what could be done about it. `reached`: it did answer, but would not talk to us. `found`: another
    node of the cluster is there, this one."""

    reason: str
    fix: str | None = None
    reached: bool = False
    found: str | None = None


Answers = Mapping[str, Answer | Silence]


class View(msgspec.Struct, frozen=True):
    """The cluster as the newest term's reports have it. `members` as the leader replicated them, by name."""

    leader: str | None
    term: int
    voters: tuple[str, ...]
    members: Mapping[str, Node]
    rivals: tuple[str, ...] = ()  # more than one leader in one term: must never be
    mutes: Mapping[str, Mute] = msgspec.field(default_factory=dict)
    maintenance: Sequence[Maintenance] = ()
    index: int = 0


def reports_of(answers: Answers) -> list[NodeReport]:
    return [answer.report for answer in answers.values() if isinstance(answer, Answer)]


def view_of(expected: Sequence[Expected], reports: Sequence[NodeReport]) -> View:
    """Whom to believe: the highest term in which a leader is named; of it the leader's own report, else of those that were asked for
    members the one that applied most.

    A candidate's term may run ahead of everybody's without anything having been decided in it.
    """
    newest = max((report.raft.term for report in reports), default=0)
    claims = [report for report in reports if report.raft.leader is not None]
    term = max((report.raft.term for report in claims), default=newest)
    current = [report for report in claims if report.raft.term == term]
    leaders = sorted({report.raft.leader for report in current if report.raft.leader})
    best = max(
        current or reports,
        key=lambda report: (report.raft.role == "leader", bool(report.members), report.raft.applied_index),
        default=None,
    )
    voters = tuple(best.raft.voters) if best is not None else ()
    return View(
        leader=leaders[0] if len(leaders) == 1 else None,
        term=term,
        voters=voters or tuple(host.name for host in expected if host.role is Role.CONTROL),
        members={node.name: node for node in best.members} if best is not None else {},
        rivals=tuple(leaders) if len(leaders) > 1 else (),
        mutes={mute.key: mute for mute in best.mutes} if best is not None else {},
        maintenance=best.maintenance if best is not None else (),
        index=0 if best is None else best.index or best.raft.applied_index,  # agents of an earlier release do not say
    )


def confirmed(view: View, sure: StateReply) -> View:
    """`view`, with what the cluster agrees on from a state that is certain."""
    return msgspec.structs.replace(
        view,
        members={node.name: node for node in sure.nodes},
        mutes={mute.key: mute for mute in sure.mutes},
        maintenance=sure.maintenance,
        index=sure.index,
    )


def node_statuses(expected: Sequence[Expected], answers: Answers, view: View) -> list[NodeStatus]:
    """The inventory's nodes in its order, then members that it does not name."""
    named = {host.name for host in expected}
    strangers = [Expected(node.name, node.address, node.role) for name, node in sorted(view.members.items()) if name not in named]
    return [_node_status(host, answers.get(host.name), view) for host in [*expected, *strangers]]


def _node_status(host: Expected, answer: Answer | Silence | None, view: View) -> NodeStatus:
    member = view.members.get(host.name)
    if isinstance(answer, Answer):
        report = answer.report
        checks = _checks_of(report, view)
        state, extra = _state_of_answering(report, checks, member, view)
        return NodeStatus(
            name=host.name,
            address=report.address,
            role=report.role,
            state=state,
            health_score=health.score(checks),
            reasons=[*extra, *health.reasons(checks)],
            release=report.release,
            uptime_seconds=round(report.uptime_seconds, 3),
            rtt_ms=round(answer.rtt_seconds * 1000, 3),
            containers=report.containers,
            components={
                name: ComponentStatus(state=component.state, init_seconds=component.init_seconds, error=component.error)
                for name, component in report.components.items()
            },
            checks=checks,
            through=answer.through,
            apps=report.apps,
        )
    state, reasons = _state_of_silent(answer, member)
    return NodeStatus(
        name=host.name,
        address=host.address,
        role=host.role,
        state=state,
        health_score=0.0,
        reasons=reasons,
        release=member.release if member else None,
        uptime_seconds=None,
        rtt_ms=None,
        containers=None,
        components={},
    )


def _checks_of(report: NodeReport, view: View) -> list[CheckReport]:
    """The node's checks, muted by the newest word on mutes: a worker may not have heard it yet. Agents of the first release send none."""
    found = report.checks or [health.component_check(name, component) for name, component in report.components.items()]
    return health.with_mutes(found, report.name, view.mutes)


def _state_of_answering(report: NodeReport, checks: Sequence[CheckReport], member: Node | None, view: View) -> tuple[NodeState, list[str]]:
    """The node's own report is fresher than the leader's word on its health; on its membership the leader's word counts."""
    if member is None and view.members:
        return NodeState.DEGRADED, ["is not a member of the cluster yet"]
    if member is not None and member.state in {NodeState.SUSPECT, NodeState.DOWN}:
        return member.state, [f"the leader does not hear it: {member.state_reason or 'no heartbeats'}"]
    if member is not None and member.state in {NodeState.DRAINING, NodeState.DRAINED}:
        return member.state, []
    return (NodeState.READY if report.formed and not health.complaints(checks) else NodeState.DEGRADED), []


def _state_of_silent(answer: Silence | None, member: Node | None) -> tuple[NodeState, list[str]]:
    if answer is None:  # a member that the inventory does not name: not asked, so the leader's word is all we have
        state = member.state if member else NodeState.UNREACHABLE
        said = [member.state_reason] if member and member.state_reason else []
        return state, [*said, "is not in the inventory, so it was not asked"]
    if member is not None and member.state is NodeState.DOWN:
        return NodeState.DOWN, [answer.reason]
    return NodeState.UNREACHABLE, [answer.reason]


def release_of(view: View, reports: Sequence[NodeReport]) -> str:
    """The release that most nodes run, the leader's when in doubt; empty when nobody answered."""
    counts: dict[str, int] = {}
    for report in reports:
        counts[report.release] = counts.get(report.release, 0) + 1
    leading = next((report.release for report in reports if report.name == view.leader), None)
    return max(counts, key=lambda release: (counts[release], release == leading, release), default="")
