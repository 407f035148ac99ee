"""The cluster's images on this node: those that it shall keep are fetched, which it has is told, and what nobody refers to any more goes.

What is to be done is decided purely, from the records and from what is here; nothing else is remembered but what just failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hmcore.apps.records import Image
from hmcore.errors import HyperMeshError, ImageUnavailable
from hmcore.images.names import LOADED, loaded_name
from node_agent.container.apart import apart
from node_agent.container.images import Images
from node_agent.container.local_images import LocalImage
from node_agent.transport.blobs import FRESH, BlobStore
from node_agent.transport.seeding import keepers
from node_agent.waiting import woken

LOOK = 60.0  # seconds between two looks at what there is to do, beside those that something sets off
TIDY = 600.0  # seconds between two removals of what nobody refers to
FIRST, LONGEST = 5.0, 300.0  # seconds after an image could not be had, or what is here not be told; doubled each time

log = logging.getLogger("hypermesh.images")


class Docker(Protocol):
    """See node_agent.container.engine_images.DockerImages. Every call blocks, and raises LayerDown and ImageUnavailable."""

    def images(self) -> list[LocalImage]: ...
    def remove(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Duties:
    """`gather`: images to be fetched, those that fewest have first. `tell`: by id, whether all of the image is here; the record says
    otherwise."""

    gather: tuple[Image, ...]
    tell: Mapping[str, bool]


def duties(me: str, images: Iterable[Image], nodes: Collection[str], has: Callable[[str], bool]) -> Duties:
    """Of node `me`. `nodes`: those that live. `has`: whether a blob is here."""
    by_id = {image.id: image for image in images}
    here = {id: all(map(has, image.blobs)) for id, image in by_id.items()}
    mine = (image for id, image in by_id.items() if not here[id] and me in keepers(id, nodes))
    told = {id: here[id] for id, image in by_id.items() if here[id] != (me in image.holders)}
    return Duties(tuple(sorted(mine, key=lambda image: (len(image.holders), image.id))), told)


def forgotten(local: Iterable[LocalImage], images: Iterable[Image]) -> frozenset[str]:
    """The names under which Docker has what we loaded and no record refers to any more."""
    wanted = {loaded_name(image.id) for image in images}
    names = (name for each in local for name in each.names if name.startswith(f"{LOADED}:"))
    return frozenset(name for name in names if name not in wanted)


class Keeper:
    """`images`: the records; `nodes`: those that live, this one included. `tell` brings to the leader whether all of an image is here, and
    raises HyperMeshError. `docker`: None while it is away."""

    def __init__(
        self,
        me: str,
        *,
        records: Callable[[], Collection[Image]],
        nodes: Callable[[], Collection[str]],
        blobs: BlobStore,
        images: Images,
        docker: Callable[[], Docker | None],
        tell: Callable[[str, bool], Awaitable[None]],
    ) -> None:
        self._me = me
        self._records = records
        self._nodes = nodes
        self._blobs = blobs
        self._images = images
        self._docker = docker
        self._tell = tell
        self._failures: dict[str, _Failure] = {}  # of images that could not be had, and of telling, by id
        self._unwanted: dict[str, float] = {}  # names that Docker has, and since when no record refers to them
        self._pulse = asyncio.Event()

    def poke(self) -> None:
        """The records or the nodes have changed."""
        self._pulse.set()

    @property
    def trouble(self) -> str | None:
        """What an operator should know; None: nothing."""
        return next((failure.why for failure in self._failures.values() if failure.count > 2), None)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._notice(), name="content that came")
            tasks.create_task(self._tidy(), name="images to forget")
            gathering: asyncio.Task[None] | None = None
            while True:
                self._pulse.clear()
                found = await self._duties()
                wake = await self._tell_all(found.tell)
                if gathering is None or gathering.done():
                    image, wake = self._next(found.gather, wake)
                    gathering = None if image is None else tasks.create_task(self._gather(image), name=f"keep {image.key}")
                await self._nap(wake)

    async def _duties(self) -> Duties:
        """In a thread: a thousand images on a thousand nodes take a second."""
        records, nodes = self._records(), self._nodes()
        for id in self._failures.keys() - {image.id for image in records}:
            del self._failures[id]
        return await asyncio.to_thread(duties, self._me, records, nodes, self._blobs.has)

    async def _notice(self) -> None:
        while True:
            await self._blobs.settled()
            self._pulse.set()

    async def _tell_all(self, said: Mapping[str, bool]) -> float:
        """When to try again, in seconds from now."""
        for id, holds in said.items():
            if (wait := self._wait(id)) > 0:
                return wait
            try:
                await self._tell(id, holds)
            except HyperMeshError as error:
                return self._failed(id, f"what this node keeps cannot be told: {error.message}")
            self._failures.pop(id, None)
        return LOOK

    def _next(self, images: Iterable[Image], wake: float) -> tuple[Image | None, float]:
        """The image to be had now, if any; when to look again."""
        for image in images:
            if (wait := self._wait(image.id)) <= 0:
                return image, wake
            wake = min(wake, wait)
        return None, wake

    async def _gather(self, image: Image) -> None:
        try:
            await self._images.gather(image)
        except HyperMeshError as error:
            self._failed(image.id, f"{image.name or image.id} cannot be kept here: {error.message}")
        else:
            self._failures.pop(image.id, None)
        self._pulse.set()

    def _wait(self, id: str) -> float:
        failure = self._failures.get(id)
        return 0.0 if failure is None else failure.again - asyncio.get_running_loop().time()

    def _failed(self, id: str, why: str) -> float:
        count = self._failures[id].count + 1 if id in self._failures else 1
        pause = min(FIRST * 2.0 ** min(count - 1, 10), LONGEST)
        self._failures[id] = _Failure(count, asyncio.get_running_loop().time() + pause, why)
        log.log(logging.INFO if count < 3 else logging.WARNING, "%s", why)
        return pause

    async def _nap(self, seconds: float) -> None:
        await woken(self._pulse, seconds)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY)
            try:
                await self.tidy()
            except HyperMeshError as error:
                log.info("images that nobody needs could not be removed: %s", error.message)

    async def tidy(self) -> None:
        """Remove what no record has referred to for a good while. Raises BlobError; what Docker still uses stays."""
        records = self._records()
        freed = await self._blobs.collect({digest for image in records for digest in image.blobs})
        if freed:
            log.info("%d bytes of images that nobody refers to were removed", freed)
        docker = self._docker()
        if docker is None:
            return
        names, now = forgotten(await apart("docker images", docker.images), records), asyncio.get_running_loop().time()
        self._unwanted = {name: self._unwanted.get(name, now) for name in names}
        for name in [name for name, since in self._unwanted.items() if now - since >= FRESH]:
            try:
                await apart("docker rmi", lambda name=name: docker.remove(name))  # type: ignore[misc]
            except ImageUnavailable as error:
                log.debug("%s stays: %s", name, error.message)  # a container uses it


@dataclass(frozen=True, slots=True)
class _Failure:
    """`again`: when to try again, by the event loop's clock."""

    count: int
    again: float
    why: str
