"""The cluster's images: named and removed where the leader is, read from any control node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from hmcore.api import ChangeReply
from hmcore.apps.records import Image
from hmcore.digests import is_digest
from hmcore.errors import HyperMeshError, InvalidRequest, NotLeader, UsageError
from hmcore.images.archive import MOST_JSON, MOST_LAYERS
from hmcore.images.calls import (
    HoldImageRequest,
    ImagesReply,
    ImagesRequest,
    NameImageRequest,
    Pinned,
    Pull,
    RemoveImageRequest,
    ResolveReply,
    ResolveRequest,
)
from hmcore.images.names import familiar
from hmcore.pki import Identity
from hmcore.stoq.bulk.frames import MOST_SIZE
from node_agent.consensus.statemachine.appcommands import HoldImage, PutImage, RemoveImage
from node_agent.consensus.statemachine.state import State
from node_agent.platform.changes import Changes

MOST_NAMES = 200  # to be resolved at once
MOST_HOLDERS = 1000


class Images:
    """What is read: the replicated state as a control node holds it. `state` is None on a worker, which does not."""

    def __init__(
        self,
        me: str,
        changes: Changes,
        *,
        state: Callable[[], State | None],
        leader: Callable[[], str | None],
        barrier: Callable[[], Awaitable[None]],
        pin: Callable[[str, Pull, Pinned | None], Awaitable[Pinned]],
    ) -> None:
        """`barrier` returns once this node's state has all that was acknowledged before it was called. `pin`: Pinning's."""
        self._me = me
        self._changes = changes
        self._state = state
        self._leader = leader
        self._barrier = barrier
        self._pin = pin

    async def name(self, request: NameImageRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        check_image(request.image)
        image = replace(request.image, author="", unix_time=0.0, index=0)
        return await self._changes.carry_out(PutImage(image=image), request=request.id, author=author)

    async def remove(self, request: RemoveImageRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        return await self._changes.carry_out(RemoveImage(name=request.name), request=request.id, author=author)

    async def hold(self, request: HoldImageRequest, node: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        command = HoldImage(image_id=request.image_id, node=node.name, holds=request.holds)
        return await self._changes.carry_out(command, request=request.id, author=node)

    async def list(self, request: ImagesRequest) -> ImagesReply:
        """Raises NotLeader on a worker, NoQuorum if it is to be consistent and cannot be."""
        if request.consistent:
            await self._barrier()
        state = self._read()
        return ImagesReply(index=state.index, images=sorted(state.images.values(), key=lambda image: (image.name, image.id)))

    async def resolve(self, request: ResolveRequest) -> ResolveReply:
        """Raises NotLeader on a worker, InvalidRequest."""
        if len(request.names) > MOST_NAMES:
            raise InvalidRequest(f"{len(request.names)} images at once: {MOST_NAMES} at most")
        self._read()
        found: dict[str, Pinned] = {}
        failed: dict[str, str] = {}

        async def one(name: str) -> None:
            try:
                found[name] = await self._pin(name, request.pull, request.had.get(name))
            except HyperMeshError as error:
                failed[name] = error.with_fix

        async with asyncio.TaskGroup() as group:
            for name in sorted(set(request.names)):
                group.create_task(one(name), name=f"resolve {name[:100]}")
        return ResolveReply(found=found, failed=failed)

    def _read(self) -> State:
        found = self._state()
        if found is None:
            raise NotLeader(f"{self._me} is a worker and does not keep what images are called", leader=self._leader())
        return found


def check_image(image: Image) -> None:
    """What no archive can come to, whoever sends it. Raises InvalidRequest."""
    try:
        named = familiar(image.name)
    except UsageError as error:
        raise InvalidRequest(error.message) from error
    if named != image.name or "@" in named:
        raise InvalidRequest(f"{image.name[:200]!r} is no name to give; {named.partition('@')[0]!r} would be")
    if not 0 < len(image.layers) <= MOST_LAYERS:
        raise InvalidRequest(f"{image.name} has {len(image.layers)} layers: 1 to {MOST_LAYERS}")
    digests = [image.id, *(digest for layer in image.layers for digest in (layer.digest, layer.diff_id))]
    if wrong := [digest for digest in digests if not is_digest(digest)]:
        raise InvalidRequest(f"{wrong[0][:100]!r} is no digest")
    if not 0 < image.config_size <= MOST_JSON or not all(0 <= layer.size <= MOST_SIZE for layer in image.layers):
        raise InvalidRequest(f"{image.name}: a size that cannot be")
    if len({(layer.digest, layer.size) for layer in image.layers}) != len({layer.digest for layer in image.layers}):
        raise InvalidRequest(f"{image.name}: a layer of two sizes")
    if len(image.platform) > 100 or len(image.holders) > MOST_HOLDERS:
        raise InvalidRequest(f"{image.name}: too long a platform, or too many holders")
