"""The rows of the table of api.py. A method whose types are not those of what answers it is a mistake that mypy finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from hmcore.api import Method
from hmcore.pki import Identity, Kind
from hmcore.stoq.greeting import Peer
from hmcore.stoq.rpc import Handler

Req = TypeVar("Req")
Res = TypeVar("Res")
Who = Collection[Kind]
Route = tuple[Method[Any, Any], tuple[Who, Handler[Any, Any]]]


def route(method: Method[Req, Res], who: Who, handler: Handler[Req, Res]) -> Route:
    return method, (who, handler)


def read(method: Method[Req, Res], who: Who, answers: Callable[[], Callable[[Req], Awaitable[Res]]]) -> Route:
    """The same answer for everybody who may ask. `answers` is asked at each call for what does."""

    async def handle(_peer: Peer, request: Req) -> Res:
        return await answers()(request)

    return method, (who, handle)


def signed(method: Method[Req, Res], who: Who, answers: Callable[[], Callable[[Req, Identity], Awaitable[Res]]]) -> Route:
    """What is done, or given, depends on who asks."""

    async def handle(peer: Peer, request: Req) -> Res:
        return await answers()(request, peer.identity)

    return method, (who, handle)
