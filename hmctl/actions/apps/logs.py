"""Logs of an app's replicas: each node's, merged by time and followed across lost connections and replicas that come.

What a node sends is read no faster than it is shown. History is merged exactly, for every node tells its own by time; what follows is put
in order as far as that is possible without waiting (journal.Window).
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hmcore.apps.records import Allocation
from hmcore.errors import CallRefused, HyperMeshError
from hmctl.actions.agents import Agents
from hmctl.actions.apps.calls import Looks, read
from hmctl.actions.apps.target import Target, absent, meant
from hmctl.actions.apps.view import Seen
from hmctl.actions.journal import HOLD, QUEUED, Window
from hmctl.actions.node_logs import Line, NodeLogs, Tell, Wanted, named

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

Show = Callable[[Line], None]

MOST_ASIDE = 16  # nodes that are asked, beside those that run replicas, what replicas wrote that are no more


@dataclass(slots=True)
class Outcome:
    """How many nodes were asked, and which could not tell all. `absent`: the replica that was asked for is not there; what it wrote while
    it was may be."""

    asked: int = 0
    failed: set[str] = field(default_factory=set)
    absent: HyperMeshError | None = None

    @property
    def exit_code(self) -> int:
        if not self.failed:
            return 0
        return 1 if len(self.failed) >= self.asked else 3


def marks(allocations: Sequence[Allocation]) -> list[str]:
    """What lines are marked with, of all replicas that there are."""
    return sorted({named(each.service, each.id, "", each.node) for each in allocations})


async def logs(agents: Agents, wanted: Wanted, show: Show, tell: Tell, *, follow: bool, begin: Callable[[list[str]], None]) -> Outcome:
    """Shows what there is, and goes on with `follow` until cancelled. `begin` hears of the replicas that there are. `tell` hears of nodes
    that were lost, and that are back; and that there is no replica, if so. Raises HyperMeshError when there is no such app."""
    try:
        seen: Seen | None = await read(agents, wanted.app)
    except CallRefused:
        raise
    except HyperMeshError as error:
        tell("", error)
        tell("", "so all nodes are asked for their logs")
        seen = None
    target = Target(wanted.app, wanted.service, node=wanted.node)
    allocations = [] if seen is None else meant(seen, target)
    begin(marks(allocations))
    missing = None if seen is None else _missing(seen, replace(target, index=wanted.index))
    if missing is not None and (follow or not _is_one(wanted)):
        tell("", missing)
    outcome = await _Merging(agents, wanted, show, tell, follow=follow).run(seen, allocations)
    outcome.absent = missing if _is_one(wanted) else None
    return outcome


def _is_one(wanted: Wanted) -> bool:
    """A replica is named, rather than all that there may be."""
    return wanted.index is not None or bool(wanted.node)


def _missing(seen: Seen, target: Target) -> HyperMeshError | None:
    """Why nothing is to be expected; None: there is a replica to read from."""
    if meant(seen, target):
        return None
    if target.index is not None or target.node:
        return absent(seen, target)
    return HyperMeshError(f"no replica of {target} has a place", fix=f"hmctl app explain {target}")


class _Merging:
    def __init__(self, agents: Agents, wanted: Wanted, show: Show, tell: Tell, *, follow: bool) -> None:
        self._agents = agents
        self._wanted = wanted
        self._show = show
        self._tell = tell
        self._follow = follow
        self._outcome = Outcome()
        self._live: asyncio.Queue[Line] = asyncio.Queue(QUEUED)
        self._nodes: dict[str, NodeLogs] = {}

    async def run(self, seen: Seen | None, allocations: Sequence[Allocation]) -> Outcome:
        hosts = self._everywhere() if seen is None else self._hosts(allocations)
        await self._agents.require_room(hosts)
        async with asyncio.TaskGroup() as tasks:
            for host in hosts:
                self._start(tasks, host, late=False)
            for host in [] if seen is None else self._aside(hosts):
                self._start(tasks, host, late=False, aside=True)
            await self._history()
            if self._follow:
                if seen is not None:
                    tasks.create_task(self._look(tasks, seen), name="where replicas run")
                await self._present()
        self._outcome.failed |= {name for name, node in self._nodes.items() if node.failed}
        return self._outcome

    def _aside(self, hosts: Sequence[Host]) -> list[Host]:
        """In a large cluster none: it would take longer than it is worth."""
        others = [host for host in self._everywhere() if host not in hosts]
        return others if len(others) <= MOST_ASIDE else []

    def _everywhere(self) -> list[Host]:
        return [host for host in self._agents.hosts if self._wanted.node in ("", host.name)]

    def _hosts(self, allocations: Sequence[Allocation]) -> list[Host]:
        known = {host.name: host for host in self._agents.hosts}
        only = self._wanted.node  # it is asked also where nothing runs any more: it may still have what was written
        names = {only} if only else {each.node for each in allocations}
        for name in sorted(names - known.keys() - self._outcome.failed):
            self._tell(name, "it runs replicas, and is not in this inventory: their logs are left out")
            self._outcome.asked += 1
            self._outcome.failed.add(name)
        return [known[name] for name in sorted(names & known.keys())]

    def _start(self, tasks: asyncio.TaskGroup, host: Host, *, late: bool, aside: bool = False) -> None:
        self._outcome.asked += not aside
        node = self._nodes[host.name] = NodeLogs(host, self._wanted, self._live, self._tell, follow=self._follow, late=late, aside=aside)
        tasks.create_task(node.run(self._agents), name=f"logs of {host.name}")

    async def _history(self) -> None:
        """The line that is next by time is shown next: every node's next one is known, or waited for."""
        nodes = list(self._nodes.values())
        heads = [(line, number) for number, node in enumerate(nodes) if (line := await node.older()) is not None]
        heapq.heapify(heads)
        while heads:
            line, number = heads[0]
            self._show(line)
            following = await nodes[number].older()
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (following, number))

    async def _present(self) -> None:
        window, clock = Window[Line](HOLD), asyncio.get_running_loop().time
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(window.wait(clock())):
                    window.add(await self._live.get(), clock())
            for line in window.take(clock()):
                self._show(line)

    async def _look(self, tasks: asyncio.TaskGroup, seen: Seen) -> None:
        """Replicas that come to other nodes are followed there, too."""
        looks = Looks(self._agents, self._wanted.app, since=seen.reply.index, tell=lambda said: self._tell("", said))
        gone = False
        while True:
            try:
                seen = await looks.next()
            except CallRefused as error:
                self._tell("", error)
                return
            if not seen.reply.apps and not gone:
                self._tell("", f"{self._wanted.app} was removed")
            gone = not seen.reply.apps
            for host in self._hosts(seen.allocations(self._wanted.app, self._wanted.service or None)):
                if host.name not in self._nodes or self._nodes[host.name].absent:
                    self._start(tasks, host, late=True)
