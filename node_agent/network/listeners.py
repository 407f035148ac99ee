"""Which ports programs of this node listen on, from /proc/net (proc(5)). A published port takes what comes for them: that of sshd must not
be published by mistake."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path

_LISTENING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; TCP_CLOSE, which is where UDP sockets without a peer are
EPHEMERAL = 32_768  # from here on UDP sockets without a peer are clients'

Listener = tuple[str, str, int]  # protocol, address, port


def parse(protocol: str, text: str) -> Iterator[Listener]:
    """Of /proc/net/tcp, tcp6, udp or udp6. Total: lines that are none of theirs are left out. IPv6 addresses count as any."""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 4 or words[3] != _LISTENING[protocol]:
            continue
        place, _, port = words[1].partition(":")
        try:
            number, raw = int(port, 16), bytes.fromhex(place)
        except ValueError:
            continue
        if 0 < number < (EPHEMERAL if protocol == "udp" else 65_536):
            yield protocol, str(ipaddress.IPv4Address(raw[::-1])) if len(raw) == 4 else "0.0.0.0", number  # noqa: S104 -- told, not bound


def read(proc: Path = Path("/proc/net")) -> frozenset[Listener]:
    """As of now. Raises OSError; a kernel without IPv6 has no files for it."""
    found: set[Listener] = set()
    for protocol in ("tcp", "udp"):
        found.update(parse(protocol, (proc / protocol).read_text()))
        if (proc / f"{protocol}6").exists():
            found.update(parse(protocol, (proc / f"{protocol}6").read_text()))
    return frozenset(found)


def holder(protocol: str, port: int, address: str, listeners: Iterable[Listener], own: str) -> bool:
    """Whether somebody listens where `port` of `address` (empty: any) would be published. `own`: the agent's address for names, where its
    server is asked whatever is published."""
    return any(
        (protocol, port) == (theirs, number) and place != own and (not address or place in (address, "0.0.0.0"))  # noqa: S104
        for theirs, place, number in listeners
    )
