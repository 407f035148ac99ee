"""The checks of `hmctl status` that look at the nodes: whether they are there, well, of one release and on time. And the operator's own
certificate, without which they tell nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from hmcore.health import COMPONENT, complaints
from hmcore.records import CheckReport, NodeReport, NodeState
from hmctl.actions.status import Answer, Answers, Check, Expected, NodeStatus, Silence, Verdict, View
from hmctl.text import duration, listed, plural

MOST_SKEW_SECONDS = 5.0  # certificates are backdated by an hour; logs that differ by more than this cannot be read side by side
MOST_SAID = 5  # complaints in one message; the table and `node inspect` have them all
JUST_STARTED = 10.0  # seconds after its start in which an agent may still be finding the others
UNKNOWN = "unknown: no node answered"
EXPIRES_SOON = timedelta(days=30)


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
    return look_for(node.name, node.address)


def look_for(name: str, address: str) -> str:
    return f"is the host up? ping {address}; if it is: hmctl logs {name}"


def misnamed(answers: Answers, *, found: Sequence[str]) -> str | None:
    """What mends an inventory that calls one of `found` by another name."""
    return next((answer.fix for answer in answers.values() if isinstance(answer, Silence) and answer.found in found), None)


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
        return Check(name=name, status=Verdict.WARN, message=message, fix=misnamed(answers, found=others) or "hmctl deploy")
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
