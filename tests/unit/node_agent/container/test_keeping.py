"""What a node keeps of the cluster's images, and what it throws away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hmcore.apps.records import Image, ImageLayer
from hmcore.errors import BlobStoreFull, HyperMeshError, ImageUnavailable, NotLeader
from hmcore.images.names import loaded_name
from node_agent.container import keeping
from node_agent.container.keeping import Keeper, duties, forgotten
from node_agent.container.local_images import LocalImage
from node_agent.transport.blobs import BlobStore
from node_agent.transport.seeding import COPIES, keepers

NODES = [f"node{number}" for number in range(6)]


def digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def image(number: int, *holders: str) -> Image:
    config, layer = b"config %d" % number, b"layer %d" % number
    layers = (ImageLayer(digest=digest(layer), diff_id=digest(layer), size=len(layer)),)
    return Image(name=f"web:{number}", id=digest(config), config_size=len(config), layers=layers, holders=holders)


CONTENT = {digest(data): data for number in range(10) for data in (b"config %d" % number, b"layer %d" % number)}


def test_each_image_is_kept_by_a_few_nodes() -> None:
    for number in range(10):
        wanting = [name for name in NODES if duties(name, [image(number)], NODES, lambda digest: False).gather]
        assert set(wanting) == keepers(image(number).id, NODES)
        assert len(wanting) == COPIES
        assert not any(duties(name, [image(number)], NODES, lambda digest: True).gather for name in NODES)


def test_those_that_fewest_have_come_first() -> None:
    images = [image(1, "node1", "node2"), image(2), image(3, "node1")]
    assert [each.name for each in duties("node0", images, ["node0"], lambda digest: False).gather] == ["web:2", "web:3", "web:1"]


def test_what_is_here_is_told_where_the_record_says_otherwise() -> None:
    here, lost = image(1), image(2, "node0")
    images = [here, lost, image(3, "node0"), image(4), replace(here, name="web:latest")]
    there = {*here.blobs, *image(3).blobs, *list(image(4).blobs)[:1]}
    assert duties("node0", images, ["node9"], there.__contains__).tell == {here.id: True, lost.id: False}


@given(st.lists(st.integers(0, 5), max_size=6), st.sets(st.integers(0, 5)))
def test_only_our_names_that_no_record_has_are_forgotten(known: list[int], local: set[int]) -> None:
    there = [LocalImage(image(number).id, (f"web:{number}", loaded_name(image(number).id))) for number in local]
    assert forgotten(there, [image(number) for number in known]) == {loaded_name(image(number).id) for number in local - set(known)}


class Docker:
    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.used: set[str] = set()

    def images(self) -> list[LocalImage]:
        return [LocalImage(digest(name.encode()), (name,)) for name in self.names]

    def remove(self, name: str) -> None:
        if name in self.used:
            raise ImageUnavailable("Docker refuses: a container uses it")
        self.names.remove(name)


class Node:
    """A keeper, with everything else at hand. `error`: what bringing an image, or telling, comes to."""

    def __init__(self, store: BlobStore, *records: Image) -> None:
        self.store = store
        self.records = {each.key: each for each in records}
        self.nodes = ["node0"]
        self.docker: Docker | None = Docker()
        self.told: list[tuple[str, bool]] = []
        self.gathered: list[str] = []
        self.error: HyperMeshError | None = None
        self.deaf: HyperMeshError | None = None
        self.keeper = Keeper(
            "node0",
            records=lambda: self.records.values(),
            nodes=lambda: self.nodes,
            blobs=store,
            images=self,  # type: ignore[arg-type]
            docker=lambda: self.docker,
            tell=self.tell,
        )

    async def gather(self, wanted: Image) -> None:
        self.gathered.append(wanted.name)
        if self.error is not None:
            raise self.error
        await bring(self.store, wanted.blobs)

    async def tell(self, id: str, holds: bool) -> None:
        if self.deaf is not None:
            raise self.deaf
        self.told.append((id, holds))
        for key, each in self.records.items():
            if each.id == id:
                self.records[key] = replace(each, holders=("node0",) if holds else ())
        self.keeper.poke()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 -- of foreign objects, which have no event
                await asyncio.sleep(0.002)


async def bring(store: BlobStore, sizes: Mapping[str, int]) -> None:
    for name, size in sizes.items():
        sink = await store.receive(name, size)
        if sink is not None:
            try:
                await sink.add(bytearray(CONTENT[name]), bytes.fromhex(name[7:]))
                await sink.finish()
            finally:
                await store.leave(name)


@asynccontextmanager
async def running(folder: Path, *records: Image) -> AsyncIterator[Node]:
    store = BlobStore(folder / "blobs", reserve=0)
    await store.open()
    node = Node(store, *records)
    task = asyncio.ensure_future(node.keeper.run())
    try:
        yield node
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()


async def test_what_it_shall_keep_it_gets_and_tells(tmp_path: Path) -> None:
    async with running(tmp_path, image(1), image(2)) as node:
        await node.until(lambda: len(node.told) == 2)
        assert sorted(node.gathered) == ["web:1", "web:2"]
        assert set(node.told) == {(image(1).id, True), (image(2).id, True)}
        node.records["web:3"] = image(3)
        node.keeper.poke()
        await node.until(lambda: (image(3).id, True) in node.told)


async def test_what_came_for_a_container_is_told_without_being_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, image(1)) as node:
        node.nodes = ["node9"]  # it is not for us to keep
        await bring(node.store, image(1).blobs)
        await node.until(lambda: node.told == [(image(1).id, True)])


async def test_what_cannot_be_had_is_tried_again_said_and_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FIRST", 0.01)
    async with running(tmp_path) as node:
        node.error = BlobStoreFull("no room")
        node.records = {"web:1": image(1), "web:2": image(2)}
        node.keeper.poke()
        await node.until(lambda: node.keeper.trouble is not None)
        assert "no room" in str(node.keeper.trouble)
        assert {"web:1", "web:2"} <= set(node.gathered)
        node.error = None
        await node.until(lambda: len(node.told) == 2)
        assert node.keeper.trouble is None


async def test_an_image_that_is_removed_is_no_trouble_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FIRST", 0.01)
    async with running(tmp_path, image(1)) as node:
        node.error = BlobStoreFull("no room")
        await node.until(lambda: node.keeper.trouble is not None)
        del node.records["web:1"]
        node.keeper.poke()
        await node.until(lambda: node.keeper.trouble is None)


async def test_it_is_told_once_somebody_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FIRST", 0.01)
    async with running(tmp_path) as node:
        node.deaf = NotLeader("nobody leads", leader=None)
        node.records["web:1"] = image(1)
        node.keeper.poke()
        await node.until(lambda: node.keeper.trouble is not None)
        node.deaf = None
        await node.until(lambda: node.told == [(image(1).id, True)])


async def test_what_no_record_refers_to_goes_after_a_good_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    store = BlobStore(tmp_path, reserve=0, clock=lambda: clock[0])
    await store.open()
    await bring(store, {**image(1).blobs, **image(2).blobs})
    node = Node(store, image(1))
    ours = [loaded_name(image(number).id) for number in (1, 2, 3)]
    node.docker = docker = Docker("web:9", *ours)
    docker.used = {ours[2]}
    monkeypatch.setattr(keeping, "FRESH", 0.0)
    clock[0] += 100
    await node.keeper.tidy()
    assert all(map(store.has, image(2).blobs))
    clock[0] += 10_000
    await node.keeper.tidy()
    assert [store.has(name) for name in (*image(1).blobs, *image(2).blobs)] == [True, True, False, False]
    assert docker.names == ["web:9", ours[0], ours[2]]
    store.close()


async def test_docker_keeps_what_was_forgotten_a_moment_ago(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, reserve=0)
    await store.open()
    node = Node(store)
    node.docker = Docker(loaded_name(image(1).id))
    await node.keeper.tidy()
    assert node.docker.names == [loaded_name(image(1).id)]
    node.docker = None
    await node.keeper.tidy()
    store.close()
