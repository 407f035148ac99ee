"""Room on the file systems that an agent writes to."""

from __future__ import annotations

from dataclasses import dataclass

from hmctl.facts.base import Topic, number

PATHS = ("/opt", "/etc", "/var/lib")

COMMAND = f"df -Pk {' '.join(PATHS)} 2>/dev/null | tail -n +2"


@dataclass(frozen=True, slots=True)
class Disk:
    path: str
    mount: str
    free: int  # bytes, for root


def parse(text: str) -> tuple[Disk, ...]:
    """df answers in the order in which it was asked; with fewer lines than paths nobody knows which is missing, so nothing is said."""
    rows = [line.split(None, 5) for line in text.splitlines()]
    if len(rows) != len(PATHS) or any(len(row) != 6 for row in rows):
        return ()
    return tuple(Disk(path, row[5], number(row[3]) * 1024) for path, row in zip(PATHS, rows, strict=True))


TOPIC = Topic("disks", COMMAND, parse)
