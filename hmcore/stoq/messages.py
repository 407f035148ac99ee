"""A stream of messages, as the application sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from hmcore.errors import ConnectionLost


class Owner(Protocol):
    """What a stream needs of its connection."""

    @property
    def closed(self) -> bool: ...

    @property
    def name(self) -> str | None: ...

    def stream_send(self, stream: int, message: bytes) -> bool: ...

    def stream_alive(self, stream: int) -> bool: ...

    def stream_taken(self, stream: int, message: bytes) -> None: ...

    def stream_end(self, stream: int) -> None: ...

    def stream_abandon(self, stream: int) -> None: ...

    async def wait_writable(self) -> None: ...


class MessageStream:
    """Ordered messages, both ways. A broken connection loses the tail of what was sent, and nothing else."""

    def __init__(self, owner: Owner, stream: int, kind: str) -> None:
        self.kind = kind
        self._owner = owner
        self._id = stream
        self._messages: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._ended = False  # the other end sends no more
        self._closed = False  # we send no more

    @property
    def alive(self) -> bool:
        """Whether messages can still be sent, if not now then later."""
        return not self._closed and self._owner.stream_alive(self._id)

    def send_nowait(self, message: bytes) -> bool:
        """Send, unless too much is under way already or the stream is closed: then False. Raises FrameError over 16 MiB."""
        return not self._closed and self._owner.stream_send(self._id, message)

    async def send(self, message: bytes) -> None:
        """Send, once the other end has kept up. Raises ConnectionLost, also when the stream is closed. Bound it with a timeout."""
        while not self.send_nowait(message):
            if not self.alive:
                raise ConnectionLost(f"the {self.kind} stream is closed", host=self._owner.name)
            await self._owner.wait_writable()

    async def receive(self) -> bytes | None:
        """The next message, or None once the other end has ended the stream. Raises ConnectionLost. One reader at a time."""
        while not self._messages:
            if self._ended:
                return None
            if self._owner.closed:
                raise ConnectionLost(f"the connection ended under the {self.kind} stream", host=self._owner.name)
            await self._wait()
        message = self._messages.popleft()
        self._owner.stream_taken(self._id, message)
        return message

    def deliver_to(self, sink: Callable[[bytes], None]) -> None:
        """Hand each message to `sink` the moment it comes, in order, instead of queueing it for `receive`: no task is woken."""
        self._sink = sink
        while self._messages:
            self.deliver(self._messages.popleft())

    async def wait_ended(self) -> None:
        """Until the other end has ended the stream, or the connection is gone. For streams with a sink."""
        while not self._ended and not self._owner.closed:
            await self._wait()

    def close(self) -> None:
        """Send no more. What was sent is still delivered."""
        if not self._closed:
            self._closed = True
            self._owner.stream_end(self._id)

    def abort(self) -> None:
        """Stop both directions; what is under way may be lost."""
        self._closed = self._ended = True
        self._owner.stream_abandon(self._id)
        self.wake()

    # for the connection

    @property
    def ended(self) -> bool:
        return self._ended

    def deliver(self, message: bytes) -> None:
        if self._sink is None:
            self._messages.append(message)
            self.wake()
        else:
            self._owner.stream_taken(self._id, message)
            self._sink(message)

    def end(self) -> None:
        self._ended = True
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
