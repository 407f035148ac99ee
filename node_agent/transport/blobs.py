"""The node's store of content by its digest: files under /var/lib/hypermesh/blobs. See docs/adr/0097.

    HEX               whole content, named by its SHA-256
    HEX.marks         the marks of its chunks (hmcore/stoq/bulk/frames.py), so that it is sent without being hashed again
    partial/HEX       what has come so far, with its marks beside it: its chunks count as far as they fit these, which is looked at when it
                      is gone on with, by hashing them

A file has its final name only after its content was hashed whole and is on the disk (fdatasync), and the folder is synced before anybody is
told. Nothing else is: what a crash takes from a partial is sent again. Where the disk is full, the partial is removed.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hmcore.digests import hex_of, is_digest
from hmcore.errors import BlobBusy, BlobError, BlobMissing, BlobStoreFull, InvalidRequest
from hmcore.stoq.bulk.frames import CHUNK, MARK
from hmcore.stoq.bulk.streams import FileSource
from hmcore.stoq.pulse import Pulse
from node_agent.transport.blobfiles import examine, failure, modified, remove, size_of
from node_agent.transport.partial import Partial, read_marks

T = TypeVar("T")

RESERVE = 512 << 20  # bytes of the disk that we leave free: the journal of consensus is on the same
THREADS = 4
FRESH = 3600.0  # seconds that content is kept since it came or was asked for, whether anything refers to it or not: its record comes later

log = logging.getLogger("hypermesh.blobs")


@dataclass(frozen=True, slots=True)
class Held:
    """Whole content. `used`: seconds since 1970 when it came or somebody wanted it."""

    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Usage:
    """`partial`: bytes of content that is not whole."""

    blobs: int
    bytes: int
    partial: int


class BlobStore:
    """See hmcore.stoq.bulk.server.Store. Files are read, written and hashed in a few threads of its own."""

    def __init__(self, folder: Path, *, reserve: int = RESERVE, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._partials = folder / "partial"
        self._reserve = reserve
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._sinks: dict[str, BlobSink | None] = {}  # None: it is just being opened
        self._settled = Pulse()
        self._threads: Executor | None = None

    async def open(self) -> None:
        """Look what is there; also after `close`. Raises BlobError."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")
        self._held = await self._apart(self._look)

    def close(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    # hmcore.stoq.bulk.server.Store

    def sizes(self, digests: Sequence[str]) -> list[int | None]:
        return [self._touch(digest) for digest in digests]

    async def receive(self, digest: str, size: int) -> BlobSink | None:
        """Where the rest of the content goes; None: it is there already. To be given back to `leave`.

        Raises BlobBusy (somebody brings it already), BlobStoreFull, InvalidRequest and BlobError.
        """
        if not is_digest(digest):
            raise InvalidRequest(f"{digest[:100]!r} is no digest")
        if (there := self._touch(digest)) is not None:
            if there != size:
                raise InvalidRequest(f"{digest} has {there} bytes, not {size}")
            return None
        if digest in self._sinks:
            raise BlobBusy(f"{digest} is being brought by somebody else")
        self._sinks[digest] = None
        try:
            self._make_room(digest, size)
            partial = await self._apart(lambda: Partial.open(self._partials / hex_of(digest), digest, size))
        except BaseException:
            del self._sinks[digest]
            self._settled.beat()
            raise
        sink = self._sinks[digest] = BlobSink(partial, self._apart, self._whole)
        return sink

    async def leave(self, digest: str) -> None:
        """It can be gone on with, by whoever comes next, once this is back; also if this is cancelled."""
        if (sink := self._sinks.get(digest)) is None:
            return

        def left(_: object) -> None:
            self._sinks.pop(digest, None)
            self._settled.beat()

        closing = asyncio.get_running_loop().run_in_executor(self._threads, sink.partial.close)
        closing.add_done_callback(left)
        await asyncio.shield(closing)

    async def source(self, digest: str) -> FileSource:
        size = self._touch(digest)
        if size is None:
            raise BlobMissing(f"{digest} is not here")
        path = self._path(digest)
        marks = await self._apart(lambda: read_marks(path))
        if not fits(marks, digest, size):
            if not await self.examine(digest):
                raise BlobMissing(f"{digest} was here, but damaged")
            marks = await self._apart(lambda: read_marks(path))
        return FileSource(path, size=size, marks=marks, executor=self._threads)

    async def examine(self, digest: str) -> bool:
        """Whether what is there fits the digest; if not, it is there no more."""
        if digest not in self._held:
            return False
        path = self._path(digest)
        good = await self._apart(lambda: examine(path, digest))
        if not good and self._held.pop(digest, None) is not None:
            log.error("%s was damaged on this node's disk, and is thrown away", digest)
        return good

    # what the agent does

    def has(self, digest: str) -> bool:
        return digest in self._held

    async def settled(self) -> None:
        """Until some content is left by whoever brought it."""
        await self._settled.wait()

    async def content(self, digest: str, most: int) -> bytes:
        """Small content whole. Raises BlobMissing; BlobError when it is larger than `most` bytes."""
        size = self._touch(digest)
        if size is None:
            raise BlobMissing(f"{digest} is not here")
        if size > most:
            raise BlobError(f"{digest} has {size} bytes: {most} at most")
        return await self._apart(self._path(digest).read_bytes)

    def path(self, digest: str) -> Path:
        """Of whole content, to be read. Raises BlobMissing."""
        if self._touch(digest) is None:
            raise BlobMissing(f"{digest} is not here")
        return self._path(digest)

    async def usage(self) -> Usage:
        partial = await self._apart(lambda: sum(size_of(path) for path in self._partials.iterdir() if not path.suffix))
        return Usage(len(self._held), sum(held.size for held in self._held.values()), partial)

    async def collect(self, keep: AbstractSet[str], *, fresh: float = FRESH) -> int:
        """Remove what nothing in `keep` refers to; the bytes that this set free. What is being brought stays, and what is fresh."""
        before = self._clock() - fresh
        gone = disposable(self._held, keep, before)
        freed = sum(self._held.pop(digest).size for digest in gone)
        busy = {hex_of(digest) for digest in self._sinks}

        def tidy() -> int:
            for digest in gone:
                remove(self._path(digest))
            old = [path for path in self._partials.iterdir() if path.name.split(".")[0] not in busy and modified(path) < before]
            size = sum(size_of(path) for path in old if not path.suffix)
            for path in old:
                path.unlink(missing_ok=True)
            return size

        return freed + await self._apart(tidy)

    # inside

    def _touch(self, digest: str) -> int | None:
        held = self._held.get(digest)
        if held is None:
            return None
        self._held[digest] = Held(held.size, self._clock())
        return held.size

    def _whole(self, digest: str, size: int) -> None:
        self._held[digest] = Held(size, self._clock())

    def _path(self, digest: str) -> Path:
        return self._folder / hex_of(digest)

    def _make_room(self, digest: str, size: int) -> None:
        promised = sum(sink.size - sink.offset for sink in self._sinks.values() if sink is not None)
        there = size_of(self._partials / hex_of(digest))
        free = shutil.disk_usage(self._partials).free
        if size - there + promised + self._reserve > free:
            raise BlobStoreFull(
                f"no room for {size} bytes on the disk of {self._folder}: {free} are free, and {self._reserve} are kept free",
                fix="docker system prune, or hmctl image rm",
            )

    def _look(self) -> dict[str, Held]:
        self._partials.mkdir(mode=0o700, parents=True, exist_ok=True)
        found: dict[str, Held] = {}
        for path in self._folder.iterdir():
            digest = f"sha256:{path.name}"
            if is_digest(digest):
                found[digest] = Held(size_of(path), modified(path))
        for path in self._folder.glob("*.marks"):
            if f"sha256:{path.stem}" not in found:
                path.unlink()
        return found

    async def _apart(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            raise BlobError("the store of content is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            raise failure(error, self._folder) from error


class BlobSink:
    """Where one content goes. See hmcore.stoq.bulk.streams.Sink."""

    def __init__(self, partial: Partial, apart: Callable[[Callable[[], None]], Awaitable[None]], whole: Callable[[str, int], None]) -> None:
        self.partial = partial
        self._apart = apart
        self._on_whole = whole

    @property
    def offset(self) -> int:
        return self.partial.offset

    @property
    def size(self) -> int:
        return self.partial.size

    async def add(self, content: bytearray, mark: bytes) -> None:
        await self._apart(lambda: self.partial.add(content, mark))

    async def finish(self) -> None:
        await self._apart(self.partial.finish)
        self._on_whole(self.partial.digest, self.partial.size)

    async def restart(self) -> None:
        await self._apart(self.partial.restart)


def disposable(held: dict[str, Held], keep: AbstractSet[str], before: float) -> list[str]:
    """The digests of what nobody refers to, and nobody has wanted since `before`."""
    return [digest for digest, blob in held.items() if digest not in keep and blob.used < before]


def fits(marks: bytes, digest: str, size: int) -> bool:
    """Whether `marks` can be those of this content: as many as it has chunks, and the last is its digest."""
    return len(marks) == -(-size // CHUNK) * MARK and (not size or marks[-MARK:].hex() == hex_of(digest))
