"""What Docker means when it refuses something about a container. Pure. It says most of it in words only; here they become types."""

from __future__ import annotations

import re

from hmcore.errors import ContainerRefused, ImageGone, NameTaken, NoSpace, PartGone, PortTaken

MOST_WORDS = 300  # of what Docker says: it ends up in statuses, which every control node keeps

_FULL = ("no space left on device", "disk quota exceeded")
_PORT = ("port is already allocated", "address already in use", "ports are not available")
_NAME = ("is already in use by container", "name is already in use")
_LOGIN = ("unauthorized", "authentication required", "no basic auth credentials", "access denied", "access to the resource is denied")
_UNKNOWN = ("manifest unknown", "name unknown", "not known to registry", "not found", "does not exist")
_STATUS = re.compile(r"\bhttp (?:status: )?([1-5][0-9]{2})\b")  # of the registry's answer, where Docker makes nothing else of it
_LATER = (408, 429)  # too slow, too often: says nothing about what was asked for
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


def unanswered(status: int, explanation: str) -> bool:
    """Whether Docker, asked what a registry has, could not find out: the registry cannot be reached, is too slow, asked too often or fails
    itself. Else it said no. `status`: of Docker's answer, which is 500 for whatever is no answer that Docker understands."""
    words = explanation.lower()
    if wants_login(words) or any(part in words for part in _UNKNOWN):
        return False
    said = _STATUS.search(words)
    answer = int(said[1]) if said else status
    return answer in _LATER or not 400 <= answer < 500
