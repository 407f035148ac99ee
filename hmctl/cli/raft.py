"""hmctl raft: the voters of the replicated log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.completing import inventory_nodes
from hmctl.cli.context import Context, current, group
from hmctl.cli.status import ViaOption
from hmctl.client import Via
from hmctl.text import Styled, duration

if TYPE_CHECKING:
    from hmctl.actions.reseed import Reseeded
    from hmctl.actions.transfer import Transferred
    from hmctl.output import Output

app = group("The voters that keep the cluster's state: let another lead, give one its memory anew.")


@app.callback()
def voters() -> None:
    """The voters that keep the cluster's state: let another lead, give one its memory anew."""


@app.command()
def transfer(
    ctx: typer.Context,
    node: Annotated[
        str,
        typer.Argument(
            metavar="[NODE]",
            help="Who shall lead. By default whichever other voter holds most of the log.",
            show_default=False,
            autocompletion=inventory_nodes,
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    via: ViaOption = Via.AUTO,
) -> None:
    """Let another voter lead, without the wait of an election: such as before work on the leader's machine.

    What is written meanwhile waits, and goes on at the new leader. If nobody takes over, all stays as it is (exit code 1). A leader whose
    agent is stopped in order hands over by itself.
    """
    from hmctl.actions.transfer import Transferred, candidates, leadership, refuse
    from hmctl.actions.transfer import transfer as hand_over
    from hmctl.client import Access

    context = current(ctx)
    inventory = context.inventory(warn=False)
    access = Access.of(context.store(inventory), via)
    found = context.run(leadership(inventory, access, via=via))
    refuse(found, node)
    if node == found.leader:
        done = Transferred(before=node, leader=node, term=found.term, changed=False, seconds=None)
    else:
        context.output.note(f"{found.leader} leads, in term {found.term}; {candidates(found, node)} will")
        context.output.confirm(f"Hand over from {found.leader}?", yes=yes)
        done = context.run(hand_over(inventory, access, found, node, via=via))
    context.output.result(done, lambda: _show_transfer(context.output, done))


def _show_transfer(output: Output, done: Transferred) -> None:
    if done.seconds is None:
        output.line(f"{done.leader} leads already; nothing was changed")
    else:
        output.line(Styled(f"{done.leader} leads", "good"), Styled(f"  in term {done.term}, after {done.seconds:.2f} s", "dim"))


@app.command()
def reseed(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A control node.", autocompletion=inventory_nodes)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="How long NODE may take until it votes again.")
    ] = 120.0,
) -> None:
    """Set NODE's part of the cluster's state aside and have its peers give it anew: for a damaged journal or snapshot.

    Refused when the other voters could not decide anything without it. Containers go on running. What was set aside stays on NODE's disk.
    """
    context = current(ctx)
    done = context.run(_reseed(context, node, yes, timeout))
    context.output.result(done, lambda: _show(context.output, done))


async def _reseed(context: Context, node: str, yes: bool, timeout: float) -> Reseeded:
    from hmctl.actions.reseed import Reseed
    from hmctl.cli.deploy import show_plan
    from hmctl.client import Access
    from hmctl.phases.agents import LiveAgents
    from hmctl.remote.ssh import Connector

    inventory = context.inventory()
    store = context.store(inventory)
    with store.lock("raft reseed"):
        connector = Connector(store.known_hosts, accept_new=yes, keep=yes)
        action = Reseed(
            inventory=inventory,
            store=store,
            hosts=connector,
            agents=lambda store, remotes: LiveAgents(Access.of(store), remotes),
            output=context.output,
            node=node,
            timeout=timeout,
            yes=yes,
            show_plan=lambda steps: show_plan(context.output, steps, sign="~", result=False),
        )
        try:
            return await action.run()
        finally:
            await connector.close()


def _show(output: Output, done: Reseeded) -> None:
    output.line(Styled(f"{done.node} votes again", "good"), Styled(f"  ({duration(done.seconds)})", "dim"))
    if done.kept is not None:
        output.line(f"what it held before is in {done.kept} there; it is of no use once all is well: rm -r {done.kept}")
