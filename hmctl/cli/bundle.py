"""hmctl bundle: agent releases, built ahead for operators who will deploy without internet."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from hmcore.errors import ReleaseError, UsageError
from hmctl.cli.context import current, group
from hmctl.columns import Column
from hmctl.text import duration, size

app = group("Build agent releases ahead, for operators without internet: deploy then finds them in the cache.")


@app.command()
def build(
    ctx: typer.Context,
    python: Annotated[str | None, typer.Option("--python", metavar="X.Y", help="The nodes' Python.  [default: this machine's]")] = None,
    arch: Annotated[str | None, typer.Option("--arch", help="x86_64 or aarch64.  [default: this machine's]")] = None,
) -> None:
    """Build the release for one kind of node, unless it is cached already."""
    from hmctl.bundle.build import Target, here
    from hmctl.bundle.store import ReleaseStore, refuse_unsupported

    context = current(ctx)
    target = Target(python or here().python, arch or here().arch)
    try:
        refuse_unsupported(target)
    except ReleaseError as error:  # known before anything is built, and the caller's own words
        raise UsageError(error.message, fix=error.fix) from None
    with context.output.progress() as progress:
        progress.update(str(target), "building the release")
        release = ReleaseStore.open(context.environ).get(target)
        progress.finish(str(target), f"release {release.short}, {size(release.size)}")
    context.output.result(release, lambda: context.output.line(f"{release.digest}  {release.archive}"))


@app.command("ls")
def list_(ctx: typer.Context) -> None:
    """List the cached releases; `current` ones are what deploy would send now."""
    from hmctl.bundle.build import Target
    from hmctl.bundle.store import ReleaseStore

    context = current(ctx)
    store = ReleaseStore.open(context.environ)
    releases = store.list()
    targets = {Target(release.python, release.arch) for release in releases}
    present = {cached.digest for target in targets if (cached := store.cached(target)) is not None}
    rows = [
        (
            release.short,
            release.version,
            release.python,
            release.arch,
            size(release.size),
            f"{duration(time.time() - release.built)} ago",
            "current" if release.digest in present else "",
        )
        for release in releases
    ]
    columns: list[Column | str] = [
        "RELEASE",
        Column("VERSION", spared=5),
        Column("PYTHON", spared=1),
        Column("ARCH", spared=2),
        Column("SIZE", right=True, spared=4),
        Column("BUILT", spared=3),
        "",
    ]
    document = [{"release": release, "current": release.digest in present} for release in releases]
    context.output.result(document, lambda: context.output.table(columns, rows))
