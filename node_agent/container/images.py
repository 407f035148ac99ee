"""Images on this node: had from Docker if they are there, else from the cluster's nodes as blobs, else from a registry.

What a name means in the cluster is the replicated record's business (hmcore.apps.records.Image); of a name that the cluster does not know,
a registry decides. Whether to try again, and when, is the caller's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from hmcore.apps.records import Image, ImageLayer
from hmcore.digests import digest_of, is_digest
from hmcore.errors import BlobBusy, BlobCorrupt, BlobError, BlobMissing, ImageUnavailable, LayerDown, NoSpace, UsageError
from hmcore.images.archive import MOST_JSON
from hmcore.images.loading import archive, lacking
from hmcore.images.names import ImageName, loaded_name, parse
from node_agent.container.apart import apart
from node_agent.container.local_images import LocalImage, PullCount
from node_agent.container.registries import Registries, login, nobody

T = TypeVar("T")

PIECE = 1 << 20  # bytes that Docker is given at a time
PUSH = "hmctl image push"

log = logging.getLogger(__name__)


class Docker(Protocol):
    """See engine.DockerImages: every call blocks."""

    def skips_layers(self) -> bool: ...
    def images(self) -> list[LocalImage]: ...
    def find(self, name: str) -> LocalImage | None: ...
    def room(self) -> int | None: ...
    def load(self, archive: Iterator[bytes]) -> None: ...
    def pull(self, repository: str, tag: str, credentials: tuple[str, str] | None, progress: Callable[[object], bool]) -> None: ...


class Blobs(Protocol):
    """See node_agent.transport.blobs.BlobStore."""

    def has(self, digest: str) -> bool: ...
    def path(self, digest: str) -> Path: ...
    async def content(self, digest: str, most: int) -> bytes: ...
    async def examine(self, digest: str) -> bool: ...


class Fetch(Protocol):
    """See node_agent.transport.fetching.Fetcher.fetch."""

    async def __call__(self, sizes: Mapping[str, int], holders: Collection[str], progress: Callable[[int], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Figures:
    """How far an image has come. `stage`: fetching | loading | pulling. `total` 0: not known yet."""

    stage: str
    done: int = 0
    total: int = 0


class Images:
    """See node_agent.container.executor.Images. `docker` gives None while Docker is away; `record` what the cluster knows of a name or id;
    `registries` who we are to one."""

    def __init__(
        self,
        *,
        docker: Callable[[], Docker | None],
        blobs: Blobs,
        fetch: Fetch,
        record: Callable[[str], Image | None],
        registries: Registries = nobody,
    ) -> None:
        self._docker = docker
        self._blobs = blobs
        self._fetch = fetch
        self._record = record
        self._registries = registries
        self._here: set[str] = set()  # ids and names
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}  # and how many want it
        self._figures: dict[str, Figures] = {}

    def present(self, image: str) -> bool:
        """Whether it is on this node, as far as is known without asking anybody. `image`: an id, or a name."""
        record = self._record(image)
        return (_familiar(image) if record is None else record.id) in self._here

    def figures(self) -> Mapping[str, Figures]:
        """Of what is being had just now, by what `ensure` was asked for."""
        return dict(self._figures)

    async def look(self) -> None:
        """Ask Docker what is there: `present` answers by that. Raises LayerDown."""
        docker = self._require()
        self._here = {said for image in await apart("docker images", docker.images) for said in _said(image)}

    async def ensure(self, image: str) -> str:
        """Have it on this node; the id that Docker knows it by. `image`: an id, or a name.

        May be cancelled at any moment, and be asked for the same image several times at once: then one works and the others wait. Raises
        ImageUnavailable (nobody has it, or it is no name), BlobError (BlobStoreFull among them), NoSpace (on Docker's disk) and LayerDown.
        """
        record = self._record(image)
        async with self._alone(_familiar(image) if record is None else record.id):
            try:
                found = await self._ensure(image)
            finally:
                self._figures.pop(image, None)
        self._here |= {_familiar(image), *_said(found)}
        return found.id

    async def gather(self, image: Image) -> None:
        """Have all of its content as blobs, to give it to others; for those who are to keep it. Raises what Fetcher.fetch does."""
        await self._fetch(image.blobs, image.holders, lambda size: None)

    async def _ensure(self, image: str) -> LocalImage:
        docker, record = self._require(), self._record(image)
        id = record.id if record is not None else image if is_digest(image) else ""
        for name in (loaded_name(id), id) if id else (_name(image).local,):
            if (found := await apart("docker inspect", lambda name=name: docker.find(name))) is not None:  # type: ignore[misc]
                return found
        if record is None and id:
            raise ImageUnavailable(f"nobody has the image {id}, and the cluster has no name for it", fix=PUSH)
        if record is None:
            return await self._pull(docker, image, _name(image))
        try:
            return await self._from_blobs(docker, image, record)
        except BlobMissing as error:
            raise ImageUnavailable(f"no node has all of {record.name}: {error.message}", fix=f"{PUSH} {record.name}") from error

    async def _from_blobs(self, docker: Docker, image: str, record: Image) -> LocalImage:
        """Only what Docker lacks is fetched and loaded. If it does not take that (it lost some of the rest meanwhile, or what we have has
        rotted on the disk), all of it, and what is damaged anew."""
        layers = await apart("docker layers", lambda: _lacking(docker, record))
        await self._bring(image, record, layers)
        try:
            return await self._load(docker, image, record, layers)
        except (ImageUnavailable, BlobCorrupt) as error:
            sound = [await self._blobs.examine(digest) for digest in record.blobs if self._blobs.has(digest)]
            if len(layers) == len(record.layers) and all(sound):
                raise
            log.warning("%s could not be loaded, and is once more: %s", record.name, error.message)
        await self._bring(image, record, record.layers)
        return await self._load(docker, image, record, record.layers)

    async def _bring(self, image: str, record: Image, layers: Collection[ImageLayer]) -> None:
        sizes = {record.id: record.config_size} | {layer.digest: layer.size for layer in layers}
        wanted = {digest: size for digest, size in sizes.items() if not self._blobs.has(digest)}
        total, done = sum(wanted.values()), 0

        def progress(size: int) -> None:
            nonlocal done
            done = min(done + size, total)
            self._figures[image] = Figures("fetching", done, total)

        progress(0)
        await self._fetch(wanted, record.holders, progress)

    async def _load(self, docker: Docker, image: str, record: Image, layers: Collection[ImageLayer]) -> LocalImage:
        config = await self._blobs.content(record.id, MOST_JSON)
        if digest_of(config) != record.id:
            raise BlobCorrupt(f"what this node keeps as {record.id} is something else")
        stopped = False
        total, done = sum(layer.size for layer in layers), 0
        self._figures[image] = Figures("loading", 0, total)

        def pieces() -> Iterator[bytes]:
            nonlocal done
            for piece in archive(record, config, layers, lambda layer: _pieces(self._blobs.path(layer.digest))):
                if stopped:
                    raise BlobBusy("nobody wants it any more")
                done = min(done + len(piece), total)
                self._figures[image] = Figures("loading", done, total)
                yield piece

        def load() -> LocalImage | None:
            _check_room(docker, record, total)
            docker.load(pieces())
            return docker.find(loaded_name(record.id))

        try:
            found = await apart("docker load", load)
        finally:
            stopped = True
        if found is None or not _is(found, record):
            raise ImageUnavailable(f"Docker loaded {record.name}, but as another image than {record.id}")
        return found

    async def _pull(self, docker: Docker, image: str, name: ImageName) -> LocalImage:
        """From the registry that `name` says."""
        who = await login(self._registries, name.registry)
        count, stopped = PullCount(), False
        self._figures[image] = Figures("pulling")

        def progress(said: object) -> bool:
            seen = count.take(said)
            if not stopped:
                self._figures[image] = Figures("pulling", seen.done, seen.total)
            return not stopped

        def pull() -> LocalImage | None:
            docker.pull(name.repository, name.digest or name.tag, who.credentials, progress)
            return docker.find(name.local)

        try:
            with who.explained():
                found = await apart("docker pull", pull)
        finally:
            stopped = True
        if found is None:
            raise ImageUnavailable(f"Docker pulled {name.familiar}, but does not have it")
        return found

    def _require(self) -> Docker:
        docker = self._docker()
        if docker is None:
            raise LayerDown("Docker does not answer", fix="systemctl start docker")
        return docker

    @asynccontextmanager
    async def _alone(self, image: str) -> AsyncIterator[None]:
        """One at a time for each image; nothing is kept of those that nobody wants."""
        lock, wanted = self._busy.get(image, (asyncio.Lock(), 0))
        self._busy[image] = lock, wanted + 1
        try:
            async with lock:
                yield
        finally:
            lock, wanted = self._busy[image]
            if wanted == 1:
                del self._busy[image]
            else:
                self._busy[image] = lock, wanted - 1


def _check_room(docker: Docker, record: Image, size: int) -> None:
    """Docker unpacks an archive before it takes the layers out of it; when its disk is full then, it hangs up without a word."""
    free = docker.room()
    if free is not None and free < 2 * size:
        raise NoSpace(
            f"no room on Docker's disk to load {record.name}: {free} bytes are free, {2 * size} are needed", fix="docker system df"
        )


def _lacking(docker: Docker, record: Image) -> tuple[ImageLayer, ...]:
    if not docker.skips_layers():
        return record.layers
    there = (docker.find(image.id) for image in docker.images())
    return lacking(record.layers, [image.layers for image in there if image is not None])


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise BlobError(f"{path} cannot be read: {error.strerror}") from error


def _is(found: LocalImage, record: Image) -> bool:
    """Whether it is that image. Where containerd keeps it, the id is another one; then what it is made of tells."""
    return found.id == record.id or found.layers == tuple(layer.diff_id for layer in record.layers)


def _name(image: str) -> ImageName:
    try:
        return parse(image)
    except UsageError as error:
        raise ImageUnavailable(error.message) from error


def _familiar(image: str) -> str:
    """As Docker lists it; an id, and what is no name, as it is."""
    try:
        return image if is_digest(image) else parse(image).local
    except UsageError:
        return image


def _said(image: LocalImage) -> set[str]:
    """What `present` may be asked for: of what we loaded, our name tells the id that the cluster knows."""
    ids = {f"sha256:{name.rpartition(':')[2]}" for name in image.names if name == loaded_name(f"sha256:{name.rpartition(':')[2]}")}
    return {image.id, *image.names, *ids}
