"""Names of images in an app's spec made to mean the same bytes on every node, for good. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from hmcore.apps.records import Image
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.digests import is_digest
from hmcore.errors import UsageError
from hmcore.images.calls import Pinned
from hmcore.images.names import familiar


def known(images: Mapping[str, Image], image: str) -> Image | None:
    """What the cluster means by a name or an id. `images`: by Image.key."""
    if is_digest(image):
        return next((each for each in images.values() if each.id == image), None)
    try:
        return images.get(familiar(image))
    except UsageError:
        return None


def open_names(spec: AppSpec, *, digests: bool = False) -> tuple[str, ...]:
    """The images of which it is still to be found out what they are; each once. `digests`: also those with a digest of a registry."""
    containers = (service.container for service in spec.services.values())
    return tuple(sorted({each.image for each in containers if not each.image_id and (digests or "@" not in each.image)}))


def had(spec: AppSpec, name: str, first: Collection[str] = ()) -> Pinned | None:
    """What an image's name was found to be when `spec` was deployed; None: it was not. `first`: the services whose word goes before that
    of the others, for each may have it as another moment, or pull policy, had it."""
    wanted = _name(name)
    for service in sorted(spec.services, key=lambda service: service not in first):
        said = spec.services[service].container
        if wanted and (said.image_id or "@" in said.image) and _name(said.image.partition("@")[0]) == wanted:
            return Pinned(image=said.image, id=said.image_id)
    return None


def _name(image: str) -> str:
    """Empty: an id, or nothing that could be a name."""
    try:
        return familiar(image)
    except UsageError:
        return ""


def pinned(spec: AppSpec, found: Mapping[str, Pinned]) -> AppSpec:
    """The spec with those images as they were found to be; others stay as they are."""

    def container(said: ContainerSpec) -> ContainerSpec:
        meant = found.get(said.image)
        return said if meant is None or said.image_id else replace(said, image=meant.image, image_id=meant.id)

    def service(said: ServiceSpec) -> ServiceSpec:
        return replace(said, container=container(said.container))

    return replace(spec, services={name: service(each) for name, each in spec.services.items()})
