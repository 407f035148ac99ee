"""What content comes from and where it goes, and the two movements between them and a connection.

A file is read, and its content hashed, in threads: the event loop only passes buffers on.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from hmcore.errors import BlobCorrupt, BlobMissing, FrameError
from hmcore.stoq.bulk.frames import CHUNK, MARK, Part, chunk_size
from hmcore.stoq.bulk.wire import Wire

Read = tuple[memoryview, bytes]  # a chunk's content, and its mark


class Source(Protocol):
    """Content of `size` bytes. `read` begins at once to fetch the chunk at `offset`; it may be asked for the next one before the last is
    there, never for another. What it gives raises BlobMissing when the content cannot be read (any more)."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int) -> asyncio.Future[Read]: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """Where content of `size` bytes goes; `offset`: it has all before it. See node_agent/transport/blobs.py."""

    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...
    async def add(self, content: bytearray, mark: bytes) -> None:
        """The next chunk. Raises BlobCorrupt, when it does not fit its mark, and BlobStoreFull."""

    async def finish(self) -> None:
        """All is there. Raises BlobCorrupt when it is not what the digest names."""

    async def restart(self) -> None:
        """Throw away what has come: nobody knows which part of it is wrong."""


Progress = Callable[[int], None]  # so many bytes more


async def pour(wire: Wire, source: Source, offset: int, progress: Progress = lambda size: None) -> None:
    """Send what `source` has from `offset` on; the next chunk is read while one is sent. Raises BlobMissing and what
    Wire.send_part does."""
    coming = source.read(offset) if offset < source.size else None
    try:
        while coming is not None:
            content, mark = await coming
            offset += len(content)
            coming = source.read(offset) if offset < source.size else None
            await wire.send_part(mark, content)
            progress(len(content))
    finally:
        if coming is not None and not coming.cancel() and not coming.cancelled():
            coming.exception()  # nobody else will ask


async def fill(wire: Wire, sink: Sink, progress: Progress = lambda size: None) -> None:
    """Take what `sink` lacks. The next chunks arrive while one is checked and stored. Raises FrameError and what Sink.add and Wire.answer
    do; after BlobCorrupt nothing is kept."""
    try:
        await _fill(wire, sink, progress)
        await sink.finish()
    except BlobCorrupt:
        await sink.restart()
        raise


async def _fill(wire: Wire, sink: Sink, progress: Progress) -> None:
    while sink.offset < sink.size:
        match await wire.answer():
            case Part(mark, content) if len(content) == chunk_size(sink.offset, sink.size):
                await sink.add(content, mark)
                progress(len(content))
            case Part(_, content):
                raise FrameError(f"a chunk of {len(content)} bytes at {sink.offset} of {sink.size}", host=wire.name)
            case other:
                raise FrameError(f"a frame {type(other).__name__.lower()} where a chunk was due", host=wire.name)


class FileSource:
    """`size` bytes of a file from `start` on. `marks`: of all chunks, where they are known; else they are worked out as the content is
    read, and what lies before the first offset is read for that, too."""

    def __init__(self, path: Path, *, size: int, start: int = 0, marks: bytes = b"", executor: Executor | None = None) -> None:
        """Raises BlobMissing when the file cannot be opened."""
        self.size = size
        self._start = start
        self._marks = marks
        self._executor = executor
        self._hash = sha256()
        self._hashed = 0
        self._path = path
        self._reading = threading.Lock()
        self._closed = False
        try:
            self._file: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BlobMissing(f"{path} cannot be read: {error.strerror}") from error

    def read(self, offset: int) -> asyncio.Future[Read]:
        return asyncio.get_running_loop().run_in_executor(self._executor, self._read, offset)

    def close(self) -> None:
        """A read that is under way keeps the file until it ends."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._reading.acquire(blocking=False):
            try:
                if self._file is not None:
                    os.close(self._file)
                    self._file = None
            finally:
                self._reading.release()

    def _read(self, offset: int) -> Read:
        try:
            with self._reading:
                return self._chunk(offset)
        finally:
            if self._closed:
                self._let_go()

    def _chunk(self, offset: int) -> Read:
        if self._marks:
            at = offset // CHUNK * MARK
            return self._content(offset), self._marks[at : at + MARK]
        while self._hashed < offset:
            self._take(self._hashed)
        content = self._take(offset)
        return content, self._hash.digest()

    def _take(self, offset: int) -> memoryview:
        content = self._content(offset)
        self._hash.update(content)
        self._hashed += len(content)
        return content

    def _content(self, offset: int) -> memoryview:
        wanted = chunk_size(offset, self.size)
        buffer = bytearray(wanted)
        view, filled = memoryview(buffer), 0
        try:
            while filled < wanted:
                if self._file is None:
                    raise BlobMissing(f"{self._path} was closed")
                got = os.preadv(self._file, [view[filled:]], self._start + offset + filled)
                if not got:
                    raise BlobMissing(f"{self._path} ended at {self._start + offset + filled} bytes: it was longer a moment ago")
                filled += got
        except OSError as error:
            raise BlobMissing(f"{self._path} cannot be read: {error.strerror}") from error
        return view


class MemorySource:
    """Small content that is here already."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = memoryview(content)
        self._hash = sha256()
        self._hashed = 0

    def read(self, offset: int) -> asyncio.Future[Read]:
        end = offset + chunk_size(offset, self.size)
        self._hash.update(self._content[self._hashed : end])
        self._hashed = end
        future: asyncio.Future[Read] = asyncio.get_running_loop().create_future()
        future.set_result((self._content[offset:end], self._hash.digest()))
        return future

    def close(self) -> None:
        """There is nothing to close."""


def expect_mark(reached: bytes, mark: bytes, where: int) -> None:
    """Raises BlobCorrupt unless the running hash has `reached` the chunk's mark."""
    if reached != mark:
        raise BlobCorrupt(f"the chunk that ends at byte {where} is not what its sender says it is")
