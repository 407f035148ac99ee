"""hmctl config: is the inventory valid, what does it come to, what would each node get; what do they run with, and change that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.claiming import LockWait, claim
from hmctl.cli.completing import inventory_nodes
from hmctl.cli.context import Context, current, group
from hmctl.text import Styled, plural

if TYPE_CHECKING:
    from hmcore.errors import Problem
    from hmctl.actions.config_apply import ConfigApply, Options
    from hmctl.actions.config_diff import ConfigDiff
    from hmctl.actions.config_report import ConfigReport
    from hmctl.output import Output

Limit = Annotated[
    list[str] | None,
    typer.Option("--limit", "-l", metavar="GLOB", help="Only nodes whose names match, e.g. 'node1' or 'web-*'. May be repeated."),
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=500, metavar="N", help="Hosts asked at the same time.")]

app = group("Validate, show and render the configuration; compare it with a running cluster, and change that; list the presets.")


@app.command()
def validate(ctx: typer.Context) -> int:
    """Check the inventory and report every mistake at once. Exit code 2 when there is one; warnings do not count."""
    from hmcore.config.inventory import load_inventory
    from hmcore.errors import ConfigError
    from hmctl.actions.explain import problems_document

    context = current(ctx)
    file = context.inventory_file()
    try:
        inventory, problems = load_inventory(file, context.environ)
    except ConfigError as error:
        found, said, code = error.problems, "", error.exit_code
    else:
        hosts = f"{plural(len(inventory.hosts), 'host')}, {len(inventory.control_hosts)} of them control nodes"
        found, said, code = problems, f"{inventory.file} is valid: {hosts}, preset {inventory.preset}", 0
    context.output.result(problems_document(file, found), lambda: _show_problems(context.output, found, said))
    return code


def _show_problems(output: Output, problems: tuple[Problem, ...], said: str) -> None:
    for problem in problems:
        output.line(Styled("warning: ", "warning") if problem.warning else Styled("error: ", "bad"), str(problem))
    mistakes = sum(not problem.warning for problem in problems)
    output.line(Styled(plural(mistakes, "mistake"), "bad") if mistakes else Styled(said, "good"))


@app.command()
def show(ctx: typer.Context) -> None:
    """Print the inventory as resolved: presets, defaults, ranges, variables and paths applied; passwords hidden."""
    from hmcore.config import yaml_writing
    from hmctl.actions.explain import inventory_document

    context = current(ctx)
    document = inventory_document(context.inventory())
    context.output.result(document, lambda: context.output.line(yaml_writing.dump(document).rstrip("\n")))


@app.command()
def render(
    ctx: typer.Context,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="One node only.  [default: all]", autocompletion=inventory_nodes)
    ] = None,
) -> None:
    """Print the file that deploy would write on NODE, or on every node, for its agent."""
    from hmcore.config.agent import agent_config_for, agent_document
    from hmctl.render import Renderer

    context = current(ctx)
    inventory = context.inventory()
    bootstrap = context.store(inventory).known_bootstrap or "made-when-deployed"
    hosts = inventory.hosts if node is None else (inventory.host(node),)
    configs = [agent_config_for(inventory, host, bootstrap) for host in hosts]
    texts = [Renderer().agent_yaml(config).decode().rstrip("\n") for config in configs]
    document = {config.node: agent_document(config) for config in configs}
    context.output.result(document, lambda: context.output.line("\n---\n".join(texts)))


@app.command()
def presets(ctx: typer.Context) -> None:
    """List the presets with every setting. What each setting trades is said with --verbose."""
    from hmctl.actions.explain import presets_document

    context = current(ctx)
    context.output.result(presets_document(), lambda: _show_presets(context))


def _show_presets(context: Context) -> None:
    from hmcore.config.catalogue import catalogue
    from hmcore.config.presets import PRESETS
    from hmctl.actions.explain import EFFECTS, preset_rows
    from hmctl.columns import abreast

    output, settings = context.output, list(catalogue())
    for preset in PRESETS.values():
        output.paragraph(Styled(f"{preset.name}: ", "strong"), text=preset.summary)
    output.line()
    for number, (columns, rows) in enumerate(abreast(["SETTING", *map(str.upper, PRESETS)], preset_rows(), output.width)):
        if number:
            output.line()
        output.table(columns, rows)
    if context.verbose:
        output.line()
        for setting in settings:
            text = f"{setting.description} {EFFECTS[setting.effect]}"
            output.paragraph(Styled(f"{setting.path}: ", "strong"), text=text)


@app.command()
def diff(
    ctx: typer.Context,
    limit: Limit = None,
    detailed_exitcode: Annotated[bool, typer.Option("--detailed-exitcode", help="Exit 10 when something differs.")] = False,
    concurrency: Concurrency = 32,
) -> int:
    """Compare the nodes with what the inventory says. Changes nothing.

    Reads every node's file over SSH; shows what was changed by hand, too. Exit code 3: a node could not be read.
    """
    from hmctl.actions.config_apply import Options
    from hmctl.actions.hosts import union
    from hmctl.cli.config_words import show_diff

    context = current(ctx)
    found = context.run(_diff(context, Options(limit=union(limit), at_once=concurrency)))
    context.output.result(found, lambda: show_diff(context.output, found))
    return found.exit_code(detailed=detailed_exitcode)


@app.command()
def apply(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, have it checked, and change nothing.")] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="With --dry-run: exit 10 when changes are pending.")
    ] = False,
    limit: Limit = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    skip_unreachable: Annotated[
        bool, typer.Option("--skip-unreachable", help="Leave out nodes that are down, instead of refusing. Exit code 3.")
    ] = False,
    concurrency: Concurrency = 32,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0.1, metavar="SECONDS", help="How long a node may take to be healthy.  [default: the preset's]"),
    ] = None,
    lock_wait: LockWait = 0.0,
) -> int:
    """Change the settings of a running cluster: agents are restarted one by one, containers go on running.

    If a node does not come back healthy, everything is taken back. Exit code 1: failed, or taken back; 3: a node was left out.
    """
    from hmctl.actions.config_apply import Options
    from hmctl.actions.hosts import union
    from hmctl.cli.config_words import planned_changes, show_report

    context = current(ctx)
    options = Options(union(limit), dry_run, yes, concurrency, timeout, skip_unreachable)
    plans: list[tuple[ConfigDiff, Sequence[str]]] = []
    report = context.run(_apply(context, options, lock_wait, lambda diff, order: plans.append((diff, order))))

    def shown() -> None:
        for diff, order in plans:
            planned_changes(context.output, diff, order)
        show_report(context.output, report)

    context.output.result(report, shown)
    return report.exit_code(detailed=detailed_exitcode)


async def _diff(context: Context, options: Options) -> ConfigDiff:
    async with _opened(context, options) as action:
        return await action.diff()


async def _apply(
    context: Context, options: Options, lock_wait: float, planned: Callable[[ConfigDiff, Sequence[str]], None] | None = None
) -> ConfigReport:
    """`planned` hears of the plan of a dry run, whose result it is."""
    from contextlib import nullcontext

    from hmctl.cli.config_words import show_report

    store = context.store(context.inventory(warn=False))
    with nullcontext() if options.dry_run else store.lock("config apply"):
        async with _opened(context, options) as action:
            if options.dry_run and planned is not None:
                action.show_plan = planned
            action.claim = claim(context, "config apply", lock_wait)
            try:
                async with action.claim:
                    return await action.apply()
            except asyncio.CancelledError:
                if (report := action.interrupted) is not None:
                    context.output.result(report, lambda: show_report(context.output, report))
                else:
                    context.output.note("nothing was changed")
                raise


@asynccontextmanager
async def _opened(context: Context, options: Options) -> AsyncIterator[ConfigApply]:
    from hmctl.actions.config_apply import ConfigApply
    from hmctl.cli.config_words import show_plan
    from hmctl.client import Access
    from hmctl.phases.agents import LiveAgents
    from hmctl.remote.ssh import Connector

    inventory = context.inventory()
    store = context.store(inventory)
    connector = Connector(store.known_hosts, accept_new=options.yes, keep=options.yes and not options.dry_run, limit=options.at_once)
    try:
        yield ConfigApply(
            inventory=inventory,
            store=store,
            hosts=connector,
            agents=lambda store, remotes: LiveAgents(Access.of(store), remotes, options.at_once),
            output=context.output,
            options=options,
            show_plan=lambda diff, order: show_plan(context.output, diff, order),
        )
    finally:
        await connector.close()
