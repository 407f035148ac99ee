"""The cluster's health as hmctl sees it, by hmcore/health.py's definition; and the document of `hmctl health`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

import msgspec
from msgspec.structs import replace

from hmcore.errors import UsageError
from hmcore.health import CHECKS, CLUSTER, ClusterCondition, NodeCondition, mute_of
from hmcore.records import CheckReport, Mute, NodeState
from hmctl.actions.status import Check, Expected, Health, NodeStatus, Status, View

CRITICAL = frozenset(
    {"cluster.quorum", "cluster.leader", "cluster.state", "cluster.nodes"}
)  # whose errors stop the cluster: no mute hides these


class CheckHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A named check. `muted_by` and `muted_because` are null unless it is muted."""

    name: str
    weight: float
    worth: float
    reason: str | None
    fix: str | None
    muted: bool
    muted_by: str | None = None
    muted_because: str | None = None


class NodeHealth(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    state: NodeState
    health_score: float
    reasons: list[str]
    checks: list[CheckHealth]


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl health -o json`. `checks` are the cluster's own."""

    cluster: str
    health: Health
    health_score: float
    checks: list[CheckHealth]
    nodes: list[NodeHealth]
    mutes: list[Mute]


def condition_of(
    expected: Sequence[Expected],
    view: View,
    nodes: Sequence[NodeStatus],
    *,
    following: int,
    astray: Sequence[str],
    skewed: Collection[str],
    diverged: Sequence[str] = (),
) -> ClusterCondition:
    """What the cluster's score is made of. `following`: how many voters stand behind the leader; `skewed`: whose clock is wrong;
    `diverged`: whose state."""
    named = {host.name for host in expected}
    members = set(view.members)
    return ClusterCondition(
        voters=len(view.voters),
        following=following,
        leader=view.leader,
        nodes=[
            NodeCondition(
                node.name, node.state, node.health_score, node.release or "" if node.uptime_seconds is not None else "", node.name in skewed
            )
            for node in nodes
            if node.name in named  # nobody asked the others
        ],
        astray=astray,
        amiss=sorted(named ^ members) if members else (),
        diverged=diverged,
    )


def explained(checks: Sequence[CheckReport], said: Sequence[Check]) -> list[CheckReport]:
    """The cluster's checks with what mends them: status knows, for it has asked everybody."""
    fixes = {f"{CLUSTER}{check.name}": check.fix for check in said}
    return [replace(check, fix=fixes.get(check.name)) if check.worth < 1.0 else check for check in checks]


def silenced(check: Check, cluster: Sequence[CheckReport]) -> Check:
    """A warning that the operators have muted. What stops the cluster from deciding anything cannot be muted away."""
    muted = any(judged.muted for judged in cluster if judged.name == f"{CLUSTER}{check.name}")
    return replace(check, muted=True) if muted else check


def full_name(word: str, *, strict: bool) -> str:
    """The check that `word` names: whole, or its last part as `hmctl status` prints it (quorum). Raises UsageError if it is none; unless
    `strict`, it is then left as it is, for a mute may outlive its check."""
    if word in CHECKS:
        return word
    meant = [name for name in CHECKS if name.rpartition(".")[2] == word]
    if len(meant) == 1:
        return meant[0]
    if not strict:
        return word
    if not meant:
        short = {name.rpartition(".")[2]: name for name in CHECKS}
        close = get_close_matches(word, [*CHECKS, *short], n=3)
        meant = list(dict.fromkeys(short.get(name, name) for name in close))
    fix = f"did you mean {' or '.join(meant)}?" if meant else "hmctl health --all lists them"
    raise UsageError(f"no check that can be muted is called {word}", fix=fix)


def reason_of(check: str, node: str, mutes: Mapping[str, Mute]) -> str:
    """Why just this is muted already: whoever mutes it again without a reason does not mean to erase it."""
    known = mutes.get(Mute(check=check, node=node).key)
    return known.reason if known is not None else ""


def still_muted(mutes: Sequence[Mute], check: str, node: str) -> list[Mute]:
    """The other mutes of `check` that hold on `node`, or (when it is empty) anywhere, after its own was taken back."""
    return [mute for mute in mutes if mute.check == check and mute.node != node and (not node or not mute.node)]


def health_report(status: Status, only: str | None = None) -> HealthReport:
    """The document, for all nodes or for `only` one."""
    mutes = {mute.key: mute for mute in status.mutes}
    return HealthReport(
        cluster=status.cluster,
        health=status.health,
        health_score=status.health_score,
        checks=[_told(check, mute_of(check.name, "", mutes)) for check in status.cluster_checks] if only is None else [],
        nodes=[
            NodeHealth(
                name=node.name,
                state=node.state,
                health_score=node.health_score,
                reasons=node.reasons,
                checks=[_told(check, mute_of(check.name, node.name, mutes)) for check in node.checks],
            )
            for node in status.nodes
            if only in (None, node.name)
        ],
        mutes=status.mutes,
    )


def _told(check: CheckReport, mute: Mute | None) -> CheckHealth:
    return CheckHealth(
        name=check.name,
        weight=check.weight,
        worth=round(check.worth, 3),
        reason=check.reason,
        fix=check.fix,
        muted=check.muted,
        muted_by=mute.author if mute else None,
        muted_because=mute.reason if mute else None,
    )
