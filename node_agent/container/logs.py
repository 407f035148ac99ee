"""The logs of an app's containers on this node, merged by time and followed: the answering end of hmcore.apps.streams.LOGS.

What a container that was removed wrote last is read like the others for a while (lastwords.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from hmcore.apps.streams import LogsRequest
from hmcore.errors import HyperMeshError, InvalidRequest
from hmcore.stoq.greeting import Peer
from hmcore.stoq.pulse import Pulse
from node_agent.container.dockerapi import DockerApi, DockerStream
from node_agent.container.info import APP, ContainerInfo
from node_agent.container.lastwords import LINES, LastWords
from node_agent.container.log_reading import Reading, Talk, age
from node_agent.container.loglines import Entry, LogParser

MOST_READERS = 64
MOST_OPEN = 256  # logs that are read at once, for all readers
MOST_TIME = 1 << 33  # seconds since 1970
LAST = 3.0  # seconds that reading the last words of a container may hold up its removal

log = logging.getLogger(__name__)


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
        self._last = LastWords(time.monotonic)
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
            await Reading(self, request, talk).run()
        finally:
            self._readers -= 1

    # for readings

    def of(self, request: LogsRequest) -> list[ContainerInfo]:
        """Whose logs are wanted, the oldest first."""
        return _wanted(request, self._containers().values())

    def gone(self, request: LogsRequest) -> list[ContainerInfo]:
        """Whose last words are wanted, likewise."""
        present = self._containers()
        return _wanted(request, (words.info for id, words in self._last.all().items() if id not in present))

    def last_words(self, id: str) -> tuple[Entry, ...] | None:
        """None: it is there, or none were kept."""
        words = None if id in self._containers() else self._last.all().get(id)
        return None if words is None else words.entries

    async def remember(self, id: str) -> None:
        """The container is about to be removed. What cannot be read is not kept."""
        info = self.container(id)
        if info is None:
            return
        try:
            async with asyncio.timeout(LAST):
                self._last.keep(info, await self._written(id))
        except (HyperMeshError, TimeoutError) as error:
            log.info("what %s wrote last is not kept: %s", info.name, error or f"it took longer than {LAST:g} s")

    async def _written(self, id: str) -> list[Entry]:
        stream, tty = await self.open(id, follow=False, since=0, tail=LINES)
        try:
            parser = LogParser(tty=tty)
            found: list[Entry] = []
            while data := await stream.read():
                found = [*found, *parser.feed(data)][-LINES:]
            return [*found, *parser.end()]
        finally:
            self.closed(stream)

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


def _wanted(request: LogsRequest, among: Iterable[ContainerInfo]) -> list[ContainerInfo]:
    wanted = f"{request.app}/{request.service}" if request.service else ""
    return sorted((each for each in among if each.labels.get(APP) == request.app and wanted in ("", each.service)), key=age)


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
