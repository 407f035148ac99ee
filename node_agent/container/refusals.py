"""What Docker means when it refuses something about a container. Pure. It says most of it in words only; here they become types."""

from __future__ import annotations

from hmcore.errors import ContainerRefused, ImageGone, NameTaken, NoSpace, PartGone, PortTaken

MOST_WORDS = 300  # of what Docker says: it ends up in statuses, which every control node keeps

_FULL = ("no space left on device", "disk quota exceeded")
_PORT = ("port is already allocated", "address already in use", "ports are not available")
_NAME = ("is already in use by container", "name is already in use")
_LOGIN = ("unauthorized", "authentication required", "no basic auth credentials", "access denied", "access to the resource is denied")
_IMAGE = ("no such image", "image not found", "unable to find image")


def refusal(status: int, explanation: str) -> ContainerRefused:
    """`status`: of the HTTP answer. `explanation`: Docker's words, of any version from 20.10 on."""
    said = " ".join(explanation.split())[:MOST_WORDS] or f"Docker answered with {status}"
    words = explanation.lower()
    if any(part in words for part in _FULL):
        return NoSpace(said, fix="docker system df")
    if any(part in words for part in _PORT):
        return PortTaken(said)
    if status == 409 and any(part in words for part in _NAME):
        return NameTaken(said)
    if status == 404:
        return ImageGone(said) if any(part in words for part in _IMAGE) else PartGone(said)
    return ContainerRefused(said)


def wants_login(explanation: str) -> bool:
    """Whether Docker passes on that a registry does not let in who asks. Many say so of what they do not have, too."""
    words = explanation.lower()
    return any(part in words for part in _LOGIN)
