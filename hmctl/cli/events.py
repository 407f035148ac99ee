"""hmctl events: what happened, in the cluster and inside its containers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from hmcore.errors import HyperMeshError
from hmctl.actions.events import FAMILIES, LOST, NODE_KINDS, EventList, EventView, Happened, Wanted, asked_kinds, local_time, merged
from hmctl.actions.flows import Problem, exit_code
from hmctl.cli.completing import event_kinds
from hmctl.cli.containers import COUNTED, warn_of_unknown
from hmctl.cli.context import Context, current
from hmctl.cli.flows import NodesOption
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import Via
from hmctl.document import Format
from hmctl.output import Output
from hmctl.text import Cell, Style, Styled
from hmctl.times import since_time

DEFAULT_LIMIT = 100
FOLLOW_LIMIT = 10
KIND_WIDTH = 4  # of those that are many; the others may stand out, for a column that is wide enough for them costs every line its end
STYLES: dict[str, Style] = {
    "node.down": "bad",
    "node.suspect": "warning",
    "node.ready": "good",
    "check.failed": "bad",
    LOST: "warning",
    "exec": "tint0",
    "tcp": "tint2",
}


def command(
    ctx: typer.Context,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on as things happen, until Ctrl-C.")] = False,
    nodes: NodesOption = None,
    container: Annotated[str, typer.Option(metavar="NAME", help="Only this container: NAME, NODE/NAME or an id.")] = "",
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help=f"Only {', '.join([*NODE_KINDS, *FAMILIES])}, or one such as node.down; several: with commas, or again.",
            autocompletion=event_kinds,
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only from then on: 10m, 2h, yesterday, 08:00, 2026-11-22 08:00.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=0, metavar="N", help="The latest N; 0: all, with -f none.  [default: 100; with -f, 10; with --since, all]"
        ),
    ] = None,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> int:
    """Show what happened: nodes that came and went, changes by operators, programs and connections in containers.

    Of connections only how they began and ended, and of what happened in containers at most half as many lines as there may be, while the
    cluster has others to tell: unless with --kind, --verbose or -o json.
    Exit code 3: a node could not be asked; 4: none could.
    """
    context = current(ctx)
    now = datetime.now()  # of no zone: every date has this machine's offset of its own day
    wanted = Wanted(
        frozenset(nodes or ()),
        container,
        asked_kinds(kinds or ()),
        since_time(since, now) if since is not None else None,
        brief=not kinds and not context.verbose and context.output.format is Format.TABLE,
    )
    if limit is None and since is None:
        limit = FOLLOW_LIMIT if following else DEFAULT_LIMIT
    if limit == 0 and not following:
        limit = None
    events = _events(context, wanted, limit, following=following, via=via, timeout=timeout)
    return context.run_until_interrupted(events) if following else context.run(events)


async def _events(context: Context, wanted: Wanted, limit: int | None, *, following: bool, via: Via, timeout: float | None) -> int:
    from hmctl.actions.agents import Agents
    from hmctl.actions.following import follow, history
    from hmctl.client import Access

    inventory = context.inventory(warn=False)
    for name in wanted.nodes:
        inventory.host(name)  # says so when there is none, before anybody is asked
    output = context.output

    def tell(node: str, said: HyperMeshError | str) -> None:
        where = f"{node}: " if node else ""
        if isinstance(said, HyperMeshError):
            output.warn(f"{where}{said.message}", fix=said.fix)
        else:
            output.note(f"{where}{said}")

    access = Access.of(context.store(inventory), via)
    async with Agents(inventory.hosts, access, via=via, timeout=timeout, standing=following) as agents:
        begun = await history(agents, wanted, limit)
        found = merged(begun.found, limit, fairly=wanted.brief)
        if not following:
            said = [Problem(node=name, error=error.message, fix=error.fix) for name, error in begun.failures.items()]
            document = EventList(events=[event.view for event in found], problems=said)
            output.result(document, lambda: _show(output, found, wanted, answered=begun.answered))
        for name, error in begun.failures.items():
            tell(name, error)
        if wanted.container and not found and begun.answered:
            await warn_of_unknown(output, agents, wanted.container)
        if following:
            shown = _Lines(output)
            shown.history(found)
            await follow(agents, wanted, begun, shown.show, tell)
    return 3 if begun.failures and begun.answered else exit_code(begun.asked, len(begun.failures))


def _show(output: Output, found: Sequence[Happened], wanted: Wanted, *, answered: bool) -> None:
    if not found and answered:
        narrowed = wanted.nodes or wanted.container or wanted.kinds or wanted.since is not None
        output.note(
            "no events: nothing that was asked for has happened, or is still remembered" if narrowed else f"no events yet; {COUNTED}"
        )
    _Lines(output).history(found)


class _Lines:
    """Events as lines whose columns stay where they are, as far as can be told ahead."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._when = self._where = 0

    def history(self, found: Sequence[Happened]) -> None:
        now = datetime.now().astimezone()
        for event in found:
            self._widen(event.view, now)
        for event in found:
            self.show(event)

    def show(self, event: Happened) -> None:
        now = datetime.now().astimezone()
        self._widen(event.view, now)
        view = event.view
        self._output.item(view, *self._head(view, now), *_tail(view))

    def _widen(self, view: EventView, now: datetime) -> None:
        self._when = max(self._when, len(local_time(view.time, now)))
        self._where = max(self._where, len(_where(view)))

    def _head(self, view: EventView, now: datetime) -> list[Cell]:
        return [
            Styled(f"{local_time(view.time, now):>{self._when}}  ", "dim"),
            f"{_where(view):<{self._where}}  ",
            Styled(f"{view.kind:<{KIND_WIDTH}}", STYLES.get(view.kind)),
        ]


def _where(view: EventView) -> str:
    if view.node is None:
        return view.subject or "-"
    return f"{view.node}/{view.container}" if view.container else view.node


def _tail(view: EventView) -> list[Cell]:
    """The message, without what the columns before it say already."""
    text = view.message.removeprefix(f"{view.kind} ")
    message: list[Cell] = ["  ", Styled(text, "warning") if view.kind == LOST else text] if text else []
    return [*message, Styled(f"  by {view.author}", "dim")] if view.author else message
