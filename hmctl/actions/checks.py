"""The named checks of `hmctl status`: each looks at one thing and says what mends it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from hmcore.api import StateReply
from hmcore.errors import HyperMeshError
from hmcore.health import COMPONENT, cluster_checks, complaints, score
from hmcore.records import CheckReport, Divergence, NodeReport, NodeState
from hmctl.actions.apps_check import check_apps, statuses
from hmctl.actions.health import condition_of, explained, silenced
from hmctl.actions.status import (
    Answer,
    Answers,
    Check,
    Expected,
    Health,
    NodeStatus,
    Silence,
    Status,
    Verdict,
    View,
    confirmed,
    node_statuses,
    release_of,
    reports_of,
    view_of,
)
from hmctl.text import duration, listed, plural

MOST_SKEW_SECONDS = 5.0  # certificates are backdated by an hour; logs that differ by more than this cannot be read side by side
MOST_SAID = 5  # complaints in one message; the table and `node inspect` have them all
JUST_STARTED = 10.0  # seconds after its start in which an agent may still be finding the others
UNKNOWN = "unknown: no node answered"
EXPIRES_SOON = timedelta(days=30)


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
        following=len(_following(view, answers)),
        astray=_not_following(view, reports_of(answers)),
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


def check_consistent(sure: StateReply | HyperMeshError) -> Check:
    """Whether what is told of the members, mutes and maintenance was true when we asked. If not, it may be old."""
    name = "consistent"
    if isinstance(sure, StateReply):
        return Check(name=name, status=Verdict.OK, message=f"all that was changed before you asked is in this: log index {sure.index}")
    message = f"what is true now cannot be told: {sure}; what is shown may be old"
    return Check(name=name, status=Verdict.ERROR, message=message, fix=sure.fix)


def check_quorum(view: View, answers: Answers) -> Check:
    """Whether a majority of the voters follows one leader: without it nothing can be changed."""
    name, reports = "quorum", reports_of(answers)
    need = len(view.voters) // 2 + 1
    if not reports:
        return Check(name=name, status=Verdict.ERROR, message=UNKNOWN)
    if not any(report.formed for report in reports):
        message = f"the cluster is not formed: {plural(len(reports), 'agent')} running, none in a cluster"
        return Check(name=name, status=Verdict.ERROR, message=message, fix="hmctl deploy")
    following = _following(view, answers)
    said = f"{len(following)} of {plural(len(view.voters), 'voter')}"
    lost = sorted(set(view.voters) - following)
    if len(following) < need:
        answering = sum(isinstance(answers.get(voter), Answer) for voter in view.voters)
        message = f"no quorum: {said} with a leader, {need} needed; nothing can be changed until more are back"
        if not following:
            whole = plural(len(view.voters), "voter")
            message = f"no quorum: {answering} of {whole} answering, none with a leader; nothing can be changed until {need} agree on one"
        return Check(name=name, status=Verdict.ERROR, message=message, fix=_bring_back(lost, view, answers))
    spare = len(following) - need
    if lost and spare == 0:
        message = f"{said} connected: one more lost and nothing can be changed"
        return Check(name=name, status=Verdict.WARN, message=message, fix=_bring_back(lost, view, answers))
    if doubted := sorted(node for node in following if isinstance(answers.get(node), Silence)):
        message = f"{said} connected as {view.leader} has it, but {listed(doubted)} {_does(doubted)} not answer us"
        return Check(name=name, status=Verdict.WARN, message=message, fix=f"look again in a moment; then: hmctl node inspect {view.leader}")
    return Check(name=name, status=Verdict.OK, message=f"{said} connected; {spare or 'none'} may be lost")


def _following(view: View, answers: Answers) -> set[str]:
    """The voters that stand behind the leader: as it sees its own connections, or, where we cannot ask it, as they say themselves.

    A voter that was not asked, for it is not in the inventory, counts if a follower that did answer is connected to it.
    """
    if view.leader is None:
        return set()
    agreeing = [report for report in reports_of(answers) if report.raft.leader == view.leader and report.raft.term == view.term]
    own = next((report for report in agreeing if report.name == view.leader and report.raft.role == "leader"), None)
    if own is not None:
        return ({own.name} | set(own.raft.reachable_voters)) & set(view.voters)
    seen = {peer.name for report in agreeing for peer in report.peers if peer.state == "connected"} - set(answers)
    return ({report.name for report in agreeing} | seen) & set(view.voters)


def _bring_back(lost: Sequence[str], view: View, answers: Answers) -> str | None:
    """What mends a lack of voters. hmctl can do nothing with a node that its inventory does not name."""
    names = [node for node in lost if node in answers]
    if not names:
        if lost and (misnamed := _misnamed(answers, found=lost)):
            return misnamed
        return f"add {listed(lost)} to the inventory: only then can hmctl look into it" if lost else None
    silent = {node: answer for node in names if isinstance(answer := answers[node], Silence)}
    gone = [node for node in lost if node in silent or node not in answers]  # who answers us is not to be brought back
    if not silent:
        return f"bring back {listed(gone)}" if gone else f"hmctl node inspect {names[0]} shows whom it reaches"
    first = next(iter(silent))
    member = view.members.get(first)
    known = next((answer.fix for answer in silent.values() if answer.fix), None)
    return f"bring back {listed(gone)}: {known or _look_for(first, member.address if member else first)}"


def _misnamed(answers: Answers, *, found: Sequence[str]) -> str | None:
    """What mends an inventory that calls one of `found` by another name."""
    return next((answer.fix for answer in answers.values() if isinstance(answer, Silence) and answer.found in found), None)


def _does(nodes: Sequence[str]) -> str:
    return "does" if len(nodes) == 1 else "do"


def check_leader(view: View, answers: Answers) -> Check:
    """Whether everybody that answered names the same leader, and it is there."""
    name, reports = "leader", reports_of(answers)
    if view.rivals:
        message = f"{listed(view.rivals)} each lead term {view.term}: this must never happen, please report it"
        return Check(name=name, status=Verdict.ERROR, message=message, fix=f"hmctl logs {' '.join(view.rivals)}")
    if view.leader is None:
        fix = "an election takes seconds: look again; if it lasts, hmctl node inspect shows who reaches whom" if reports else None
        return Check(name=name, status=Verdict.ERROR, message="no leader: nothing can be changed", fix=fix)
    leads = f"{view.leader} leads term {view.term}"
    if isinstance(answers.get(view.leader), Silence):
        message = f"{leads} as the others have it, but does not answer us"
        return Check(
            name=name, status=Verdict.WARN, message=message, fix="look again in a moment: if it is gone, the others elect a new one"
        )
    if others := _not_following(view, reports):
        message = f"{leads}, but {listed(others)} {_does(others)} not follow it"
        return Check(name=name, status=Verdict.WARN, message=message, fix=f"hmctl node inspect {others[0]}")
    return Check(name=name, status=Verdict.OK, message=f"{leads}; all that answered agree")


def _not_following(view: View, reports: Sequence[NodeReport]) -> list[str]:
    return sorted(report.name for report in reports if report.raft.leader != view.leader)


def divergences(reports: Sequence[NodeReport]) -> list[Divergence]:
    """What the control nodes found when they compared states, once each; a node that is named knows best why it waits."""
    found: dict[str, Divergence] = {}
    for report in reports:
        for said in report.raft.divergences:
            if said.node not in found or report.name == said.node:
                found[said.node] = said
    if any(found):
        found.pop("", None)  # whoever is named is what the others only cannot agree on
    return [found[name] for name in sorted(found)]


def check_state(reports: Sequence[NodeReport]) -> Check:
    """Whether all control nodes made the same state of the log."""
    name = "state"
    asked = [report for report in reports if report.raft.role != "observer"]
    found = divergences(asked)
    if not found:
        return Check(name=name, status=Verdict.OK, message="the same on all control nodes" if asked else UNKNOWN)
    one = found[0]
    if not one.node:
        message = f"at log index {one.index} there are different states, and no majority for any: {one.waits}"
        fix = f"find out which is right, then for each other one: hmctl raft reseed NODE; hmctl logs {one.others[0]} may say how it came"
        return Check(name=name, status=Verdict.ERROR, message=message, fix=fix)
    said = [
        f"the state of {odd.node} ({odd.hash[:12]}) is not that of {listed(odd.others)} ({odd.agreed[:12]}), since log index {odd.index}"
        for odd in found
    ]
    waits = f"; it does not take theirs by itself: {one.waits}" if one.waits else "; it takes theirs by itself"
    fix = f"hmctl raft reseed {one.node}" if one.waits else f"look again in a moment; if it lasts: hmctl raft reseed {one.node}"
    return Check(name=name, status=Verdict.ERROR, message="; ".join(said) + waits, fix=fix)


def check_nodes(nodes: Sequence[NodeStatus], answers: Answers) -> Check:
    """Whether every node answers us and its leader."""
    name = "nodes"
    lost = [node for node in nodes if node.state in {NodeState.UNREACHABLE, NodeState.DOWN, NodeState.SUSPECT}]
    if not lost:
        return Check(name=name, status=Verdict.OK, message=f"{len(nodes)} of {plural(len(nodes), 'node')} reachable")
    names = [node.name for node in lost]
    reasons = [node.reasons[0] if node.reasons else "no answer" for node in lost]
    first = answers.get(names[0])
    known_fix = first.fix if isinstance(first, Silence) else None
    if not any(isinstance(answer, Answer) for answer in answers.values()):
        refused = any(isinstance(answer, Silence) and answer.reached for answer in answers.values())
        fix = known_fix or ("hmctl logs" if refused else "is UDP 7443 open from here? try hmctl status --via ssh, and hmctl logs")
        return Check(
            name=name, status=Verdict.ERROR, message=f"none of {plural(len(nodes), 'node')} answered; {names[0]}: {reasons[0]}", fix=fix
        )
    said = [f"{node.name} ({node.state}): {reason}" for node, reason in zip(lost, reasons, strict=True)]
    return Check(
        name=name,
        status=Verdict.WARN,
        message="; ".join(said[:MOST_SAID]) + (f"; and {len(said) - MOST_SAID} more" if len(said) > MOST_SAID else ""),
        fix=known_fix or _fix_of_lost(lost[0]),
    )


def _fix_of_lost(node: NodeStatus) -> str:
    if node.uptime_seconds is not None and node.uptime_seconds < JUST_STARTED:
        return f"it started {duration(node.uptime_seconds)} ago: look again in a moment"
    if node.uptime_seconds is not None:  # it answers us: the trouble lies between it and the others
        return f"is UDP 7443 open between the nodes? hmctl node inspect {node.name} shows whom it reaches"
    return _look_for(node.name, node.address)


def _look_for(name: str, address: str) -> str:
    return f"is the host up? ping {address}; if it is: hmctl logs {name}"


def check_components(nodes: Sequence[NodeStatus]) -> Check:
    """Whether every node that answered finds itself well: its components, and what else its checks look at."""
    name = "components"
    asked = [node for node in nodes if node.uptime_seconds is not None]
    if not asked:
        return Check(name=name, status=Verdict.WARN, message=UNKNOWN)
    ailing = [(node, check) for node in asked for check in complaints(node.checks)]
    if not ailing:
        quiet = [f"{check.name} on {node.name}" for node in asked for check in node.checks if check.muted and check.worth < 1.0]
        return Check(
            name=name, status=Verdict.OK, message=f"all running, but for what is muted: {listed(quiet)}" if quiet else "all running"
        )
    said = [f"{node.name}: {_ailment(node, check)}" for node, check in ailing]
    more = f"; and {len(said) - MOST_SAID} more" if len(said) > MOST_SAID else ""
    return Check(name=name, status=Verdict.WARN, message="; ".join(said[:MOST_SAID]) + more, fix=_remedy(*ailing[0]))


def _ailment(node: NodeStatus, check: CheckReport) -> str:
    component = check.name.removeprefix(COMPONENT)
    status = node.components.get(component)
    if status is None or component == check.name:
        return check.reason or check.name
    return f"{component} {status.state}" + (f" ({status.error})" if status.error else "")


def _remedy(node: NodeStatus, check: CheckReport) -> str:
    """Its own fix is to be run there, unless it is for hmctl."""
    look = f"hmctl node inspect {node.name}"
    if check.fix is None:
        return look
    return check.fix if check.fix.startswith("hmctl ") else f"on {node.name}: {check.fix}; then {look}"


def check_members(expected: Sequence[Expected], view: View, answers: Answers) -> Check:
    """Whether the cluster's members are the inventory's hosts."""
    name = "members"
    if not view.members and view.leader is None:
        return Check(name=name, status=Verdict.WARN, message="unknown: no node knows of members")
    named = {host.name for host in expected}
    missing = [host.name for host in expected if host.name not in view.members]
    if missing:
        message = f"{listed(missing)} {'has' if len(missing) == 1 else 'have'} not joined"
        others = [answer.found for node in missing if isinstance(answer := answers.get(node), Silence) and answer.found is not None]
        return Check(name=name, status=Verdict.WARN, message=message, fix=_misnamed(answers, found=others) or "hmctl deploy")
    strangers = sorted(set(view.members) - named)
    if strangers:
        message = f"{listed(strangers)} {'is a member' if len(strangers) == 1 else 'are members'}, but not in the inventory"
        return Check(name=name, status=Verdict.WARN, message=message, fix="add the host to the inventory, or give the whole one with -i")
    return Check(name=name, status=Verdict.OK, message=f"{plural(len(named), 'member')}, as in the inventory")


def check_releases(reports: Sequence[NodeReport]) -> Check:
    """Whether all nodes run the same release."""
    name = "releases"
    by_release: dict[str, list[str]] = {}
    for report in reports:
        by_release.setdefault(report.release, []).append(report.name)
    if not by_release:
        return Check(name=name, status=Verdict.WARN, message=UNKNOWN)
    if len(by_release) == 1:
        return Check(name=name, status=Verdict.OK, message=f"all that answered run {next(iter(by_release))[:12]}")
    mix = "; ".join(f"{release[:12]} on {listed(names)}" for release, names in by_release.items())
    return Check(name=name, status=Verdict.WARN, message=f"{len(by_release)} releases: {mix}", fix="hmctl deploy")


def clocks_astray(answers: Answers) -> dict[str, float]:
    """Seconds by which the clocks of some nodes differ from most."""
    offsets = {node: answer.offset_seconds for node, answer in answers.items() if isinstance(answer, Answer)}
    middle = median(offsets.values()) if offsets else 0.0
    return {node: offset - middle for node, offset in offsets.items() if abs(offset - middle) > MOST_SKEW_SECONDS}


def check_clocks(answers: Answers, astray: Mapping[str, float]) -> Check:
    """Whether the nodes' clocks agree with each other and with ours."""
    name = "clocks"
    offsets = [answer.offset_seconds for answer in answers.values() if isinstance(answer, Answer)]
    if not offsets:
        return Check(name=name, status=Verdict.WARN, message=UNKNOWN)
    middle = median(offsets)
    if astray:
        said = [f"{node} is {duration(abs(offset))} {'ahead' if offset > 0 else 'behind'}" for node, offset in astray.items()]
        return Check(
            name=name, status=Verdict.WARN, message=listed(said), fix="enable time synchronization there: timedatectl set-ntp true"
        )
    if abs(middle) > MOST_SKEW_SECONDS:
        message = f"this machine is {duration(abs(middle))} {'behind' if middle > 0 else 'ahead of'} the nodes"
        return Check(name=name, status=Verdict.WARN, message=message, fix="enable time synchronization here: timedatectl set-ntp true")
    return Check(name=name, status=Verdict.OK, message=f"within {MOST_SKEW_SECONDS:.0f} s of each other")


def check_certificate(ends: datetime | None, now: datetime) -> Check:
    """Whether the operator's own certificate lasts."""
    name = "certificate"
    if ends is None:
        return Check(name=name, status=Verdict.WARN, message="you have no certificate for this cluster", fix="hmctl ca import FILE")
    left = ends - now
    if left <= timedelta(0):
        return Check(name=name, status=Verdict.ERROR, message=f"yours expired on {ends:%Y-%m-%d}", fix="hmctl deploy renews it")
    if left <= EXPIRES_SOON:
        message = f"yours expires on {ends:%Y-%m-%d}, in {plural(left.days, 'day')}"
        return Check(name=name, status=Verdict.WARN, message=message, fix="hmctl deploy renews it")
    return Check(name=name, status=Verdict.OK, message=f"yours is valid until {ends:%Y-%m-%d}")
