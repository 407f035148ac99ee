"""A connection as the application sees it: calls and streams of messages, over any wire (QUIC in endpoint.py, a socket in local.py).

The protocol is session.py's, answering the peer is service.py's; those who wait for the peer's answers are in calls.py, streams in
streaming.py, what the peer has not taken yet in outbox.py. A connection belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hmcore.errors import Backpressure, CallTimeout, ConnectionLost, FrameError, HandshakeRefused, HyperMeshError
from hmcore.stoq.calls import Call, Calls
from hmcore.stoq.events import (
    Abandoned,
    Answered,
    Called,
    Credited,
    Ended,
    Event,
    Opened,
    Received,
    Refused,
    Welcomed,
)
from hmcore.stoq.faults import error_of, fault_of
from hmcore.stoq.frames import Fault, Reply
from hmcore.stoq.greeting import Peer
from hmcore.stoq.messages import MessageStream
from hmcore.stoq.outbox import HIGH_WATER, Outbox
from hmcore.stoq.pulse import Pulse
from hmcore.stoq.service import Service, Serving
from hmcore.stoq.session import Session
from hmcore.stoq.streaming import Streaming
from hmcore.stoq.wire import Wire

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
        self._outbox = Outbox(high_water)
        self._on_open = on_open
        self._wire: Wire | None = None
        self._loop = asyncio.get_running_loop()
        self._peer: Peer | None = None
        self._lost: HyperMeshError | None = None
        self._calls = Calls(session)
        self._messages = Streaming(session, self._outbox, self)
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
        call: Call | None = None
        try:
            async with asyncio.timeout(timeout):
                while self._outbox.full:
                    await self.wait_writable()
                self._raise_if_lost()
                call = self._calls.begin(method, body)
                self.write()
                said = await call.answer
        except TimeoutError as error:
            if call is None or call.id is None:
                raise Backpressure(f"{method}: the peer took nothing for {timeout:g} s", host=self.name) from error
            raise CallTimeout(f"{method}: no answer within {timeout:g} s", host=self.name) from error
        finally:
            if call is not None and self._calls.forget(call) and call.id is not None:
                self.stream_abandon(call.id)
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
        return self._messages.open(kind)

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
        self._outbox.start(wire)
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
        if self._writable.awaited and not self._outbox.full:
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
        self._calls.lose()
        self._messages.lose()
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
            self.write()

    def stream_end(self, stream: int) -> None:
        self._messages.stream_end(stream)

    def stream_abandon(self, stream: int) -> None:
        self._messages.stream_abandon(stream)

    # for streams

    async def wait_writable(self) -> None:
        """Until something that held up writers has changed. Raises ConnectionLost."""
        self._raise_if_lost()
        await self._writable.wait()

    def write(self) -> None:
        self._outbox.put(self._session.take_writes())
        if reason := self._outbox.hopeless:
            self.hang_up(reason)

    # inside

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise ConnectionLost(self._lost.message, host=self.name)

    def _pump(self) -> None:
        self.write()
        for event in self._session.take_events():
            if self._lost is not None:
                return
            self._happened(event)
        if self._calls.advance():
            self.write()
        if self._lost is None and self._stall_timer is None and (deadline := self._session.deadline) is not None:
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
            case Received() | Ended():
                self._messages.happened(event)
            case Answered(stream, answer):
                self._calls.answered(stream, answer)
            case Called(stream, method, body):
                self._serving.call(stream, method, body)
            case Opened(stream, kind):
                self._serving.stream(stream, self._messages.opened(stream, kind))
            case Abandoned(stream):
                self._calls.answered(stream, None)
                self._messages.happened(event)
                self._serving.cancel(stream)
                self._writable.beat()
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

    def _violated(self, error: FrameError) -> None:
        reason = f"broke the protocol: {error.message}"
        log.warning("%s %s", self._peer.identity if self._peer else "a stranger", reason)
        self.wire_lost(FrameError(reason, host=self.name))
        if self._wire is not None:
            self._wire.hang_up(refused=self._peer is None, reason=f"you {reason}")

    def _task_failed(self, failure: BaseException) -> None:
        log.error("a task of the connection to %s failed", self.name, exc_info=failure)
        self.hang_up("internal error")
