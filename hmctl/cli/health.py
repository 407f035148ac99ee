"""hmctl health: the score of the cluster and its nodes, what it is made of, and muting of a check that is known to be so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from hmcore.errors import InvalidRequest, UsageError
from hmcore.records import NodeState
from hmctl.actions.health import CRITICAL, CheckHealth, HealthReport, NodeHealth, full_name, health_report, reason_of, still_muted
from hmctl.cli.completing import check_names, inventory_nodes
from hmctl.cli.context import Context, current, group
from hmctl.cli.status import HEALTH_STYLE, STATE_STYLE, TimeoutOption, ViaOption, score
from hmctl.client import Via
from hmctl.output import Output
from hmctl.text import Styled, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory

SHOW = "show"
_SILENT = (NodeState.DOWN, NodeState.UNREACHABLE)
_OWN = ("-h", "--help")  # of the group itself


class _ShowByDefault(TyperGroup):
    """`hmctl health [NODE]` is `hmctl health show [NODE]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        completing = ctx.resilient_parsing and not args  # then both are offered: commands and nodes
        if not completing and (not args or (args[0] not in self.commands and args[0] not in _OWN)):
            args = [SHOW, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Its commands, and what may stand in place of `show`: a node."""
        from typer._click.shell_completion import CompletionItem  # typer has no public name for it

        found = super().shell_complete(ctx, incomplete)
        known = {item.value for item in found}
        return [*found, *(CompletionItem(name) for name in inventory_nodes(ctx, incomplete) if name not in known)]


app = group("Show the health score and its checks: hmctl health [NODE], or --all for every check. Mute a check, or let it speak again.")
app.callback(cls=_ShowByDefault)(lambda: None)


class Muting(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl health mute -o json`. `node` empty: on all nodes. `reason`: what is told of it from now on; empty once it is unmuted."""

    check: str
    node: str
    muted: bool
    changed: bool
    index: int
    reason: str


CheckArgument = Annotated[
    str,
    typer.Argument(
        metavar="CHECK", help="Its name, as hmctl health --all lists them; quorum means cluster.quorum.", autocompletion=check_names
    ),
]
NodeOption = Annotated[
    str, typer.Option("--node", metavar="NODE", help="On this node only.  [default: everywhere]", autocompletion=inventory_nodes)
]


@app.command(SHOW)
def show_command(
    ctx: typer.Context,
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="Every check of this node.", autocompletion=inventory_nodes)] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Also the checks of nodes that are well.")] = False,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> int:
    """Show the scores, and the checks that lower them. Exit codes as of hmctl status; with NODE: 3 unless its score is 1.

    A score is the mean of the checks' worth, each with its weight. A muted check counts as if all were well.
    """
    from hmctl.actions.survey import survey

    context = current(ctx)
    inventory = context.inventory(warn=False)
    if node is not None:
        inventory.host(node)  # says so when there is none, before anybody is asked
    status = context.run(survey(inventory, context.store(inventory), via=via, timeout=timeout)).status
    document = health_report(status, node)
    address = inventory.host(node).address if node is not None else ""
    fixes = {node: f"is the host up? ping {address}; if it is: hmctl logs {node}"} if node is not None else {}  # else a check has it
    context.output.result(document, lambda: show(context.output, document, every=every or node is not None, fixes=fixes))
    if node is None:
        return status.exit_code
    return 0 if all(found.health_score >= 1.0 for found in document.nodes) else 3


@app.command("mute")
def mute(
    ctx: typer.Context,
    check: CheckArgument,
    node: NodeOption = "",
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Why: everybody who looks will read it; '' erases it.  [default: as it was]", show_default=False),
    ] = None,
    via: ViaOption = Via.AUTO,
) -> None:
    """Mute a check: it stays in sight, but lowers no score and warns nobody.

    Until it is unmuted, also when leaders and nodes change. Errors that make the cluster critical cannot be muted.
    """
    _change(ctx, check, node, reason, via, on=True)


@app.command("unmute")
def unmute(ctx: typer.Context, check: CheckArgument, node: NodeOption = "", via: ViaOption = Via.AUTO) -> None:
    """Let a muted check speak again, with --node just as it was muted."""
    _change(ctx, check, node, "", via, on=False)


def _change(ctx: typer.Context, check: str, node: str, reason: str | None, via: Via, *, on: bool) -> None:
    context = current(ctx)
    inventory = context.inventory(warn=False)
    check = full_name(check, strict=on)
    if node and on:
        inventory.host(node)  # says so when there is none; a mute may outlive its node
    done = context.run(_ask(context, inventory, check, node, reason, via, on=on))
    where = f"{check} on {node}" if node else f"{check} everywhere"
    word = "muted" if on else "unmuted"
    said = f"{where} is {word}" if done.changed else f"{where} {'is muted already' if on else 'is not muted'}; nothing was changed"
    context.output.result(done, lambda: context.output.line(said))
    if reason is None and done.reason:
        context.output.note(f"its reason stays: {done.reason} (--reason '' erases it)")
    if on and check in CRITICAL:
        context.output.note(f"its warnings are silent; an error of {check} is told all the same, and makes the cluster critical")
    if not on:
        from hmctl.actions.survey import survey

        status = context.run(survey(inventory, context.store(inventory), via=via, timeout=None)).status
        for mute in still_muted(status.mutes, check, node):
            where = f"on {mute.node}" if mute.node else "everywhere"
            fix = f"hmctl health unmute {check}" + (f" --node {mute.node}" if mute.node else "")
            context.output.warn(f"{check} {'stays' if done.changed else 'is'} muted {where}", fix=fix)


async def _ask(context: Context, inventory: Inventory, check: str, node: str, reason: str | None, via: Via, *, on: bool) -> Muting:
    from hmcore import api
    from hmctl.actions.change import change, known_mutes, request_id

    store = context.store(inventory)
    if reason is None:
        reason = reason_of(check, node, await known_mutes(inventory, store, via=via))
    request = api.MuteRequest(id=request_id(), check=check, node=node, on=on, reason=reason)
    try:
        reply = await change(inventory, store, api.MUTE, request, via=via, say=context.output.note)
    except InvalidRequest as error:  # whoever happened to answer has no part in it
        raise UsageError(error.message, fix=error.fix) from error
    return Muting(check=check, node=node, muted=on, changed=reply.changed, index=reply.index, reason=reason)


def show(output: Output, report: HealthReport, *, every: bool, fixes: Mapping[str, str]) -> None:
    """`fixes`: by node, what mends that it is silent, unless a check of the cluster says so."""
    width = max((len(check.name) for checks in (report.checks, *(node.checks for node in report.nodes)) for check in checks), default=0)
    if report.checks:
        output.line(
            Styled(f"{report.cluster}: ", "strong"),
            score(report.health_score),
            "  ",
            Styled(str(report.health), HEALTH_STYLE[report.health]),
        )
        _show_checks(output, report.checks, width, headed=True)
    for number, node in enumerate(report.nodes):
        if report.checks:
            output.line()
        _show_node(
            output,
            node,
            width,
            every=every,
            headed=number == 0 and not report.checks,
            fix=fixes.get(node.name) if node.state in _SILENT else None,
        )
    stray = [mute for mute in report.mutes if mute.node and mute.node not in {node.name for node in report.nodes}]
    for mute in stray if report.checks else ():
        output.line(Styled(f"also muted: {mute.key}", "dim"))


def _show_node(output: Output, node: NodeHealth, width: int, *, every: bool, headed: bool, fix: str | None) -> None:
    output.line(Styled(f"{node.name}: ", "strong"), score(node.health_score), "  ", Styled(str(node.state), STATE_STYLE[node.state]))
    told = {check.reason for check in node.checks}
    for reason in node.reasons:
        if reason not in told:
            output.paragraph(Styled("  ! ", "warning"), text=reason)
    if fix:
        output.paragraph(Styled("    fix: ", "accent"), text=fix)
    shown = node.checks if every else [check for check in node.checks if check.worth < 1.0 or check.muted]
    _show_checks(output, shown, width, node.name, headed=headed and bool(shown))
    if rest := len(node.checks) - len(shown):
        output.line(Styled(f"  ✓ {'the other ' if shown else ''}{plural(rest, 'check')} well", "dim"))


def _show_checks(output: Output, checks: Sequence[CheckHealth], width: int, node: str = "", *, headed: bool) -> None:
    """A line a check: what it is worth, its weight, and why; below it what mends it, and who muted it. `headed`: with what the numbers
    are above them."""
    if headed:
        output.line(Styled(f"    {'CHECK':<{width}}  WORTH  WEIGHT", "strong"))
    for check in checks:
        well = check.worth >= 1.0
        mark = Styled("-", "dim") if check.muted else Styled("✓", "good") if well else Styled("!", "warning")
        worth = Styled(f"{check.worth:>5.0%}", "dim") if check.muted or well else score(check.worth, width=5)
        text = check.reason or "well"
        output.paragraph(
            "  ",
            mark,
            f" {check.name:<{width}}  ",
            worth,
            Styled(f"  {check.weight:>6g}  ", "dim"),
            text=Styled(text, "dim" if well or check.muted else None),
        )
        indent = " " * (width + 6)
        if check.muted:
            output.paragraph(
                indent,
                text=Styled(
                    f"muted by {check.muted_by or 'nobody known'}" + (f": {check.muted_because}" if check.muted_because else ""), "dim"
                ),
            )
        elif check.fix:
            there = f"on {node}: " if node and not check.fix.startswith("hmctl ") else ""
            output.paragraph(indent, Styled("fix: ", "accent"), text=f"{there}{check.fix}")
