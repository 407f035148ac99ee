"""Images of the cluster: brought to one node, as far as no node has them, and given their names. The nodes take them from each other."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from hmcore.api import ChangeReply
from hmcore.apps.calls import APPS, AppsReply, AppsRequest
from hmcore.apps.records import Image, ImageLayer
from hmcore.errors import ArchiveError, BlobStoreFull, DockerMissing, HyperMeshError, ImageError, UsageError
from hmcore.images import names
from hmcore.images.archive import SavedImage, SavedLayer, read
from hmcore.images.calls import IMAGES, NAME_IMAGE, REMOVE_IMAGE, ImagesReply, ImagesRequest, NameImageRequest, RemoveImageRequest
from hmcore.records import Role
from hmctl.actions import image_upload
from hmctl.actions.image_upload import Dial, Uploading, clients, digest_of
from hmctl.actions.image_upload import Upload as Upload
from hmctl.actions.image_uses import users

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.client import Access, AgentClient, Via
    from hmctl.state import OperatorStore

LOOK = "hmctl image ls"
SAVE = "docker save NAME -o FILE.tar; then hmctl image push FILE.tar"


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What was brought to `node`: `sent` bytes of the image's `size`; the cluster had the rest."""

    image: Image
    node: str
    size: int
    sent: int
    was_there: int


class ImagePush(msgspec.Struct, frozen=True, kw_only=True):
    """One name of what was pushed. `sent`: bytes that left this machine, of the image's `size`; `was_there`: of these, what nodes had
    already. `changed`: the name meant nothing before, or another image; as of log index `index`."""

    name: str
    id: str
    platform: str
    node: str
    size: int
    sent: int
    was_there: int
    changed: bool
    index: int


class ImagePushes(msgspec.Struct, frozen=True, kw_only=True):
    images: list[ImagePush]


class ImageView(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is empty where apps may come back to it, but it has none any more. `holders`: nodes that have all of it. `apps`: those that
    run it. `pushed`: seconds since 1970."""

    name: str
    id: str
    platform: str
    size: int
    layers: int
    holders: list[str]
    apps: list[str]
    author: str
    pushed: float


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    images: list[ImageView]


class ImageRemoval(msgspec.Struct, frozen=True, kw_only=True):
    """`changed` is false if there was no such name."""

    name: str
    changed: bool
    index: int


class ImageRemovals(msgspec.Struct, frozen=True, kw_only=True):
    images: list[ImageRemoval]


def view_of(reply: ImagesReply, apps: AppsReply) -> ImageList:
    return ImageList(
        index=reply.index,
        images=[
            ImageView(
                name=each.name,
                id=each.id,
                platform=each.platform,
                size=each.size,
                layers=len(each.layers),
                holders=list(each.holders),
                apps=users(each, apps),
                author=each.author,
                pushed=each.unix_time,
            )
            for each in reply.images
        ],
    )


def archive_of(what: str) -> Path | None:
    """The file that an operator means who says this; None: an image that Docker here has. A file that is there is meant."""
    looks_so = what.endswith((".tar", ".tar.gz", ".tgz")) or what.startswith(("/", "./", "../", "~"))
    path = Path(what).expanduser()
    return path if looks_so or path.is_file() else None


def wanted_names(image: SavedImage, name: str | None) -> tuple[str, ...]:
    """What an archive's image shall be called: `name`, else as the archive says. Raises UsageError."""
    if name is not None:
        return (names.familiar(name),)
    if not image.names:
        raise UsageError("the archive does not say what the image is called", fix="name it: hmctl image push FILE.tar --name NAME")
    return image.names


def chosen(images: Sequence[SavedImage], platform: str | None) -> SavedImage:
    """The one image of an archive; where there are several, that of `platform`. Raises UsageError."""
    fitting = [image for image in images if platform is None or image.platform == platform]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(f"{'/'.join(image.names) or image.id[7:19]} ({image.platform})" for image in images)
    if not fitting:
        raise UsageError(f"the archive has no image for {platform}, but {there}")
    raise UsageError(
        f"the archive has {len(fitting)} images: {there}", fix="save one: docker save NAME -o FILE.tar, or name its --platform"
    )


def record_of(image: SavedImage, name: str, digests: Mapping[SavedLayer, str]) -> Image:
    layers = tuple(ImageLayer(digest=digests[layer], diff_id=layer.diff_id, size=layer.size) for layer in image.layers)
    return Image(name=name, id=image.id, config_size=len(image.config), layers=layers, platform=image.platform)


@contextlib.asynccontextmanager
async def saved(name: str, folder: Path | None = None) -> AsyncIterator[Path]:
    """The archive of an image that this machine's own Docker has, for as long as it is needed. `folder`: where it is kept meanwhile.

    Raises DockerMissing, ImageError when Docker has it not.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise DockerMissing(
            f"there is no docker command here to take {name} from",
            fix=f"where there is one: {SAVE}",
        )
    names.parse(name)  # what is no name might be an option
    with tempfile.TemporaryDirectory(prefix="hmctl-image-", dir=folder) as place:
        path = Path(place) / "image.tar"
        process = await asyncio.create_subprocess_exec(
            docker, "save", "--output", str(path), name, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, said = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            said_last = lines[-1] if lines else f"it ended with {process.returncode}"
            raise ImageError(f"docker save {name}: {said_last}", fix=f"docker image ls shows what Docker here has; elsewhere: {SAVE}")
        yield path


async def push(
    archive: Path,
    *,
    hosts: Sequence[Host],
    access: Access,
    name: str | None = None,
    platform: str | None = None,
    progress: Callable[[Upload], None] = lambda upload: None,
    dial: Dial | None = None,
) -> list[Pushed]:
    """Bring the image in `archive` to one of `hosts` (the first that answers, but rather one that has most of it), as far as none of those
    that answer has it; where the disk is full, to another one. One result for each of its names, to be told to the leader
    (hmcore/images/calls.py).

    Raises ArchiveError, UsageError, PeerUnreachable when no host answers, BlobStoreFull when none has room, PermissionDenied and what else
    put() does.
    """
    dial = dial or (lambda host: image_upload.dial(host, access))
    with _opened(archive) as file:
        image = chosen(await asyncio.to_thread(read, file), platform)
        called = wanted_names(image, name)
        digests = {layer: await asyncio.to_thread(digest_of, file, layer) for layer in image.layers}
    record = record_of(image, called[0], digests)
    async with AsyncExitStack() as stack:
        found = await clients(stack, hosts, dial)
        held = {node: await client.have(list(record.blobs)) for node, client in found.items()}
        somewhere = {digest for found in held.values() for digest in found}
        missing = {digest: size for digest, size in record.blobs.items() if digest not in somewhere}

        async def send(node: str) -> int:
            there, before = next(host for host in hosts if host.name == node), found[node].sent
            upload = Uploading(archive, image, digests, sum(missing.values()), progress)
            return await upload.run(missing, found[node], lambda: dial(there)) - before

        node, sent = await _where_room_is(sorted(held, key=lambda each: -sum(held[each].values())), send)  # of equals the first
    held[node] |= missing
    holders = tuple(each for each, found in held.items() if found.keys() >= record.blobs.keys())
    return [
        Pushed(
            image=msgspec.structs.replace(record, name=each, holders=holders),
            node=node,
            size=record.size,
            sent=sent,
            was_there=record.size - sum(missing.values()),
        )
        for each in called
    ]


async def _where_room_is(nodes: Sequence[str], send: Callable[[str], Awaitable[int]]) -> tuple[str, int]:
    """The first of `nodes` whose disk takes it, and what `send` came to there. Raises BlobStoreFull when that is none."""
    *others, last = nodes
    for node in others:
        with contextlib.suppress(BlobStoreFull):
            return node, await send(node)
    return last, await send(last)


async def announce(
    inventory: Inventory, store: OperatorStore, pushed: Sequence[Pushed], *, via: Via, say: Callable[[str], None] = lambda words: None
) -> ImagePushes:
    """Let the names mean what was pushed. Raises what change() does."""
    from hmctl.actions.change import change, request_id

    said = []
    for each in pushed:
        request = NameImageRequest(id=f"{request_id()}:1", image=each.image)
        reply = await change(inventory, store, NAME_IMAGE, request, via=via, say=say, look=LOOK)
        said.append(
            ImagePush(
                name=each.image.name,
                id=each.image.id,
                platform=each.image.platform,
                node=each.node,
                size=each.size,
                sent=each.sent,
                was_there=each.was_there,
                changed=reply.changed,
                index=reply.index,
            )
        )
    return ImagePushes(images=said)


async def remove(
    inventory: Inventory, store: OperatorStore, name: str, *, via: Via, say: Callable[[str], None] = lambda words: None
) -> ChangeReply:
    """Raises UsageError for what is no name, and what change() does."""
    from hmctl.actions.change import change, request_id

    request = RemoveImageRequest(id=f"{request_id()}:1", name=names.familiar(name))
    return await change(inventory, store, REMOVE_IMAGE, request, via=via, say=say, look=LOOK)


async def listed(
    inventory: Inventory, store: OperatorStore, *, via: Via, timeout: float | None = None, consistent: bool = False
) -> ImageList:
    """By the control node that knows most. Raises PeerUnreachable, CallRefused."""
    from hmctl.actions.agents import Agents
    from hmctl.actions.change import nobody_answers
    from hmctl.client import Access

    controls = [host for host in inventory.hosts if host.role is Role.CONTROL]
    request = ImagesRequest(consistent=consistent)
    async with Agents(controls, Access.of(store, via), via=via, timeout=timeout) as agents:
        answers = await agents.ask_all(lambda agent: _images_and_apps(agent, request), controls)
    said = [answer for answer in answers.values() if not isinstance(answer, HyperMeshError)]
    if not said:
        raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
    return view_of(*max(said, key=lambda replies: replies[0].index))


async def _images_and_apps(agent: AgentClient, request: ImagesRequest) -> tuple[ImagesReply, AppsReply]:
    return await agent.call(IMAGES, request), await agent.call(APPS, AppsRequest())


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[BinaryIO]:
    try:
        file = archive.open("rb")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ArchiveError(f"{archive} cannot be read: {reason}", fix=f"name a file that docker save wrote: {SAVE}") from None
    with file:
        yield file
