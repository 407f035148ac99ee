"""hmctl node: the nodes of the cluster, and one of them in depth."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from hmcore.errors import HyperMeshError
from hmcore.health import COMPONENT
from hmcore.records import PeerReport, PhaseReport
from hmctl.actions.inspect import Inspection, inspection
from hmctl.actions.status import Answer, NodeStatus, Silence
from hmctl.cli.completing import inventory_nodes
from hmctl.cli.context import current, group
from hmctl.cli.status import STATE_STYLE, TimeoutOption, ViaOption, component_style, score, show_nodes
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.output import Output
from hmctl.text import Cell, Style, Styled, bar, duration, listed, plural

app = group("List the nodes, and look into one.")

BAR = 30  # columns of the start-up picture
NARROW_BAR = 10
BESIDE_BAR = 50  # columns, of what is said of a phase


class NodeList(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl node ls -o json`. The nodes are those of `hmctl status`."""

    cluster: str
    leader: str | None
    nodes: list[NodeStatus]


@app.command("ls")
def ls(ctx: typer.Context, via: ViaOption = Via.AUTO, timeout: TimeoutOption = None) -> int:
    """List the nodes: role, state, health, containers, uptime, round-trip time.

    A narrow terminal is spared columns: RTT first, never NODE, STATE and HEALTH.
    """
    from hmctl.actions.survey import survey

    context = current(ctx)
    inventory = context.inventory(warn=False)
    status = context.run(survey(inventory, context.store(inventory), via=via, timeout=timeout)).status
    document = NodeList(cluster=status.cluster, leader=status.leader, nodes=status.nodes)
    context.output.result(document, lambda: show_nodes(context.output, status))
    return 0 if any(node.uptime_seconds is not None for node in status.nodes) else 4


@app.command("inspect")
def inspect(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node's name in the inventory.", autocompletion=inventory_nodes)],
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> None:
    """Look into a node: components, how its start went, its peers and how far away they are."""
    from hmctl.actions.survey import survey

    context = current(ctx)
    inventory = context.inventory(warn=False)
    inventory.host(node)  # says so when there is none, before anybody is asked
    found = context.run(survey(inventory, context.store(inventory), via=via, timeout=timeout, closely=[node]))
    answer = found.answers[node]
    match answer:
        case Silence():
            fix = f"is the host up? ping {inventory.host(node).address}; if it is: hmctl logs {node}"
            raise HyperMeshError(f"cannot look into it: {answer.reason}", host=node, fix=answer.fix or fix)
        case Answer():
            seen = next(status for status in found.status.nodes if status.name == node)
            document = inspection(seen, answer.report)
            context.output.result(document, lambda: show(context.output, document))


def show(output: Output, node: Inspection) -> None:
    role = str(node.role) if node.apps else f"{node.role} that runs no apps"
    output.paragraph(
        Styled(f"{node.name}: ", "strong"),
        Styled(str(node.state), STATE_STYLE[node.state]),
        "   ",
        text=Styled(f"{role} at {node.address}, up {duration(node.uptime_seconds)}, release {node.release[:12]}", "dim"),
    )
    for reason in node.reasons:
        output.paragraph(Styled("  ! ", "warning"), text=reason)
    output.line()
    _show_components(output, node)
    if node.phases:
        output.line()
        _show_phases(output, node.phases)
    output.line()
    _show_raft(output, node)
    _show_security(output, node)
    if node.peers:
        output.line()
        output.table(
            ["PEER", Column("ADDRESS", spared=1), "LINK", Column("RTT", right=True, spared=2), Column("WHY", wraps=True)],
            [_peer(peer) for peer in node.peers],
        )


def _show_components(output: Output, node: Inspection) -> None:
    columns: list[Column | str] = [
        "COMPONENT",
        "STATE",
        Column("STARTED IN", right=True, spared=2),
        Column("RESTARTS", right=True, spared=1),
        Column("WHY", wraps=True),
    ]
    muted = {check.name.removeprefix(COMPONENT) for check in node.checks if check.muted}
    rows: list[list[Cell]] = [
        [
            name,
            Styled(str(component.state), component_style(component.state)),
            duration(component.init_seconds),
            str(component.restarts),
            (component.error or "") + (" (muted)" if component.error and name in muted else ""),
        ]
        for name, component in node.components.items()
    ]
    output.table(columns, rows)
    for name, component in node.components.items():
        if component.fix:
            output.paragraph(Styled("fix: ", "accent"), text=f"{name}, on {node.name}: {component.fix}")
    output.line(Styled("health ", "dim"), score(node.health_score), Styled(f"; its checks: hmctl health {node.name}", "dim"))


def _show_phases(output: Output, phases: list[PhaseReport]) -> None:
    """The start-up as a picture: what ran beside what, and what everything waited for."""
    total = max(phase.began_seconds + phase.seconds for phase in phases)
    width = max(NARROW_BAR, min(BAR, output.width - BESIDE_BAR))
    styles: dict[str, Style] = {"ok": "good", "degraded": "warning", "failed": "bad"}
    rows: list[list[Cell]] = [
        [
            phase.name,
            Styled(bar(phase.began_seconds, phase.seconds, total, width), styles.get(phase.outcome)),
            duration(phase.seconds),
            Styled(phase.outcome if phase.outcome != "ok" else "", styles.get(phase.outcome)),
            phase.error or "",
        ]
        for phase in phases
    ]
    if phases[0].began_seconds > 0:  # before the agent's own code is in charge
        first = phases[0].began_seconds
        rows.insert(0, ["(Python starts)", Styled(bar(0.0, first, total, width), "dim"), duration(first), "", ""])
    output.table(["PHASE", f"START-UP, {duration(total)}", Column("TOOK", right=True), "", Column("", wraps=True)], rows)


def _show_raft(output: Output, node: Inspection) -> None:
    raft = node.raft
    words = f"{raft.role}, leader {raft.leader or 'none'}, term {raft.term}, committed {raft.commit_index}, applied {raft.applied_index}"
    output.paragraph(Styled("consensus ", "dim"), text=words)
    if raft.voters:
        reached = f"; reaches {listed(raft.reachable_voters)}" if raft.reachable_voters else ""
        output.line(Styled("voters    ", "dim"), listed(raft.voters), Styled(reached, "dim"))


def _show_security(output: Output, node: Inspection) -> None:
    """What the eBPF layer does; nothing while it has nothing to tell: its component says why."""
    if (found := node.security) is None:
        return
    words = found.mode
    if found.programs:
        words += (
            f", {plural(found.programs, 'program')} below {found.cgroup}; {plural(found.flows, 'flow')}, {plural(found.events, 'event')}"
        )
    lost = Styled(f", {found.events_lost} lost", "warning" if found.events_overrun else "dim") if found.events_lost else ""
    output.line(Styled("security  ", "dim"), words, lost)


def _peer(peer: PeerReport) -> list[Cell]:
    styles: dict[str, Style] = {"connected": "good", "connecting": "warning", "broken": "bad"}
    rtt = Styled("-", "dim") if peer.rtt_ms is None else f"{peer.rtt_ms:.1f} ms"
    return [peer.name, peer.address, Styled(peer.state, styles.get(peer.state)), rtt, peer.error or ""]
