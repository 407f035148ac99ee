"""hmctl lock: who holds the cluster's locks; end one whose holder cannot."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.context import Context, current, group
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.output import Output
from hmctl.text import Cell, duration

if TYPE_CHECKING:
    from hmctl.actions.locks import LockList, LockRelease, LockView

app = group("The cluster's locks: who holds which, since when, what for; end one whose holder cannot.")


@app.command("status")
def status_command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this one.", show_default=False)] = "",
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> None:
    """List the locks that are held: by whom, since when, what for, and when they end if nobody renews them.

    A command that changes hosts holds the lock `deploy`; nodes hold those of what may run once only.
    """
    context = current(ctx)
    document = context.run(_look(context, name, via, timeout))
    context.output.result(document, lambda: _show(context.output, document))
    if not document.locks:
        context.output.note(f"nobody holds {name or 'a lock'}")
    if not document.leader:
        context.output.warn(f"the cluster has no leader: this is what {document.told_by} knew last")


@app.command("release")
def release(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The lock.  [default: deploy]", show_default=False)] = "deploy",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever reads the events.", show_default=False)] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> None:
    """End a lock that another holds. Its holder stops before its next step; what it is doing at this moment, it finishes.

    A lock whose holder has died ends by itself when its time is over: see `hmctl lock status`.
    """
    from hmctl.actions.locks import LockRelease

    context = current(ctx)
    found = context.run(_look(context, name, via, timeout))
    if not found.locks:
        document = LockRelease(name=name, holder="", token=0, changed=False, index=found.index)
        context.output.result(document, lambda: context.output.line(f"nobody holds {name}; nothing was changed"))
        return
    held = found.locks[0]
    what_for = f" for: {held.note}" if held.note else ""
    context.output.note(f"{held.name} is taken from {held.holder}, who has held it {_since(held)}{what_for}")
    context.output.warn("it may be at work at this moment; both of you would be then, if you begin before it has noticed")
    context.output.confirm(f"End the lock {held.name} of {held.holder}?", yes=yes)
    document = context.run(_release(context, held, reason, via))
    context.output.result(document, lambda: _show_release(context.output, document))


async def _look(context: Context, name: str, via: Via, timeout: float | None) -> LockList:
    from hmctl.actions.locks import status
    from hmctl.client import Access

    inventory = context.inventory(warn=False)
    return await status(inventory, Access.of(context.store(inventory), via), name=name, via=via, timeout=timeout)


async def _release(context: Context, held: LockView, reason: str, via: Via) -> LockRelease:
    from hmcore.locks import RELEASE, ReleaseRequest
    from hmctl.actions.change import change, request_id
    from hmctl.actions.locks import LockRelease

    inventory = context.inventory(warn=False)
    why = reason or f"taken from {held.holder} by an operator"
    request = ReleaseRequest(id=request_id(), name=held.name, token=held.token, reason=why)
    reply = await change(inventory, context.store(inventory), RELEASE, request, via=via, say=context.output.note)
    return LockRelease(name=held.name, holder=held.holder, token=held.token, changed=reply.changed, index=reply.index)


def _since(held: LockView) -> str:
    return f"since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(held.since))}"


def _show(output: Output, document: LockList) -> None:
    if not document.locks:
        return
    columns: list[Column | str] = [
        "LOCK",
        "HOLDER",
        Column("TOKEN", right=True, spared=2),
        Column("SINCE", spared=1),
        Column("ENDS IN", right=True),
        Column("NOTE", wraps=True),
    ]
    rows: list[list[Cell]] = [
        [
            held.name,
            held.holder,
            str(held.token),
            _since(held).removeprefix("since "),
            "-" if held.expires_in is None else duration(held.expires_in),
            held.note,
        ]
        for held in document.locks
    ]
    output.table(columns, rows)
    output.note("ENDS IN: unless its holder renews it")


def _show_release(output: Output, done: LockRelease) -> None:
    if done.changed:
        output.line(f"{done.name} is free; {done.holder} held it with token {done.token}")
    else:
        output.line(f"{done.holder} does not hold {done.name} any more; nothing was changed")
