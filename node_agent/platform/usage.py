"""What this process itself uses, from proc(5), and how much room its disk has."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_seconds` since the process began, children that were waited for included."""

    cpu_seconds: float
    resident_bytes: int
    open_files: int
    max_files: int


@dataclass(frozen=True, slots=True)
class Room:
    """Of a file system, in bytes. `free` is what is left for us."""

    size: int
    free: int


def usage() -> Usage:
    """Now. A few microseconds."""
    times = os.times()
    pages = int((_SELF / "statm").read_text().split()[1])
    return Usage(
        cpu_seconds=times.user + times.system + times.children_user + times.children_system,
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        open_files=len(os.listdir(_SELF / "fd")) - 1,  # one is this question's own
        max_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def room(directory: Path) -> Room | None:
    """On the file system of `directory`; None when it cannot be read."""
    try:
        found = shutil.disk_usage(directory)
    except OSError:
        return None
    return Room(found.total, found.free)
