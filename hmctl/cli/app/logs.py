"""hmctl app logs: what an app's replicas write, from all nodes as one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from hmcore.errors import HyperMeshError
from hmctl.cli.completing import app_targets
from hmctl.cli.context import Context, current
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import Via
from hmctl.output import Output
from hmctl.text import TINTS, Style, Styled
from hmctl.times import since_time

if TYPE_CHECKING:
    from hmctl.actions.node_logs import Line, Wanted

DEFAULT_TAIL = 100
FOLLOW_TAIL = 10
TIME_WIDTH = len("2026-11-22 08:00:00.000")


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `hmctl app logs -o json`. `time`: RFC 3339 in UTC, by the node's clock. `stream`: stdout or stderr."""

    time: str
    app: str
    service: str
    replica: str
    node: str
    container: str
    stream: str
    message: str


def logs(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="APP[/SERVICE[.INDEX|@NODE]]",
            help="An app, a service of it, one replica, or those on one node.",
            autocompletion=app_targets,
        ),
    ],
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on, with replicas that come too, until Ctrl-C.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only from then on: 10m, 2h, yesterday, 08:00, 2026-11-22 08:00.")
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail", "-n", min=0, metavar="N", help="The latest N lines of each replica.  [default: 100; with -f, 10; with --since, all]"
        ),
    ] = None,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> int:
    """Show what an app's replicas write, one service's, or one of them, merged by time and marked with the replica.

    A replica is SERVICE.INDEX; of a global service, SERVICE@NODE. What was removed is read for ten minutes more
    (the last 100 lines, while its agent runs).
    Exit code 3: some of it could not be read; 1: none, or there is no such replica.
    """
    from hmctl.actions.apps.target import target as meant
    from hmctl.actions.node_logs import Wanted

    context = current(ctx)
    chosen = meant(target)
    begin = None
    if since is not None:
        begin = since_time(since, datetime.now())  # of no zone: every date has this machine's offset of its own day
    elif tail is None:
        tail = FOLLOW_TAIL if following else DEFAULT_TAIL
    replica = "" if chosen.index is None else f"{chosen.service}.{chosen.index}"
    wanted = Wanted(chosen.app, chosen.service, begin, tail, chosen.node, chosen.index)
    reading = _logs(context, wanted, replica, following=following, via=via, timeout=timeout)
    return context.run_until_interrupted(reading) if following else context.run(reading)


async def _logs(context: Context, wanted: Wanted, replica: str, *, following: bool, via: Via, timeout: float | None) -> int:
    from hmctl.actions.agents import Agents
    from hmctl.actions.apps.logs import logs as read
    from hmctl.client import Access

    inventory = context.inventory(warn=False)
    if wanted.node:
        inventory.host(wanted.node)  # says so when there is none, before anybody is asked
    lines = _Lines(context.output, wanted.app, replica)

    def tell(node: str, said: HyperMeshError | str) -> None:
        where = f"{node}: " if node else ""
        if isinstance(said, HyperMeshError):
            context.output.warn(f"{where}{said.message}", fix=said.fix)
        else:
            context.output.note(f"{where}{said}")

    access = Access.of(context.store(inventory), via)
    async with Agents(inventory.hosts, access, via=via, timeout=timeout, standing=True) as agents:
        outcome = await read(agents, wanted, lines.show, tell, follow=following, begin=lines.begin)
    if outcome.absent is not None and not lines.any:
        raise outcome.absent
    return outcome.exit_code


class _Lines:
    """Lines marked with their replica, each in a colour of its own; of one `replica` alone, if it is named."""

    def __init__(self, output: Output, app: str, only: str) -> None:
        self._only = only
        self._output = output
        self._app = app
        self._width = 0
        self._tints: dict[str, Style] = {}
        self.any = False  # something was shown

    def begin(self, replicas: Sequence[str]) -> None:
        for replica in replicas:
            if self._only in ("", replica):
                self._know(replica)

    def _know(self, replica: str) -> Style:
        if replica not in self._tints:
            self._tints[replica] = TINTS[len(self._tints) % len(TINTS)]
            self._width = max(self._width, len(replica))
        return self._tints[replica]

    def show(self, line: Line) -> None:
        if self._only not in ("", line.replica):
            return
        self.any = True
        at = datetime.fromtimestamp(line.time // 1_000_000_000, UTC)
        view = LogView(
            time=f"{at:%Y-%m-%dT%H:%M:%S}.{line.time % 1_000_000_000:09}Z",
            app=self._app,
            service=line.service,
            replica=line.replica,
            node=line.node,
            container=line.container,
            stream="stderr" if line.error else "stdout",
            message=line.text,
        )
        tint = self._know(line.replica)
        when = Styled(f"{at.astimezone():%Y-%m-%d %H:%M:%S}.{line.time // 1_000_000 % 1000:03} ", "dim")
        self._output.item(view, when, Styled(f"{line.replica:<{self._width}} ", tint), line.text)
