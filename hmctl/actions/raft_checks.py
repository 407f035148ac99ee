"""The checks of `hmctl status` that look at what the control nodes agree on: who votes, who leads, and on what. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hmcore.api import StateReply
from hmcore.errors import HyperMeshError
from hmcore.records import Divergence, NodeReport
from hmctl.actions.node_checks import UNKNOWN, look_for, misnamed
from hmctl.actions.status import Answer, Answers, Check, Silence, Verdict, View, reports_of
from hmctl.text import listed, plural


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
    following = behind_leader(view, answers)
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


def behind_leader(view: View, answers: Answers) -> set[str]:
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
        if lost and (fix := misnamed(answers, found=lost)):
            return fix
        return f"add {listed(lost)} to the inventory: only then can hmctl look into it" if lost else None
    silent = {node: answer for node in names if isinstance(answer := answers[node], Silence)}
    gone = [node for node in lost if node in silent or node not in answers]  # who answers us is not to be brought back
    if not silent:
        return f"bring back {listed(gone)}" if gone else f"hmctl node inspect {names[0]} shows whom it reaches"
    first = next(iter(silent))
    member = view.members.get(first)
    known = next((answer.fix for answer in silent.values() if answer.fix), None)
    return f"bring back {listed(gone)}: {known or look_for(first, member.address if member else first)}"


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
    if others := not_following(view, reports):
        message = f"{leads}, but {listed(others)} {_does(others)} not follow it"
        return Check(name=name, status=Verdict.WARN, message=message, fix=f"hmctl node inspect {others[0]}")
    return Check(name=name, status=Verdict.OK, message=f"{leads}; all that answered agree")


def not_following(view: View, reports: Sequence[NodeReport]) -> list[str]:
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
