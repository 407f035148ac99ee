"""The health score, 0 to 1, of a node and of the cluster: one definition for the agents (heartbeats, metrics) and for hmctl. Pure.

A score is the weighted mean of named checks. A muted check counts as if all were well: it is no complaint, and because its weight stays,
muting never lowers a score (docs/adr/0057). Weights say how much is lost with what the check looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from hmcore.records import CheckReport, ComponentReport, Mute, NodeState
from hmcore.records import ComponentState as S

COMPONENT = "component."
CLUSTER = "cluster."

# Without its connections or its log a node is out of the cluster; without Docker it still votes; without eBPF containers still run.
NODE_WEIGHTS: Mapping[str, float] = {
    "component.transport": 3.0,
    "component.consensus": 3.0,
    "component.container": 2.0,
    "component.network": 2.0,
    "component.security": 1.0,
    "component.apps": 2.0,
    "component.registry": 2.0,
    "component.orchestration": 2.0,
    "disk": 2.0,  # a full one stops the log
    "certificate": 1.0,  # thirty days of warning
    "peers": 1.0,  # the links that the leader does not miss
    "memory": 1.0,
    "events": 0.5,  # seeing less is no loss of service
    "metrics": 0.5,
}
# A cluster without a quorum and a leader can decide nothing: together they outweigh all nodes being well.
CLUSTER_WEIGHTS: Mapping[str, float] = {
    "cluster.quorum": 4.0,
    "cluster.leader": 2.0,
    "cluster.state": 12.0,  # only where states differ, and then as much as all others: what the cluster says may be wrong
    "cluster.nodes": 4.0,
    "cluster.members": 1.0,
    "cluster.releases": 0.5,
    "cluster.clocks": 0.5,
}
CHECKS: Sequence[str] = (*NODE_WEIGHTS, *CLUSTER_WEIGHTS)

_WORTH: Mapping[S, float] = {S.RUNNING: 1.0, S.READY: 1.0, S.DEGRADED: 0.5}
_FALTERING = 0.5  # what a suspect node is worth at most
_LEAST_LACK = 0.001  # a score is 1 only if nothing is missing, however little that weighs


def score(checks: Iterable[CheckReport]) -> float:
    """The weighted mean of what the checks are worth. No checks: nothing is known to be well, 0."""
    whole, got, well = 0.0, 0.0, True  # what is lacking may be too little for the sum to show it
    for check in checks:
        well = well and (check.muted or check.worth >= 1.0)
        whole += check.weight
        got += check.weight * (1.0 if check.muted else check.worth)
    if not whole:
        return 0.0
    share = got / whole
    return 1.0 if well else max(0.0, min(round(share, 3), 1.0 - _LEAST_LACK))


def complaints(checks: Iterable[CheckReport]) -> list[CheckReport]:
    """The checks that lower the score."""
    return [check for check in checks if check.worth < 1.0 and not check.muted]


def reasons(checks: Iterable[CheckReport]) -> list[str]:
    """Why the score is not 1, once each."""
    return list(dict.fromkeys(check.reason or check.name for check in complaints(checks)))


def mute_of(check: str, node: str, mutes: Mapping[str, Mute]) -> Mute | None:
    """The mute that holds for a check on a node (`node` empty: of the cluster); the one for this node alone comes first."""
    return mutes.get(f"{check}@{node}") or mutes.get(check)


def with_mutes(checks: Iterable[CheckReport], node: str, mutes: Mapping[str, Mute]) -> list[CheckReport]:
    """The same checks, marked as the operators have muted them."""
    return [
        check if check.muted == (muted := mute_of(check.name, node, mutes) is not None) else replace(check, muted=muted) for check in checks
    ]


def component_check(name: str, report: ComponentReport) -> CheckReport:
    """What a component is worth, and why not more, in its own words."""
    check = f"{COMPONENT}{name}"
    worth = _WORTH.get(report.state, 0.0)
    return CheckReport(
        name=check,
        weight=NODE_WEIGHTS.get(check, 1.0),
        worth=worth,
        reason=_ailment(name, report),
        fix=report.fix if worth < 1.0 else None,
    )


def _ailment(name: str, report: ComponentReport) -> str | None:
    match report.state:
        case S.RUNNING | S.READY:
            return None
        case S.DEGRADED:
            return report.error or f"{name} is degraded"
        case S.ERROR:
            return f"{name} failed: {report.error}" if report.error else f"{name} failed"
        case S.UNINITIALIZED | S.INITIALIZING:
            return f"{name} is starting"
        case S.STOPPING | S.STOPPED:
            return f"{name} is stopping"


class NodeCondition(msgspec.Struct, frozen=True):
    """A node as whoever judges the cluster sees it. `release` empty, `skewed` False: not known to be otherwise."""

    name: str
    state: NodeState
    score: float
    release: str = ""
    skewed: bool = False


class ClusterCondition(msgspec.Struct, frozen=True):
    """What the cluster's score is made of. `following`: voters that stand behind the leader. `astray`: nodes that follow nobody or somebody
    else. `amiss`: nodes that should be members and are not, or the other way round. `diverged`: nodes that hold another state than the
    majority; an empty name where there is no majority."""

    voters: int
    following: int
    leader: str | None
    nodes: Sequence[NodeCondition]
    astray: Sequence[str] = ()
    amiss: Sequence[str] = ()
    diverged: Sequence[str] = ()


def cluster_checks(condition: ClusterCondition, mutes: Mapping[str, Mute] | None = None) -> list[CheckReport]:
    """The cluster's own checks, in the order of CLUSTER_WEIGHTS, of states only where they differ; muted as told. Their fixes are
    known only to who can look further."""
    found = (
        _quorum(condition),
        _leader(condition),
        *([_state(condition.diverged)] if condition.diverged else []),
        _nodes(condition.nodes),
        _check("members", 0.5 if condition.amiss else 1.0, f"not as they should be: {_listed(condition.amiss)}"),
        _releases(condition.nodes),
        _clocks(condition.nodes),
    )
    return with_mutes(found, "", mutes or {})


def _check(name: str, worth: float, reason: str) -> CheckReport:
    full = f"{CLUSTER}{name}"
    return CheckReport(name=full, weight=CLUSTER_WEIGHTS[full], worth=worth, reason=reason if worth < 1.0 else None)


def _quorum(condition: ClusterCondition) -> CheckReport:
    """Half for being able to decide, half for the voters that may still be lost."""
    need = condition.voters // 2 + 1
    margin = condition.voters - need
    said = f"{condition.following} of {condition.voters} voters follow a leader"
    if condition.leader is None or condition.following < need:
        return _check("quorum", 0.0, f"no quorum: {said}, {need} needed")
    spare = min(condition.following - need, margin)
    return _check("quorum", 0.5 + 0.5 * spare / margin if margin else 1.0, said)


def _leader(condition: ClusterCondition) -> CheckReport:
    if condition.leader is None:
        return _check("leader", 0.0, "no leader")
    worth = 0.5 if condition.astray else 1.0
    return _check("leader", worth, f"{condition.leader} leads, but not {_listed(condition.astray)}")


def _state(diverged: Sequence[str]) -> CheckReport:
    named = [name for name in diverged if name]
    reason = f"the state of {_listed(named)} is not that of the others" if named else "the voters hold different states"
    return _check("state", 0.0, reason)


def _nodes(nodes: Sequence[NodeCondition]) -> CheckReport:
    """The mean of the nodes' own scores; one that is gone counts nothing, however well it was."""
    worths = {node.name: _worth(node) for node in nodes}
    lacking = [f"{node.name} {node.state.value}" for node in nodes if worths[node.name] < 1.0]
    worth = sum(worths.values()) / len(nodes) if nodes else 0.0
    return _check("nodes", min(worth, 1.0 - _LEAST_LACK) if lacking else worth, _listed(lacking) or "no nodes")


def _worth(node: NodeCondition) -> float:
    match node.state:
        case NodeState.DOWN | NodeState.UNREACHABLE:
            return 0.0
        case NodeState.SUSPECT:
            return min(node.score, _FALTERING)
        case _:
            return min(max(node.score, 0.0), 1.0)


def _releases(nodes: Sequence[NodeCondition]) -> CheckReport:
    releases = sorted({node.release for node in nodes if node.release})
    return _check("releases", 0.5 if len(releases) > 1 else 1.0, f"{len(releases)} releases: {_listed([one[:12] for one in releases])}")


def _clocks(nodes: Sequence[NodeCondition]) -> CheckReport:
    astray = [node.name for node in nodes if node.skewed]
    return _check("clocks", 1.0 - len(astray) / len(nodes) if nodes else 1.0, f"clocks differ: {_listed(astray)}")


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
