"""hmctl raft: the voters of the replicated log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.completing import inventory_nodes
from hmctl.cli.context import Context, current, group
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.text import Cell, Styled, duration, plural

if TYPE_CHECKING:
    from hmctl.actions.configure import Configured
    from hmctl.actions.reseed import Reseeded
    from hmctl.actions.transfer import Transferred
    from hmctl.actions.voters import RaftView
    from hmctl.output import Output

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ChangeTimeout = Annotated[
    float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="How long it may take; what was begun goes on after that.")
]

app = group("The voters that keep the cluster's state: who they are, one more or less, let another lead, give one its memory anew.")


@app.callback()
def voters() -> None:
    """The voters that keep the cluster's state: who they are, one more or less, let another lead, give one its memory anew."""


@app.command()
def ls(ctx: typer.Context, via: ViaOption = Via.AUTO, timeout: TimeoutOption = None) -> None:
    """List who votes, who is catching up, and how far each one's log is, as the leader knows it.

    With n voters, any (n-1)/2 of them may fail and the others still decide.
    """
    from hmctl.actions.voters import look
    from hmctl.client import Access

    context = current(ctx)
    inventory = context.inventory(warn=False)
    found = context.run(look(inventory, Access.of(context.store(inventory), via), via=via, timeout=timeout))
    context.output.result(found, lambda: _show_voters(context.output, found))
    if found.leader is None:
        context.output.warn(f"the cluster has no leader: this is what {found.told_by} knew last")


@app.command()
def add(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A control node.", autocompletion=inventory_nodes)],
    yes: YesOption = False,
    via: ViaOption = Via.AUTO,
    timeout: ChangeTimeout = 120.0,
) -> None:
    """Let NODE vote: it catches up as a learner first, and counts from when it has.

    `hmctl deploy` does this for a host whose role in the inventory becomes control. To be repeated if it does not end in time.
    """
    _configure(ctx, node, add=True, yes=yes, via=via, timeout=timeout)


@app.command()
def rm(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A voter, or a learner.", autocompletion=inventory_nodes)],
    yes: YesOption = False,
    via: ViaOption = Via.AUTO,
    timeout: ChangeTimeout = 60.0,
) -> None:
    """Take NODE's vote away: such as of a machine that is gone for good. A leader hands over first.

    Refused when the others could decide nothing without it. A removed node that comes back is told so and stays out; its containers run on.
    """
    _configure(ctx, node, add=False, yes=yes, via=via, timeout=timeout)


def _configure(ctx: typer.Context, node: str, *, add: bool, yes: bool, via: Via, timeout: float) -> None:
    from hmctl.actions import configure, voters
    from hmctl.client import Access

    context = current(ctx)
    output, inventory = context.output, context.inventory(warn=False)
    access = Access.of(context.store(inventory), via)
    found = context.run(voters.look(inventory, access, via=via))
    configure.refuse(found, inventory, node, add=add)
    if configure.done_already(found, node, add=add):
        done = configure.unchanged(found, node, add=add)
    else:
        for line in configure.meaning(found, node, add=add):
            output.note(line)
        if (warning := configure.warning(found, node, add=add)) is not None:
            output.warn(warning)
        output.confirm(f"{'Let' if add else 'Take the vote of'} {node}{' vote' if add else ' away'}?", yes=yes)
        with output.progress() as progress:
            done = context.run(configure.configure(inventory, access, found, node, add=add, via=via, timeout=timeout, progress=progress))
    output.result(done, lambda: _show_configured(output, done))


def _show_voters(output: Output, found: RaftView) -> None:
    columns: list[Column | str] = [
        "NODE",
        "ROLE",
        "STATE",
        Column("LOG INDEX", right=True),
        Column("BEHIND", right=True),
        Column("ANSWERED", right=True, spared=1),
        Column("TROUBLE", wraps=True, spared=2),
    ]
    rows: list[list[Cell]] = [
        [
            node.name,
            Styled(node.role, "good" if node.role == "voter" else "dim"),
            Styled("no answer", "bad") if node.state is None else Styled("leader", "accent") if node.leader else node.state,
            "-" if node.last_index is None else str(node.last_index),
            "-" if node.lag is None else str(node.lag),
            "-" if node.answered is None else f"{node.answered:.1f} s ago",
            node.trouble or "",
        ]
        for node in found.nodes
    ]
    output.table(columns, rows)
    undecided = "" if found.committed else f"; the change at log index {found.configured} is not decided yet"
    output.note(f"{_standing(found)}; term {found.term}{undecided}")


def _standing(found: RaftView) -> str:
    """How many voters there are, and how many of those that work may fail."""
    voters = plural(len(found.voters), "voter")
    if len(found.working) == len(found.voters):
        return f"{voters}: {found.may_fail or 'none'} may fail"
    if found.may_fail_now is None:
        return f"{voters}, of which {len(found.working) or 'none'} can be counted on: too few to decide anything"
    return f"{voters}, {len(found.working)} of them work: {found.may_fail_now or 'none'} more may fail"


def _show_configured(output: Output, done: Configured) -> None:
    if not done.changed:
        output.line(f"{done.node} {'votes already' if done.action == 'add' else 'is no voter'}; nothing was changed")
        return
    output.line(
        Styled(f"{done.node} {'votes' if done.action == 'add' else 'is no voter any more'}", "good"),
        Styled(f"  ({duration(done.seconds)}; {plural(len(done.voters), 'voter')}: {done.may_fail or 'none'} may fail)", "dim"),
    )
    if done.action == "remove":
        output.note(f"its agent runs on; in the inventory give {done.node} the role worker, or remove it, before the next hmctl deploy")


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
        done = Transferred(before=node, leader=node, term=found.term, changed=False, seconds=None, index=found.index)
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
