"""Asks the nodes for their events and one of them for the cluster's, once and then on and on, across restarts of agents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from hmcore.api import EVENTS, STATE, EventsReply, EventsRequest, StateReply, StateRequest
from hmcore.errors import CallRefused, HyperMeshError
from hmcore.records import Role
from hmctl.actions.agents import Agents
from hmctl.actions.events import Happened, Wanted, lost, of_cluster, of_node
from hmctl.actions.journal import HOLD, QUEUED, Window

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmctl.client import AgentClient

PAGE = 1000
PAGES = 20  # more than a node keeps
WAIT = 20.0  # seconds that a node holds our question back while nothing happens
ANSWER = 5.0  # and what it may take beyond that
RETRY = 1.0  # seconds between attempts to reach a node that was lost
EVERY = 1.0  # seconds between looks at the cluster's state: the answer is short while nothing was applied
SOON = 0.5  # seconds: an empty answer that comes earlier means that the node has no room for another one who waits

Show = Callable[[Happened], None]
Tell = Callable[[str, HyperMeshError | str], None]


@dataclass(slots=True)
class Position:
    """How far one node's events have been read."""

    last: int
    journal: int


@dataclass(slots=True)
class History:
    """What was found. `positions` and `index` are where following goes on; a node that failed is in `failures`."""

    found: list[list[Happened]] = field(default_factory=list)
    failures: dict[str, HyperMeshError] = field(default_factory=dict)
    asked: int = 0
    positions: dict[str, Position] = field(default_factory=dict)
    state: StateReply | None = None

    @property
    def answered(self) -> bool:
        """Whether anybody told anything: a node without eBPF may still tell of the cluster."""
        return self.state is not None or bool(self.positions)


async def history(agents: Agents, wanted: Wanted, limit: int | None) -> History:
    """Everything since `wanted.since` that is kept, or the latest `limit` events of each source."""
    chosen = {host.name for host in agents.hosts if wanted.asks(host.name)}
    deciders = {host.name for host in agents.hosts if wanted.of_cluster and host.role is Role.CONTROL}
    asked = [host for host in agents.hosts if host.name in chosen | deciders]

    async def question(agent: AgentClient) -> tuple[StateReply | None, list[EventsReply], HyperMeshError | None]:
        state = await agent.state() if agent.name in deciders else None
        try:
            return state, await _pages(agent, wanted, limit) if agent.name in chosen else [], None
        except CallRefused as error:
            return state, [], error

    answers = await agents.ask_all(question, asked)
    done = History(asked=len(asked))
    for name, answer in answers.items():
        match answer:
            case HyperMeshError():
                done.failures[name] = answer
            case (state, pages, refusal):
                if refusal is not None:
                    done.failures[name] = refusal
                if state is not None and (done.state is None or (state.term, state.index) > (done.state.term, done.state.index)):
                    done.state = state
                if pages:
                    done.positions[name] = Position(pages[-1].last, pages[-1].journal)
                    done.found.append(_in_order(name, pages, wanted))
    if done.state is not None:
        done.found.append(of_cluster(done.state.events, wanted))
    return done


async def _pages(agent: AgentClient, wanted: Wanted, limit: int | None) -> list[EventsReply]:
    """What holds the latest `limit` events that are wanted. The node sifts by kind and container, we by all else: what it sends may be
    more than is wanted, and must not be less."""
    if limit is not None and limit <= PAGE:
        size = PAGE if wanted.brief else max(limit, 1)
        newest = await agent.call(EVENTS, _request(wanted, -1, 0, limit=size))
        older = newest.events and wanted.since is not None and newest.events[0].unix_time < wanted.since
        if older or len(newest.events) < size or len(of_node(newest.events, wanted)) >= limit:
            return [newest]
    after = journal = 0
    pages: list[EventsReply] = []
    for _ in range(PAGES):
        pages.append(await agent.call(EVENTS, _request(wanted, after, journal)))
        if pages[-1].last == after:
            break
        after, journal = pages[-1].last, pages[-1].journal
    return pages


def _request(wanted: Wanted, after: int, journal: int, *, limit: int = PAGE, wait: float = 0.0) -> EventsRequest:
    return EventsRequest(
        after=after, journal=journal, limit=limit, wait=wait, container=wanted.container_name, kinds=list(wanted.node_kinds)
    )


def _in_order(name: str, pages: list[EventsReply], wanted: Wanted) -> list[Happened]:
    """The events of one node. What was dropped before the first of them is no gap; what is missing between them is."""
    found: list[Happened] = []
    for page in pages:
        events = of_node(page.events, wanted)
        if page.lost and found:
            found.append(lost(name, page.lost, before=events[0].unix_time if events else found[-1].unix_time, last=page.last))
        found += events
    return found


async def follow(agents: Agents, wanted: Wanted, begun: History, show: Show, tell: Tell) -> None:
    """Shows what happens from now on, until cancelled. `tell` hears of nodes that were lost, and that are back."""
    queue: asyncio.Queue[Happened] = asyncio.Queue(QUEUED)
    window, clock = Window[Happened](HOLD), asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as group:
        for host in agents.hosts:
            if wanted.asks(host.name):
                position, told = begun.positions.get(host.name), host.name in begun.failures
                group.create_task(_follow_node(agents, host, wanted, position, queue, tell, told), name=f"events of {host.name}")
        if wanted.of_cluster:
            group.create_task(_follow_cluster(agents, wanted, begun.state, queue, tell), name="events of the cluster")
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(window.wait(clock())):
                    window.add(await queue.get(), clock())
            for event in window.take(clock()):
                show(event)


async def _follow_node(
    agents: Agents, host: Host, wanted: Wanted, position: Position | None, queue: asyncio.Queue[Happened], tell: Tell, told: bool
) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        # A node that we never reached: what happened before we do is history.
        request = _request(wanted, -1, 0, limit=1) if position is None else _request(wanted, position.last, position.journal, wait=WAIT)
        try:
            reply = await agents.ask(host, lambda agent: agent.call(EVENTS, request, timeout=WAIT + ANSWER))  # noqa: B023  asked at once
        except HyperMeshError as error:
            if not told:
                tell(host.name, error)
            told = True
            await asyncio.sleep(RETRY)
            continue
        if told:
            tell(host.name, "answers again")
            told = False
        if position is not None:
            if reply.journal != position.journal:
                tell(host.name, "its agent was restarted; what happened meanwhile may be missing")
            for event in _news(host.name, reply, wanted):
                await queue.put(event)
        position = Position(reply.last, reply.journal)
        if not reply.events and clock() - began < SOON:
            await asyncio.sleep(EVERY)


def _news(name: str, reply: EventsReply, wanted: Wanted) -> list[Happened]:
    events = of_node(reply.events, wanted)
    if not reply.lost:
        return events
    return [lost(name, reply.lost, before=events[0].unix_time if events else time.time(), last=-1), *events]


async def _follow_cluster(agents: Agents, wanted: Wanted, state: StateReply | None, queue: asyncio.Queue[Happened], tell: Tell) -> None:
    told = False
    while True:
        await asyncio.sleep(EVERY)
        since = -1 if state is None else state.index
        try:
            reply = await _newest_state(agents, state.leader if state is not None else None, since)
        except HyperMeshError as error:
            if not told:
                tell("", error)
            told = True
            continue
        if told:
            tell("", "the cluster's events are there again")
            told = False
        if state is not None:
            if reply.index <= since:  # nothing new, or one that is behind; who leads may have changed all the same
                state = msgspec.structs.replace(state, leader=reply.leader)
                continue
            for event in of_cluster(reply.events, wanted, after=since):
                await queue.put(event)
        state = reply


async def _newest_state(agents: Agents, leader: str | None, since: int) -> StateReply:
    """The leader's; when nobody is known to lead, or it does not answer, that of the control node which knows most. Raises what kept
    all of them from answering."""

    async def question(agent: AgentClient) -> StateReply:
        return await agent.call(STATE, StateRequest(since=since), timeout=ANSWER)

    deciders = [host for host in agents.hosts if host.role is Role.CONTROL]
    for host in deciders:
        if host.name == leader:
            with suppress(HyperMeshError):  # then the others are asked
                return await agents.ask(host, question)
    answers = await agents.ask_all(question, deciders)
    states = [answer for answer in answers.values() if isinstance(answer, StateReply)]
    if not states:
        failures = [answer for answer in answers.values() if isinstance(answer, HyperMeshError)]
        raise failures[0] if failures else HyperMeshError("the inventory has no control node that could tell the cluster's events")
    return max(states, key=lambda state: (state.term, state.index))
