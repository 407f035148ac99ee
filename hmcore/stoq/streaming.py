"""The streams of messages of one connection, between those who hold them (messages.py) and the session."""

from __future__ import annotations

from typing import Protocol

from hmcore.stoq.events import Abandoned, Ended, Received
from hmcore.stoq.messages import MessageStream
from hmcore.stoq.outbox import Outbox
from hmcore.stoq.session import Session


class Carrier(Protocol):
    """What streams need of their connection."""

    @property
    def closed(self) -> bool: ...

    @property
    def name(self) -> str | None: ...

    async def wait_writable(self) -> None: ...

    def write(self) -> None:
        """Send what the session wants sent."""


class Streaming:
    """See messages.Owner."""

    def __init__(self, session: Session, outbox: Outbox, carrier: Carrier) -> None:
        self._session = session
        self._outbox = outbox
        self._carrier = carrier
        self._streams: dict[int, MessageStream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, kind: str) -> MessageStream:
        id = self._session.open(kind)
        stream = self._streams[id] = MessageStream(self, id, kind)
        self._carrier.write()
        return stream

    def opened(self, id: int, kind: str) -> MessageStream:
        """The other end opened it."""
        stream = self._streams[id] = MessageStream(self, id, kind)
        return stream

    def happened(self, event: Received | Ended | Abandoned) -> None:
        match event:
            case Received(id, payload):
                if (stream := self._streams.get(id)) is not None:
                    stream.deliver(payload)
            case Ended(id):
                if (stream := self._streams.get(id)) is not None:
                    stream.end()
                    self._forget_finished(id)
            case Abandoned(id):
                if (stream := self._streams.pop(id, None)) is not None:
                    stream.end()

    def lose(self) -> None:
        """The connection is gone."""
        for stream in self._streams.values():
            stream.wake()
        self._streams.clear()

    # for the streams

    @property
    def closed(self) -> bool:
        return self._carrier.closed

    @property
    def name(self) -> str | None:
        return self._carrier.name

    async def wait_writable(self) -> None:
        await self._carrier.wait_writable()

    def stream_send(self, stream: int, message: bytes) -> bool:
        if self.closed or not self._session.may_send(stream) or self._outbox.full:
            return False
        self._session.send(stream, message)
        self._carrier.write()
        return True

    def stream_alive(self, stream: int) -> bool:
        return not self.closed and self._session.knows(stream)

    def stream_taken(self, stream: int, message: bytes) -> None:
        if not self.closed:
            self._session.taken(stream, message)
            self._carrier.write()

    def stream_end(self, stream: int) -> None:
        if not self.closed:
            self._session.end(stream)
            self._forget_finished(stream)
            self._carrier.write()

    def stream_abandon(self, stream: int) -> None:
        if not self.closed:
            self._session.abandon(stream)
            self._forget_finished(stream)
            self._carrier.write()

    def _forget_finished(self, id: int) -> None:
        if not self._session.knows(id):
            self._streams.pop(id, None)
