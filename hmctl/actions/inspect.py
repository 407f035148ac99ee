"""One node in depth: the document of `hmctl node inspect -o json`, made from the node's own report. Pure."""

from __future__ import annotations

import msgspec

from hmcore.records import CheckReport, ComponentReport, NodeReport, NodeState, PeerReport, PhaseReport, RaftReport, Role, SecurityReport
from hmctl.actions.status import NodeStatus


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """`phases` are in the order in which they began; peers in that of their names."""

    name: str
    address: str
    role: Role
    state: NodeState
    health_score: float
    reasons: list[str]
    release: str
    uptime_seconds: float
    rtt_ms: float | None
    containers: int | None
    components: dict[str, ComponentReport]
    phases: list[PhaseReport]
    peers: list[PeerReport]
    raft: RaftReport
    checks: list[CheckReport] = []
    security: SecurityReport | None = None
    apps: bool = True


def inspection(node: NodeStatus, report: NodeReport) -> Inspection:
    """`node` is how the cluster sees it (state and reasons), `report` what it says itself."""
    return Inspection(
        name=node.name,
        address=report.address,
        role=report.role,
        state=node.state,
        health_score=node.health_score,
        reasons=node.reasons,
        release=report.release,
        uptime_seconds=round(report.uptime_seconds, 3),
        rtt_ms=node.rtt_ms,
        containers=report.containers,
        components=report.components,
        phases=sorted(report.phases, key=lambda phase: (phase.began_seconds, phase.seconds, phase.name)),
        peers=sorted(report.peers, key=lambda peer: peer.name),
        raft=report.raft,
        checks=node.checks,
        security=report.security,
        apps=report.apps,
    )
