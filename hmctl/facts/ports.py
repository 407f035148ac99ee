"""Who holds which port: so that an agent is not started where somebody else already listens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hmctl.facts.base import Topic, number

# UDP sockets have no state LISTEN; those with a peer are clients.
COMMAND = "ss -Hlntup 2>/dev/null"


@dataclass(frozen=True, slots=True)
class Holder:
    protocol: Literal["tcp", "udp"]
    address: str  # "*", "0.0.0.0", "[::]" or the address it is bound to
    port: int
    process: str  # "" when the kernel does not say
    pid: int | None


def parse(text: str) -> tuple[Holder, ...]:
    return tuple(holder for line in text.splitlines() if (holder := _holder(line)))


def _holder(line: str) -> Holder | None:
    words = line.split()
    if len(words) < 6 or words[0] not in ("tcp", "udp"):
        return None
    address, _, port = words[4].rpartition(":")
    process = re.search(r'users:\(\("([^"]*)",pid=(\d+)', line)
    return Holder(
        "tcp" if words[0] == "tcp" else "udp",
        address.partition("%")[0],
        number(port),
        process[1] if process else "",
        int(process[2]) if process else None,
    )


TOPIC = Topic("ports", COMMAND, parse)
