"""hmctl deploy: install, start and join the nodes; run again to apply changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.claiming import LockWait, claim
from hmctl.cli.context import Context, current
from hmctl.output import FEW
from hmctl.text import Styled, duration, listed, plural

if TYPE_CHECKING:
    from hmctl.actions.report import Report
    from hmctl.output import Output
    from hmctl.phases.base import Step


def command(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change on each host, and change nothing.")] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="With --dry-run: exit 10 when changes are pending.")
    ] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", "-l", metavar="GLOB", help="Only hosts whose names match, e.g. 'node1' or 'web-*,db-*'. May be repeated."),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Do not ask. SSH keys of new hosts are accepted; and pinned, unless --dry-run."),
    ] = False,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=500, metavar="N", help="Hosts worked on, and SSH connections open, at the same time.")
    ] = 32,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0.1, metavar="SECONDS", help="How long the cluster may take to be healthy.  [default: the preset's]"),
    ] = None,
    lock_wait: LockWait = 0.0,
    timings: Annotated[bool, typer.Option("--timings", help="Show where the time went.")] = False,
) -> int:
    """Install, start and join the nodes of the inventory; run again to apply what has changed since.

    Shows its plan and asks first. Exit code 0: healthy; 1: failed; 3: partly done, with the hosts named; 10: see --detailed-exitcode.
    """
    from hmctl.actions.hosts import Options, union

    context = current(ctx)
    options = Options(limit=union(limit), dry_run=dry_run, yes=yes, at_once=concurrency, timeout=timeout)
    report = context.run(_deploy(context, options, lock_wait))
    context.output.result(report, lambda: show(context.output, report, timings=timings))
    return report.exit_code(detailed=detailed_exitcode)


async def _deploy(context: Context, options: object, lock_wait: float) -> Report:
    from contextlib import nullcontext

    from hmctl.actions.deploy import Deploy
    from hmctl.actions.hosts import Options
    from hmctl.bundle.store import ReleaseStore
    from hmctl.client import Access
    from hmctl.phases.agents import LiveAgents
    from hmctl.remote.ssh import Connector

    assert isinstance(options, Options)
    inventory = context.inventory()
    store = context.store(inventory)
    with nullcontext() if options.dry_run else store.lock("deploy"):
        connector = Connector(store.known_hosts, accept_new=options.yes, keep=not options.dry_run, limit=options.at_once)
        doing = f"deploy --limit {options.limit}" if options.limit else "deploy"
        cluster = claim(context, doing, lock_wait)
        deploy = Deploy(
            inventory=inventory,
            store=store,
            hosts=connector,
            releases=ReleaseStore.open(context.environ),
            agents=lambda store, remotes: LiveAgents(Access.of(store), remotes, options.at_once),
            output=context.output,
            options=options,
            show_plan=lambda steps: show_plan(context.output, steps),
            claim=cluster,
        )
        try:
            async with cluster:
                report = await deploy.run()
        except asyncio.CancelledError:
            context.output.note(after_interruption(context.inventory_path, begun=deploy.begun))
            raise
        finally:
            await connector.close()
        kept = "accepted for this run only, as a dry run keeps nothing" if options.dry_run else "pinned"
        met = connector.met if len(connector.met) <= FEW or context.verbose else []
        for contact in met:
            context.output.note(f"first contact with {contact.place}: its SSH host key {contact.fingerprint} was {kept}")
        if connector.met and not met:
            where = "" if options.dry_run else f" in {store.known_hosts}"
            context.output.note(f"first contact with {len(connector.met)} hosts: their SSH host keys were {kept}{where} (-v lists them)")
    return report


def after_interruption(inventory: str | None, *, begun: bool) -> str:
    """What to do after a Ctrl-C. `inventory` is what -i named, if anything."""
    if not begun:
        return "nothing was changed"
    command = f"hmctl -i {quote(inventory)} deploy" if inventory else "hmctl deploy"
    return f"Run `{command}` again: it finishes what was begun, or takes it back."


def show_plan(output: Output, steps: Sequence[Step], *, sign: str = "+", result: bool = False) -> None:
    """The plan, hosts with the same steps together; as the command's result, or on the way to it."""
    write = output.line if result else output.note
    changes: dict[str | None, list[str]] = {}
    for step in steps:
        changes.setdefault(step.host, []).append(step.change)
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, found in changes.items():
        if host is not None:
            groups.setdefault(tuple(found), []).append(host)
    for found_once, hosts in groups.items():
        names = ", ".join(hosts) if len(hosts) <= FEW or output.verbose else f"{len(hosts)} hosts: {listed(hosts)}"
        write(Styled(names, "strong"))
        for change in found_once:
            write(Styled(f"  {sign} ", "good" if sign == "+" else "bad"), change)
    for change in changes.get(None, []):
        write(Styled("cluster", "strong"))
        write(Styled(f"  {sign} ", "good" if sign == "+" else "bad"), change)


def show(output: Output, report: Report, *, timings: bool) -> None:
    """What happened, or would: problems first, then one line that sums it up."""
    _show_checks(output, report)
    if report.dry_run and report.error is None:
        _show_dry_run(output, report)
    show_hosts(output, report)
    for problem in report.problems:
        output.warn(problem)
    if report.error is not None:
        output.line(Styled("failed: ", "bad"), report.error)
        if report.fix:
            output.line(Styled("  fix: ", "accent"), report.fix)
    elif not report.dry_run:
        output.line(*_summary(report))
    if timings:
        output.line()
        rows = [(row.phase, duration(row.seconds), row.slowest, duration(row.slowest_seconds)) for row in report.timings]
        output.table(["PHASE", "TIME", "SLOWEST", "TIME"], rows)


def _show_checks(output: Output, report: Report) -> None:
    for check in report.checks:
        where = f"{check.host}: " if check.host else ""
        if check.status == "error":
            output.line(Styled("✗ ", "bad"), f"{where}{check.message}")
            if check.fix:
                output.line(Styled("    fix: ", "accent"), check.fix)
        elif check.status == "warn":
            output.warn(f"{where}{check.message}", fix=check.fix)
        elif output.verbose:
            output.note(Styled("✓ ", "good"), f"{where}{check.name}: {check.message}")


def _show_dry_run(output: Output, report: Report) -> None:
    from hmctl.phases.base import Step

    steps = [Step(host.name, "", change) for host in report.hosts if host.status == "planned" for change in host.changes]
    steps += [Step(None, "", change) for change in report.cluster_changes]
    show_plan(output, steps, result=True)
    unchanged = [host.name for host in report.hosts if host.status == "unchanged"]
    if not steps and len(unchanged) == len(report.hosts):
        output.line(Styled("No changes.", "good"))
    elif unchanged:  # of the others, the plan or their failure is said
        output.line(f"{listed(unchanged)}: no changes")


def show_hosts(output: Output, report: Report) -> None:
    for host in report.hosts:
        for warning in host.warnings:
            output.warn(f"{host.name}: {warning}")
        if host.status in ("failed", "unreachable"):
            output.line(Styled(f"✗ {host.name}: ", "bad"), host.error or host.status)
            if host.fix:
                output.line(Styled("    fix: ", "accent"), host.fix)


def _summary(report: Report) -> list[Styled | str]:
    well = [host.name for host in report.hosts if host.status in ("changed", "unchanged")]
    lost = [host.name for host in report.hosts if host.status in ("failed", "unreachable")]
    changed = [host.name for host in report.hosts if host.status == "changed"]
    what = f"{plural(len(changed), 'host')} changed" if changed else "No changes"
    sick = len({problem.partition(":")[0] for problem in report.problems})
    health = f"healthy, leader {report.leader}"
    parts: list[Styled | str] = [Styled(f"{report.cluster}: ", "strong"), Styled(what, "good" if changed else "dim")]
    count = plural(len(well), "node") if report.healthy else f"{len(well) - sick} of {plural(len(well), 'node')}"
    parts += [f"; {count} ", Styled(health, "good" if report.healthy else "warning")]
    if lost:
        parts.append(Styled(f"; left out: {listed(lost)}", "bad"))
    parts.append(Styled(f"  ({duration(report.seconds)})", "dim"))
    return parts
