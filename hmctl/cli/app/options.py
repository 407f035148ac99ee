"""What the commands of `hmctl app` have in common: arguments, options, and asking the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from hmctl.cli.completing import app_names, app_targets
from hmctl.cli.context import Context
from hmctl.client import Via

if TYPE_CHECKING:
    from hmcore.api import ChangeReply, Method
    from hmcore.apps.spec import AppSpec
    from hmctl.actions.apps.view import Seen

Req = TypeVar("Req")

PATIENCE = 600.0  # seconds that a rollout is waited for unless --timeout says otherwise

AppArgument = Annotated[str, typer.Argument(metavar="APP", help="An app, as hmctl app ls names it.", autocompletion=app_names)]
TargetArgument = Annotated[str, typer.Argument(metavar="APP[/SERVICE]", help="An app, or one service of it.", autocompletion=app_targets)]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to wait until all replicas are healthy.")]
PatienceOption = Annotated[
    float,
    typer.Option("--timeout", min=0.1, metavar="SECONDS", help="How long to wait; the rollout itself goes on."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def look(context: Context, name: str, via: Via, timeout: float | None = None, *, capacity: bool = False) -> Seen:
    """All apps, or the one with its generations; what nodes have, too, with `capacity`. Says so when nobody leads."""
    seen = context.run(_look(context, name, via, timeout, capacity=capacity))
    if not seen.leader:
        context.output.warn(f"the cluster has no leader: this is what {seen.told_by} knew last")
    return seen


async def _look(context: Context, name: str, via: Via, timeout: float | None = None, *, capacity: bool = False) -> Seen:
    from hmctl.actions.agents import Agents
    from hmctl.actions.apps.calls import read
    from hmctl.client import Access

    inventory = context.inventory(warn=False)
    async with Agents(inventory.hosts, Access.of(context.store(inventory), via), via=via, timeout=timeout) as agents:
        return await read(agents, name, capacity=capacity)


def refuse_clashes(context: Context, name: str, present: AppSpec | None, spec: AppSpec, via: Via) -> None:
    """Ask for the other apps if `spec` claims ports that the `present` one does not. Raises PortPublished when one is another's."""
    from hmctl.actions.apps import clashes

    if wanted := clashes.new_claims(present, spec):
        clashes.refuse_clashes(wanted, context.run(_look(context, "", via)), name)


def carry_out(
    context: Context, method: Method[Req, ChangeReply], request: Req, name: str, via: Via, seen: Seen | None = None
) -> ChangeReply:
    """Have the leader change app `name`. `seen`: what was looked at before."""
    from hmctl.actions.apps import calls

    inventory = context.inventory(warn=False)
    store, leader = context.store(inventory), None if seen is None else seen.led_by
    return context.run(calls.carry_out(inventory, store, method, request, via=via, say=context.output.note, name=name, leader=leader))
