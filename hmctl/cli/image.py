"""hmctl image: images without a registry: push, list, remove."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmcore.errors import ArchiveError, HyperMeshError
from hmctl.cli.completing import image_names
from hmctl.cli.context import Context, current, group
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.text import Cell, Styled, listed, plural, size

if TYPE_CHECKING:
    from hmctl.actions.image_upload import Upload
    from hmctl.actions.images import ImageList, ImagePush, ImagePushes, ImageRemovals, ImageView, Pushed
    from hmctl.live import Progress
    from hmctl.output import Output

app = group("Images without a registry: they are brought to one node, and the nodes take them from each other.")

NamesArgument = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="An image, as hmctl image ls names it.", autocompletion=image_names)
]
ChangeViaOption = Annotated[
    Via, typer.Option(help="How the leader is reached. auto: QUIC, and SSH when no node answers that. Content goes by TCP in any case.")
]


@app.command("push")
def push(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE.tar", help="A file that docker save wrote, or an image that Docker on this machine has."),
    ],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What it shall be called.  [default: as it is]", show_default=False)
    ] = "",
    platform: Annotated[
        str,
        typer.Option("--platform", metavar="OS/ARCH", help="Which of several that the archive has: linux/amd64.", show_default=False),
    ] = "",
    via: ChangeViaOption = Via.AUTO,
) -> None:
    """Bring an image to the cluster: only what no node has is sent, to one node, once. Run again, it goes on where it was interrupted.

    Three nodes keep it; others take it from these when they run it. An app that runs another image of that name goes on with that until it
    is deployed again.
    """
    context = current(ctx)
    document = context.run(_push(context, what, name, platform, via))
    context.output.result(document, lambda: _show_push(context.output, document))


@app.command("ls")
def ls(
    ctx: typer.Context,
    consistent: Annotated[
        bool, typer.Option("--consistent", help="What is true now, confirmed by a majority; an error when nobody can tell.")
    ] = False,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> None:
    """List the cluster's images, and the nodes that have all of each.

    An image without a name is there because an app runs it, or may be rolled back to it.
    """
    context = current(ctx)
    document = context.run(_list(context, via, timeout, consistent=consistent))
    context.output.result(document, lambda: _show(context.output, document.images))
    if not document.images:
        context.output.note("there are no images yet; hmctl image push brings one")


@app.command("rm")
def rm(
    ctx: typer.Context,
    names: NamesArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    via: ViaOption = Via.AUTO,
) -> None:
    """Remove names of images. What no name refers to any more goes from the nodes after an hour; containers run on.

    What an app runs, or may be rolled back to, stays without a name until that is over: its replicas are not touched, and start anew on any
    node. For another app to have the name, the image has to be pushed again, or be in a registry; an app that runs it keeps it when it is
    deployed again, unless a registry answers for the name.
    """
    from hmcore.images.names import familiar
    from hmctl.actions.image_uses import removal

    context = current(ctx)
    wanted = list(dict.fromkeys(familiar(name) for name in names))
    there = _named(context.run(_list(context, via, None)), wanted)
    for image in there:
        context.output.note(f"{image.name} is {image.id[7:19]}, {size(image.size)} on {plural(len(image.holders), 'node')}")
        if image.apps:
            context.output.warn(removal(image.name, image.apps))
    used = sorted({app for image in there for app in image.apps})
    whose = f", which {listed(used)} {'uses' if len(used) == 1 else 'use'}" if used else ""
    context.output.confirm(f"Remove {listed([image.name for image in there])}{whose}?", yes=yes)
    document = context.run(_remove(context, [image.name for image in there], via))
    context.output.result(document, lambda: _show_removals(context.output, document))


async def _push(context: Context, what: str, name: str, platform: str, via: Via) -> ImagePushes:
    from hmcore.images.names import familiar
    from hmctl.actions import images

    inventory = context.inventory(warn=False)
    store = context.store(inventory)
    with context.output.progress() as progress:
        if (archive := images.archive_of(what)) is not None:
            try:
                pushed = await _bring(context, progress, archive, what, name or None, platform or None)
            except ArchiveError as error:
                if what in error.message:
                    raise
                raise ArchiveError(f"{what}: {error.message}", fix=error.fix or images.SAVE) from error.__cause__
        else:
            called = familiar(name or what)
            progress.update(what, "taking it from Docker on this machine")
            async with images.saved(what) as archive:
                pushed = await _bring(context, progress, archive, what, called, platform or None)
        document = await images.announce(inventory, store, pushed, via=via, say=context.output.note)
        progress.finish(what, _came(document.images[0]))
    return document


async def _bring(context: Context, progress: Progress, archive: Path, what: str, name: str | None, platform: str | None) -> list[Pushed]:
    from hmctl.actions import images
    from hmctl.client import Access

    inventory = context.inventory(warn=False)

    def tell(upload: Upload) -> None:
        progress.update(what, "sending what the cluster lacks", detail=f"{size(upload.done)} of {size(upload.total)}")

    progress.update(what, "reading what is in it")
    access = Access.of(context.store(inventory))
    return await images.push(archive, hosts=inventory.hosts, access=access, name=name, platform=platform, progress=tell)


async def _list(context: Context, via: Via, timeout: float | None, *, consistent: bool = False) -> ImageList:
    from hmctl.actions import images

    inventory = context.inventory(warn=False)
    return await images.listed(inventory, context.store(inventory), via=via, timeout=timeout, consistent=consistent)


async def _remove(context: Context, names: Sequence[str], via: Via) -> ImageRemovals:
    from hmctl.actions.images import ImageRemoval, ImageRemovals, remove

    inventory = context.inventory(warn=False)
    store = context.store(inventory)
    done = []
    for name in names:
        reply = await remove(inventory, store, name, via=via, say=context.output.note)
        done.append(ImageRemoval(name=name, changed=reply.changed, index=reply.index))
    return ImageRemovals(images=done)


def _named(document: ImageList, wanted: Sequence[str]) -> list[ImageView]:
    """Raises HyperMeshError when there is no image of a name."""
    by_name = {image.name: image for image in document.images if image.name}
    for name in wanted:
        if name not in by_name:
            raise HyperMeshError(f"there is no image {name}", fix="hmctl image ls")
    return [by_name[name] for name in wanted]


def _came(push: ImagePush) -> str:
    if not push.sent or push.was_there == push.size:
        return "the cluster has all of it already"
    before = f", {size(push.was_there)} were there" if push.was_there else ""
    return f"{size(push.sent)} sent to {push.node}{before}"


def _show_push(output: Output, document: ImagePushes) -> None:
    for each in document.images:
        means = "is now" if each.changed else "is already"
        output.line(f"{each.name} {means} {each.id[7:19]} ({each.platform}, {size(each.size)})")


def _show_removals(output: Output, document: ImageRemovals) -> None:
    for each in document.images:
        output.line(f"{each.name} {'is removed' if each.changed else 'was not there'}")


def _show(output: Output, images: Sequence[ImageView]) -> None:
    if not images:
        return
    columns: list[Column | str] = [
        "IMAGE",
        "ID",
        Column("SIZE", right=True),
        Column("PLATFORM", spared=2),
        Column("PUSHED", spared=1),
        Column("USED BY", wraps=True),
        Column("NODES", wraps=True),
    ]
    rows: list[Sequence[Cell]] = [
        [
            image.name or Styled("-", "dim"),
            image.id[7:19],
            size(image.size),
            image.platform,
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(image.pushed)),
            listed(image.apps) if image.apps else "-",
            listed(image.holders) if image.holders else Styled("none has all of it", "warning"),
        ]
        for image in images
    ]
    output.table(columns, rows)
