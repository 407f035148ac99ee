"""hmctl app exec: a command in a replica, as if it ran here."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from hmcore.errors import UsageError
from hmctl.cli.completing import app_targets
from hmctl.cli.context import Context, current
from hmctl.cli.status import ViaOption
from hmctl.client import Via

if TYPE_CHECKING:
    from hmcore.apps.streams import ExecRequest
    from hmctl.actions.apps.target import Target
    from hmctl.terminal import Keyboard

STDIN, STDOUT, STDERR = 0, 1, 2
CONTEXT_SETTINGS = {"ignore_unknown_options": True, "allow_interspersed_args": False}
FLAGS = ("-t", "-T", "--tty", "--no-tty", "-i", "-I", "--stdin", "--no-stdin")
VALUED = ("-u", "--user", "--node", "--via")
LOOK = 5.0  # seconds for a node to answer: where the replica is, and that it is there


def exec_(
    ctx: typer.Context,
    replica: Annotated[
        str,
        typer.Argument(
            metavar="APP/SERVICE[.INDEX|@NODE]",
            help="A replica, by its number or its node; without either the first that runs.",
            autocompletion=app_targets,
        ),
    ],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="The command and its arguments, passed on as they are.")],
    tty: Annotated[
        bool | None, typer.Option("--tty/--no-tty", "-t/-T", help="Whether it has a terminal.  [default: if stdin and stdout are one]")
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin/--no-stdin", "-i/-I", help="Whether it gets our input.")] = True,
    node: Annotated[str, typer.Option(metavar="NODE", help="The replica on this node, as with APP/SERVICE@NODE.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", metavar="USER", help="As whom it runs.  [default: the container's user]")] = "",
    via: ViaOption = Via.AUTO,
) -> int:
    """Run a command in a replica. Its input, output and exit code are those of the command.

    On a terminal it has one, too, and gets every key; elsewhere stdout and stderr stay apart, and the first Ctrl-C is the command's.
    APP/SERVICE.INDEX is one replica; APP/SERVICE@NODE the one on that node, of a global service for instance.
    """
    from hmcore.apps.streams import ExecRequest
    from hmctl.actions.apps.target import replica_target
    from hmctl.terminal import size

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise UsageError("no command is named", fix=f"hmctl app exec {shlex.quote(replica)} -- CMD ...")
    if command[0] != "--" and command[0].startswith("-"):
        raise _misplaced(replica, command)
    has_tty = os.isatty(STDIN) and os.isatty(STDOUT) if tty is None else tty
    rows, columns = size(STDOUT) if has_tty else (0, 0)
    request = ExecRequest(
        allocation="",  # once it is known
        command=words,
        tty=has_tty,
        stdin=stdin,
        rows=rows,
        columns=columns,
        term=os.environ.get("TERM", "") if has_tty else "",
        user=user,
    )
    context = current(ctx)
    sys.stdout.flush()
    return context.run(_exec(context, replica_target(replica, node), request, via))


def _misplaced(replica: str, command: list[str]) -> UsageError:
    """An option where the command should be; the fix has it where it belongs, if it is ours."""
    option = command[0].partition("=")[0]
    ours = 1 if option in FLAGS or (option in VALUED and "=" in command[0]) else 2 if option in VALUED else 0
    if not ours:
        return UsageError(f"{command[0]} is no command", fix=f"hmctl app exec {shlex.quote(replica)} -- CMD ...")
    options, rest = command[:ours], command[ours:]
    rest = rest[1:] if rest[:1] == ["--"] else rest
    fix = f"hmctl app exec {shlex.join([*options, replica])} -- {shlex.join(rest) or 'CMD ...'}"
    return UsageError(f"{command[0]} is no command; options stand before the replica", fix=fix)


async def _exec(context: Context, wanted: Target, request: ExecRequest, via: Via) -> int:
    import msgspec

    from hmctl.actions.agents import Agents
    from hmctl.actions.apps.calls import read
    from hmctl.actions.apps.exec import chosen, run
    from hmctl.client import Access
    from hmctl.terminal import Keyboard, raw

    inventory = context.inventory(warn=False)
    if wanted.node:
        inventory.host(wanted.node)  # says so when there is none, before anybody is asked
    access = Access.of(context.store(inventory), via)
    async with Agents(inventory.hosts, access, via=via, timeout=LOOK, standing=True) as agents:
        allocation = chosen(await read(agents, wanted.app), wanted)
        host = inventory.host(allocation.node)
        asked = msgspec.structs.replace(request, allocation=allocation.id)
        here = _Console(Keyboard(STDIN))
        with raw(STDIN) if request.tty and os.isatty(STDIN) else nullcontext():
            return await agents.ask(host, lambda agent: run(agent, asked, here))


class _Console:
    """See apps_exec.Console: our own input and outputs."""

    def __init__(self, keyboard: Keyboard) -> None:
        self._keyboard = keyboard

    async def read(self) -> bytes:
        return await self._keyboard.read()

    async def write(self, data: bytes, *, error: bool) -> None:
        from hmctl.terminal import write

        await write(STDERR if error else STDOUT, data)

    def size(self) -> tuple[int, int]:
        from hmctl.terminal import size

        return size(STDOUT)
