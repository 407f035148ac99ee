"""Room on the file systems that an agent writes to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmctl.facts.base import Topic, number

PATHS = ("/opt", "/etc", "/var/lib")

# device, blocks, used, available, per cent, mount point; devices and mount points may hold blanks
_ROW = re.compile(r".+?\s+\d+\s+\d+\s+(\d+)\s+(?:\d+%|-)\s+(/.*)")

COMMAND = f"df -Pk {' '.join(PATHS)} 2>/dev/null | tail -n +2"


@dataclass(frozen=True, slots=True)
class Disk:
    path: str
    mount: str
    free: int  # bytes, for root


def parse(text: str) -> tuple[Disk, ...]:
    """df answers in the order in which it was asked; with fewer lines than paths nobody knows which is missing, so nothing is said."""
    rows = [_ROW.fullmatch(line) for line in text.splitlines()]
    if len(rows) != len(PATHS):
        return ()
    return tuple(Disk(path, row[2], number(row[1]) * 1024) for path, row in zip(PATHS, rows, strict=True) if row)


TOPIC = Topic("disks", COMMAND, parse)
