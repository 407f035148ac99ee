"""hmctl reset: remove everything that deploy put on the hosts."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.claiming import LockWait, claim
from hmctl.cli.context import Context, current
from hmctl.text import Styled, duration, listed

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.actions.hosts import Options
    from hmctl.actions.report import Report
    from hmctl.output import Output
    from hmctl.state import OperatorStore


def command(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")] = False,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", "-l", metavar="GLOB", help="Only hosts whose names match. May be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    packages: Annotated[bool, typer.Option("--packages", help="Also remove the packages that deploy installed.")] = False,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=500, metavar="N", help="Hosts worked on, and SSH connections open, at the same time.")
    ] = 32,
    lock_wait: LockWait = 0.0,
) -> int:
    """Remove everything that deploy put on the hosts: agent, releases, configuration, keys and state. It cannot be undone."""
    from hmctl.actions.hosts import Options, union

    context = current(ctx)
    options = Options(limit=union(limit), dry_run=dry_run, yes=yes, at_once=concurrency)
    inventory = context.inventory()
    store = context.store(inventory)
    report = context.run(_reset(context, inventory, store, options, packages, lock_wait))
    context.output.result(report, lambda: show(context.output, report))
    if store.has_authority() and cleared(report, options):
        context.output.note(
            f"the cluster's CA with its key stays on this machine, in {store.folder}: nodes deployed anew from this inventory get their "
            f"certificates of it. If there will be none: rm -r {quote(str(store.folder))}"
        )
    return report.exit_code(detailed=False)


def cleared(report: Report, options: Options) -> bool:
    """Whether nothing is left on any host of the inventory, as far as this run saw."""
    return options.limit is None and not report.dry_run and all(host.status in ("changed", "unchanged") for host in report.hosts)


async def _reset(
    context: Context, inventory: Inventory, store: OperatorStore, options: Options, packages: bool, lock_wait: float
) -> Report:
    from contextlib import nullcontext

    from hmctl.actions.reset import Reset
    from hmctl.cli.deploy import show_plan
    from hmctl.remote.ssh import Connector

    with nullcontext() if options.dry_run else store.lock("reset"):
        connector = Connector(store.known_hosts, accept_new=options.yes, keep=not options.dry_run, limit=options.at_once)
        cluster = claim(context, f"reset --limit {options.limit}" if options.limit else "reset", lock_wait)
        reset = Reset(
            inventory=inventory,
            store=store,
            hosts=connector,
            output=context.output,
            options=options,
            packages=packages,
            show_plan=lambda steps: show_plan(context.output, steps, sign="-", result=False),
            claim=cluster,
        )
        try:
            async with cluster:
                return await reset.run()
        finally:
            await connector.close()


def show(output: Output, report: Report) -> None:
    from hmctl.cli.deploy import show_hosts, show_plan
    from hmctl.phases.base import Step

    if report.dry_run:
        steps = [Step(host.name, "", change) for host in report.hosts for change in host.changes]
        show_plan(output, steps, sign="-", result=True)
        if not steps:
            output.line("Nothing to remove.")
    show_hosts(output, report)
    for change in report.cluster_changes:
        output.line(change)
    if not report.dry_run:
        done = [host.name for host in report.hosts if host.status == "changed"]
        clean = [host.name for host in report.hosts if host.status == "unchanged"]
        if done:
            output.line(Styled("removed from ", "good"), listed(done), Styled(f"  ({duration(report.seconds)})", "dim"))
        if clean:
            output.line(f"nothing to remove from {listed(clean)}")
