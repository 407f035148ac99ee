"""hmctl status: is the cluster healthy? The verdict first, then the checks with what mends them, then the nodes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from hmcore.records import ComponentState, NodeState
from hmctl.actions.status import Health, NodeStatus, Status, Verdict
from hmctl.cli.context import Context, current
from hmctl.client import Via
from hmctl.document import Format
from hmctl.output import Column, Output
from hmctl.text import Cell, Style, Styled, duration

HEALTH_STYLE: dict[Health, Style] = {Health.HEALTHY: "good", Health.WARNING: "warning", Health.CRITICAL: "bad"}
_MARK = {Verdict.OK: Styled("✓", "good"), Verdict.WARN: Styled("!", "warning"), Verdict.ERROR: Styled("✗", "bad")}
STATE_STYLE: dict[NodeState, Style] = {
    NodeState.READY: "good",
    NodeState.DEGRADED: "warning",
    NodeState.SUSPECT: "warning",
    NodeState.DRAINING: "accent",
    NodeState.DRAINED: "accent",
    NodeState.DOWN: "bad",
    NodeState.UNREACHABLE: "bad",
}


ViaOption = Annotated[Via, typer.Option(help="How agents are reached. auto: QUIC, and SSH when no node answers that.")]
TimeoutOption = Annotated[
    float | None,
    typer.Option(min=0.1, metavar="SECONDS", help="How long a node may take to answer.  [default: 2; 0.7 once most have answered]"),
]


def command(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Ask again and again until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="With --watch: how often.")] = 2.0,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> int:
    """Ask every agent, and say whether the cluster is healthy.

    Exit code 0: healthy; 3: a warning, such as an unreachable node; 4: critical, no quorum or nobody answers.
    """
    context = current(ctx)
    status = _status(context, watch=watch, interval=interval, via=via, timeout=timeout)
    return context.run_until_interrupted(status) if watch else context.run(status)


async def _status(context: Context, *, watch: bool, interval: float, via: Via, timeout: float | None) -> int:
    from hmctl.actions.survey import survey

    inventory = context.inventory(warn=False)
    store = context.store(inventory)
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        found = (await survey(inventory, store, via=via, timeout=timeout)).status
        if not watch:
            context.output.result(found, lambda: show(context.output, found))  # noqa: B023  drawn at once
            return found.exit_code
        _draw(context.output, found, interval)
        await asyncio.sleep(max(0.0, interval - (clock() - began)))


def _draw(output: Output, found: Status, interval: float) -> None:
    with output.frame():
        if output.format is Format.TABLE:
            output.line(Styled(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, every {interval:g} s; Ctrl-C ends", "dim"))
        output.result(found, lambda: show(output, found))


def show(output: Output, status: Status) -> None:
    """The whole picture for people."""
    output.line(
        Styled(f"{status.cluster}: ", "strong"),
        Styled(str(status.health), HEALTH_STYLE[status.health]),
        "  ",
        score(status.health_score),
        Styled(
            f"   leader {status.leader or 'none'}, term {status.term}" + (f", release {status.release[:12]}" if status.release else ""),
            "dim",
        ),
    )
    output.line()
    width = max(len(check.name) for check in status.checks)
    for check in status.checks:
        if check.muted:
            output.paragraph(Styled(f"- {check.name:<{width}}  ", "dim"), text=Styled(f"{check.message} (muted)", "dim"))
            continue
        output.paragraph(_MARK[check.status], f" {check.name:<{width}}  ", text=check.message)
        if check.fix:
            output.paragraph(" " * (width + 4), Styled("fix: ", "accent"), text=check.fix)
    output.line()
    show_nodes(output, status)


def show_nodes(output: Output, status: Status) -> None:
    mixed = len({node.release for node in status.nodes if node.release}) > 1
    columns: list[Column | str] = [
        "NODE",
        "ADDRESS",
        "ROLE",
        "STATE",
        Column("HEALTH", right=True),
        Column("CONTAINERS", right=True),
        Column("UPTIME", right=True),
        Column("RTT", right=True),
        *(["RELEASE"] if mixed else []),
    ]
    output.table(columns, [_row(node, status.leader, mixed) for node in status.nodes])


def _row(node: NodeStatus, leader: str | None, mixed: bool) -> list[Cell]:
    answered = node.uptime_seconds is not None
    unknown = Styled("-", "dim")
    row: list[Cell] = [
        Styled(node.name, "strong") if node.name == leader else node.name,
        node.address,
        str(node.role),
        Styled(str(node.state), STATE_STYLE[node.state]),
        score(node.health_score) if answered else unknown,
        unknown if node.containers is None else str(node.containers),
        unknown if node.uptime_seconds is None else duration(node.uptime_seconds),
        unknown if node.rtt_ms is None else f"{node.rtt_ms:.1f} ms",
    ]
    return [*row, (node.release or "-")[:12]] if mixed else row


def score(value: float, *, width: int = 0) -> Styled:
    """In percent; 100 % only when nothing is missing."""
    style: Style = "good" if value >= 1.0 else "warning" if value >= 0.5 else "bad"
    return Styled(f"{value if value >= 1.0 else min(value, 0.99):.0%}".rjust(width), style)


def component_style(state: ComponentState) -> Style | None:
    match state:
        case ComponentState.RUNNING:
            return "good"
        case ComponentState.ERROR:
            return "bad"
        case ComponentState.DEGRADED:
            return "warning"
        case _:
            return None
