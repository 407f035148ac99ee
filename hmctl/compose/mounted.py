"""Paths of the operator's machine that services mount, and whether they are single files: such a one can be a config instead."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from hmcore.apps.secrets import MOST_SECRET
from hmctl.compose.keys import short_volume
from hmctl.compose.tree import Node

Look = Callable[[Path], bool]


def mounted(root: Node) -> frozenset[str]:
    """Of a whole tree: what is mounted and was written relative to a file, or with `~`, each path once. Pure."""
    services = root.at("services")
    found = set()
    for service in services.entries.values() if services else ():
        for volume in service.entries["volumes"].items if "volumes" in service.entries else ():
            source = volume.entries.get("source")
            if volume.text is not None and volume.local:
                found.add(short_volume(volume.text).source)
            elif source is not None and source.text and source.local:
                found.add(source.text)
    return frozenset(found)


def is_small_file(path: Path) -> bool:
    """What cannot be looked at is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in its name
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= MOST_SECRET
