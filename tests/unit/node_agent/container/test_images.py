"""Images on a node: from Docker, from blobs, from a registry, in that order; asked for by several, and given up by some."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest
from docker_archives import ImageStore, Made, Refused, digest, layer

from hmcore.apps.records import Image, ImageLayer
from hmcore.apps.secrets import Credentials
from hmcore.errors import BlobCorrupt, BlobMissing, BlobStoreFull, HyperMeshError, ImageUnavailable, LayerDown, NoSpace, SecretsLocked
from hmcore.images.names import loaded_name
from hmcore.images.pinning import known
from node_agent.container.images import Figures, Images
from node_agent.container.local_images import LocalImage

A, B, C = (layer(name) for name in "abc")
MADE = Made((A, B))


def record(made: Made) -> Image:
    layers = tuple(ImageLayer(digest=digest(each), diff_id=digest(each), size=len(each)) for each in made.layers)
    return Image(name="web:1", id=made.id, config_size=len(made.config), layers=layers, holders=("node2",))


class Docker:
    """ImageStore as node_agent.container.images sees it."""

    def __init__(self, *, containerd: bool = False) -> None:
        self.store = ImageStore(containerd)
        self.registry: dict[str, Made] = {}
        self.pulled: list[tuple[str, str, tuple[str, str] | None]] = []
        self.loads: list[int] = []
        self.free: int | None = None
        self.forget_at_load: str | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.stopped = threading.Event()

    def room(self) -> int | None:
        return self.free

    def skips_layers(self) -> bool:
        return not self.store.containerd

    def images(self) -> list[LocalImage]:
        return [LocalImage(id, tuple(name for name, of in self.store.names.items() if of == id)) for id in self.store.images]

    def find(self, name: str) -> LocalImage | None:
        id = self.store.names.get(name, name)
        return next((LocalImage(each.id, each.names, self.store.images[id]) for each in self.images() if each.id == id), None)

    def load(self, archive: Iterator[bytes]) -> None:
        if self.forget_at_load is not None:
            del self.store.images[self.forget_at_load]
            self.forget_at_load = None
        pieces = list(archive)
        self.loads.append(sum(map(len, pieces)))
        try:
            self.store.load(pieces)
        except Refused as error:
            raise ImageUnavailable(str(error)) from error

    def pull(self, repository: str, tag: str, credentials: tuple[str, str] | None, progress: Callable[[object], bool]) -> None:
        self.pulled.append((repository, tag, credentials))
        name = f"{repository}@{tag}" if tag.startswith("sha256:") else f"{repository}:{tag}"
        progress({"id": "l", "status": "Downloading", "progressDetail": {"current": 1, "total": 2}})
        self.hold.wait(20)
        if not progress({}):
            self.stopped.set()
            return
        if name not in self.registry:
            raise ImageUnavailable("Docker refuses: pull access denied")
        self.add(self.registry[name], name)

    def add(self, made: Made, *names: str) -> None:
        self.store.images[made.id] = tuple(made.diff_ids)
        self.store.names |= dict.fromkeys(names, made.id)


class Node:
    """Everything round Images: what the cluster knows, and what other nodes give."""

    def __init__(self, folder: Path, docker: Docker, *records: Image, gives: Collection[Made] = (MADE,)) -> None:
        self.folder = folder
        self.docker: Docker | None = docker
        self.records = {said: image for image in records for said in (image.name, image.id)}
        self.gives = {digest(blob): blob for made in gives for blob in (*made.layers, made.config)}
        self.fetched: list[str] = []
        self.error: HyperMeshError | None = None
        self.locked = False
        self.hold = asyncio.Event()
        self.hold.set()
        self.images = Images(
            docker=lambda: self.docker,
            blobs=self,
            fetch=self.fetch,
            record=lambda said: known({image.key: image for image in self.records.values()}, said),
            registries=self.credentials,
        )

    async def credentials(self, host: str) -> Credentials | None:
        if self.locked:
            raise SecretsLocked("no control node gives the registry example.org now")
        return Credentials("anna", "secret") if host == "example.org" else None

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def path(self, digest: str) -> Path:
        return self.folder / digest[7:]

    async def content(self, digest: str, most: int) -> bytes:
        return self.path(digest).read_bytes()

    async def examine(self, name: str) -> bool:
        good = digest(self.path(name).read_bytes()) == name
        if not good:
            self.path(name).unlink()
        return good

    async def fetch(self, sizes: Mapping[str, int], holders: Collection[str], progress: Callable[[int], None]) -> None:
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        for name, size in sizes.items():
            if name not in self.gives:
                raise BlobMissing(f"no node gives {name}")
            self.path(name).write_bytes(self.gives[name])
            self.fetched.append(name)
            progress(size)


async def test_what_docker_has_is_not_fetched(tmp_path: Path) -> None:
    docker = Docker()
    docker.add(MADE, "other:1")
    node = Node(tmp_path, docker, record(MADE))
    assert await node.images.ensure("web:1") == MADE.id
    assert (node.fetched, docker.loads, docker.pulled) == ([], [], [])


@pytest.mark.parametrize("by", ["web:1", MADE.id])
async def test_an_image_comes_from_the_nodes(tmp_path: Path, by: str) -> None:
    node = Node(tmp_path, docker := Docker(), record(MADE))
    assert not node.images.present(by)
    assert await node.images.ensure(by) == MADE.id
    assert node.images.present("web:1")
    assert node.images.present(MADE.id)
    assert docker.store.names == {loaded_name(MADE.id): MADE.id}
    assert await node.images.ensure(by) == MADE.id
    assert len(docker.loads) == 1
    assert node.images.figures() == {}


async def test_layers_that_docker_has_are_neither_fetched_nor_loaded(tmp_path: Path) -> None:
    docker = Docker()
    docker.add(Made((A, C)), "base:1")
    node = Node(tmp_path, docker, record(MADE))
    await node.images.ensure("web:1")
    assert set(node.fetched) == {MADE.id, digest(B)}


async def test_layers_that_docker_loses_meanwhile_are_fetched_after_all(tmp_path: Path) -> None:
    docker, base = Docker(), Made((A, C))
    docker.add(base, "base:1")
    docker.forget_at_load = base.id
    node = Node(tmp_path, docker, record(MADE))
    assert await node.images.ensure("web:1") == MADE.id
    assert set(node.fetched) == {MADE.id, digest(A), digest(B)}


async def test_where_containerd_keeps_images_all_is_loaded_and_its_id_is_told(tmp_path: Path) -> None:
    docker = Docker(containerd=True)
    docker.add(Made((A, C)), "base:1")
    node = Node(tmp_path, docker, record(MADE))
    id = await node.images.ensure("web:1")
    assert id in docker.store.images
    assert id != MADE.id
    assert node.images.present(MADE.id)
    await node.images.look()
    assert node.images.present("web:1")
    assert await node.images.ensure(MADE.id) == id
    assert len(docker.loads) == 1


@pytest.mark.parametrize("containerd", [False, True])
async def test_a_node_that_gives_another_configuration_fools_nobody(tmp_path: Path, containerd: bool) -> None:
    """The store of blobs would not take it, and it is not loaded."""
    node = Node(tmp_path, docker := Docker(containerd=containerd), record(MADE))
    node.gives[MADE.id] = Made((A, B), extra="evil").config
    with pytest.raises(BlobCorrupt, match="something else"):
        await node.images.ensure("web:1")
    assert docker.loads == []


@pytest.mark.parametrize("rotten", [MADE.id, digest(A), digest(B)])
@pytest.mark.parametrize("shorter", [False, True])
async def test_what_rotted_on_the_disk_is_fetched_again(tmp_path: Path, rotten: str, shorter: bool) -> None:
    node = Node(tmp_path, docker := Docker(), record(MADE))
    await node.images.gather(record(MADE))
    node.path(rotten).write_bytes(b"rot" if shorter else bytes(len(node.gives[rotten])))
    node.fetched.clear()
    assert await node.images.ensure("web:1") == MADE.id
    assert node.fetched == [rotten]
    assert docker.store.images == {MADE.id: tuple(MADE.diff_ids)}


async def test_what_nobody_has_says_so(tmp_path: Path) -> None:
    node = Node(tmp_path, docker := Docker(), record(MADE), gives=())
    with pytest.raises(ImageUnavailable, match="no node has all of web:1"):
        await node.images.ensure("web:1")
    with pytest.raises(ImageUnavailable, match="nobody has the image"):
        await node.images.ensure(Made((C,)).id)
    node.error = BlobStoreFull("no room")
    with pytest.raises(BlobStoreFull):
        await node.images.ensure("web:1")
    assert docker.pulled == []
    assert not node.images.present("web:1")


async def test_a_name_that_the_cluster_does_not_know_is_pulled(tmp_path: Path) -> None:
    docker = Docker()
    docker.registry = {"example.org/team/web:2": MADE, "nginx:latest": Made((C,))}
    node = Node(tmp_path, docker)
    assert await node.images.ensure("example.org/team/web:2") == MADE.id
    assert await node.images.ensure("nginx") == Made((C,)).id
    assert docker.pulled == [("example.org/team/web", "2", ("anna", "secret")), ("nginx", "latest", None)]
    assert node.images.present("nginx")
    await node.images.look()
    assert node.images.present("nginx")
    assert node.images.present("docker.io/library/nginx:latest")
    with pytest.raises(ImageUnavailable, match="denied"):
        await node.images.ensure("no/such:1")
    with pytest.raises(ImageUnavailable, match="no name"):
        await node.images.ensure("--Not a name")


async def test_credentials_that_cannot_be_had_matter_only_where_they_are_needed(tmp_path: Path) -> None:
    docker = Docker()
    docker.registry = {"nginx:latest": MADE}
    node = Node(tmp_path, docker)
    node.locked = True
    assert await node.images.ensure("nginx") == MADE.id
    with pytest.raises(ImageUnavailable, match=r"access denied; and the registry was asked without credentials: no control node"):
        await node.images.ensure("example.org/web:1")


async def test_a_name_with_a_digest_is_found_by_that(tmp_path: Path) -> None:
    docker, by_digest = Docker(), f"example.org/web@{digest(b'manifest')}"
    docker.registry = {by_digest: MADE}
    node = Node(tmp_path, docker)
    assert await node.images.ensure(f"example.org/web:2@{digest(b'manifest')}") == MADE.id
    assert docker.pulled == [("example.org/web", digest(b"manifest"), ("anna", "secret"))]
    assert docker.store.names == {by_digest: MADE.id}
    await node.images.ensure(f"example.org/web:3@{digest(b'manifest')}")
    assert len(docker.pulled) == 1


async def test_several_who_want_it_have_it_once(tmp_path: Path) -> None:
    node = Node(tmp_path, docker := Docker(), record(MADE))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.images.ensure("web:1")) for _ in range(3)]
    assert {task.result() for task in tasks} == {MADE.id}
    assert len(docker.loads) == 1
    assert node.images._busy == {}


async def test_who_gives_up_leaves_it_to_the_next(tmp_path: Path) -> None:
    node = Node(tmp_path, Docker(), record(MADE))
    node.hold.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(node.images.ensure("web:1"))
        while node.images.figures() != {"web:1": Figures("fetching", 0, record(MADE).size)}:  # noqa: ASYNC110 -- of foreign objects, which have no event
            await asyncio.sleep(0.001)
        second = group.create_task(node.images.ensure("web:1"))
        await asyncio.sleep(0)
        first.cancel()
        node.hold.set()
        assert await second == MADE.id
    assert node.images._busy == {}


async def test_a_pull_that_nobody_waits_for_ends(tmp_path: Path) -> None:
    docker = Docker()
    docker.hold.clear()
    node = Node(tmp_path, docker)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(node.images.ensure("nginx"))
        while node.images.figures().get("nginx") != Figures("pulling", 1, 2):  # noqa: ASYNC110 -- of foreign objects, which have no event
            await asyncio.sleep(0.001)
        task.cancel()
    docker.hold.set()
    assert await asyncio.to_thread(docker.stopped.wait, 10)
    assert node.images.figures() == {}


async def test_without_docker_there_are_no_images(tmp_path: Path) -> None:
    node = Node(tmp_path, Docker(), record(MADE))
    node.docker = None
    with pytest.raises(LayerDown):
        await node.images.ensure("web:1")
    with pytest.raises(LayerDown):
        await node.images.look()


async def test_what_docker_lost_is_not_present_after_a_look(tmp_path: Path) -> None:
    node = Node(tmp_path, docker := Docker(), record(MADE))
    await node.images.ensure("web:1")
    docker.store = ImageStore()
    await node.images.look()
    assert not node.images.present("web:1")


async def test_all_of_an_image_is_gathered_for_others(tmp_path: Path) -> None:
    node = Node(tmp_path, docker := Docker(), record(MADE))
    docker.add(MADE, "web:1")
    await node.images.gather(record(MADE))
    assert set(node.fetched) == {MADE.id, digest(A), digest(B)}


async def test_a_disk_of_dockers_that_is_full_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    node = Node(tmp_path, docker := Docker(), record(MADE))
    docker.free = 2 * (len(A) + len(B)) - 1
    with pytest.raises(NoSpace, match="no room on Docker's disk to load web:1"):
        await node.images.ensure("web:1")
    assert docker.loads == []
    assert not node.images.present("web:1")
    docker.free += 1
    assert await node.images.ensure("web:1") == MADE.id


async def test_by_name_and_by_id_it_is_had_once(tmp_path: Path) -> None:
    node = Node(tmp_path, docker := Docker(), record(MADE))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.images.ensure(said)) for said in ("web:1", MADE.id, "docker.io/library/web:1", MADE.id)]
    assert {task.result() for task in tasks} == {MADE.id}
    assert len(docker.loads) == 1
