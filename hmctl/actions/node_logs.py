"""One node's logs of an app, as `hmctl app logs` reads them: what there was, what follows, and going on where a lost connection ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hmcore.apps.streams import LOGS, LogLines, LogPosition, LogPresent, LogSource, LogsRequest, LogTrouble, behind
from hmcore.errors import ConnectionLost, HyperMeshError

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmctl.actions.agents import Agents
    from hmctl.client import AgentClient

AHEAD = 4  # messages of a node that wait for their turn
RETRY = 1.0  # seconds between attempts to reach a node that was lost
ASIDE = 1.0  # seconds in which a node must be reached that has no replicas now

Tell = Callable[[str, HyperMeshError | str], None]  # of a node; empty: of the cluster


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """`time`: nanoseconds since 1970. `number`: in the order of its node. `replica`: SERVICE.SLOT; of a global service SERVICE@NODE."""

    time: int
    node: str
    number: int
    replica: str = field(compare=False)
    service: str = field(compare=False)
    container: str = field(compare=False)
    error: bool = field(compare=False)  # it was written to stderr
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`service` empty: all of the app's. `since`: seconds since 1970. `tail`: the latest lines of each replica; None: all since then.
    `node`: only what is there; empty: all nodes. `index`: the replica that is asked for, by its number; its node may tell others, too."""

    app: str
    service: str = ""
    since: float | None = None
    tail: int | None = None
    node: str = ""
    index: int | None = None


def named(service: str, allocation: str, name: str, node: str) -> str:
    """What its lines are marked with. A container that was started by hand has its own name."""
    parts = allocation.rpartition("/")[2].split(".")
    if len(parts) != 3:
        return name
    return f"{parts[0]}@{node}" if parts[1] == "0" else f"{parts[0]}.{parts[1]}"


class NodeLogs:
    """One node's logs: its history in turn with the others', then what follows."""

    def __init__(
        self, host: Host, wanted: Wanted, live: asyncio.Queue[Line], tell: Tell, *, follow: bool, late: bool, aside: bool = False
    ) -> None:
        """`late`: it had no replicas when we began; all that it has now is new. `aside`: it has none, and may know what its last ones
        wrote."""
        self._host = host
        self._wanted = Wanted(wanted.app, wanted.service) if late else wanted
        self._live = live
        self._tell = tell
        self._follow = follow and not aside
        self._past: asyncio.Queue[list[Line] | None] = asyncio.Queue(AHEAD)  # None: that was all
        self._ready: list[Line] = []  # of it, the next one last
        self._is_past = not late
        self._positions: dict[str, LogPosition] = {}
        self._sources: dict[int, LogSource] = {}
        self._troubles: set[tuple[str, str]] = set()
        self._was_present = late
        self._is_lost = False  # which was told
        self._number = 0
        self._aside = aside
        self._gone = not late
        self.absent = aside  # it has no replicas, as far as we know
        self.failed = False  # some of what it has was not told

    async def older(self) -> Line | None:
        """Its next line of what there was before; None: there is no more."""
        while not self._ready:
            if not self._is_past and self._past.empty():
                return None
            lines = await self._past.get()
            if lines is None:
                return None
            self._ready = lines[::-1]
        return self._ready.pop()

    async def run(self, agents: Agents) -> None:
        """Until all is told; with `follow`, until cancelled."""
        while True:
            try:
                return await agents.ask(self._host, self._read, within=ASIDE if self._aside else None)
            except HyperMeshError as error:
                if self._aside:
                    return await self._end_past()
                if not self._is_lost:
                    self._tell(self._host.name, error)
                self._is_lost = self.failed = True
            await self._end_past()
            if not self._follow:
                return
            await asyncio.sleep(RETRY)

    async def _read(self, agent: AgentClient) -> None:
        """Raises HyperMeshError when it ends before all is told."""
        self._sources.clear()
        async with await agent.open(LOGS, self._request()) as talk:
            heard = False
            while (said := await talk.receive()) is not None:
                if self._is_lost:
                    self._tell(self._host.name, "answers again")
                self._is_lost, heard = False, True
                match said:
                    case LogSource():
                        self._sources[said.number] = said
                    case LogLines():
                        await self._take(said)
                    case LogPresent(positions):
                        self._positions |= positions
                        self._was_present = True
                        await self._end_past()
                        if not self._follow:
                            return
                    case LogTrouble(number, reason):
                        self._complain(number, reason)
            what = "its agent stopped telling logs" if heard else "its agent tells no logs: it is of an earlier release, or just stopping"
            raise ConnectionLost(what, host=self._host.name, fix=None if heard else "hmctl deploy")

    def _request(self) -> LogsRequest:
        """What is missing; once all was there, everything behind that."""
        tail = self._wanted.tail
        return LogsRequest(
            app=self._wanted.app,
            service=self._wanted.service,
            follow=self._follow,
            since=self._wanted.since or 0.0,
            tail=-1 if tail is None or self._was_present else tail,
            positions=self._positions,
            gone=self._gone,
        )

    async def _take(self, said: LogLines) -> None:
        lines = []
        for each in said.lines:
            source = self._sources.get(each.source)
            if source is None:
                continue
            self._positions[source.container] = behind(self._positions.get(source.container), each.time)
            self._number += 1
            lines.append(
                Line(
                    time=each.time,
                    node=self._host.name,
                    number=self._number,
                    replica=named(source.service, source.allocation, source.name, self._host.name),
                    service=source.service.rpartition("/")[2],
                    container=source.name,
                    error=each.error,
                    text=each.text.decode(errors="replace"),
                )
            )
        if self._is_past:
            await self._past.put(lines)
        else:
            for line in lines:
                await self._live.put(line)

    async def _end_past(self) -> None:
        if self._is_past:
            await self._past.put(None)
            self._is_past = False

    def _complain(self, number: int, reason: str) -> None:
        """Once of each: it is tried on and on."""
        source = self._sources.get(number)
        name = "a container" if source is None else named(source.service, source.allocation, source.name, self._host.name)
        self.failed = True
        if (name, reason) not in self._troubles:
            self._troubles.add((name, reason))
            self._tell(self._host.name, f"the log of {name} cannot be read: {reason}")
