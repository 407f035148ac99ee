"""Images from an operator's archive to every node's Docker, with nothing simulated but Docker and the log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from bulk_nodes import CLUSTER, BulkNodes
from docker_archives import ImageStore, Made, layer, legacy, oci
from msgspec.structs import replace

from hmcore.apps.records import Image
from hmcore.config.inventory import Host
from hmcore.errors import ImageUnavailable, PermissionDenied
from hmcore.images.calls import Pinned
from hmcore.images.names import loaded_name
from hmcore.pki import Identity, Kind
from hmcore.records import Node, NodeState, Role
from hmcore.stoq.bulk.client import BulkClient, connect
from hmcore.stoq.mtls import Credentials
from hmctl.actions.images import push
from hmctl.client import Access
from node_agent.container.engine_images import DockerImages
from node_agent.container.local_images import LocalImage
from node_agent.container.supply import Supply

WEB = Made((layer("base", os.urandom(2_500_000)), layer("top", os.urandom(40_000))))


class Docker:
    """Docker's image store, as its SDK would give it."""

    def __init__(self) -> None:
        self.store = ImageStore()
        self.load = self.store.load

    def room(self) -> int | None:
        return None

    def skips_layers(self) -> bool:
        return True

    def images(self) -> list[LocalImage]:
        return [LocalImage(id, tuple(name for name, of in self.store.names.items() if of == id)) for id in self.store.images]

    def find(self, name: str) -> LocalImage | None:
        id = self.store.names.get(name)
        return None if id is None else LocalImage(id, (loaded_name(id),), self.store.images[id])

    def manifest(self, repository: str, tag: str, credentials: object) -> str:
        raise ImageUnavailable("Docker refuses: there is no registry")

    def pull(self, repository: str, tag: str, credentials: object, progress: object) -> None:
        raise ImageUnavailable("Docker refuses: there is no registry")


class Cluster:
    """What the log would hold, and the nodes."""

    def __init__(self, folder: Path) -> None:
        self.pki = BulkNodes(folder)
        self.images: dict[str, Image] = {}
        self.nodes: dict[str, Node] = {}
        self.supplies: dict[str, Supply] = {}
        self.dockers: dict[str, Docker] = {}
        self.folder = folder

    async def start(self, name: str) -> None:
        docker = self.dockers.setdefault(name, Docker())

        async def tell(id: str, holds: bool) -> None:
            for image in [image for image in self.images.values() if image.id == id]:
                holders = set(image.holders) | {name} if holds else set(image.holders) - {name}
                self.put(replace(image, holders=tuple(sorted(holders))))

        supply = self.supplies[name] = Supply(
            Identity(CLUSTER, Kind.NODE, name),
            self.folder / name,
            listen=("127.0.0.1", 0),
            credentials=lambda: self.pki.credentials(name),
            view=self,
            docker=lambda: cast(DockerImages, docker),
            tell=tell,
        )
        await supply.initialize()
        self.nodes = self.nodes | {
            name: Node(name=name, address="127.0.0.1", port=supply.port, role=Role.CONTROL, release="r1", state=NodeState.READY)
        }

    def put(self, image: Image) -> None:
        self.images = self.images | {image.key: image}
        for supply in self.supplies.values():
            supply.state_changed()

    async def dial(self, name: str, credentials: Credentials) -> BulkClient:
        server = Identity(CLUSTER, Kind.NODE, name)
        return await connect("127.0.0.1", self.nodes[name].port, credentials=credentials, server=server)

    async def push(self, archive: Path) -> None:
        credentials = self.pki.credentials("anna", Kind.OPERATOR)

        def dial(host: Host) -> AbstractAsyncContextManager[BulkClient]:
            return Dialled(self, host.name, credentials)

        hosts = [cast(Host, Named(name)) for name in self.supplies]
        for pushed in await push(archive, hosts=hosts, access=cast(Access, None), dial=dial):
            self.put(pushed.image)


@dataclass(frozen=True)
class Named:
    """All of a host that is needed here."""

    name: str


class Dialled:
    def __init__(self, cluster: Cluster, name: str, credentials: Credentials) -> None:
        self._dial = cluster.dial(name, credentials)

    async def __aenter__(self) -> BulkClient:
        self._client = await self._dial
        return self._client

    async def __aexit__(self, *args: object) -> None:
        await self._client.__aexit__(*args)  # type: ignore[arg-type]


@asynccontextmanager
async def cluster(folder: Path, *names: str) -> AsyncIterator[Cluster]:
    found = Cluster(folder)
    tasks: list[asyncio.Future[None]] = []
    try:
        for name in names:
            await found.start(name)
        tasks += [asyncio.ensure_future(supply.run()) for supply in found.supplies.values()]
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for supply in found.supplies.values():
            await supply.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 -- of foreign objects, which have no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("layout", [legacy, lambda image: oci(image, compressed=True)])
async def test_an_image_that_was_pushed_runs_on_every_node_and_outlives_the_one_that_it_was_pushed_to(
    tmp_path: Path, layout: Callable[[Made], bytes]
) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(layout(WEB))
    async with cluster(tmp_path / "nodes", "node1", "node2", "node3", "node4") as found:
        await found.push(archive)
        first = found.images["web:1"].holders
        assert len(first) == 1
        await until(lambda: len(found.images["web:1"].holders) >= 3)
        await found.supplies[first[0]].stop()
        found.nodes = {name: node for name, node in found.nodes.items() if name != first[0]}
        for name in found.nodes:
            supply = found.supplies[name]
            assert await supply.pinning.pin("docker.io/library/web:1") == Pinned(image="docker.io/library/web:1", id=WEB.id)
            assert await supply.images.ensure(WEB.id) == WEB.id
            assert supply.images.present("web:1")
            assert found.dockers[name].store.images == {WEB.id: tuple(WEB.diff_ids)}


async def test_who_is_no_member_any_more_gets_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path / "nodes", "node1", "node2") as found:
        await (await found.dial("node1", found.pki.credentials("node2"))).close()
        found.nodes = {"node1": found.nodes["node1"]}
        with pytest.raises(PermissionDenied, match="no member"):
            await found.dial("node1", found.pki.credentials("node2"))


async def test_a_node_that_starts_again_has_what_it_had(tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(legacy(WEB))
    async with cluster(tmp_path / "nodes", "node1") as found:
        await found.push(archive)
        supply = found.supplies["node1"]
        await supply.stop()
        await supply.stop()
        with pytest.raises(ImageUnavailable):
            await supply.images.ensure("nginx:1")
        await supply.initialize()
        assert await supply.images.ensure("web:1") == WEB.id
