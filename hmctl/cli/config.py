"""hmctl config: is the inventory valid, what does it come to, what would each node get. Touches no host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.completing import inventory_nodes
from hmctl.cli.context import Context, current, group
from hmctl.text import Styled, plural

if TYPE_CHECKING:
    from hmcore.errors import Problem
    from hmctl.output import Output

app = group("Validate, show and render the configuration; list the presets.")


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
    from hmcore.config import yaml12
    from hmctl.actions.explain import inventory_document

    context = current(ctx)
    document = inventory_document(context.inventory())
    context.output.result(document, lambda: context.output.line(yaml12.dump(document).rstrip("\n")))


@app.command()
def render(
    ctx: typer.Context,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="One node only.  [default: all]", autocompletion=inventory_nodes)
    ] = None,
) -> None:
    """Print the agent.yaml of NODE, or of every node, as deploy would write it."""
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
    from hmcore.config.presets import PRESETS
    from hmcore.config.settings import catalogue
    from hmctl.actions.explain import EFFECTS, UNUSED, preset_rows
    from hmctl.output import Column

    output = context.output
    for preset in PRESETS.values():
        output.line(Styled(f"{preset.name}: ", "strong"), preset.summary)
    output.line()
    output.table(["SETTING", *(Column(name.upper(), right=True) for name in PRESETS)], preset_rows())
    output.line(f"{UNUSED} not used by this release yet")
    if context.verbose:
        output.line()
        for setting in catalogue():
            later = "" if setting.used else " Not used by this release yet."
            text = f"{setting.description}{later} {EFFECTS[setting.effect]}"
            output.paragraph(Styled(f"{setting.path}: ", "strong"), text=text)
