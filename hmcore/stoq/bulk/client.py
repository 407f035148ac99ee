"""The dialing end: ask a node which content it has, give it some, take some. One question at a time on a connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import TypeVar

from hmcore.errors import BlobMissing, ConnectionLost, FrameError, HandshakeRefused, NothingListens, PeerUnreachable
from hmcore.pki import Identity
from hmcore.stoq.bulk.frames import MOST_DIGESTS, PROTOCOL, Done, Doubt, Found, Frame, Get, Go, Have, Held, Part, Put, Ready, bad_offset
from hmcore.stoq.bulk.streams import Progress, Sink, Source, fill, pour
from hmcore.stoq.bulk.tls import context, judge
from hmcore.stoq.bulk.wire import Wire
from hmcore.stoq.mtls import Credentials, brief

F = TypeVar("F", bound=Frame)

STORING = 120.0  # seconds that a node may take to have all of the content on its disk, once it was sent; or to look at what it has


class BulkClient:
    """A connection to the node `server`. After a TransportError it is of no further use; close it in any case."""

    def __init__(self, wire: Wire, server: Identity) -> None:
        self._wire = wire
        self.server = server

    @property
    def sent(self) -> int:
        """Bytes given to TLS so far."""
        return self._wire.sent

    async def have(self, digests: Sequence[str]) -> dict[str, int]:
        """The sizes of those that the node has. Raises TransportError."""
        found: dict[str, int] = {}
        for start in range(0, len(digests), MOST_DIGESTS):
            asked = tuple(digests[start : start + MOST_DIGESTS])
            sizes = (await self._ask(Have(asked), Held)).sizes
            if len(sizes) != len(asked):
                raise FrameError(f"{len(sizes)} answers to {len(asked)} digests", host=self.server.name)
            found |= {digest: size for digest, size in zip(asked, sizes, strict=True) if size is not None}
        return found

    async def put(self, digest: str, source: Source, progress: Progress = lambda size: None) -> None:
        """Give the node the content, from where it was interrupted; back when it is on the node's disk, also if it was there already.

        Raises BlobStoreFull, BlobCorrupt (it is not what the digest names), BlobBusy, PermissionDenied, BlobMissing (`source` failed) and
        TransportError.
        """
        match await self._ask(Put(digest, source.size), Go, Done):
            case Go(offset) if bad_offset(offset, source.size) is None:
                progress(offset)
                await self._moving(pour(self._wire, source, offset, progress))
            case Go(offset):
                raise FrameError(f"content of {source.size} bytes, to be sent from {offset} on", host=self.server.name)
            case Done():
                progress(source.size)
                return
        if not isinstance(said := await self._wire.answer(STORING), Done):
            raise self._unfit(said)

    async def get(self, digest: str, sink: Sink, progress: Progress = lambda size: None) -> None:
        """Take the rest of the content; what arrived stays in `sink` whatever happens.

        Raises BlobMissing (the node has it not, or of another size), BlobCorrupt, BlobStoreFull, BlobBusy and TransportError.
        """
        found = await self._ask(Get(digest, sink.offset), Found)
        if found.size != sink.size:
            self._wire.abort()
            raise BlobMissing(f"it has {found.size} bytes for {digest}, which has {sink.size}", host=self.server.name)
        await self._moving(fill(self._wire, sink, progress))

    async def doubt(self, digest: str) -> None:
        """Have the node look at what it has under this digest, and throw it away if it is something else. Raises TransportError."""
        await self._wire.send(Doubt(digest))
        if not isinstance(said := await self._wire.answer(STORING), Done):
            raise self._unfit(said)

    async def close(self) -> None:
        await self._wire.close()

    async def __aenter__(self) -> BulkClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._wire.abort()
        await self.close()

    async def _ask(self, question: Frame, *answers: type[F]) -> F:
        await self._wire.send(question)
        said = await self._wire.answer()
        for kind in answers:
            if isinstance(said, kind):
                return said
        raise self._unfit(said)

    async def _moving(self, work: Awaitable[None]) -> None:
        """What fails in the middle of content leaves nothing that could be asked again on this connection."""
        try:
            await work
        except BaseException:
            self._wire.abort()
            raise

    def _unfit(self, said: Frame | Part) -> FrameError:
        self._wire.abort()
        return FrameError(f"a frame {type(said).__name__.lower()} where none such may be", host=self.server.name)


async def connect(
    host: str, port: int, *, credentials: Credentials, server: Identity, timeout: float = 5.0, setup: ssl.SSLContext | None = None
) -> BulkClient:
    """Connect to the node `server` at TCP `host`:`port`; back when it has accepted us. `setup`: made by `context` for dialling, to share.

    Raises PeerUnreachable (NothingListens), HandshakeRefused (AnotherNode) with the reason, PermissionDenied, PkiError.
    """
    setup = context(credentials, serving=False) if setup is None else setup
    where = f"TCP {host}:{port}"
    wire = Wire(server.name)
    settled = False
    try:
        async with asyncio.timeout(timeout):
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: wire, host, port, ssl=setup, server_hostname=server.dns, ssl_handshake_timeout=timeout + 1
            )
            judge(transport.get_extra_info("ssl_object"), credentials.ca, cluster=server.cluster, server=server)
            said = await wire.answer(timeout + 1)
        if not isinstance(said, Ready) or said.protocol != PROTOCOL:
            raise HandshakeRefused(f"{where}: it speaks another version of the protocol", host=server.name, fix="hmctl deploy")
        settled = True
        return BulkClient(wire, server)
    except TimeoutError as error:
        raise PeerUnreachable(f"{where}: no answer within {timeout:g} s", host=server.name) from error
    except ConnectionRefusedError as error:
        raise NothingListens(f"{where}: nothing listens there", host=server.name) from error
    except ssl.SSLError as error:
        raise HandshakeRefused(_why(error), host=server.name) from error
    except OSError as error:
        raise PeerUnreachable(f"{where}: {error.strerror or error}", host=server.name) from error
    except ConnectionLost as error:  # after the handshake of TLS 1.3 as the dialer sees it, but before the acceptor has judged us
        if isinstance(wire.lost, ssl.SSLError):
            raise HandshakeRefused(f"the node does not accept us: {_why(wire.lost)}", host=server.name) from error
        raise PeerUnreachable(f"{where}: before it accepted us, {error.message}", host=server.name) from error
    finally:
        if not settled:
            wire.abort()


def _why(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return brief(f"its certificate is not accepted: {error.verify_message}")
    return brief((error.reason or str(error)).lower().replace("_", " "))
