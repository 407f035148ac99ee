"""The file that says until when this node may run exclusive containers: a time by the boot clock, and which boot it is of.

The boot clock (CLOCK_BOOTTIME, clock_gettime(2)) is nobody's to set and goes on while the machine sleeps. Pure, but for `boot_clock` and
`boot_id`. Standard library only.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

LONGEST = 172_800.0  # seconds; a lease that ends later than this is none: no setting gives one
_LINE = re.compile(rb"([0-9a-f-]{1,64}) ([0-9]{1,12}\.[0-9]{6})\n")


@dataclass(frozen=True, slots=True)
class Lease:
    """`until`: seconds by the boot clock. `boot`: the boot's id, as the kernel calls it."""

    boot: str
    until: float

    def rest(self, boot: str, now: float) -> float:
        """Seconds that are left of it; 0 or less: none. One of another boot, or that nobody can have granted, has ended."""
        left = self.until - now
        return left if self.boot == boot and left <= LONGEST else 0.0


def encode(lease: Lease) -> bytes:
    return f"{lease.boot} {lease.until:.6f}\n".encode()


def parse(content: bytes) -> Lease | None:
    """None: it is no lease."""
    found = _LINE.fullmatch(content)
    return None if found is None else Lease(found[1].decode(), float(found[2]))


def boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
