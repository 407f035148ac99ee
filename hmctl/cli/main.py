"""hmctl's front door: global options, the table of commands, and what an exception becomes.

A command's module is imported only when it is called, so that `hmctl --help` answers at once (docs/adr/0005).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hmcore.errors import UsageError
from hmctl.cli.context import EPILOG, Context, group
from hmctl.cli.repeats import refusing_repeats
from hmctl.document import Format
from hmctl.failure import exit_code, is_broken_pipe, is_expected, surroundings
from hmctl.output import Output

PROGRAM = "hmctl"
INTERRUPTED = 130
COMPLETING = "_HMCTL_COMPLETE"  # set by the script that `hmctl completion` prints


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: its module is hmctl.cli.<name>. `verbatim`: its subcommand after which every word belongs to another program."""

    name: str
    panel: str
    help: str
    verbatim: str | None = None
    hidden: bool = False


COMMANDS = (
    Entry("lab", "Getting started", "Real test hosts on this machine: up, down, ls, exec, kill, partition", verbatim="exec"),
    Entry("init", "Getting started", "Write cluster.yaml for hosts that you reach over SSH"),
    Entry("deploy", "Getting started", "Install, start and join the nodes; run again to apply changes"),
    Entry("status", "Nodes & cluster", "Is the cluster healthy? Verdict, checks with their fix, nodes"),
    Entry("node", "Nodes & cluster", "List nodes, look into one: components, start-up, peers"),
    Entry("health", "Nodes & cluster", "Health score and the checks behind it; mute a check"),
    Entry("service", "Nodes & cluster", "Services and who gets the next call; out of traffic and back"),
    Entry("logs", "Nodes & cluster", "The agents' journals, merged by time; -f follows"),
    Entry("events", "Nodes & cluster", "What happened: nodes, changes, programs and connections; -f follows"),
    Entry("flows", "Nodes & cluster", "Who talks to whom: bytes, packets, connections; -f shows rates"),
    Entry("kv", "Nodes & cluster", "Values under keys: put, get, list, remove; watch them change"),
    Entry("app", "Apps", "Compose files as apps: deploy, list, scale, logs, exec, explain", verbatim="exec"),
    Entry("image", "Apps", "Images without a registry: push, list, remove"),
    Entry("secret", "Apps", "Secrets and configs of apps, credentials for registries: set, ls, rm"),
    Entry("config", "Operations", "Validate and show; compare with a running cluster, and apply"),
    Entry("lock", "Operations", "Who holds the cluster's locks; end one whose holder cannot"),
    Entry("raft", "Operations", "The voters: list, add, remove; let another lead; re-seed one"),
    Entry("ca", "Operations", "The certificate authority: show, carry over, issue for viewers"),
    Entry("bundle", "Operations", "Build agent releases ahead, for operators without internet"),
    Entry("reset", "Operations", "Remove everything that deploy put on the hosts"),
    Entry("completion", "Operations", "Print the completion script of your shell"),
)


class LazyGroup(TyperGroup):
    """The root command. Knows its subcommands by the table above, and imports one when it is asked for."""

    def make_parser(self, ctx: Any) -> Any:
        return refusing_repeats(super().make_parser(ctx), ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        return [entry.name for entry in COMMANDS if not entry.hidden]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands and any(entry.name == cmd_name for entry in COMMANDS):
            self.commands[cmd_name] = load(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from difflib import get_close_matches

        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            raise UsageError(f"no such command: {args[0]}", fix=f"did you mean {near[0]}?" if near else f"{PROGRAM} --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for panel in dict.fromkeys(entry.panel for entry in COMMANDS):
            with formatter.section(panel):
                formatter.write_dl([(entry.name, entry.help) for entry in COMMANDS if entry.panel == panel and not entry.hidden])

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        from typer._click.shell_completion import CompletionItem  # typer has no public name for it

        found = [CompletionItem(entry.name, help=entry.help) for entry in COMMANDS if entry.name.startswith(incomplete)]
        return found if found or not incomplete.startswith("-") else super().shell_complete(ctx, incomplete)


def load(name: str) -> Any:
    """The command `name` as typer builds it from its module."""
    module = import_module(f"hmctl.cli.{name}")
    if hasattr(module, "app"):
        app = module.app
    else:
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(name, epilog=EPILOG, context_settings=getattr(module, "CONTEXT_SETTINGS", None))(module.command)
    command = typer.main.get_command(app)
    for each in (command, *getattr(command, "commands", {}).values()):
        each.make_parser = partial(_careful_parser, each.make_parser)
        for argument in (one for one in each.params if one.param_type_name == "argument" and one.metavar):
            argument._usage_display_name = partial(str, argument.metavar)  # which typer would put in brackets of its own
    for inner in getattr(command, "commands", {}).values():
        inner.epilog = inner.epilog or EPILOG
        inner.short_help = inner.help.partition(".")[0]  # whole, where the parser would cut it to fit one line
    return command


def _careful_parser(make: Callable[[Any], Any], ctx: Any) -> Any:
    return refusing_repeats(make(ctx), ctx)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hmctl {version('hypermesh')}")
        raise typer.Exit


def root(
    ctx: typer.Context,
    inventory: Annotated[
        str | None,
        typer.Option(
            "--inventory", "-i", metavar="FILE", help="The inventory; - is stdin.  [default: $HMCTL_INVENTORY, then cluster.yaml]"
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How results are printed.")] = Format.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more; errors with their traceback.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Turn plain Linux machines into one container cluster, and keep it healthy.

    The options below may stand before or after the command.
    """
    _quieten_libraries(verbose)
    ctx.obj = Context(
        inventory_path=inventory,
        output=Output(format=output, quiet=quiet, verbose=verbose),
        verbose=verbose,
        environ=os.environ,
    )


def hoist(argv: Sequence[str]) -> list[str]:
    """`argv` with the global options moved to the front, where the parser wants them: people type `hmctl status -o json`.

    Nothing after `--`, nor after the node of `lab exec NODE ...`, is touched: it belongs to another program.
    """
    taken: list[str] = []
    kept: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--" or (len(kept) > 2 and _is_verbatim(kept)):
            return [*taken, *kept, word, *words]
        name, has_value, _ = word.partition("=")
        if word in _FLAGS or (has_value and name in _VALUED and name.startswith("--")):
            taken.append(word)
        elif word in _VALUED:
            taken += [word, words.pop(0)] if words else [word]
        elif word[:2] in _VALUED and not word.startswith("--"):  # -ojson
            taken.append(word)
        else:
            kept.append(word)
    return [*taken, *kept]


_FLAGS = frozenset({"--quiet", "-q", "--verbose", "-v"})
_VALUED = frozenset({"--inventory", "-i", "--output", "-o"})


def _is_verbatim(words: Sequence[str]) -> bool:
    return any(entry.name == words[0] and entry.verbatim == words[1] for entry in COMMANDS)


def _quieten_libraries(verbose: bool) -> None:
    """Libraries log to nobody, unless --verbose: what matters reaches the operator as an error with its fix."""
    import logging

    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
        logging.getLogger("quic").setLevel(logging.WARNING)  # aioquic's own traces of every connection: nobody asked for those
    else:
        logging.getLogger().addHandler(logging.NullHandler())


def run(argv: Sequence[str]) -> int:
    """Runs hmctl with `argv` (without the program's name) and gives its exit code (design section 10)."""
    app = group(root.__doc__ or "")
    app.callback(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, subcommand_metavar="COMMAND ...")(root)
    words = hoist(argv)
    if COMPLETING in os.environ:
        from typer._completion_classes import completion_init  # typer calls it for apps that have its own --install-completion

        completion_init()
    try:
        answer = typer.main.get_command(app).main(words, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()  # where it is a full disk or a reader that left, that shows here
    except typer.TyperException as error:  # usage: the parser's own words
        return _misused(error)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except Exception as error:  # noqa: BLE001  the one boundary: said, never swallowed
        return _failed(error, words)
    if answer == INTERRUPTED:
        return _interrupted()
    return answer if isinstance(answer, int) else 0


def _misused(error: Any) -> int:
    if getattr(type(error), "show", None) is typer.BadParameter.show:  # others show a help text, or nothing
        from hmctl.cli.usage import misuse

        Output().error(misuse(error))
    elif hasattr(error, "show"):
        error.show()
    return int(error.exit_code)


def _failed(error: Exception, words: Sequence[str]) -> int:
    if is_broken_pipe(error):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more when it ends
        return 1
    output = Output()
    if (condition := surroundings(error)) is not None:
        with suppress(OSError):  # what could not be written would be tried, and complained about, once more when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        output.error(condition)
        return exit_code(condition)
    output.error(error)
    if not is_expected(error):
        if {"--verbose", "-v"} & set(words):
            import traceback

            sys.stderr.write("".join(traceback.format_exception(error)))
        else:
            output.note(f"  fix: this is a mistake in {PROGRAM} itself; see where with --verbose, and please report it")
    return exit_code(error)


def _interrupted() -> int:
    Output().note("interrupted")
    return INTERRUPTED
