"""A bulk connection on the event loop: frames and content, both ways, neither end faster than the other.

What comes is read to where it stays (frames.Reader), and no more is read while QUEUED chunks wait to be taken. What goes is given to TLS in
slices, so that the loop has other turns in between, and no more is given while the socket has not taken what it has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from hmcore.errors import ConnectionLost, FrameError, HyperMeshError
from hmcore.stoq.bulk.frames import Chunk, Fault, Frame, Part, Reader, encode, error_of
from hmcore.stoq.pulse import Pulse

SLICE = 128 << 10  # bytes that are encrypted in one turn of the loop: 0.1 ms
HIGH_WATER = 512 << 10  # bytes that wait in the socket's buffer above which no more are given
QUEUED = 2  # chunks that were read and not taken
STALL = 20.0  # seconds that the other end may take to send a chunk, or to take one


class Wire(asyncio.BufferedProtocol):
    """`name`: of the other end, for errors. Bytes that are no frames end the connection."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._reader = Reader()
        self._arrived: deque[Frame | Part] = deque()
        self._parts = 0  # of those that arrived
        self._transport: asyncio.Transport | None = None
        self._news = Pulse()
        self._writable = True
        self._reading = True
        self._failure: HyperMeshError | None = None
        self._released = asyncio.get_running_loop().create_future()
        self.received = self.sent = 0  # bytes of content and frames
        self.lost: Exception | None = None  # what the transport said of its end

    # what the two ends do

    async def receive(self, timeout: float = STALL) -> Frame | Part:
        """The next frame. Raises ConnectionLost when there will be none, or none came for `timeout` seconds, and FrameError."""
        while not self._arrived:
            if self._failure is not None:
                raise self._failure
            await self._wait(timeout, "sends nothing")
        item = self._arrived.popleft()
        if isinstance(item, Part):
            self._parts -= 1
            self._pace()
        return item

    async def answer(self, timeout: float = STALL) -> Frame | Part:
        """The same, where a Fault is no answer but raised."""
        item = await self.receive(timeout)
        if isinstance(item, Fault):
            raise error_of(item, host=self.name)
        return item

    async def send(self, frame: Frame) -> None:
        """Raises ConnectionLost."""
        await self._write(encode(frame))

    async def send_part(self, mark: bytes, content: memoryview) -> None:
        """A chunk. Raises ConnectionLost; or what the other end said, if it spoke meanwhile: it does so only to stop us."""
        await self._write(encode(Chunk(len(content), mark)))
        for start in range(0, len(content), SLICE):
            await self._write(content[start : start + SLICE])
        if self._arrived:
            said = await self.answer()
            raise FrameError(f"a frame {type(said).__name__.lower()} in the middle of content", host=self.name)

    async def discard(self, timeout: float) -> None:
        """Throw away what still comes, until the other end hangs up, `timeout` seconds at most: so that it reads our last word."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self.receive(timeout)
        except (TimeoutError, ConnectionLost, FrameError):
            return

    def abort(self, reason: str = "the connection was closed") -> None:
        """At once; what is under way is lost."""
        self._fail(ConnectionLost(reason, host=self.name))
        if self._transport is not None:
            self._transport.abort()

    async def close(self, timeout: float = 1.0) -> None:
        """What was sent still arrives, if it does within `timeout` seconds."""
        if self._transport is not None:
            self._transport.close()
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.shield(self._released)
            except TimeoutError:
                self.abort()

    async def _write(self, data: bytes | memoryview) -> None:
        while not self._writable and self._failure is None:
            await self._wait(STALL, "takes nothing")
        if self._failure is not None:
            if self._arrived and isinstance(self._arrived[0], Fault):  # why it hung up
                raise error_of(self._arrived[0], host=self.name)
            raise self._failure
        assert self._transport is not None
        self.sent += len(data)
        self._transport.write(data)

    async def _wait(self, timeout: float, trouble: str) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError as error:
            self.abort(f"the other end {trouble} for {timeout:g} s")
            raise ConnectionLost(f"the other end {trouble} for {timeout:g} s", host=self.name) from error

    def _pace(self) -> None:
        reading = self._parts < QUEUED
        if reading is not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _fail(self, failure: HyperMeshError) -> None:
        self._failure = self._failure or failure
        self._news.beat()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # loops do not inherit it
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes
        if self._failure is not None:
            return
        try:
            item = self._reader.took(nbytes)
        except FrameError as error:
            self._fail(error)
            if self._transport is not None:
                self._transport.abort()
            return
        if item is not None:
            self._arrived.append(item)
            if isinstance(item, Part):
                self._parts += 1
                self._pace()
            self._news.beat()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._news.beat()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        within = " within a frame" if self._reader.within else ""
        self._fail(ConnectionLost(f"the connection ended{within}{f': {exc}' if exc else ''}", host=self.name))
        if not self._released.done():
            self._released.set_result(None)
