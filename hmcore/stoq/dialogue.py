"""Typed streams: a question opens one, then both ends speak until the answering end has said all. docs/adr/0099.

Beneath is a stream of messages (messages.py), so order, credit and the end of a connection are the session's. Each message is msgpack of a
tagged union of arrays; what the answering end says may end with a Fault, as calls are refused with one. Calls with one answer are rpc.py's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from hmcore.errors import CallRefused, ConnectionLost, FrameError, HyperMeshError, InvalidRequest, PermissionDenied
from hmcore.pki import Kind
from hmcore.stoq.faults import OK, error_of, fault_of, kind_of
from hmcore.stoq.frames import Fault
from hmcore.stoq.greeting import Peer
from hmcore.stoq.messages import MessageStream
from hmcore.stoq.rpc import UNKNOWN, Denied, Observe

Req = TypeVar("Req")
Up = TypeVar("Up")
Down = TypeVar("Down")

OPENING = 10.0  # seconds from the stream to its question

log = logging.getLogger("hypermesh.rpc")


@dataclass(frozen=True, slots=True, eq=False)
class Dialogue(Generic[Req, Up, Down]):
    """Its name on the wire, its question, and what either end says then: unions of tagged, array-like structs. `up` is the opener's."""

    name: str
    request: msgspec.msgpack.Decoder[Req]
    up: msgspec.msgpack.Decoder[Up]
    down: msgspec.msgpack.Decoder[Fault | Down]


class Opener(Protocol):
    """Something that streams can be opened on: a Connection, over QUIC or a socket."""

    @property
    def name(self) -> str | None: ...

    async def open_stream(self, kind: str) -> MessageStream: ...


class Talk(Generic[Req, Up, Down]):
    """The opener's end. As a context manager it leaves nothing behind, however it is left."""

    def __init__(self, dialogue: Dialogue[Req, Up, Down], stream: MessageStream, host: str | None) -> None:
        self._dialogue = dialogue
        self._stream = stream
        self._host = host

    async def send(self, said: Up) -> None:
        """Once the other end has kept up. Raises ConnectionLost."""
        await self._stream.send(msgspec.msgpack.encode(said))

    async def receive(self) -> Down | None:
        """What the other end says next; None: it has said all. Raises CallRefused if it refuses, ConnectionLost, and FrameError for what is
        not of the dialogue. One reader at a time."""
        message = await self._stream.receive()
        if message is None:
            self.close()
            return None
        try:
            said = self._dialogue.down.decode(message)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise FrameError(f"{self._dialogue.name}: not of this dialogue: {error}", host=self._host) from error
        if isinstance(said, Fault):
            raise error_of(said, host=self._host)
        return said

    def close(self) -> None:
        """Say no more; what the other end says is still heard."""
        self._stream.close()

    def abort(self) -> None:
        """Neither say nor hear more."""
        self._stream.abort()

    async def __aenter__(self) -> Talk[Req, Up, Down]:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._stream.ended:
            self.close()
        else:
            self.abort()


async def open_talk(opener: Opener, dialogue: Dialogue[Req, Up, Down], request: Req, *, timeout: float) -> Talk[Req, Up, Down]:
    """Ask; whether it is answered shows in what is received. Raises ConnectionLost."""
    talk = Talk(dialogue, await opener.open_stream(dialogue.name), opener.name)
    try:
        async with asyncio.timeout(timeout):
            await talk._stream.send(msgspec.msgpack.encode(request))
    except TimeoutError as error:
        talk.abort()
        raise ConnectionLost(f"{dialogue.name}: the peer took nothing for {timeout:g} s", host=opener.name) from error
    except BaseException:
        talk.abort()
        raise
    return talk


class Answering(Generic[Up, Down]):
    """The answering end, as a handler has it. When the handler returns, all is said."""

    def __init__(self, dialogue: Dialogue[Any, Up, Down], stream: MessageStream) -> None:
        self._dialogue = dialogue
        self._stream = stream

    async def send(self, said: Down) -> None:
        """Once the opener has kept up, however long that takes. Raises ConnectionLost."""
        await self._stream.send(msgspec.msgpack.encode(said))

    async def receive(self) -> Up | None:
        """What the opener says next; None: it says no more. Raises InvalidRequest for what is not of the dialogue, ConnectionLost."""
        message = await self._stream.receive()
        return None if message is None else _decoded(self._dialogue.name, self._dialogue.up, message)


Handler = Callable[[Peer, Any, Answering[Any, Any]], Awaitable[None]]
DialogueRoutes = Mapping[Dialogue[Any, Any, Any], tuple[Collection[Kind], Handler]]


class Dialogues:
    """Answers streams: for each dialogue who may open it, and what answers.

    A handler is cancelled when its opener is gone or wants no more. `denied` and `observe`: see rpc.Router.
    """

    def __init__(
        self,
        routes: DialogueRoutes,
        *,
        denied: Denied = lambda peer, name: None,
        observe: Observe = lambda name, outcome, seconds: None,
    ) -> None:
        self._routes = {dialogue.name: (dialogue, frozenset(kinds), handler) for dialogue, (kinds, handler) in routes.items()}
        self._denied = denied
        self._observe = observe

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        """Raises ConnectionLost; every other failure becomes a Fault, the last that is said."""
        began, outcome = time.perf_counter(), OK
        try:
            await self._answer(peer, kind, stream)
        except ConnectionLost as error:
            outcome = kind_of(error)
            raise
        except Exception as error:
            outcome = kind_of(error)
            if not isinstance(error, HyperMeshError):
                log.exception("%s of %s failed", kind, peer.identity)
            elif not isinstance(error, CallRefused):
                log.warning("%s of %s failed: %s", kind, peer.identity, error)
            await stream.send(msgspec.msgpack.encode(fault_of(error)))
        except BaseException as error:
            outcome = kind_of(error)
            raise
        finally:
            self._observe(kind if kind in self._routes else UNKNOWN, outcome, time.perf_counter() - began)
        stream.close()
        stream.deliver_to(lambda message: None)  # or what was said last would be cut off with the opener's half
        await stream.wait_ended()

    async def _answer(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        found = self._routes.get(kind)
        if found is None:
            raise InvalidRequest(f"no stream {kind[:100]!r} here")
        dialogue, allowed, handler = found
        if peer.identity.kind not in allowed:
            self._denied(peer, kind)
            raise PermissionDenied(f"{peer.identity} may not open {kind}")
        try:
            async with asyncio.timeout(OPENING):
                message = await stream.receive()
        except TimeoutError as error:
            raise InvalidRequest(f"{kind}: nothing was asked for {OPENING:g} s") from error
        if message is None:
            raise InvalidRequest(f"{kind}: nothing was asked")
        await handler(peer, _decoded(kind, dialogue.request, message), Answering(dialogue, stream))


T = TypeVar("T")


def _decoded(name: str, decoder: msgspec.msgpack.Decoder[T], message: bytes) -> T:
    try:
        return decoder.decode(message)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name}: {error}") from error
