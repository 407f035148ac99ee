"""Docker's streams on a unix socket, in memory: logs that grow, and commands that are Python functions. For tests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from node_agent.container.info import ALLOCATION, APP, SERVICE, ContainerInfo

BEGIN = 1_795_000_000_000_000_000  # nanoseconds since 1970


def stamp(time: int) -> bytes:
    return f"{datetime.fromtimestamp(time // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{time % 1_000_000_000:09}Z ".encode()


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@dataclass
class Container:
    """`records`: time, stream, text with its end, as the logger keeps them."""

    id: str
    tty: bool = False
    running: bool = True
    records: list[tuple[int, int, bytes]] = field(default_factory=list)


@dataclass
class Exec:
    """A command. `reader`: its input; `said`: what it says."""

    id: str
    config: dict[str, object]
    running: bool = False
    status: int | None = None
    process: int = 0
    reader: asyncio.StreamReader = field(default_factory=asyncio.StreamReader)
    writer: asyncio.StreamWriter | None = None
    sizes: list[tuple[int, int]] = field(default_factory=list)
    cut_off: bool = False  # the client ended the stream
    written: int = 0

    async def say(self, data: bytes, stream: int = 1) -> None:
        assert self.writer is not None
        self.writer.write(data if self.config["Tty"] else frame(stream, data))
        self.written += len(data)
        await self.writer.drain()


Program = Callable[[Exec], Awaitable[int]]


@dataclass
class StreamingDocker:
    path: Path
    api: str = "1.41"
    containers: dict[str, Container] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)  # by the command's first word
    execs: dict[str, Exec] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # method and path, without the version
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)  # by a pattern of those
    raw: bytes | None = None  # answered to everything
    open: int = 0  # connections
    written: int = 0  # bytes of logs
    hold: asyncio.Event = field(default_factory=asyncio.Event)  # unless it is set, nothing is answered
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    infos: dict[str, ContainerInfo] = field(default_factory=dict)
    on_change: Callable[[], None] = lambda: None

    def add(self, id: str, *, allocation: str = "shop/web.1.1", running: bool = True, tty: bool = False, started: float = 1.0) -> Container:
        """A container of ours; as the container layer knows it, too."""
        self.containers[id] = made = Container(id, tty, running)
        app, _, rest = allocation.partition("/")
        labels = {APP: app, SERVICE: f"{app}/{rest.partition('.')[0]}", ALLOCATION: allocation}
        state = "running" if running else "exited"
        self.infos[id] = ContainerInfo(id, f"{id}-name", labels[SERVICE], state=state, labels=labels, started=started)
        self.on_change()
        return made

    async def log(self, id: str, *records: tuple[int, int, bytes]) -> None:
        """`records`: nanoseconds after BEGIN, stream, text."""
        async with self.news:
            self.containers[id].records += [(BEGIN + time, stream, text) for time, stream, text in records]
            self.news.notify_all()

    async def set_running(self, id: str, running: bool) -> None:

        async with self.news:
            self.containers[id].running = running
            self.infos[id] = dataclasses.replace(self.infos[id], state="running" if running else "exited")
            self.news.notify_all()
        self.on_change()

    async def remove(self, id: str) -> None:
        async with self.news:
            self.containers.pop(id).running = False
            del self.infos[id]
            self.news.notify_all()
        self.on_change()

    # the wire

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.hold.wait()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        length = re.search(r"Content-Length: (\d+)", head)
        body = json.loads(await reader.readexactly(int(length[1]))) if length is not None and int(length[1]) else None
        url = urlsplit(target)
        path = url.path.removeprefix(f"/v{self.api}")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.asked.append(f"{method} {path}")
        if self.raw is not None:
            writer.write(self.raw)
            await writer.drain()
            return
        for pattern, (status, message) in self.refusals.items():
            if re.fullmatch(pattern, f"{method} {path}"):
                return await self._answer(writer, {"message": message}, status)
        match [method, *path.strip("/").split("/")]:
            case ["GET", "_ping"]:
                await self._answer(writer, "OK")
            case ["GET", "containers", id, "json"] if id in self.containers:
                await self._answer(writer, {"Id": id, "Config": {"Tty": self.containers[id].tty}})
            case ["GET", "containers", id, "logs"] if id in self.containers:
                await self._logs(reader, writer, self.containers[id], query)
            case ["POST", "containers", id, "exec"] if id in self.containers:
                made = Exec(f"e{len(self.execs)}", body)
                self.execs[made.id] = made
                await self._answer(writer, {"Id": made.id}, 201)
            case ["POST", "exec", id, "start"]:
                await self._start(reader, writer, self.execs[id], head)
            case ["POST", "exec", id, "resize"]:
                self.execs[id].sizes.append((int(query["h"]), int(query["w"])))
                await self._answer(writer, None, 201)
            case ["GET", "exec", id, "json"]:
                one = self.execs[id]
                await self._answer(writer, {"Running": one.running, "ExitCode": one.status, "Pid": one.process})
            case _:
                await self._answer(writer, {"message": f"page not found: {method} {path}"}, 404)

    async def _answer(self, writer: asyncio.StreamWriter, body: object, status: int = 200) -> None:
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        kind = "text/plain" if isinstance(body, str) else "application/json"
        head = f"HTTP/1.0 {status} Such\r\nApi-Version: {self.api}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()

    async def _logs(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one: Container, query: dict[str, str]) -> None:
        seconds, _, rest = query["since"].partition(".")
        since = int(seconds) * 1_000_000_000 + int(rest)
        records = one.records if query["tail"] == "all" else one.records[len(one.records) - min(int(query["tail"]), len(one.records)) :]
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")
        told = len(one.records)
        gone = asyncio.ensure_future(reader.read())
        try:
            await self._records(writer, one, [record for record in records if record[0] >= since])
            while query["follow"] == "1" and one.running:
                async with self.news:
                    if len(one.records) == told and one.running:
                        waiting = asyncio.ensure_future(self.news.wait())
                        await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
                        if not waiting.done():
                            waiting.cancel()
                            with contextlib.suppress(asyncio.CancelledError):
                                await waiting
                            return
                fresh, told = one.records[told:], len(one.records)
                await self._records(writer, one, [record for record in fresh if record[0] >= since])
        finally:
            gone.cancel()

    async def _records(self, writer: asyncio.StreamWriter, one: Container, records: list[tuple[int, int, bytes]]) -> None:
        for time, stream, text in records:
            writer.write(stamp(time) + text if one.tty else frame(stream, stamp(time) + text))
            await writer.drain()
            self.written += len(text)

    async def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one: Exec, head: str) -> None:
        assert "Upgrade: tcp" in head
        words = one.config["Cmd"]
        assert isinstance(words, list)
        one.writer, one.running = writer, True
        if one.config["AttachStdin"]:
            one.reader = reader
        else:
            one.reader.feed_eof()
        writer.write(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n\r\n")
        try:
            one.status = await self.programs[words[0]](one)
        except ConnectionError:
            one.cut_off = True
            one.status = 129
        finally:
            one.running = False


@contextlib.asynccontextmanager
async def streaming_docker(folder: Path, **more: object) -> AsyncIterator[StreamingDocker]:
    docker = StreamingDocker(folder / "docker.sock", **more)  # type: ignore[arg-type]
    docker.hold.set()
    server = await asyncio.start_unix_server(docker.serve, str(docker.path))
    try:
        yield docker
    finally:
        server.close()
