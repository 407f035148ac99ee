"""What an app needs of this machine before it can be deployed: images that are built here, contents of its secrets and configs, and what
the names of other images mean.

Before the plan is agreed to nothing of the cluster is changed (`prepare`); then it is brought what it lacks (`bring`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from hmcore.apps.spec import AppSpec, ServiceSpec
from hmctl.actions.apps.images import pin
from hmctl.actions.building import Built, build
from hmctl.actions.secrets import SecretCalls, settle
from hmctl.client import Access, Via
from hmctl.compose.app import App
from hmctl.compose.contents import Key, contents_of
from hmctl.compose.convert import Build
from hmctl.text import size

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.actions.images import Upload
    from hmctl.state import OperatorStore


class Rows(Protocol):
    """See hmctl.live.Progress."""

    def update(self, key: str, text: str, *, detail: str = "") -> None: ...
    def finish(self, key: str, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """`spec`: with all that is known by now. To be brought to the cluster: `built`, by image; `contents`, by kind and name in the app."""

    spec: AppSpec
    built: Mapping[str, Built]
    contents: Mapping[Key, bytes] = field(repr=False)


async def prepare(
    app: App,
    inventory: Inventory,
    store: OperatorStore,
    place: Path,
    *,
    present: AppSpec | None,
    via: Via,
    rows: Rows,
    warn: Callable[[str], None],
    leader: str | None = None,
) -> Prepared:
    """Read contents, build what is built, below `place`, and find out what the other images are, from who led a moment ago if that is
    known. `present`: what the app is now, if it is there. Raises HyperMeshError."""
    contents = contents_of(app.project, app.converted.contents)
    built: dict[str, Built] = {}
    for service, wanted in sorted(app.converted.builds.items()):
        built[wanted.image] = await _build(service, wanted, place, rows)
    spec = await settle(SecretCalls(inventory, store, via=via), app.converted.spec, contents, dry=True)
    spec = with_built(spec, built)
    spec = await pin(inventory, store, spec, pulls=app.converted.pulls, present=present, via=via, warn=warn, leader=leader)
    return Prepared(spec, built, contents)


async def _build(service: str, wanted: Build, place: Path, rows: Rows) -> Built:
    doing = f"building {wanted.image}"
    rows.update(service, doing)
    done = await build(wanted, place, lambda line: rows.update(service, doing, detail=line))
    rows.finish(service, f"built {wanted.image}")
    return done


def with_built(spec: AppSpec, built: Mapping[str, Built]) -> AppSpec:
    """The services that are built have the image that was made just now. Another service may have it, too."""

    def service(each: ServiceSpec) -> ServiceSpec:
        found = built.get(each.container.image)
        return each if found is None else replace(each, container=replace(each.container, image_id=found.id))

    return replace(spec, services={name: service(each) for name, each in spec.services.items()})


async def bring(
    prepared: Prepared, inventory: Inventory, store: OperatorStore, *, via: Via, rows: Rows, say: Callable[[str], None]
) -> AppSpec:
    """Push what was built, and let its name mean that; give the cluster the contents. The spec, with their digests.

    Raises HyperMeshError; harmless to repeat.
    """
    from hmctl.actions.images import announce, push

    for image, built in sorted(prepared.built.items()):

        def show(upload: Upload, image: str = image) -> None:
            rows.update(image, "pushing", detail=f"{size(upload.done)} of {size(upload.total)}")

        access = Access.of(store, via)
        pushed = await push(built.archive, hosts=inventory.hosts, access=access, name=image, progress=show)
        await announce(inventory, store, pushed, via=via, say=say)
        rows.finish(image, f"pushed, {size(sum(each.sent for each in pushed))} sent")
    return await settle(SecretCalls(inventory, store, via=via, say=say), prepared.spec, prepared.contents, dry=False)
