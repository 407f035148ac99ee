"""What an image's name means at this moment: found out once, when an app is deployed, so that every node runs the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from hmcore.apps.records import Image
from hmcore.digests import is_digest
from hmcore.errors import HyperMeshError, ImageUnavailable, LayerDown, RegistryDenied, RegistrySilent, UsageError
from hmcore.images.calls import Pinned, Pull
from hmcore.images.names import ImageName, parse
from node_agent.container.apart import apart
from node_agent.container.local_images import LocalImage
from node_agent.container.registries import Registries, login, nobody

TIMEOUT = 6.0  # seconds that a registry may take to answer: somebody waits for it


class Docker(Protocol):
    """See node_agent.container.engine_images.DockerImages. Every call blocks, and raises LayerDown and ImageUnavailable, `manifest` also
    RegistrySilent."""

    def find(self, name: str) -> LocalImage | None: ...
    def manifest(self, repository: str, tag: str, credentials: tuple[str, str] | None) -> str: ...


class Pinning:
    """`record`: what the cluster knows of a name or id. `docker`: this node's, None while it is away. `registries`: who we are to one."""

    def __init__(
        self,
        *,
        record: Callable[[str], Image | None],
        docker: Callable[[], Docker | None],
        registries: Registries = nobody,
        timeout: float = TIMEOUT,
    ) -> None:
        self._record = record
        self._docker = docker
        self._registries = registries
        self._timeout = timeout

    async def pin(self, image: str, pull: Pull = "", had: Pinned | None = None) -> Pinned:
        """The cluster's image of this name; else the registry's, or, when that cannot be asked, what the app `had`; else the one that
        this node's Docker has, which others must have, too.
        `pull`, `had`: see ResolveRequest.

        Raises ImageUnavailable.
        """
        if pull != "always" and (record := self._record(image)) is not None:
            return Pinned(image=image, id=record.id)
        if pull == "missing" and had is not None:
            return had
        if is_digest(image):
            return Pinned(image=image, id=image)
        try:
            name = parse(image)
        except UsageError as error:
            raise ImageUnavailable(error.message) from error
        push = f"hmctl image push {name.familiar}, from where Docker has it"
        if pull == "never":
            if (here := await self._local(name)) is not None:
                return Pinned(image=image, id=here.id)
            why = f"neither the cluster has an image {name.familiar} nor the leader's Docker, and pull_policy: never asks nobody else"
            raise ImageUnavailable(why, fix=push)
        if name.digest:
            return Pinned(image=image)
        try:
            return Pinned(image=f"{name.familiar}@{await self._manifest(name)}")
        except HyperMeshError as error:
            allowed = f"{error.fix}; or " if isinstance(error, RegistryDenied) else ""
            if pull == "always":
                why = f"no registry gives it, and pull_policy: always takes no other: {error.message}"
                raise ImageUnavailable(why, fix=f"{allowed}without pull_policy: always the cluster's own is taken: {push}") from error
            # before what is here under that name, which may be of any age, and nobody else may have
            if had is not None and isinstance(error, RegistrySilent | LayerDown):
                return replace(had, unasked=error.message)
            if (here := await self._local(name)) is not None:
                return Pinned(image=image, id=here.id)
            why = f"the cluster has no image {name.familiar}, and no registry gives it: {error.message}"
            raise ImageUnavailable(why, fix=allowed + push) from error

    async def _manifest(self, name: ImageName) -> str:
        docker = self._docker()
        if docker is None:
            raise LayerDown("Docker does not answer here")
        try:
            async with asyncio.timeout(self._timeout):
                who = await login(self._registries, name.registry)
                with who.explained():
                    return await apart("docker manifest", lambda: docker.manifest(name.repository, name.tag, who.credentials))
        except TimeoutError as error:
            raise RegistrySilent(f"{name.registry} did not answer within {self._timeout:g} s") from error

    async def _local(self, name: ImageName) -> LocalImage | None:
        docker = self._docker()
        if docker is None:
            return None
        try:
            async with asyncio.timeout(self._timeout):
                return await apart("docker inspect", lambda: docker.find(name.local))
        except (TimeoutError, HyperMeshError):  # why the registry does not have it says more
            return None
