"""hmctl logs: the agents' journals of all hosts as one, over SSH: it works where an agent does not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from hmcore.errors import HyperMeshError, UsageError
from hmctl.actions.journal import Entry, Request, follow, history
from hmctl.cli.completing import inventory_nodes
from hmctl.cli.context import Context, current
from hmctl.client import AT_ONCE
from hmctl.text import TINTS, Style, Styled
from hmctl.times import since_time

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

DEFAULT_TAIL = 100
FOLLOW_TAIL = 10
TIME_WIDTH = len("2026-11-22 08:00:00.000")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `hmctl logs -o json`. `time` is RFC 3339 in UTC; `priority` as in syslog."""

    time: str
    node: str
    priority: int
    message: str


def command(
    ctx: typer.Context,
    nodes: Annotated[
        list[str] | None, typer.Argument(metavar="NODE", help="Only these nodes.", show_default=False, autocompletion=inventory_nodes)
    ] = None,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the journals grow, until Ctrl-C.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only from then on: 10m, 2h, yesterday, 08:00, 2026-11-22 08:00.")
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail", "-n", min=0, metavar="N", help="The latest N lines of each node.  [default: 100; with -f, 10; with --since, all]"
        ),
    ] = None,
) -> int:
    """Show the agents' journals, merged by time and marked with their node."""
    context = current(ctx)
    begin = None
    if since is not None:  # a mistake in it is said before any host is asked
        begin = since_time(since, datetime.now())  # of no zone: every date has this machine's offset of its own day
    elif tail is None:
        tail = FOLLOW_TAIL if following else DEFAULT_TAIL
    logs = _logs(context, nodes or [], Request(begin, tail), following=following)
    return context.run_until_interrupted(logs) if following else context.run(logs)


def too_many(hosts: Sequence[Host], request: Request, *, following: bool) -> bool:
    """Whether not all hosts can have an SSH connection at once, so that they have to be read in turns. Raises UsageError when that is no
    way: their journals would have to be kept whole, or are to be followed."""
    bastions = {host.ssh.bastion for host in hosts if host.ssh.bastion}
    if len(hosts) + len(bastions) <= AT_ONCE:
        return False
    if following or request.tail is None:
        what = "follow" if following else "read all since then of"
        fix = "name fewer nodes" if following else "name fewer nodes, or say how many lines of each: --tail N"
        raise UsageError(f"no more than {AT_ONCE} SSH connections are open at once: too few to {what} {len(hosts)} nodes", fix=fix)
    return True


async def _logs(context: Context, nodes: list[str], request: Request, *, following: bool) -> int:
    from hmctl.remote.ssh import Connector

    inventory = context.inventory(warn=False)
    hosts = [inventory.host(name) for name in dict.fromkeys(nodes)] or list(inventory.hosts)
    output = context.output
    width = max(len(host.name) for host in hosts)
    tints = {host.name: TINTS[number % len(TINTS)] for number, host in enumerate(hosts)}
    cursors: dict[str, str] = {}
    failures: list[HyperMeshError] = []

    def show(entry: Entry) -> None:
        cursors[entry.node] = entry.cursor
        at = datetime.fromtimestamp(entry.time / 1e6, UTC)
        line = Line(time=f"{at:%Y-%m-%dT%H:%M:%S.%fZ}", node=entry.node, priority=entry.priority, message=entry.message)
        style: Style | None = "bad" if entry.priority <= 3 else "warning" if entry.priority == 4 else None
        when = Styled(f"{at.astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3] + " ", "dim")
        where = Styled(f"{entry.node:<{width}} ", tints[entry.node])
        message = entry.message.rstrip("\n").replace("\n", "\n" + " " * (TIME_WIDTH + width + 2))
        output.item(line, when, where, Styled(message, style))

    def lost(error: HyperMeshError) -> None:
        failures.append(error)
        output.error(error)

    many = too_many(hosts, request, following=following)
    connector = Connector(context.store(inventory).known_hosts, limit=AT_ONCE)
    try:
        await history(hosts, connector, request, show, lost, in_turns=many)
        if following:
            await follow(hosts, connector, cursors, show, lost, known=frozenset(error.host or "" for error in failures))
    finally:
        await connector.close()
    if not failures:
        return 0
    return 1 if len({error.host for error in failures}) >= len(hosts) else 3
