"""Typed calls: hmcore.api's methods over anything that calls with bytes, and the table that says who may call what."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from hmcore.api import Method
from hmcore.errors import CallRefused, FrameError, HyperMeshError, InternalFault, InvalidRequest, PermissionDenied
from hmcore.pki import Kind
from hmcore.stoq.faults import OK, kind_of
from hmcore.stoq.greeting import Peer
from hmcore.stoq.messages import MessageStream

Req = TypeVar("Req")
Res = TypeVar("Res")
Handler = Callable[[Peer, Req], Awaitable[Res]]

log = logging.getLogger("hypermesh.rpc")


class Caller(Protocol):
    """Something that can be called: a Connection, over QUIC or a socket."""

    async def call(self, method: str, body: bytes, *, timeout: float) -> bytes: ...


async def invoke(caller: Caller, method: Method[Req, Res], request: Req, *, timeout: float) -> Res:
    """Call `method`. Raises what Connection.call raises, and FrameError when the answer is not of the method's type."""
    body = await caller.call(method.name, msgspec.msgpack.encode(request), timeout=timeout)
    try:
        return msgspec.msgpack.decode(body, type=method.response)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"{method.name}: the answer is no {method.response.__name__}: {error}") from error


Routes = Mapping[Method[Any, Any], tuple[Collection[Kind], Handler[Any, Any]]]
Denied = Callable[[Peer, str], None]
Observe = Callable[[str, str, float], None]  # method, how it ended (see faults.kind_of), seconds

UNKNOWN = "unknown"  # the method, to `Observe`, of calls of methods that are not here


class Streams(Protocol):
    """What answers streams: dialogue.Dialogues."""

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None: ...


class Router:
    """A Service made of routes: for each method who may call it, and what answers.

    `denied` hears of every call that its caller may not make, `observe` how every call ended. Streams are answered by `streams`; where
    there are none, they are closed at once.
    """

    def __init__(
        self,
        routes: Routes,
        *,
        denied: Denied = lambda peer, method: None,
        observe: Observe = lambda method, outcome, seconds: None,
        streams: Streams | None = None,
    ) -> None:
        self._routes = {
            method.name: (frozenset(kinds), handler, msgspec.msgpack.Decoder(method.request)) for method, (kinds, handler) in routes.items()
        }
        self._denied = denied
        self._observe = observe
        self._streams = streams

    async def call(self, peer: Peer, method: str, body: bytes) -> bytes:
        """Answer a call. Raises only CallRefused and its kind."""
        began = time.perf_counter()
        outcome = OK
        try:
            return await self._answer(peer, method, body)
        except BaseException as error:
            outcome = kind_of(error)
            raise
        finally:
            self._observe(method if method in self._routes else UNKNOWN, outcome, time.perf_counter() - began)

    async def _answer(self, peer: Peer, method: str, body: bytes) -> bytes:
        found = self._routes.get(method)
        if found is None:
            raise InvalidRequest(f"no method {method[:100]!r} here")
        allowed, handler, decoder = found
        if peer.identity.kind not in allowed:
            self._denied(peer, method)
            raise PermissionDenied(f"{peer.identity} may not call {method}")
        try:
            request = decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"{method}: {error}") from error
        try:
            return msgspec.msgpack.encode(await handler(peer, request))
        except CallRefused:
            raise
        except HyperMeshError as error:
            log.warning("%s of %s failed: %s", method, peer.identity, error)
            raise InternalFault(str(error), fix=error.fix) from error
        except Exception as error:
            log.exception("%s of %s failed", method, peer.identity)
            raise InternalFault(f"{method} failed: unexpected {type(error).__name__}; the agent's journal says more") from error

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        """Returning closes it."""
        if self._streams is not None:
            await self._streams.stream(peer, kind, stream)
