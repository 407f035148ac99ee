"""One reader of an app's logs on this node: what there is, merged by time, and then what follows.

Of a log no more is held than a line and what was read with it; who is read slowly reads slowly. When the reader has gone, all is closed.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Protocol

from hmcore.apps.streams import LogLine, LogLines, LogPosition, LogPresent, LogSource, LogsRequest, LogsSaid, LogTrouble, behind
from hmcore.errors import ConnectionLost, HyperMeshError
from hmcore.stoq.dialogue import Answering
from hmcore.stoq.tasks import cause
from node_agent.container.dockerapi import DockerStream
from node_agent.container.info import ContainerInfo
from node_agent.container.loglines import Entry, LogParser

BATCH = 64 * 1024  # bytes of text in a message, and one line more
MOST_LINES = 1000  # in a message
RETRY = 1.0  # seconds before a log is opened again that ended or cannot be read: how fast Docker's news of a container come to us

Talk = Answering[None, LogsSaid]


class Written(Protocol):
    """What there is to be read (logs.Logs)."""

    def of(self, request: LogsRequest) -> list[ContainerInfo]:
        """Whose logs are wanted, the oldest first."""

    def gone(self, request: LogsRequest) -> list[ContainerInfo]:
        """Whose last words are wanted, likewise."""

    def last_words(self, id: str) -> Sequence[Entry] | None:
        """None: it is there, or none were kept."""

    def container(self, id: str) -> ContainerInfo | None: ...

    def now(self) -> int:
        """Nanoseconds since 1970, by the clock that Docker writes times by."""

    async def wait_for_news(self) -> None: ...

    async def open(self, id: str, *, follow: bool, since: int, tail: int) -> tuple[DockerStream, bool]:
        """A container's log, which has a place until `closed`; and whether it is a terminal's. Raises HyperMeshError."""

    def closed(self, stream: DockerStream) -> None: ...


def age(info: ContainerInfo) -> tuple[float, str]:
    """By which containers are in order."""
    return info.started, info.id


class Reading:
    """One reader's, from its first line until it has gone."""

    def __init__(self, logs: Written, request: LogsRequest, talk: Talk) -> None:
        self._logs = logs
        self._request = request
        self._talk = talk
        self._numbers: dict[str, int] = {}  # by container
        self._positions = dict(request.positions)
        self._begun: set[str] = set()  # that were there when it began: of those, no more than was asked for

    async def run(self) -> None:
        gone = self._logs.gone(self._request) if self._request.gone else []
        found = sorted([*self._logs.of(self._request), *gone], key=age)
        self._begun = {info.id for info in found}
        await self._announce(found)
        await self._tell_history(found)
        await self._talk.send(LogPresent(self._positions))
        if self._request.follow:
            try:
                async with asyncio.TaskGroup() as tasks:
                    await self._follow_all(tasks)
            except BaseExceptionGroup as failures:
                raise cause(failures) from failures

    async def _announce(self, found: Iterable[ContainerInfo]) -> None:
        for info in found:
            if info.id not in self._numbers:
                self._numbers[info.id] = number = len(self._numbers)
                await self._talk.send(LogSource(number, info.id, info.name, info.service, info.allocation))

    async def _tell_history(self, found: Iterable[ContainerInfo]) -> None:
        """All logs, side by side: the line that is next by time is told next."""
        async with AsyncExitStack() as stack:
            heads: list[tuple[int, int, Entry]] = []
            streams: dict[int, tuple[str, AsyncGenerator[Entry, None]]] = {}
            for info in found:
                if self._request.tail == 0 and info.id not in self._positions:
                    self._positions[info.id] = LogPosition(self._logs.now(), 0)
                    continue
                number = self._numbers[info.id]
                entries = self._one_by_one(info.id)
                streams[number] = info.id, await stack.enter_async_context(aclosing(entries))
                if (entry := await anext(entries, None)) is not None:
                    heads.append((entry.time, number, entry))
            heapq.heapify(heads)
            batch = _Batch(self._talk)
            while heads:
                _, number, entry = heads[0]
                id, entries = streams[number]
                await batch.add(number, entry)
                self._positions[id] = behind(self._positions.get(id), entry.time)
                following = await anext(entries, None)
                if following is None:
                    heapq.heappop(heads)
                else:
                    heapq.heapreplace(heads, (max(following.time, entry.time), number, following))
            await batch.send()

    async def _one_by_one(self, id: str) -> AsyncGenerator[Entry, None]:
        """What of a log is asked for and there. That it cannot be read is told, once."""
        try:
            async with aclosing(self._entries(id, follow=False)) as several:
                async for entries in several:
                    for entry in entries:
                        yield entry
        except ConnectionLost:
            raise
        except HyperMeshError as error:
            await self._talk.send(LogTrouble(self._numbers[id], error.message))

    async def _entries(self, id: str, *, follow: bool) -> AsyncGenerator[list[Entry], None]:
        """What comes behind our position, as it comes. Raises HyperMeshError."""
        position = self._positions.get(id)
        asked = self._request if id in self._begun else LogsRequest(app=self._request.app)
        since = int(asked.since * 1e9) if position is None else position.time
        if (last := self._logs.last_words(id)) is not None:
            entries = [entry for entry in last if entry.time >= since]
            entries = entries[-asked.tail or len(entries) :] if position is None and asked.tail >= 0 else entries
            yield _unknown(entries, position, 0 if position is None else position.count)[0]
            return
        stream, tty = await self._logs.open(id, follow=follow, since=since, tail=asked.tail if position is None else -1)
        try:
            parser, known = LogParser(tty=tty), 0 if position is None else position.count
            while data := await stream.read():
                entries, known = _unknown(parser.feed(data), position, known)
                if entries:
                    yield entries
            entries, _ = _unknown(parser.end(), position, known)
            if entries:
                yield entries
        finally:
            self._logs.closed(stream)

    # following

    async def _follow_all(self, tasks: asyncio.TaskGroup) -> None:
        followed: dict[str, asyncio.Task[None]] = {}
        while True:
            found = self._logs.of(self._request)
            await self._announce(found)
            followed = {id: task for id, task in followed.items() if not task.done()}
            for info in found:
                if info.id not in followed:
                    followed[info.id] = tasks.create_task(self._follow(info.id), name=f"log of {info.name}")
            if self._logs.of(self._request) == found:  # nothing has changed while we told
                await self._logs.wait_for_news()

    async def _follow(self, id: str) -> None:
        """Until the container is gone, through its ends and starts."""
        told = ""
        while self._logs.container(id) is not None:
            try:
                async with aclosing(self._entries(id, follow=True)) as several:
                    async for entries in several:
                        batch = _Batch(self._talk)
                        for entry in entries:
                            await batch.add(self._numbers[id], entry)
                            self._positions[id] = behind(self._positions.get(id), entry.time)
                        await batch.send()
                        told = ""
            except ConnectionLost:
                raise
            except HyperMeshError as error:
                if error.message != told and self._logs.container(id) is not None:
                    await self._talk.send(LogTrouble(self._numbers[id], error.message))
                told = error.message
            await asyncio.sleep(RETRY)
            while (info := self._logs.container(id)) is not None and not info.running:
                await self._logs.wait_for_news()


class _Batch:
    """Lines that go into one message."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._lines: list[LogLine] = []
        self._size = 0

    async def add(self, number: int, entry: Entry) -> None:
        self._lines.append(LogLine(number, entry.time, entry.error, entry.text))
        self._size += len(entry.text)
        if self._size >= BATCH or len(self._lines) >= MOST_LINES:
            await self.send()

    async def send(self) -> None:
        if self._lines:
            lines, self._lines, self._size = self._lines, [], 0
            await self._talk.send(LogLines(lines))


def _unknown(entries: list[Entry], position: LogPosition | None, known: int) -> tuple[list[Entry], int]:
    """Those that are behind `position`, and how many of its time that are known have yet to come."""
    if position is None:
        return entries, 0
    new: list[Entry] = []
    for entry in entries:
        if entry.time == position.time and known:
            known -= 1
        elif entry.time >= position.time:
            new.append(entry)
    return new, known
