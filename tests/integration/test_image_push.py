"""`hmctl image push` against real nodes: what the cluster lacks goes to one of them, once."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from bulk_nodes import BulkNodes, bulk_nodes
from docker_archives import ImageStore, Made, digest, layer, legacy, oci, tar

from hmcore.config.inventory import Host
from hmcore.errors import ArchiveError, BlobStoreFull, DockerMissing, ImageError, PeerUnreachable, PermissionDenied, UsageError
from hmcore.images.names import loaded_name
from hmcore.pki import Kind
from hmcore.stoq.bulk.client import BulkClient
from hmctl.actions.images import Pushed, Upload, push, saved
from hmctl.client import Access
from node_agent.container.images import Images
from node_agent.container.local_images import LocalImage

BASE, TOP, OTHER = layer("base", os.urandom(3_000_000)), layer("top", os.urandom(50_000)), layer("other", os.urandom(70_000))
WEB = Made((BASE, TOP))


@dataclass(frozen=True)
class Named:
    """All of a host that is needed here."""

    name: str


def hosts(*names: str) -> list[Host]:
    return [cast(Host, Named(name)) for name in names]


async def pushed(
    nodes: BulkNodes,
    archive: Path,
    *names: str,
    kind: Kind = Kind.OPERATOR,
    progress: Callable[[Upload], None] = lambda u: None,
    **more: str,
) -> list[Pushed]:
    credentials = nodes.credentials("anna", kind)

    def dial(host: Host) -> AbstractAsyncContextManager[BulkClient]:
        return Dialled(nodes, host.name, credentials)

    return await push(archive, hosts=hosts(*(names or nodes.nodes)), access=cast(Access, None), progress=progress, dial=dial, **more)


class Dialled:
    def __init__(self, nodes: BulkNodes, name: str, credentials: object) -> None:
        self._dial = nodes.dial(name, credentials)  # type: ignore[arg-type]

    async def __aenter__(self) -> BulkClient:
        self._client = await self._dial
        return self._client

    async def __aexit__(self, *args: object) -> None:
        await self._client.__aexit__(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", [legacy, oci, lambda image: oci(image, compressed=True)])
async def test_an_image_is_brought_once_and_runs_everywhere(tmp_path: Path, layout: Callable[[Made], bytes]) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(layout(WEB))
    async with bulk_nodes(tmp_path / "nodes", "node0", "node1", "node2") as nodes:
        seen: list[Upload] = []
        (done,) = await pushed(nodes, archive, progress=seen.append)
        assert (done.node, done.image.name, done.image.id, done.image.holders) == ("node0", "web:1", WEB.id, ("node0",))
        assert done.size <= done.sent < 1.05 * done.size
        assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, done.size, done.size)
        for name, node in nodes.nodes.items():
            docker = Docker()
            images = Images(docker=lambda docker=docker: docker, blobs=node.store, fetch=node.fetcher.fetch, record=lambda said: done.image)  # type: ignore[misc]
            assert await images.ensure("web:1") == WEB.id, name
            assert docker.store.images[WEB.id] == tuple(WEB.diff_ids)


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
        return []

    def find(self, name: str) -> LocalImage | None:
        id = self.store.names.get(name)
        return None if id is None else LocalImage(id, (loaded_name(id),), self.store.images[id])

    def pull(self, repository: str, tag: str, credentials: object, progress: object) -> None:
        raise AssertionError("nothing is to be pulled")


async def test_only_what_no_node_has_is_sent_and_to_where_most_is(tmp_path: Path) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    first.write_bytes(legacy(WEB))
    changed = Made((BASE, OTHER), ("web:2", "web:latest"))
    second.write_bytes(legacy(changed))
    async with bulk_nodes(tmp_path / "nodes", "node0", "node1") as nodes:
        await pushed(nodes, first, "node1")
        done = await pushed(nodes, second)
        assert [each.image.name for each in done] == ["web:2", "web:latest"]
        assert done[0].node == "node1"
        assert done[0].image.holders == ("node1",)
        lacked = len(OTHER) + len(changed.config)
        assert done[0].was_there == done[0].size - lacked == len(BASE)
        assert lacked <= done[0].sent < 1.05 * lacked
        (again,) = await pushed(nodes, first)
        assert again.sent < 1000
        assert again.was_there == again.size


async def test_a_node_whose_disk_is_full_is_passed_over_and_if_all_are_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(legacy(WEB))
    async with bulk_nodes(tmp_path / "nodes", "node0", "node1") as nodes:
        monkeypatch.setattr(nodes.nodes["node0"].store, "_reserve", 1 << 60)
        (done,) = await pushed(nodes, archive)
        assert (done.node, done.image.holders) == ("node1", ("node1",))
        monkeypatch.setattr(nodes.nodes["node1"].store, "_reserve", 1 << 60)
        archive.write_bytes(legacy(Made((OTHER,))))
        with pytest.raises(BlobStoreFull, match="no room for"):
            await pushed(nodes, archive)


async def test_what_another_node_has_is_not_sent_even_if_that_one_has_less(tmp_path: Path) -> None:
    one, two, both = (tmp_path / f"{number}.tar" for number in range(3))
    one.write_bytes(legacy(Made((BASE,))))
    two.write_bytes(legacy(Made((TOP,))))
    both.write_bytes(legacy(WEB))
    async with bulk_nodes(tmp_path / "nodes", "node0", "node1") as nodes:
        await pushed(nodes, one, "node0")
        await pushed(nodes, two, "node1")
        (done,) = await pushed(nodes, both)
        assert done.was_there == len(BASE) + len(TOP)
        assert done.image.holders == ()  # nobody has all of it yet
        await nodes.nodes["node1"].fetcher.fetch(done.image.blobs, done.image.holders)


async def test_a_node_that_does_not_answer_is_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(oci(WEB))
    async with bulk_nodes(tmp_path / "nodes", "node0", "node1") as nodes:
        await nodes.stop("node0")
        (done,) = await pushed(nodes, archive)
        assert done.node == "node1"
        await nodes.stop("node1")
        with pytest.raises(PeerUnreachable):
            await pushed(nodes, archive)


async def test_a_viewer_may_not(tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(oci(WEB))
    async with bulk_nodes(tmp_path / "nodes", "node0") as nodes:
        with pytest.raises(PermissionDenied):
            await pushed(nodes, archive, kind=Kind.VIEWER)


async def test_a_damaged_archive_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    data = bytearray(legacy(WEB))
    data[data.index(BASE) + 1_000_000] ^= 1
    archive.write_bytes(data)
    async with bulk_nodes(tmp_path / "nodes", "node0") as nodes:
        with pytest.raises(ArchiveError, match="damaged"):
            await pushed(nodes, archive)
        assert not nodes.nodes["node0"].store.has(digest(BASE))


async def test_what_to_push_must_be_clear(tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    async with bulk_nodes(tmp_path / "nodes", "node0") as nodes:
        archive.write_bytes(oci(WEB, Made((OTHER,), ("web:1",), "arm64")))
        with pytest.raises(UsageError, match="has 2 images"):
            await pushed(nodes, archive)
        with pytest.raises(UsageError, match="no image for linux/s390x"):
            await pushed(nodes, archive, platform="linux/s390x")
        (done,) = await pushed(nodes, archive, platform="linux/arm64")
        assert done.image.platform == "linux/arm64"
        archive.write_bytes(legacy(Made((OTHER,), ())))
        with pytest.raises(UsageError, match="not say what the image is called"):
            await pushed(nodes, archive)
        (done,) = await pushed(nodes, archive, name="other")
        assert done.image.name == "other:latest"
        archive.write_bytes(tar({"a": b"b"}))
        with pytest.raises(ArchiveError):
            await pushed(nodes, archive)
        with pytest.raises(ArchiveError):
            await pushed(nodes, tmp_path / "not there")


def command(folder: Path, script: str) -> None:
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


async def test_an_image_is_taken_from_the_operators_own_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, archive = tmp_path / "tools", tmp_path / "web.tar"
    tools.mkdir()
    archive.write_bytes(legacy(WEB))
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(DockerMissing, match="no docker command"):
        async with saved("web:1"):
            pass
    command(tools, f'[ "$1 $2 $4" = "save --output web:1" ] && /bin/cp {archive} "$3"')
    async with saved("web:1", tmp_path) as path:
        assert path.read_bytes() == archive.read_bytes()
    assert not path.exists()
    command(tools, 'echo "Error response from daemon: reference does not exist" >&2; exit 1')
    with pytest.raises(ImageError, match="reference does not exist") as refused:
        async with saved("web:1"):
            pass
    assert "docker save NAME -o FILE.tar" in (refused.value.fix or "")
    with pytest.raises(UsageError):
        async with saved("--help"):
            pass


async def test_a_save_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, started = tmp_path / "tools", tmp_path / "started"
    tools.mkdir()
    command(tools, f"echo $$ > {started}; exec /bin/sleep 60")
    monkeypatch.setenv("PATH", str(tools))

    async def save() -> None:
        async with saved("web:1", tmp_path):
            pass

    async with asyncio.TaskGroup() as group:
        task = group.create_task(save())
        while not (started.exists() and started.read_text().strip()):  # noqa: ASYNC110 -- of foreign objects, which have no event
            await asyncio.sleep(0.005)
        task.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert set(os.listdir(tmp_path)) == {"tools", "started"}
