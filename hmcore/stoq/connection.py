"""A connection as the application sees it: calls and streams of messages, over any wire (QUIC in endpoint.py, a socket in local.py).

The protocol is session.py's, answering the peer is service.py's; here are the futures of those who wait for it. A connection belongs to
one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hmcore.errors import Backpressure, CallTimeout, ConnectionLost, FrameError, HandshakeRefused, HyperMeshError
from hmcore.stoq.events import (
    Abandoned,
    Abort,
    Answered,
    Called,
    Credited,
    Ended,
    Event,
    Opened,
    Received,
    Refused,
    Welcomed,
    Write,
)
from hmcore.stoq.faults import error_of, fault_of
from hmcore.stoq.frames import Fault, Reply
from hmcore.stoq.greeting import Peer
from hmcore.stoq.messages import MessageStream
from hmcore.stoq.pulse import Pulse
from hmcore.stoq.service import Service, Serving
from hmcore.stoq.session import Session
from hmcore.stoq.window import OVERHEAD
from hmcore.stoq.wire import Wire

HIGH_WATER = 4 * 1024 * 1024  # bytes

log = logging.getLogger("hypermesh.stoq")


class Connection:
    """Calls and streams with one peer. Made by endpoint.dial, endpoint.serve and local.py.

    `on_open` is called once, when both ends have accepted each other and before anything else of the peer's is delivered.
    """

    def __init__(
        self,
        session: Session,
        service: Service | None,
        *,
        high_water: int = HIGH_WATER,
        on_open: Callable[[Connection], None] | None = None,
    ) -> None:
        self._session = session
        self._high_water = high_water
        self._on_open = on_open
        self._wire: Wire | None = None
        self._loop = asyncio.get_running_loop()
        self._peer: Peer | None = None
        self._lost: HyperMeshError | None = None
        self._calls: dict[int, asyncio.Future[Reply | Fault | None]] = {}
        self._messages: dict[int, MessageStream] = {}
        self._at_most = 0  # bytes: no larger can the wire's backlog be by now
        self._writable = Pulse()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._on_closed: list[Callable[[Connection], None]] = []
        self._stall_timer: asyncio.TimerHandle | None = None
        self._serving = Serving(service, self, self._task_failed)

    @property
    def peer(self) -> Peer:
        if self._peer is None:
            raise ConnectionLost("the peer has not been welcomed")
        return self._peer

    @property
    def name(self) -> str | None:
        """The peer's name, once known."""
        return self._peer.identity.name if self._peer else None

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds; None on a local socket."""
        return self._wire.rtt if self._wire else None

    @property
    def closed(self) -> bool:
        return self._lost is not None

    @property
    def failure(self) -> HyperMeshError | None:
        """What ended the connection; None while it is open."""
        return self._lost

    @property
    def reason(self) -> str:
        """Why the connection is closed; empty while it is open."""
        return self._lost.message if self._lost else ""

    @property
    def open_streams(self) -> int:
        """Calls and streams that are not finished."""
        return self._session.streams

    async def call(self, method: str, body: bytes, *, timeout: float) -> bytes:
        """Ask the peer. Raises CallTimeout, ConnectionLost, Backpressure, FrameError (a body over 16 MiB) or a CallRefused."""
        stream: int | None = None
        try:
            async with asyncio.timeout(timeout):
                while self._backlogged():
                    await self.wait_writable()
                self._raise_if_lost()
                stream = self._session.call(method, body)
                answer: asyncio.Future[Reply | Fault | None] = self._loop.create_future()
                self._calls[stream] = answer
                self._pump()
                said = await answer
        except TimeoutError as error:
            if stream is None:
                raise Backpressure(f"{method}: the peer took nothing for {timeout:g} s", host=self.name) from error
            raise CallTimeout(f"{method}: no answer within {timeout:g} s", host=self.name) from error
        finally:
            if stream is not None and self._calls.pop(stream, None) is not None:
                self.stream_abandon(stream)
        match said:
            case Reply(body):
                return body
            case Fault():
                raise error_of(said, host=self.name)
            case None:
                raise ConnectionLost(f"{method}: {self.reason or 'the peer gave the call up'}", host=self.name)

    async def open_stream(self, kind: str) -> MessageStream:
        """A new stream of messages. Raises ConnectionLost."""
        return self.open_stream_nowait(kind)

    def open_stream_nowait(self, kind: str) -> MessageStream:
        self._raise_if_lost()
        id = self._session.open(kind)
        stream = self._messages[id] = MessageStream(self, id, kind)
        self._pump()
        return stream

    def on_closed(self, callback: Callable[[Connection], None]) -> None:
        """Call back once, at the moment the connection is closed or lost: after that nothing of it is delivered."""
        if self.closed:
            callback(self)
        else:
            self._on_closed.append(callback)

    def hang_up(self, reason: str = "closed", *, refused: bool = False) -> None:
        """Close at once, telling the peer why. Does not wait for tasks and sockets; `close` does."""
        if self._lost is None:
            self.wire_lost((HandshakeRefused if refused else ConnectionLost)(reason, host=self.name))
            if self._wire is not None:
                self._wire.hang_up(refused=refused, reason=reason)

    async def close(self) -> None:
        self.hang_up()
        await self._released()

    async def wait_closed(self) -> None:
        """Until the connection is closed or lost; `reason` says why."""
        await asyncio.shield(self._gone)
        await self._released()

    async def wait_open(self) -> None:
        """Until both ends have accepted each other. Raises what ended the connection instead."""
        await asyncio.shield(self._opened)
        if self._lost is not None:
            raise self._lost

    async def _released(self) -> None:
        await self._serving.wait()
        if self._wire is not None:
            await self._wire.wait_released()

    # for the wire

    def start(self, wire: Wire) -> None:
        """Begin to speak over `wire`."""
        self._wire = wire
        self._pump()

    def wire_received(self, stream: int, data: bytes, end: bool) -> None:
        if self._lost is None:
            try:
                self._session.receive(stream, data, end, self._loop.time())
            except FrameError as error:
                self._violated(error)
            else:
                self._pump()

    def wire_aborted(self, stream: int) -> None:
        if self._lost is None:
            try:
                self._session.aborted(stream)
            except FrameError as error:
                self._violated(error)
            else:
                self._pump()

    def wire_advanced(self) -> None:
        """The wire's backlog may have shrunk."""
        if self._writable.awaited and not self._backlogged():
            self._writable.beat()

    def wire_lost(self, error: HyperMeshError) -> None:
        """The wire has stopped. Only the first reason counts."""
        if self._lost is not None:
            return
        self._lost = error
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        callbacks, self._on_closed = self._on_closed, []
        for callback in callbacks:
            callback(self)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.done():
                call.set_result(None)
        for messages in self._messages.values():
            messages.wake()
        self._messages.clear()
        self._writable.beat()
        self._serving.stop()
        for waiter in (self._opened, self._gone):
            if not waiter.done():
                waiter.set_result(None)

    # for what answers the peer

    def answer(self, stream: int, answer: Reply | Fault) -> None:
        if self._lost is None:
            try:
                self._session.answer(stream, answer)
            except FrameError as error:
                self._session.answer(stream, fault_of(error))
            self._write()

    # for streams

    def stream_send(self, stream: int, message: bytes) -> bool:
        if self._lost is not None or not self._session.may_send(stream) or self._backlogged():
            return False
        self._session.send(stream, message)
        self._write()
        return True

    def stream_alive(self, stream: int) -> bool:
        return self._lost is None and self._session.knows(stream)

    def stream_taken(self, stream: int, message: bytes) -> None:
        if self._lost is None:
            self._session.taken(stream, message)
            self._write()

    def stream_end(self, stream: int) -> None:
        if self._lost is None:
            self._session.end(stream)
            self._forget_finished(stream)
            self._write()

    def stream_abandon(self, stream: int) -> None:
        if self._lost is None:
            self._session.abandon(stream)
            self._forget_finished(stream)
            self._write()

    async def wait_writable(self) -> None:
        """Until something that held up writers has changed. Raises ConnectionLost."""
        self._raise_if_lost()
        await self._writable.wait()

    # inside

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise ConnectionLost(self._lost.message, host=self.name)

    def _backlogged(self) -> bool:
        """To look at the backlog itself takes a look at every stream: only when what was written since the last look may matter."""
        if self._wire is None or self._at_most < self._high_water:
            return False
        self._at_most = self._wire.backlog
        return self._at_most >= self._high_water

    def _write(self) -> None:
        assert self._wire is not None
        for write in self._session.take_writes():
            match write:
                case Write(stream, data, end):
                    self._at_most += len(data) + OVERHEAD
                    self._wire.write(stream, data, end)
                case Abort(stream):
                    self._wire.abort(stream)

    def _pump(self) -> None:
        self._write()
        for event in self._session.take_events():
            if self._lost is not None:
                return
            self._happened(event)
        if self._stall_timer is None and (deadline := self._session.deadline) is not None:
            self._stall_timer = self._loop.call_at(deadline, self._stalled)

    def _stalled(self) -> None:
        self._stall_timer = None
        try:
            self._session.expire(self._loop.time())
        except FrameError as error:
            self._violated(error)
        else:
            self._pump()

    def _happened(self, event: Event) -> None:
        match event:
            case Received(stream, payload):
                if (messages := self._messages.get(stream)) is not None:
                    messages.deliver(payload)
            case Answered(stream, answer):
                if (call := self._calls.pop(stream, None)) is not None and not call.done():
                    call.set_result(answer)
            case Called(stream, method, body):
                self._serving.call(stream, method, body)
            case Opened(stream, kind):
                messages = self._messages[stream] = MessageStream(self, stream, kind)
                self._serving.stream(stream, messages)
            case Ended(stream):
                if (messages := self._messages.get(stream)) is not None:
                    messages.end()
                    self._forget_finished(stream)
            case Abandoned(stream):
                self._abandoned(stream)
            case Credited():
                self._writable.beat()
            case Welcomed(peer):
                self._peer = peer
                if self._on_open is not None:
                    self._on_open(self)
                if not self._opened.done():
                    self._opened.set_result(None)
            case Refused(_, reason):
                self.hang_up(f"it refuses us: {reason}" if self._session.dials else reason, refused=True)

    def _abandoned(self, stream: int) -> None:
        if (call := self._calls.pop(stream, None)) is not None and not call.done():
            call.set_result(None)
        if (messages := self._messages.pop(stream, None)) is not None:
            messages.end()
        self._serving.cancel(stream)
        self._writable.beat()

    def _forget_finished(self, stream: int) -> None:
        if not self._session.knows(stream):
            self._messages.pop(stream, None)

    def _violated(self, error: FrameError) -> None:
        reason = f"broke the protocol: {error.message}"
        log.warning("%s %s", self._peer.identity if self._peer else "a stranger", reason)
        self.wire_lost(FrameError(reason, host=self.name))
        if self._wire is not None:
            self._wire.hang_up(refused=self._peer is None, reason=f"you {reason}")

    def _task_failed(self, failure: BaseException) -> None:
        log.error("a task of the connection to %s failed", self.name, exc_info=failure)
        self.hang_up("internal error")
