"""Bringing content to this node from any other that has it: several at once, each from another node where there is a choice, and from where
it was interrupted when a node fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from hmcore.errors import BlobBusy, BlobCorrupt, BlobMissing, BlobStoreFull, HyperMeshError
from hmcore.stoq.bulk.streams import Progress, Sink
from node_agent.transport.blobs import BlobSink, BlobStore
from node_agent.transport.seeding import Search

AT_ONCE = 4  # contents
BUSY = (0.1, 0.4)  # seconds until those that were busy are asked again
PATIENCE = 120.0  # seconds without a byte, though there are nodes that have it: they are all busy

log = logging.getLogger("hypermesh.blobs")


class Peer(Protocol):
    """See hmcore.stoq.bulk.client.BulkClient."""

    async def get(self, digest: str, sink: Sink, progress: Progress) -> None: ...
    async def doubt(self, digest: str) -> None: ...
    async def __aenter__(self) -> Peer: ...
    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Fetcher:
    """Of one node. `nodes`: the other nodes that may be asked, by name. `dial`: a connection to one, to be used as a context; raises
    TransportError and what else connect() does."""

    def __init__(
        self,
        me: str,
        store: BlobStore,
        *,
        nodes: Callable[[], Collection[str]],
        dial: Callable[[str], Awaitable[Peer]],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._me = me
        self._store = store
        self._nodes = nodes
        self._dial = dial
        self._chance = chance
        self._loads: Counter[str] = Counter()
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, sizes: Mapping[str, int], holders: Collection[str], progress: Progress = lambda size: None) -> None:
        """Have all content in `sizes` (bytes by digest) in the store. `holders`: the nodes of whom it is said that they have it.

        Raises BlobMissing when no node that answers has it, BlobStoreFull, BlobBusy when all who have it have had too much to do for
        PATIENCE seconds; what has come by then stays.
        """
        failed: list[HyperMeshError] = []

        async def one(digest: str, size: int) -> None:
            try:
                async with self._gate:
                    await self._fetch(digest, size, frozenset(holders), progress)
            except HyperMeshError as error:
                failed.append(error)

        async with asyncio.TaskGroup() as group:
            for digest, size in sizes.items():
                group.create_task(one(digest, size), name=f"fetch {digest}")
        if failed:
            raise min(failed, key=lambda error: not isinstance(error, BlobStoreFull))

    async def _fetch(self, digest: str, size: int, holders: frozenset[str], progress: Progress) -> None:
        while True:
            try:
                sink = await self._store.receive(digest, size)
            except BlobBusy:  # somebody brings it: then it is there, or we go on with what has come
                await self._store.settled()
                continue
            if sink is None:
                progress(size)
                return
            try:
                progress(sink.offset)
                await _Filling(self, sink, Search(self._me, digest, holders), progress).run()
                return
            finally:
                await self._store.leave(digest)

    def choose(self, search: Search) -> str | None:
        return search.choose(self._nodes(), self._loads)

    async def pause(self) -> None:
        least, most = BUSY
        await asyncio.sleep(least + (most - least) * self._chance())

    async def take(self, node: str, digest: str, sink: BlobSink, progress: Progress) -> None:
        self._loads[node] += 1
        try:
            async with await self._dial(node) as peer:
                await peer.get(digest, sink, progress)
        finally:
            self._loads -= Counter([node])

    async def tell(self, node: str, digest: str) -> None:
        """That what it has may be damaged. If it does not hear that, the next who asks will tell it."""
        with contextlib.suppress(HyperMeshError):
            async with await self._dial(node) as peer:
                await peer.doubt(digest)


class _Filling:
    """One content. `givers`: those whose bytes are in the sink; `before`: whether some were there already, from whomever.

    When a chunk does not fit its mark, it may be the chunk that is wrong, or all that came before it. All is thrown away then, and whoever
    gave the earlier part is not asked again; if nobody else did, it is who sent the chunk.
    """

    def __init__(self, fetcher: Fetcher, sink: BlobSink, search: Search, progress: Progress) -> None:
        self._fetcher = fetcher
        self._sink = sink
        self._search = search
        self._progress = progress
        self._givers: set[str] = set()
        self._before = sink.offset > 0

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        moved, since = self._sink.offset, clock()
        while True:
            node = self._fetcher.choose(self._search)
            if node is not None:
                if await self._try(node):
                    return
                continue
            if not self._search.busy:
                raise BlobMissing(_nobody(self._search.digest, self._search.missed), fix="hmctl image push")
            if self._sink.offset != moved:
                moved, since = self._sink.offset, clock()
            if clock() - since > PATIENCE:
                raise BlobBusy(f"for {PATIENCE:g} s all who have {self._search.digest} were busy")
            await self._fetcher.pause()
            self._search = replace(self._search, busy=frozenset())

    async def _try(self, node: str) -> bool:
        """Whether it is whole now."""
        offset = self._sink.offset
        try:
            await self._fetcher.take(node, self._search.digest, self._sink, self._progress)
            return True
        except BlobStoreFull as error:
            if error.host is None:  # our own disk
                raise
            self._miss({node}, error.message)
        except BlobBusy:
            self._search = replace(self._search, busy=self._search.busy | {node})
        except BlobCorrupt as error:
            await self._doubt(node, error)
            return False
        except HyperMeshError as error:
            self._miss({node}, error.message)
        if self._sink.offset > offset:
            self._givers.add(node)
        return False

    async def _doubt(self, node: str, error: BlobCorrupt) -> None:
        others = self._givers - {node}
        log.warning("what came for %s does not fit together: %s; begun anew", self._search.digest, error.message)
        if others:
            self._miss(others, "what it gave may be something else")
        elif not self._before:
            self._miss({node}, error.message)
            await self._fetcher.tell(node, self._search.digest)
        self._givers, self._before = set(), False

    def _miss(self, nodes: set[str], why: str) -> None:
        self._search = replace(self._search, missed={**self._search.missed, **dict.fromkeys(nodes, why)})


def _nobody(digest: str, missed: Mapping[str, str]) -> str:
    said = "; ".join(f"{node}: {why}" for node, why in sorted(missed.items())[:5])
    more = f"; and {len(missed) - 5} more" if len(missed) > 5 else ""
    return f"no node gives {digest}: {said}{more}" if missed else f"there is no other node to take {digest} from"
