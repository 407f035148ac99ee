"""An agent's logs and commands behind a STOQ socket, with Docker in memory beneath. For tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from streaming_docker import BEGIN, StreamingDocker, streaming_docker

from hmcore.apps.streams import LOGS, LogLines, LogPresent, LogSource, LogsRequest, LogsSaid
from hmcore.pki import Identity, Kind
from hmcore.stoq.connection import Connection
from hmcore.stoq.dialogue import Talk, open_talk
from hmcore.stoq.greeting import Local
from hmcore.stoq.local import connect_unix, serve_unix
from hmcore.stoq.rpc import Router
from node_agent.platform.appstreams import AppStreams

PATIENCE = 20.0  # seconds that a condition may take on a busy machine
CLUSTER = "hm-abc123defg"


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - conditions of foreign objects have no event
            await asyncio.sleep(0.002)


@dataclass
class Node:
    docker: StreamingDocker
    streams: AppStreams
    connection: Connection
    router: Router

    async def logs(self, request: LogsRequest) -> Talk[LogsRequest, None, LogsSaid]:
        return await open_talk(self.connection, LOGS, request, timeout=PATIENCE)


@contextlib.asynccontextmanager
async def node(folder: Path, **more: object) -> AsyncIterator[Node]:
    async with streaming_docker(folder, **more) as docker:
        streams = AppStreams(docker.path, lambda: docker.infos, timeout=PATIENCE)
        docker.on_change = streams.containers_changed
        me = Local(Identity(CLUSTER, Kind.NODE, "n1"), "control", "r1")
        router = Router({}, streams=streams.dialogues())
        listener = await serve_unix(str(folder / "agent.sock"), router, local=me)
        connection = await connect_unix(listener.path)
        try:
            yield Node(docker, streams, connection, router)
        finally:
            await connection.close()
            await listener.close()
        await until(lambda: docker.open == 0)  # whatever happened: nothing of it stays


class Heard:
    """What is said of logs, in words: `c1: text`, `c1! text` of stderr, `--` where the present begins."""

    def __init__(self, talk: Talk[LogsRequest, None, LogsSaid]) -> None:
        self.talk = talk
        self.names: dict[int, str] = {}
        self.sources: list[LogSource] = []
        self.times: list[int] = []

    async def more(self) -> list[str] | None:
        async with asyncio.timeout(PATIENCE):
            said = await self.talk.receive()
        match said:
            case None:
                return None
            case LogSource():
                self.names[said.number] = said.container
                self.sources.append(said)
                return []
            case LogLines(lines):
                self.times += [line.time - BEGIN for line in lines]
                return [f"{self.names[line.source]}{'!' if line.error else ':'} {line.text.decode()}" for line in lines]
            case LogPresent():
                return ["--"]
            case trouble:
                return [f"{self.names[trouble.number]}? {trouble.reason}"]

    async def all(self) -> list[str]:
        found: list[str] = []
        while (more := await self.more()) is not None:
            found += more
        return found

    async def until(self, last: str) -> list[str]:
        found: list[str] = []
        while last not in found:
            more = await self.more()
            assert more is not None, f"it ended with {found}"
            found += more
        return found
