"""What a node has for containers, from what Docker says of itself. Pure and total, as info.py is for containers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hmcore.apps.records import Machine
from hmcore.images.names import digest_in

MOST = 2000  # ids and digests of images, and volumes, that a node tells of: what is beyond is had all the same, but nothing is placed by it

_LARGEST = 1 << 50  # of processors or bytes: more is no figure of a machine, and what is told must fit into 64 bits
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")  # of a volume: Docker's name for one that nobody named, and nobody else will mount


def machine_of(node: str, info: object, images: object, volumes: object) -> Machine:
    """`info`, `images` and `volumes`: the answers of `GET /info`, `/images/json` and `/volumes`."""
    said = info if isinstance(info, dict) else {}
    listed = volumes.get("Volumes") if isinstance(volumes, dict) else None
    return Machine(
        node=node,
        cpus=_number(said.get("NCPU")) * 1000,
        memory=_number(said.get("MemTotal")),
        os=_text(said.get("OSType")),
        arch=_text(said.get("Architecture")),
        engine=True,
        images=_most({*_texts(images, "Id"), *_digests(images)}),
        volumes=tuple(name for name in _most(_texts(listed, "Name")) if not _ANONYMOUS.fullmatch(name)),
    )


def _number(value: object) -> int:
    return min(value, _LARGEST) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _text(value: object) -> str:
    """Half of a surrogate pair is no text that could be told."""
    return value if isinstance(value, str) and value.isprintable() else ""


def _texts(entries: object, key: str) -> set[str]:
    return {text for entry in _entries(entries) if (text := _text(entry.get(key)))}


def _digests(images: object) -> set[str]:
    """By which registries have them."""
    names = (name for entry in _entries(images) if isinstance(said := entry.get("RepoDigests"), list) for name in said)
    return {digest for name in names if isinstance(name, str) and (digest := digest_in(name))}


def _entries(value: object) -> list[dict[Any, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _most(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(found)[:MOST])
