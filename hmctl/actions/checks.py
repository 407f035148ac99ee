"""The verdict of `hmctl status`: named checks (node_checks.py, raft_checks.py, apps/check.py), each of which looks at one thing and says
what mends it, and the worst of which decides. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hmcore.api import StateReply
from hmcore.errors import HyperMeshError
from hmcore.health import cluster_checks, score
from hmcore.records import CheckReport
from hmctl.actions.apps.check import check_apps, statuses
from hmctl.actions.health import condition_of, explained, silenced
from hmctl.actions.node_checks import (
    check_certificate,
    check_clocks,
    check_components,
    check_members,
    check_nodes,
    check_releases,
    clocks_astray,
)
from hmctl.actions.raft_checks import behind_leader, check_consistent, check_leader, check_quorum, check_state, divergences, not_following
from hmctl.actions.status import (
    Answer,
    Answers,
    Check,
    Expected,
    Health,
    NodeStatus,
    Status,
    Verdict,
    View,
    confirmed,
    node_statuses,
    release_of,
    reports_of,
    view_of,
)


def judge(
    *,
    cluster: str,
    expected: Sequence[Expected],
    answers: Answers,
    certificate_ends: datetime | None,
    now: datetime,
    sure: StateReply | HyperMeshError | None = None,
) -> Status:
    """The whole status document. `certificate_ends`: when the operator's own certificate expires, if it has one. `sure`: the state with
    all that was changed before it was asked for, or why it could not be had; None if it was not asked for."""
    reports = reports_of(answers)
    view = view_of(expected, reports)
    if isinstance(sure, StateReply):
        view = confirmed(view, sure)
    nodes = node_statuses(expected, answers, view)
    astray = clocks_astray(answers)
    judged = cluster_health(expected, answers, view, nodes)
    checks = [
        check_quorum(view, answers),
        check_leader(view, answers),
        check_state(reports),
        check_nodes(nodes, answers),
        check_components(nodes),
        check_members(expected, view, answers),
        check_releases(reports),
        check_clocks(answers, astray),
        check_certificate(certificate_ends, now),
    ]
    if sure is not None:
        checks.insert(2, check_consistent(sure))
    told = next((answer.apps for name, answer in answers.items() if name == view.leader and isinstance(answer, Answer)), None)
    if (apps := check_apps(told)) is not None:
        checks.append(apps)
    checks = [silenced(check, judged) for check in checks]
    return Status(
        cluster=cluster,
        health=health_of(checks),
        health_score=score(judged),
        leader=view.leader,
        term=view.term,
        release=release_of(view, reports),
        checks=checks,
        nodes=nodes,
        apps=statuses(told),
        mutes=[view.mutes[key] for key in sorted(view.mutes)],
        maintenance=list(view.maintenance),
        cluster_checks=explained(judged, checks),
        index=view.index,
        consistent=None if sure is None else isinstance(sure, StateReply),
        level=max((report.raft.level for report in reports), default=0),
        level_known=min((report.raft.knows for report in reports), default=0),
    )


def cluster_health(expected: Sequence[Expected], answers: Answers, view: View, nodes: Sequence[NodeStatus]) -> list[CheckReport]:
    """The checks that the cluster's score is made of."""
    condition = condition_of(
        expected,
        view,
        nodes,
        following=len(behind_leader(view, answers)),
        astray=not_following(view, reports_of(answers)),
        skewed=clocks_astray(answers),
        diverged=[found.node for found in divergences(reports_of(answers))],
    )
    return cluster_checks(condition, view.mutes)


def health_of(checks: Sequence[Check]) -> Health:
    """The worst check decides. Muted warnings do not count."""
    verdicts = {check.status for check in checks if check.status is Verdict.ERROR or not check.muted}
    if Verdict.ERROR in verdicts:
        return Health.CRITICAL
    return Health.WARNING if Verdict.WARN in verdicts else Health.HEALTHY
