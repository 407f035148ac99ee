"""Which apps run an image of the cluster. Pure."""

from __future__ import annotations

from hmcore.apps.calls import AppsReply
from hmcore.apps.records import Image
from hmcore.apps.spec import ContainerSpec
from hmcore.errors import UsageError
from hmcore.images.names import familiar


def users(image: Image, apps: AppsReply) -> list[str]:
    """Names of apps whose present generation has it. Those that may only be rolled back to it are not among them."""
    return sorted({each.app for each in apps.generations if any(_is(service.container, image) for service in each.spec.services.values())})


def _is(container: ContainerSpec, image: Image) -> bool:
    """By what the name was found to mean when it was deployed; where nobody found that out, by the name."""
    if container.image_id:
        return container.image_id == image.id
    try:
        return familiar(container.image) == image.name
    except UsageError:  # an id
        return container.image == image.id


def removal(name: str, apps: list[str]) -> str:
    """What it means for the apps that run it that the name goes, in words (docs/adr/0098)."""
    whose = "its" if len(apps) == 1 else "their"
    return (
        f"{', '.join(apps)} {'uses' if len(apps) == 1 else 'use'} {name}: {whose} replicas run on, and get it wherever they are placed, "
        f"as long as {whose} generations name it; to deploy with that name again it has to be pushed, or be in a registry"
    )
