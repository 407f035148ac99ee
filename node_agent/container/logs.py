"""The logs of an app's containers on this node, merged by time and followed: the answering end of hmcore.apps.streams.LOGS.

Of a log no more is held than a line and what was read with it; who is read slowly reads slowly. When the reader has gone, all is closed.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from typing import Any, Protocol

from hmcore.apps.streams import LogLine, LogLines, LogPosition, LogPresent, LogSource, LogsRequest, LogsSaid, LogTrouble, behind
from hmcore.errors import ConnectionLost, HyperMeshError, InvalidRequest
from hmcore.stoq.dialogue import Answering
from hmcore.stoq.greeting import Peer
from hmcore.stoq.pulse import Pulse
from hmcore.stoq.tasks import cause
from node_agent.container.dockerapi import DockerApi, DockerStream
from node_agent.container.info import APP, ContainerInfo
from node_agent.container.loglines import Entry, LogParser

MOST_READERS = 64
MOST_OPEN = 256  # logs that are read at once, for all readers
BATCH = 64 * 1024  # bytes of text in a message, and one line more
MOST_LINES = 1000  # in a message
RETRY = 1.0  # seconds before a log is opened again that ended or cannot be read: how fast Docker's news of a container come to us
MOST_TIME = 1 << 33  # seconds since 1970

Talk = Answering[None, LogsSaid]


class Api(Protocol):
    """See DockerApi."""

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> object: ...

    async def open(self, method: str, path: str, body: object = None, *, upgrade: bool = False, **query: str) -> DockerStream: ...


class Logs:
    """`containers`: ours by id, as Docker told last (ContainerLayer.containers)."""

    def __init__(
        self, api: DockerApi | Api, containers: Callable[[], Mapping[str, ContainerInfo]], clock: Callable[[], float] = time.time
    ) -> None:
        self._api: Api = api
        self._containers = containers
        self._clock = clock
        self._news = Pulse()
        self._readers = 0
        self._open = 0

    def changed(self) -> None:
        """`containers` says something else than before."""
        self._news.beat()

    async def answer(self, _peer: Peer, request: LogsRequest, talk: Talk) -> None:
        """Raises InvalidRequest, ConnectionLost."""
        _check(request)
        if self._readers >= MOST_READERS:
            raise InvalidRequest(f"{MOST_READERS} read logs here already")
        self._readers += 1
        try:
            await _Reading(self, request, talk).run()
        finally:
            self._readers -= 1

    # for readings

    def of(self, request: LogsRequest) -> list[ContainerInfo]:
        """Whose logs are wanted, the oldest first."""
        wanted = f"{request.app}/{request.service}" if request.service else ""
        found = (each for each in self._containers().values() if each.labels.get(APP) == request.app and wanted in ("", each.service))
        return sorted(found, key=lambda each: (each.started, each.id))

    def container(self, id: str) -> ContainerInfo | None:
        return self._containers().get(id)

    def now(self) -> int:
        """Nanoseconds since 1970, by the clock that Docker writes times by."""
        return int(self._clock() * 1e9)

    async def wait_for_news(self) -> None:
        await self._news.wait()

    async def open(self, id: str, *, follow: bool, since: int, tail: int) -> tuple[DockerStream, bool]:
        """A container's log, which has a place until `closed`; and whether it is a terminal's. Raises HyperMeshError."""
        with self._place():
            config = await self._api.ask("GET", f"/containers/{id}/json")
            stream = await self._api.open(
                "GET",
                f"/containers/{id}/logs",
                stdout="1",
                stderr="1",
                timestamps="1",
                follow="1" if follow else "0",
                since=f"{since // 1_000_000_000}.{since % 1_000_000_000:09}",
                tail="all" if tail < 0 else str(tail),
            )
            return stream, _tty(config)

    def closed(self, stream: DockerStream) -> None:
        stream.close()
        self._open -= 1

    @contextmanager
    def _place(self) -> Any:
        if self._open >= MOST_OPEN:
            raise InvalidRequest(f"{MOST_OPEN} logs are read at once here already")
        self._open += 1
        try:
            yield
        except BaseException:
            self._open -= 1
            raise


class _Reading:
    """One reader's."""

    def __init__(self, logs: Logs, request: LogsRequest, talk: Talk) -> None:
        self._logs = logs
        self._request = request
        self._talk = talk
        self._numbers: dict[str, int] = {}  # by container
        self._positions = dict(request.positions)
        self._begun: set[str] = set()  # that were there when it began: of those, no more than was asked for

    async def run(self) -> None:
        found = self._logs.of(self._request)
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


def _tty(config: object) -> bool:
    inner = config.get("Config") if isinstance(config, dict) else None
    return isinstance(inner, dict) and inner.get("Tty") is True


def _check(request: LogsRequest) -> None:
    if not request.app:
        raise InvalidRequest("no app is named")
    if not 0 <= request.since < MOST_TIME:
        raise InvalidRequest(f"{request.since:g} is no time that a log could have")
    if any(not 0 <= position.time < MOST_TIME * 1_000_000_000 or position.count < 0 for position in request.positions.values()):
        raise InvalidRequest("a position that no log could have")
