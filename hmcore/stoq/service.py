"""What answers the other end of a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from hmcore.errors import ConnectionLost, HyperMeshError
from hmcore.stoq.faults import fault_of
from hmcore.stoq.frames import Fault, Reply
from hmcore.stoq.greeting import Peer
from hmcore.stoq.messages import MessageStream
from hmcore.stoq.tasks import TaskScope

log = logging.getLogger("hypermesh.stoq")


class Service(Protocol):
    """What answers the other end. `call` raises a CallRefused to refuse; anything else it raises is an internal fault."""

    async def call(self, peer: Peer, method: str, body: bytes) -> bytes: ...

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        """An incoming stream of messages. When this returns, the stream is closed."""


class Asker(Protocol):
    """What answering needs of the connection to whoever asks."""

    @property
    def peer(self) -> Peer: ...

    def answer(self, stream: int, answer: Reply | Fault) -> None: ...

    def stream_end(self, stream: int) -> None: ...

    def stream_abandon(self, stream: int) -> None: ...


class Serving:
    """Answers one connection's other end: a task for each call and each stream that it opens, until it no longer wants that."""

    def __init__(self, service: Service | None, asker: Asker, on_failure: Callable[[BaseException], None]) -> None:
        self._service = service
        self._asker = asker
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._scope = TaskScope("stoq connection", on_failure)

    def call(self, stream: int, method: str, body: bytes) -> None:
        self._start(stream, f"stoq call {method}", self._call(stream, method, body))

    def stream(self, stream: int, messages: MessageStream) -> None:
        self._start(stream, f"stoq stream {messages.kind}", self._stream(stream, messages))

    def cancel(self, stream: int) -> None:
        if (task := self._tasks.get(stream)) is not None:
            task.cancel()

    def stop(self) -> None:
        """Cancel everything, and start nothing more."""
        self._scope.cancel()

    async def wait(self) -> None:
        """After `stop`, until all has ended. A task of ours that waits here is not waited for."""
        if asyncio.current_task() not in self._tasks.values():
            await self._scope.wait()

    def _start(self, stream: int, name: str, work: Coroutine[Any, Any, None]) -> None:
        def started(task: asyncio.Task[None]) -> None:
            self._tasks[stream] = task
            task.add_done_callback(lambda _: self._tasks.pop(stream, None))

        self._scope.spawn(name, work, started)

    async def _call(self, stream: int, method: str, body: bytes) -> None:
        self._asker.answer(stream, await answer_call(self._service, self._asker.peer, method, body))

    async def _stream(self, stream: int, messages: MessageStream) -> None:
        try:
            await answer_stream(self._service, self._asker.peer, messages)
        finally:
            if messages.ended:
                self._asker.stream_end(stream)
            else:
                self._asker.stream_abandon(stream)


async def answer_call(service: Service | None, peer: Peer, method: str, body: bytes) -> Reply | Fault:
    """The answer to a call, whatever the service does."""
    if service is None:
        return Fault("invalid-request", "nothing is served on this connection")
    try:
        return Reply(await service.call(peer, method, body))
    except Exception as error:
        if not isinstance(error, HyperMeshError):
            log.exception("%s of %s failed", method, peer.identity)
        return fault_of(error)


async def answer_stream(service: Service | None, peer: Peer, stream: MessageStream) -> None:
    """Let the service have the stream. Raises nothing: what it raised is logged."""
    if service is None:
        return
    try:
        await service.stream(peer, stream.kind, stream)
    except ConnectionLost:
        log.debug("%s stream of %s: the connection is gone", stream.kind, peer.identity)
    except HyperMeshError as error:
        log.warning("%s stream of %s: %s", stream.kind, peer.identity, error)
    except Exception:
        log.exception("%s stream of %s failed", stream.kind, peer.identity)
