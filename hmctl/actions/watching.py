"""Following the replicated state: at one control node until that fails, falls behind or has no leader, then at the next.

Nothing is shown twice and nothing is left out; where some of it is not told any more, that is shown, and then all that there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmcore.errors import CallRefused, HyperMeshError, NotLeader
from hmcore.records import Role
from hmcore.watch import TABLES, WATCH, Change, Entry, Position, TablesRequest, WatchReply, WatchRequest
from hmctl.actions.agents import Agents
from hmctl.actions.change import nobody_answers

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmctl.client import AgentClient

WAIT = 20.0  # seconds that a node holds our question back while nothing happens
ANSWER = 5.0  # and what it may take beyond that
RETRY = 0.5  # seconds before a node is asked again that could not tell


@dataclass(frozen=True, slots=True)
class Anew:
    """What changed behind log index `since` is not told any more. These are all records as of log index `index`."""

    since: int
    index: int
    records: tuple[Change, ...]


Show = Callable[[Entry | Anew], None]
Tell = Callable[[str, HyperMeshError | str], None]


class Watching:
    """Of some tables, for keys that begin with `prefix`."""

    def __init__(self, agents: Agents, tables: tuple[str, ...], prefix: str, *, show: Show, tell: Tell) -> None:
        """`show` hears of what changed, `tell` of nodes that were lost, and of who is asked instead."""
        self._agents = agents
        self._controls = [host for host in agents.hosts if host.role is Role.CONTROL]
        self._tables = tables
        self._prefix = prefix
        self._show = show
        self._tell = tell
        self._at = 0  # of the control nodes
        self._lost = False

    async def now(self) -> int:
        """The log index that the control node which knows most has come to; following begins there. Raises what kept all from answering."""
        request = WatchRequest(tables=self._tables)

        async def question(agent: AgentClient) -> WatchReply:
            return await agent.call(WATCH, request, timeout=ANSWER)

        answers = await self._agents.ask_all(question, self._controls)
        said = {name: answer for name, answer in answers.items() if isinstance(answer, WatchReply)}
        if not said:
            raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
        newest = max(said, key=lambda name: (said[name].leader is not None, said[name].index))
        self._at = [host.name for host in self._controls].index(newest)
        return said[newest].index

    async def follow(self, since: int) -> None:
        """Show what changes behind log index `since`, until cancelled. Raises CallRefused where that can never be had."""
        position = Position(since)
        while True:
            host = self._controls[self._at]
            try:
                useful = await self._look(host, position)
            except CallRefused as error:
                if not isinstance(error, NotLeader):
                    raise
                useful = self._failed(host, error)
            except HyperMeshError as error:
                useful = self._failed(host, error)
            else:
                if useful and self._lost:
                    self._lost = False
                    self._tell(host.name, "is followed now")
            if not useful:
                self._at = (self._at + 1) % len(self._controls)
                await asyncio.sleep(RETRY)

    def _failed(self, host: Host, error: HyperMeshError) -> bool:
        if not self._lost:
            self._tell(host.name, error)
        self._lost = True
        return False

    async def _look(self, host: Host, position: Position) -> bool:
        """Ask once, and show what is new. Whether this node is worth being asked again."""
        since = position.index
        request = WatchRequest(since=since, tables=self._tables, prefix=self._prefix, wait=WAIT)
        reply = await self._agents.ask(host, lambda agent: agent.call(WATCH, request, timeout=WAIT + ANSWER))
        step = position.take(since, reply)
        for entry in step.entries:
            self._show(entry)
        if step.oldest is not None:
            return await self._begin_anew(host, position)
        return not step.behind and reply.leader is not None

    async def _begin_anew(self, host: Host, position: Position) -> bool:
        """Read the tables, all of one log index, and go on from there."""
        request = TablesRequest(tables=self._tables, prefix=self._prefix)
        records: list[Change] = []
        while True:
            reply = await self._agents.ask(host, lambda agent: agent.call(TABLES, request, timeout=ANSWER))  # noqa: B023  asked at once
            records += reply.records
            if not reply.more:
                break
            request = TablesRequest(tables=self._tables, prefix=self._prefix, index=reply.index, offset=len(records))
        if reply.gone or reply.index < position.index:
            return False
        self._show(Anew(position.index, reply.index, tuple(records)))
        position.index = reply.index
        return True
