"""How the simulators are told things and asked: one line of JSON each way, on a unix socket in the file system."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Answers = Callable[[dict[str, Any]], Awaitable[Any]]
LONGEST = 1 << 28


async def serve(path: Path, answers: Answers) -> None:
    """Answers until it is cancelled."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(await answers(json.loads(line))).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(conversation, path, limit=LONGEST, backlog=1024)
    async with server:
        await server.serve_forever()


async def ask(path: Path, request: dict[str, Any]) -> Any:
    reader, writer = await asyncio.open_unix_connection(path, limit=LONGEST)
    writer.write(json.dumps(request).encode() + b"\n")
    try:
        return json.loads(await reader.readline())
    finally:
        writer.close()


def ask_now(path: Path, request: dict[str, Any]) -> Any:
    """The same, blocking."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(path))
        with link.makefile("rwb") as stream:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            return json.loads(stream.readline())
