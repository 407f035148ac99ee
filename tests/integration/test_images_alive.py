"""Images in a cluster of real agents without Docker: pushed once, kept by three, known by name, and there when nodes are killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from cluster import CLUSTER, WAIT, ClusterOfProcesses
from docker_archives import Made, layer, legacy
from operators import TRANSIENT, Operator, new_id

from hmcore.apps.records import Image
from hmcore.config.inventory import Host
from hmcore.images.calls import (
    IMAGES,
    NAME_IMAGE,
    REMOVE_IMAGE,
    RESOLVE,
    ImagesRequest,
    NameImageRequest,
    Pinned,
    RemoveImageRequest,
    ResolveRequest,
)
from hmcore.pki import Identity, KeyPair, Kind, issue
from hmcore.stoq.bulk.client import BulkClient, connect
from hmcore.stoq.mtls import Credentials
from hmctl.actions.images import Pushed, push
from hmctl.client import Access

WEB = Made((layer("base", os.urandom(6_000_000)), layer("top", os.urandom(30_000))), ("alive:1",))


class Dialled:
    """A connection of an operator to a node's TCP port."""

    def __init__(self, cluster: ClusterOfProcesses, name: str, proof: KeyPair) -> None:
        self._where = cluster.nodes[name].config
        self._credentials = Credentials(cluster.authority.certificate, proof.certificate, proof.key)

    async def __aenter__(self) -> BulkClient:
        server = Identity(CLUSTER, Kind.NODE, self._where.node)
        self._client = await connect("127.0.0.1", self._where.port, credentials=self._credentials, server=server)
        return self._client

    async def __aexit__(self, *args: object) -> None:
        await self._client.__aexit__(*args)  # type: ignore[arg-type]


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


async def pushed(cluster: ClusterOfProcesses, archive: Path, *names: str) -> Pushed:
    proof = issue(cluster.authority, Identity(CLUSTER, Kind.OPERATOR, "tester"), datetime.now(UTC))

    def dial(host: Host) -> AbstractAsyncContextManager[BulkClient]:
        return Dialled(cluster, host.name, proof)

    (found,) = await push(archive, hosts=[cast(Host, Named(name)) for name in names], access=cast(Access, None), dial=dial)
    return found


async def until(operator: Operator, condition: Callable[[dict[str, Image]], object], what: str, node: str = "node1") -> dict[str, Image]:
    found: dict[str, Image] = {}
    try:
        async with asyncio.timeout(WAIT):
            while True:
                try:
                    found = {image.name: image for image in (await operator.ask(node, IMAGES, ImagesRequest())).images}
                    if condition(found):
                        return found
                except TRANSIENT:
                    pass
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT} s: {what}\n{found}") from None


async def test_an_image_is_pushed_to_one_node_kept_by_three_and_survives_the_first(cluster: ClusterOfProcesses, tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(legacy(WEB))
    async with Operator(cluster, "tester") as operator:
        first = await pushed(cluster, archive, "node4", "node1", "node2", "node3")
        assert (first.node, first.image.holders) == ("node4", ("node4",))
        assert first.sent < 1.05 * first.size
        assert (await operator.change(NAME_IMAGE, NameImageRequest(id=new_id(), image=first.image))).changed
        kept = await until(operator, lambda images: "alive:1" in images and len(images["alive:1"].holders) >= 3, "three nodes keep it")
        assert kept["alive:1"].id == WEB.id
        reply = await operator.ask(
            "node2", RESOLVE, ResolveRequest(names=("alive:1", "docker.io/library/alive:1", "other:1")), timeout=10.0
        )
        assert reply.found == {name: Pinned(image=name, id=WEB.id) for name in ("alive:1", "docker.io/library/alive:1")}
        assert "Docker does not answer" in reply.failed["other:1"]
        again = await pushed(cluster, archive, *cluster.nodes)
        assert again.sent < 2000
        cluster.nodes["node4"].kill()
        once_more = await pushed(cluster, archive, *cluster.nodes)
        assert once_more.sent < 2000
        cluster.nodes["node4"].start()
        await cluster.until_whole("node4 is back")
        assert (await operator.change(REMOVE_IMAGE, RemoveImageRequest(id=new_id(), name="alive:1"))).changed
        await until(operator, lambda images: "alive:1" not in images, "its name is gone")
