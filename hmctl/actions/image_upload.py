"""Bytes of an image's archive to a node, several contents at once, straight out of the archive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from hmcore.errors import ArchiveError, BlobCorrupt, HyperMeshError, PeerUnreachable, PkiError, UsageError
from hmcore.images.archive import SavedImage, SavedLayer
from hmcore.pki import Identity, Kind
from hmcore.stoq.bulk.client import BulkClient, connect
from hmcore.stoq.bulk.streams import FileSource, MemorySource
from hmcore.stoq.mtls import Credentials

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmctl.client import Access

AT_ONCE = 3  # contents sent at the same time: small ones wait for the node's disk
ASKED = 8  # nodes that are asked what they have
CONNECTING = 5.0  # seconds
PIECE = 4 << 20  # bytes hashed at a time

Dialled = AbstractAsyncContextManager[BulkClient]
Dial = Callable[["Host"], Dialled]


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """How far a push is: bytes of what the cluster lacked."""

    done: int
    total: int


class Uploading:
    def __init__(
        self, archive: Path, image: SavedImage, digests: Mapping[SavedLayer, str], total: int, progress: Callable[[Upload], None]
    ) -> None:
        self._archive = archive
        self._image = image
        self._places = {digests[layer]: layer for layer in image.layers}
        self._total = total
        self._done = 0
        self._tell = progress

    async def run(self, missing: Mapping[str, int], first: BulkClient, dial: Callable[[], Dialled]) -> int:
        """Bytes that `first` and the connections beside it have sent. The large ones begin first: they end last."""
        queue = sorted(missing, key=lambda digest: -missing[digest])
        sent = 0

        async def work(client: BulkClient) -> None:
            while queue:
                await self._put(client, queue.pop(0))

        async def beside() -> None:
            nonlocal sent
            async with dial() as client:
                try:
                    await work(client)
                finally:
                    sent += client.sent

        self._progress(0)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(1, min(AT_ONCE, len(queue))):
                    group.create_task(beside(), name=f"upload {number}")
                group.create_task(work(first), name="upload 0")
        except BaseExceptionGroup as failures:
            raise ours(failures) from None
        return first.sent + sent

    async def _put(self, client: BulkClient, digest: str) -> None:
        with contextlib.closing(self._source(digest)) as source:
            try:
                await client.put(digest, source, self._progress)
            except BlobCorrupt as error:
                raise ArchiveError(
                    f"{self._archive}: {error.message}: the archive is damaged, or what another push left on the node; try once more"
                ) from error

    def _source(self, digest: str) -> FileSource | MemorySource:
        if digest == self._image.id:
            return MemorySource(self._image.config)
        layer = self._places[digest]
        return FileSource(self._archive, size=layer.size, start=layer.offset)

    def _progress(self, size: int) -> None:
        self._done = min(self._done + size, self._total)
        self._tell(Upload(done=self._done, total=self._total))


@contextlib.asynccontextmanager
async def dial(host: Host, access: Access) -> AsyncIterator[BulkClient]:
    if access.ours is None:
        raise PkiError("no certificate of ours to show", host=host.name, fix="hmctl ca import FILE")
    credentials = Credentials(ca=access.authority, certificate=access.ours.certificate, key=access.ours.key)
    server = Identity(access.cluster, Kind.NODE, host.name)
    async with await connect(host.address, host.port, credentials=credentials, server=server, timeout=CONNECTING) as client:
        yield client


async def clients(stack: AsyncExitStack, hosts: Sequence[Host], dial: Dial) -> dict[str, BulkClient]:
    """Connections to those of `hosts` that answer, in their order, at most ASKED. Raises when none does; a refusal at once."""
    found: dict[str, BulkClient] = {}
    failed: list[PeerUnreachable] = []

    async def one(host: Host) -> None:
        try:
            found[host.name] = await stack.enter_async_context(dial(host))
        except PeerUnreachable as error:
            failed.append(error)

    for start in range(0, len(hosts), ASKED):
        try:
            async with asyncio.TaskGroup() as group:
                for host in hosts[start : start + ASKED]:
                    group.create_task(one(host), name=f"connect {host.name}")
        except BaseExceptionGroup as failures:
            raise ours(failures) from None
        if found:
            return {host.name: found[host.name] for host in hosts if host.name in found}
    if not failed:
        raise UsageError("there is no node to bring an image to")
    raise failed[0]


def ours(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of what tasks raised, the error of our own tree, which tells the operator what to do."""
    return next((error for error in failures.exceptions if isinstance(error, HyperMeshError)), failures)


def digest_of(file: BinaryIO, layer: SavedLayer) -> str:
    """What the archive says, or what it comes to where that says nothing."""
    if layer.digest is not None:
        return layer.digest
    found = sha256()
    file.seek(layer.offset)
    left = layer.size
    while left and (piece := file.read(min(PIECE, left))):
        found.update(piece)
        left -= len(piece)
    return f"sha256:{found.hexdigest()}"
