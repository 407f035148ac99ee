"""hmctl flows: who talks to whom, as the kernel counted it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from hmcore.api import FLOWS, Empty, FlowsReply
from hmcore.errors import HyperMeshError
from hmctl.actions.flows import FlowList, FlowRate, FlowView, Problem, Sample, Sort, Wanted, by_size, exit_code, problems, rates, views
from hmctl.cli.completing import inventory_nodes
from hmctl.cli.containers import COUNTED, warn_of_unknown
from hmctl.cli.context import Context, current
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import AgentClient, Via
from hmctl.columns import Column
from hmctl.output import Output
from hmctl.text import Cell, Styled, plural, rate, size

DEFAULT_LIMIT = 50

NodesOption = Annotated[
    list[str] | None, typer.Option("--node", metavar="NODE", help="Only these nodes.", show_default=False, autocompletion=inventory_nodes)
]


def command(
    ctx: typer.Context,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Show what moves, in rates, until Ctrl-C.")] = False,
    nodes: NodesOption = None,
    container: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this container: NAME, NODE/NAME or an id; * and ? match.")
    ] = None,
    service: Annotated[str | None, typer.Option(metavar="NAME", help="Only containers of this service; * and ? match.")] = None,
    sort: Annotated[Sort, typer.Option(help="What the largest flow is, which comes first.")] = Sort.BYTES,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, metavar="N", help="At most so many flows (with -f: an interval); 0: all.")
    ] = DEFAULT_LIMIT,
    interval: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="With -f: how often.")] = 2.0,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> int:
    """Show who talks to whom: bytes, packets and connections of every container and peer, counted since the node started.

    IN and OUT are seen from the container.
    A narrow terminal is spared columns: SERVICE first, then PACKETS, PROTO and CONNECTIONS.
    Connections are those that peers opened and those that the container began, each once, answered or not.
    Exit code 3: a node could not be asked; 4: none could.
    """
    context = current(ctx)
    watch = _Watch(context, nodes or [], Wanted(container, service), sort, limit, via=via, timeout=timeout, following=following)
    return context.run_until_interrupted(watch.follow(interval)) if following else context.run(watch.once())


class _Watch:
    """One call of the command."""

    def __init__(
        self,
        context: Context,
        nodes: list[str],
        wanted: Wanted,
        sort: Sort,
        limit: int,
        *,
        via: Via,
        timeout: float | None,
        following: bool,
    ) -> None:
        from hmctl.actions.agents import Agents
        from hmctl.client import Access

        inventory = context.inventory(warn=False)
        hosts = [inventory.host(name) for name in dict.fromkeys(nodes)] or list(inventory.hosts)
        self._output = context.output
        self._agents = Agents(hosts, Access.of(context.store(inventory), via), via=via, timeout=timeout, standing=following)
        self._names = {host.address: host.name for host in inventory.hosts}
        self._wanted = wanted
        self._sort = sort
        self._limit = limit

    async def once(self) -> int:
        async with self._agents:
            answers = await self._agents.ask_all(_ask)
            found = by_size(filter(self._wanted, views(_replies(answers), self._names)), self._sort)
            shown = found[: self._limit or None]
            document = FlowList(flows=shown, omitted=len(found) - len(shown), problems=problems(answers))
            self._output.result(
                document, lambda: _show(self._output, document, self._wanted, answered=len(document.problems) < len(answers))
            )
            for problem in document.problems:
                _warn(self._output, problem)
            replies = _replies(answers)
            if self._wanted.container and not found and replies:
                told = {f"{node}/{name}" for node, reply in replies.items() for name in reply.names.values() if name != node}
                told |= {f"{flow.node}/{flow.container}" for flow in views(replies, self._names)}
                await warn_of_unknown(self._output, self._agents, self._wanted.container, told)
        return exit_code(len(answers), len(document.problems))

    async def follow(self, interval: float) -> int:
        clock = asyncio.get_running_loop().time
        samples: dict[str, Sample] = {}
        silent: dict[str, Problem] = {}
        async with self._agents:
            self._output.note(f"what moves, every {interval:g} s; Ctrl-C ends")
            while True:
                began = clock()
                answers = await self._agents.ask_all(_ask)
                at, time = clock(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
                silent = self._tell(silent, problems(answers))
                moved: list[FlowRate] = []
                for node, reply in _replies(answers).items():
                    sample = Sample.of(at, [flow for flow in views({node: reply}, self._names) if self._wanted(flow)])
                    if node in samples:
                        moved += rates(samples[node], sample, time)
                    samples[node] = sample
                self._show_rates(moved)
                await asyncio.sleep(max(0.0, interval - (clock() - began)))

    def _tell(self, before: dict[str, Problem], now: list[Problem]) -> dict[str, Problem]:
        """Says who fell silent and who is back, once."""
        for problem in now:
            if problem.node not in before:
                _warn(self._output, problem)
        after = {problem.node: problem for problem in now}
        for node in before.keys() - after.keys():
            self._output.note(f"{node} answers again")
        return after

    def _show_rates(self, moved: list[FlowRate]) -> None:
        moved.sort(key=lambda flow: (-_speed(flow, self._sort), flow.node, flow.container, flow.peer))
        shown = moved[: self._limit or None]
        width = max((len(f"{flow.node}/{flow.container}") for flow in shown), default=0)
        peers = max((len(flow.peer_name or flow.peer) for flow in shown), default=0)
        for flow in shown:
            self._output.item(flow, *_rate_line(flow, width, peers))
        if len(shown) < len(moved):
            self._output.note(f"{plural(len(moved) - len(shown), 'more flow')} moved; --limit 0 shows all")


async def _ask(agent: AgentClient) -> FlowsReply:
    return await agent.call(FLOWS, Empty())


def _replies(answers: dict[str, FlowsReply | HyperMeshError]) -> dict[str, FlowsReply]:
    return {name: answer for name, answer in answers.items() if isinstance(answer, FlowsReply)}


def _warn(output: Output, problem: Problem) -> None:
    output.warn(f"{problem.node}: {problem.error}", fix=problem.fix)


def _show(output: Output, found: FlowList, wanted: Wanted, *, answered: bool) -> None:
    if not found.flows:
        if answered:
            narrowed = wanted.container is not None or wanted.service is not None
            output.note("no flows: nothing that was asked for has talked yet" if narrowed else f"no flows yet; {COUNTED}")
        return
    columns: list[Column | str] = [
        "CONTAINER",
        Column("SERVICE", spared=4),
        "PEER",
        Column("PROTO", spared=2),
        Column("IN", right=True),
        Column("OUT", right=True),
        Column("PACKETS", right=True, spared=3),
        Column("CONNECTIONS", spared=1),
    ]
    output.table(columns, [_row(flow) for flow in found.flows])
    if found.omitted:
        output.note(f"{plural(found.omitted, 'more flow')}; --limit 0 shows all")


def _row(flow: FlowView) -> list[Cell]:
    return [
        f"{flow.node}/{flow.container}",
        flow.service,
        _peer(flow.peer, flow.peer_name),
        flow.protocol,
        size(flow.bytes_in),
        size(flow.bytes_out),
        str(flow.packets_in + flow.packets_out),
        _connections(flow),
    ]


def _peer(peer: str, name: str | None) -> Cell:
    return peer if name is None else Styled(name, "accent")


def _connections(flow: FlowView) -> Cell:
    counts = (("in", flow.connections_in), ("out", flow.connections_out))
    return " ".join(f"{count} {way}" for way, count in counts if count) or Styled("-", "dim")


def _speed(flow: FlowRate, sort: Sort) -> float:
    match sort:
        case Sort.BYTES:
            return flow.bytes_in_per_second + flow.bytes_out_per_second
        case Sort.PACKETS:
            return flow.packets_in_per_second + flow.packets_out_per_second
        case Sort.CONNECTIONS:
            return flow.connections_in_per_second + flow.connections_out_per_second


def _rate_line(flow: FlowRate, width: int, peers: int) -> list[Cell]:
    at = datetime.fromisoformat(flow.time).astimezone()
    connections = flow.connections_in_per_second + flow.connections_out_per_second
    peer = _peer(flow.peer, flow.peer_name)
    return [
        Styled(f"{at:%H:%M:%S}  ", "dim"),
        f"{flow.node}/{flow.container}".ljust(width) + "  ",
        peer,
        " " * (peers - len(flow.peer_name or flow.peer) + 2),
        f"{flow.protocol:<5}",
        f" in {rate(flow.bytes_in_per_second):>10}  out {rate(flow.bytes_out_per_second):>10}",
        Styled(f"  {connections:.1f} conn/s", "dim") if connections else "",
    ]
