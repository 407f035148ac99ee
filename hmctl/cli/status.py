"""hmctl status: is the cluster healthy? The verdict first, then the checks with what mends them, then the nodes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from hmcore.records import ComponentState, Maintenance, Mute, NodeState, Role
from hmctl.actions.status import Health, NodeStatus, Status, Verdict
from hmctl.cli.context import Context, current
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.document import Format
from hmctl.output import Output
from hmctl.text import Cell, Style, Styled, duration, plural

MANY = 30  # nodes, from which a terminal is spared those that are well
SILENT = frozenset({NodeState.UNREACHABLE, NodeState.DOWN, NodeState.SUSPECT})
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
    consistent: Annotated[
        bool,
        typer.Option("--consistent", help="Show what is true now, or say that nobody can tell."),
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Show every node: by default a terminal shows, of many, those that need attention.")
    ] = False,
) -> int:
    """Ask every agent, and say whether the cluster is healthy.

    A narrow terminal is spared columns: RTT first, never NODE, STATE and HEALTH.
    Exit code 0: healthy; 3: a warning, such as an unreachable node; 4: critical, no quorum or nobody answers; with --consistent also when
    the members, mutes and maintenance that are shown may be old.
    """
    context = current(ctx)
    status = _status(context, watch=watch, interval=interval, via=via, timeout=timeout, consistent=consistent, every=every)
    return context.run_until_interrupted(status) if watch else context.run(status)


async def _status(context: Context, *, watch: bool, interval: float, via: Via, timeout: float | None, consistent: bool, every: bool) -> int:
    from hmctl.actions.survey import survey

    inventory = context.inventory(warn=False)
    store = context.store(inventory)
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        found = (await survey(inventory, store, via=via, timeout=timeout, consistent=consistent)).status
        if not watch:
            context.output.result(found, lambda: show(context.output, found, every=every))  # noqa: B023  drawn at once
            return found.exit_code
        _draw(context.output, found, interval, every)
        await asyncio.sleep(max(0.0, interval - (clock() - began)))


def _draw(output: Output, found: Status, interval: float, every: bool) -> None:
    with output.frame():
        if output.format is Format.TABLE:
            output.paragraph(text=Styled(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, every {interval:g} s; Ctrl-C ends", "dim"))
        output.result(found, lambda: show(output, found, every=every))


def show(output: Output, status: Status, *, every: bool = True) -> None:
    """The whole picture for people. Without `every`, a terminal is spared the rows of many nodes that are well; a pipe gets them all, for
    grep and awk."""
    output.paragraph(
        Styled(f"{status.cluster}: ", "strong"),
        Styled(str(status.health), HEALTH_STYLE[status.health]),
        "  ",
        score(status.health_score),
        "   ",
        text=Styled(
            f"leader {status.leader or 'none'}, term {status.term}" + (f", release {status.release[:12]}" if status.release else ""),
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
    if hint := level_hint(status):
        output.paragraph(text=Styled(hint, "dim"))
    for line in set_aside(status):
        output.paragraph(text=Styled(line, "dim"))
    output.line()
    if every or not output.terminal or len(status.nodes) <= MANY:
        show_nodes(output, status)
        return
    shown, rest = of_interest(status.nodes)
    show_nodes(output, msgspec.structs.replace(status, nodes=shown))
    output.line(Styled(summary(rest), "dim"))


def level_hint(status: Status) -> str | None:
    """What to do when the cluster could do more than it does. Pure."""
    if not 0 < status.level < status.level_known:
        return None
    return f"feature level {status.level}, though all nodes that answered know {status.level_known}: hmctl deploy raises it"


def set_aside(status: Status) -> list[str]:
    """What operators have taken out of traffic, and muted: in force, though nothing complains of it. Pure."""
    out = [_by(entry.target, entry) for entry in status.maintenance]
    muted = [_by(f"{mute.check} {f'on {mute.node}' if mute.node else 'everywhere'}", mute) for mute in status.mutes]
    return [f"{title}  {'; '.join(words)}" for title, words in (("maintenance", out), ("muted", muted)) if words]


def _by(what: str, entry: Maintenance | Mute) -> str:
    said = ": ".join(word for word in (f"by {entry.author}" if entry.author else "", entry.reason) if word)
    return f"{what} ({said})" if said else what


def of_interest(nodes: Sequence[NodeStatus]) -> tuple[list[NodeStatus], list[NodeStatus]]:
    """The control nodes and those that need attention, the worst first and no more than MANY; and the others. Pure."""
    bad = [node for node in nodes if node.state is not NodeState.READY]
    bad.sort(key=lambda node: (node.state not in SILENT, node.health_score))
    names = {node.name for node in bad[:MANY]} | {node.name for node in nodes if node.role is Role.CONTROL}
    shown = [node for node in nodes if node.role is Role.CONTROL] + [node for node in bad[:MANY] if node.role is not Role.CONTROL]
    return shown, [node for node in nodes if node.name not in names]


def summary(nodes: Sequence[NodeStatus]) -> str:
    """The nodes that get no row, in one line: how many in which state, and what they carry. Pure."""
    states = Counter(node.state for node in nodes)
    said = ", ".join(f"{count} {state}" for state, count in states.most_common())
    containers = sum(node.containers or 0 for node in nodes)
    trips = [node.rtt_ms for node in nodes if node.rtt_ms is not None]
    far = f", RTT {min(trips):.1f} to {max(trips):.1f} ms" if trips else ""
    return f"and {plural(len(nodes), 'more node')} ({said}): {plural(containers, 'container')}{far}; --all lists them"


def show_nodes(output: Output, status: Status) -> None:
    mixed = len({node.release for node in status.nodes if node.release}) > 1
    columns: list[Column | str] = [
        "NODE",
        Column("ADDRESS", spared=2),
        Column("ROLE", spared=3),
        "STATE",
        Column("HEALTH", right=True),
        Column("CONTAINERS", right=True, spared=4),
        Column("UPTIME", right=True, spared=5),
        Column("RTT", right=True, spared=6),
        *([Column("RELEASE", spared=1)] if mixed else []),
    ]
    output.table(columns, [_row(node, status.leader, mixed) for node in status.nodes])


def _row(node: NodeStatus, leader: str | None, mixed: bool) -> list[Cell]:
    answered = node.uptime_seconds is not None
    unknown = Styled("-", "dim")
    row: list[Cell] = [
        Styled(node.name, "strong") if node.name == leader else node.name,
        node.address,
        str(node.role) if node.apps is not False else f"{node.role}, no apps",
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
