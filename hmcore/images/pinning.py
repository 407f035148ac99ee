"""Names of images in an app's spec made to mean the same bytes on every node, for good. Pure."""

from __future__ import annotations

from collections.abc import Mapping

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


def open_names(spec: AppSpec) -> tuple[str, ...]:
    """The images of which it is still to be found out what they are; each once."""
    containers = (service.container for service in spec.services.values())
    return tuple(sorted({container.image for container in containers if not container.image_id and "@" not in container.image}))


def pinned(spec: AppSpec, found: Mapping[str, Pinned]) -> AppSpec:
    """The spec with those images as they were found to be; others stay as they are."""

    def container(said: ContainerSpec) -> ContainerSpec:
        meant = found.get(said.image)
        return said if meant is None or said.image_id else replace(said, image=meant.image, image_id=meant.id)

    def service(said: ServiceSpec) -> ServiceSpec:
        return replace(said, container=container(said.container))

    return replace(spec, services={name: service(each) for name, each in spec.services.items()})
