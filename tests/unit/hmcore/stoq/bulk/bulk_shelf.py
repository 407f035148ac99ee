"""Content in memory, to put and to get: what the tests of bulk connections have at either end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

from hmcore.errors import BlobBusy, BlobCorrupt, BlobMissing
from hmcore.stoq.bulk.frames import CHUNK
from hmcore.stoq.bulk.server import BulkListener
from hmcore.stoq.bulk.streams import MemorySource, Read, expect_mark
from hmcore.stoq.mtls import Credentials


def digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


@dataclass
class ShelfSink:
    """`fail` is called before each chunk is kept."""

    digest: str
    size: int
    kept: bytearray = field(default_factory=bytearray)
    fail: Callable[[int], None] = lambda offset: None
    finished: bool = False
    restarts: int = 0

    @property
    def offset(self) -> int:
        return len(self.kept)

    async def add(self, content: bytearray, mark: bytes) -> None:
        self.fail(self.offset)
        expect_mark(sha256(self.kept + content).digest(), mark, self.offset + len(content))
        self.kept += content

    async def finish(self) -> None:
        if digest(self.kept) != self.digest:
            raise BlobCorrupt("something else")
        self.finished = True

    async def restart(self) -> None:
        self.kept.clear()
        self.restarts += 1


class WrongSource(MemorySource):
    """Sends other bytes than its marks tell, from the chunk at `wrong` on."""

    def __init__(self, content: bytes, wrong: int) -> None:
        super().__init__(content)
        self._wrong = wrong

    def read(self, offset: int) -> asyncio.Future[Read]:
        content, mark = super().read(offset).result()
        future: asyncio.Future[Read] = asyncio.get_running_loop().create_future()
        other = memoryview(bytes(byte ^ 1 for byte in content[:1]) + bytes(content[1:]))
        future.set_result((other if offset >= self._wrong else content, mark))
        return future


class Shelf:
    """See hmcore.stoq.bulk.server.Store."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {digest(content): content for content in contents}
        self.partial: dict[str, ShelfSink] = {}
        self.busy: set[str] = set()
        self.wrong: int | None = None
        self.fail: Callable[[int], None] = lambda offset: None
        self.doubted: list[str] = []

    def sizes(self, digests: Sequence[str]) -> list[int | None]:
        return [len(self.contents[each]) if each in self.contents else None for each in digests]

    async def receive(self, digest: str, size: int) -> ShelfSink | None:
        if digest in self.contents:
            return None
        if digest in self.busy:
            raise BlobBusy("somebody brings it")
        self.busy.add(digest)
        sink = self.partial.setdefault(digest, ShelfSink(digest, size))
        sink.fail = self.fail
        return sink

    async def leave(self, digest: str) -> None:
        self.busy.discard(digest)
        if self.partial[digest].finished:
            self.contents[digest] = bytes(self.partial.pop(digest).kept)

    async def source(self, digest: str) -> MemorySource:
        if digest not in self.contents:
            raise BlobMissing(f"{digest} is not here")
        content = self.contents[digest]
        return MemorySource(content) if self.wrong is None else WrongSource(content, self.wrong)

    async def examine(self, digest: str) -> bool:
        self.doubted.append(digest)
        return True


@asynccontextmanager
async def listening(credentials: Credentials, cluster: str, shelf: Shelf, **more: object) -> AsyncIterator[BulkListener]:
    listener = BulkListener("127.0.0.1", 0, credentials=credentials, cluster=cluster, store=shelf, **more)  # type: ignore[arg-type]
    await listener.open()
    try:
        yield listener
    finally:
        await listener.close()


def content(chunks: float, seed: int = 0) -> bytes:
    """So many chunks of bytes that differ everywhere."""
    size = int(chunks * CHUNK)
    block = b"".join(sha256(f"{seed}:{number}".encode()).digest() for number in range(1024))
    return b"".join(number.to_bytes(8, "big") + block[8:] for number in range(-(-size // len(block))))[:size]
