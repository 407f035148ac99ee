"""What answers the other end of a connection."""

from __future__ import annotations

import logging
from typing import Protocol

from hmcore.errors import ConnectionLost, HyperMeshError
from hmcore.stoq.faults import fault_of
from hmcore.stoq.frames import Fault, Reply
from hmcore.stoq.greeting import Peer
from hmcore.stoq.messages import MessageStream

log = logging.getLogger("hypermesh.stoq")


class Service(Protocol):
    """What answers the other end. `call` raises a CallRefused to refuse; anything else it raises is an internal fault."""

    async def call(self, peer: Peer, method: str, body: bytes) -> bytes: ...

    async def stream(self, peer: Peer, kind: str, stream: MessageStream) -> None:
        """An incoming stream of messages. When this returns, the stream is closed."""


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
