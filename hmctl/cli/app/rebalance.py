"""hmctl app rebalance: the one command that moves what runs well where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.app.options import PATIENCE, PatienceOption, YesOption
from hmctl.cli.completing import app_names
from hmctl.cli.context import Context, current
from hmctl.cli.status import ViaOption
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.text import plural

if TYPE_CHECKING:
    from hmcore.apps.calls import Moved, RebalanceReply
    from hmctl.actions.apps.rebalancing import Rebalanced


def rebalance(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[APP]", help="Only this app.  [default: all]", autocompletion=app_names)] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be moved.")] = False,
    timeout: PatienceOption = PATIENCE,
    yes: YesOption = False,
    via: ViaOption = Via.AUTO,
) -> int:
    """Move a few replicas so that all nodes have their share, such as after a node came back. No more at a time than an update replaces;
    exclusive and global services, and what has its data on a node, stay where they are."""
    from hmctl.actions.apps.rebalancing import Ending, follow, planned, replica_of, trouble

    context = current(ctx)
    plan = planned(context.run(_ask(context, name, via, dry=True)))
    if dry_run or plan.ending is Ending.EVEN:
        context.output.result(plan, lambda: _show(context, plan))
        _tell_absent(context, plan)
        return 0
    if plan.moves:
        for move in plan.moves:
            context.output.note(f"{replica_of(move)}: from {move.source} to {move.target}; {move.reason}")
        context.output.confirm(f"Move {plural(len(plan.moves), 'replica')}?", yes=yes)

    async def ask() -> RebalanceReply:
        return await _ask(context, name, via)

    def show(move: Moved) -> None:
        context.output.note(f"{replica_of(move)} moves from {move.source} to {move.target}")

    done = context.run(follow(ask, timeout=timeout, show=show))
    context.output.result(done, lambda: context.output.line(f"{plural(len(done.moves), 'replica')} moved"))
    _tell_absent(context, done)
    if (error := trouble(done, timeout)) is not None:
        raise error
    return 0


async def _ask(context: Context, name: str, via: Via, *, dry: bool = False) -> RebalanceReply:
    from hmcore.apps.calls import REBALANCE, RebalanceRequest
    from hmctl.actions.apps.calls import new_request
    from hmctl.actions.change import at_leader

    inventory = context.inventory(warn=False)
    request = RebalanceRequest(id=new_request(), name=name, dry=dry)
    return await at_leader(inventory, context.store(inventory), REBALANCE, request, via=via, say=context.output.note)


def _show(context: Context, plan: Rebalanced) -> None:
    from hmctl.actions.apps.rebalancing import replica_of

    if not plan.moves:
        without = " without " + " and ".join(sorted(plan.absent)) if plan.absent else ""
        context.output.note(f"all is as even as it can be{without}; nothing to move")
    else:
        rows = [(replica_of(move), move.source, move.target, move.reason) for move in plan.moves]
        context.output.table(["REPLICA", "FROM", "TO", Column("WHY", wraps=True)], rows)
    for subject, why in sorted(plan.waits.items()):
        context.output.note(f"{subject} has to wait: {why}")


def _tell_absent(context: Context, found: Rebalanced) -> None:
    """Whoever asks when a node is back asks a moment too soon as a rule."""
    for node, why in sorted(found.absent.items()):
        context.output.warn(f"{node} is {why}, and gets nothing now", fix="run this again once hmctl status shows it ready")
