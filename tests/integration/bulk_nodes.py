"""Nodes with a store of content each, on loopback with real TLS and real files; their other layers are not needed for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hmcore import pki
from hmcore.pki import Identity, Kind
from hmcore.stoq.bulk.client import BulkClient, connect
from hmcore.stoq.bulk.server import BulkListener
from hmcore.stoq.mtls import Credentials
from node_agent.transport.blobs import BlobStore
from node_agent.transport.fetching import Fetcher

CLUSTER = "hm-0123456789"


@dataclass
class BulkNode:
    name: str
    store: BlobStore
    listener: BulkListener
    fetcher: Fetcher


@dataclass
class BulkNodes:
    """A cluster's CA and its nodes. `given`: content that each node gave to another, by their names."""

    folder: Path
    authority: pki.KeyPair = field(default_factory=lambda: pki.create_authority(CLUSTER, datetime.now(UTC)))
    nodes: dict[str, BulkNode] = field(default_factory=dict)
    dials: list[tuple[str, str]] = field(default_factory=list)

    def credentials(self, name: str, kind: Kind = Kind.NODE) -> Credentials:
        pair = pki.issue(self.authority, Identity(CLUSTER, kind, name), datetime.now(UTC))
        return Credentials(self.authority.certificate, pair.certificate, pair.key)

    async def start(self, name: str) -> BulkNode:
        credentials = self.credentials(name)
        store = BlobStore(self.folder / name, reserve=0)
        await store.open()
        listener = BulkListener("127.0.0.1", 0, credentials=credentials, cluster=CLUSTER, store=store)
        await listener.open()

        async def dial(other: str) -> BulkClient:
            self.dials.append((name, other))
            return await self.dial(other, credentials)

        fetcher = Fetcher(name, store, nodes=lambda: [each for each in self.nodes if each != name], dial=dial)
        node = self.nodes[name] = BulkNode(name, store, listener, fetcher)
        return node

    async def stop(self, name: str) -> None:
        """As a crash would: the port is gone, and what was open with it. Others still know its name."""
        await self.nodes[name].listener.close()

    async def dial(self, name: str, credentials: Credentials) -> BulkClient:
        server = Identity(CLUSTER, Kind.NODE, name)
        return await connect("127.0.0.1", self.nodes[name].listener.port, credentials=credentials, server=server)


@asynccontextmanager
async def bulk_nodes(folder: Path, *names: str) -> AsyncIterator[BulkNodes]:
    nodes = BulkNodes(folder)
    try:
        for name in names:
            await nodes.start(name)
        yield nodes
    finally:
        async with asyncio.TaskGroup() as group:
            for node in nodes.nodes.values():
                group.create_task(node.listener.close())
        for node in nodes.nodes.values():
            node.store.close()
