"""Moving 200 MB from one process to another over loopback, as content of a node and as a bare TLS stream. No cluster needed.

Beside the speed: how late the giving node's event loop was meanwhile. `python tests/bench/moving.py [FOLDER]` (of the disk to be used).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import uvloop

from hmcore import pki
from hmcore.pki import Identity, Kind
from hmcore.stoq.bulk import tls
from hmcore.stoq.bulk.client import connect
from hmcore.stoq.bulk.server import BulkListener
from hmcore.stoq.bulk.streams import FileSource
from hmcore.stoq.mtls import Credentials
from node_agent.transport.blobs import BlobStore

SIZE = 200_000_000
CLUSTER = "hm-bench"
ROUNDS = 5
TICK = 0.001  # seconds
PIECE = 64 << 10


def credentials(authority: pki.KeyPair, name: str, kind: Kind = Kind.NODE) -> Credentials:
    pair = pki.issue(authority, Identity(CLUSTER, kind, name), datetime.now(UTC))
    return Credentials(authority.certificate, pair.certificate, pair.key)


class Lag:
    """How late the loop is, looked at every TICK."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK
            await asyncio.sleep(TICK)
            self.seen.append(max(0.0, loop.time() - due))

    def words(self) -> str:
        seen = sorted(self.seen) or [0.0]
        at = [seen[int(share * (len(seen) - 1))] * 1e3 for share in (0.5, 0.99, 1.0)]
        return f"p50 {at[0]:.2f} ms, p99 {at[1]:.2f} ms, most {at[2]:.2f} ms"


async def with_lag(work: Callable[[], Awaitable[None]]) -> tuple[float, Lag]:
    lag = Lag()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(lag.watch())
        began = time.perf_counter()
        await work()
        took = time.perf_counter() - began
        watching.cancel()
    return took, lag


async def node(folder: Path, shown: Credentials, pipe: Pipe) -> None:
    """Until the pipe says so; then how late it was."""
    store = BlobStore(folder, reserve=0)
    await store.open()
    listener = BulkListener("127.0.0.1", 0, credentials=shown, cluster=CLUSTER, store=store)
    await listener.open()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(PIECE):
            pass
        writer.close()

    bare = await asyncio.start_server(stream, "127.0.0.1", 0, ssl=tls.context(shown, serving=True))
    pipe.send((listener.port, bare.sockets[0].getsockname()[1]))
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        while True:
            asked = await loop.run_in_executor(None, pipe.recv)
            if asked == "stop":
                return
            await store.collect(set(), fresh=-1)
            pipe.send("empty")

    _, lag = await with_lag(serve)
    pipe.send(lag.words())
    bare.close()
    await listener.close()


def process(folder: Path, shown: Credentials, pipe: Pipe) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(node(folder, shown, pipe))


async def measure(folder: Path) -> None:
    authority = pki.create_authority(CLUSTER, datetime.now(UTC))
    ours, theirs = get_context("spawn").Pipe()
    other = get_context("spawn").Process(target=process, args=(folder / "node", credentials(authority, "node1"), theirs))
    other.start()
    port, bare = ours.recv()
    content = os.urandom(SIZE)
    path, digest = folder / "content", f"sha256:{sha256(content).hexdigest()}"
    path.write_bytes(content)
    shown, server = credentials(authority, "anna", Kind.OPERATOR), Identity(CLUSTER, Kind.NODE, "node1")
    mine = BlobStore(folder / "mine", reserve=0)
    await mine.open()

    async def put() -> None:
        async with await connect("127.0.0.1", port, credentials=shown, server=server) as client:
            await client.put(digest, FileSource(path, size=SIZE))

    async def get() -> None:
        async with await connect("127.0.0.1", port, credentials=shown, server=server) as client:
            sink = await mine.receive(digest, SIZE)
            assert sink is not None
            await client.get(digest, sink)
            await mine.leave(digest)

    async def stream() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", bare, ssl=tls.context(shown, serving=False), server_hostname=server.dns)
        for start in range(0, SIZE, PIECE):
            writer.write(content[start : start + PIECE])
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    for name, work in (("bare TLS stream", stream), ("put", put), ("get", get)):
        took: list[float] = []
        for _ in range(ROUNDS):
            if name == "put":
                ours.send("empty")
                ours.recv()
            await mine.collect(set(), fresh=-1)
            seconds, lag = await with_lag(work)
            took.append(seconds)
        best, usual = (SIZE / seconds / 1e6 for seconds in (min(took), sorted(took)[ROUNDS // 2]))
        print(f"{name}: {best:.0f} MB/s at best, {usual:.0f} usually; our loop late by {lag.words()}")
    ours.send("stop")
    print(f"the node's loop late by {ours.recv()}")
    other.join()


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as main,
    ):
        main.run(measure(Path(place)))
