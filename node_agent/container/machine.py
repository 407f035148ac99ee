"""What a node has for containers, from what Docker says of itself. Pure and total, as info.py is for containers."""

from __future__ import annotations

import re

from hmcore.apps.records import Machine

MOST = 2000  # images, and volumes, that a node tells of: what is beyond is had all the same, but nothing is placed by it

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
        images=_texts(images, "Id"),
        volumes=tuple(name for name in _texts(listed, "Name") if not _ANONYMOUS.fullmatch(name)),
    )


def _number(value: object) -> int:
    return min(value, _LARGEST) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _text(value: object) -> str:
    """Half of a surrogate pair is no text that could be told."""
    return value if isinstance(value, str) and value.isprintable() else ""


def _texts(entries: object, key: str) -> tuple[str, ...]:
    found = (_text(entry.get(key)) for entry in (entries if isinstance(entries, list) else []) if isinstance(entry, dict))
    return tuple(sorted({text for text in found if text})[:MOST])
