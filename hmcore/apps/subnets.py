"""Which part of the containers' network a node gets. Pure; the log keeps the answer (hmcore.apps.records.Subnet).

A node keeps its subnet for as long as it is a member, and whoever comes next gets the lowest that is free.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from hmcore.config.settings import Network
from hmcore.errors import UsageError


@dataclass(frozen=True, slots=True)
class Exhausted:
    """There is no free subnet: the network `cidr` has room for `room` of the length `prefix`, and other nodes have taken them."""

    cidr: str
    prefix: int
    room: int

    def __str__(self) -> str:
        return f"all {self.room} subnets of {self.cidr} (/{self.prefix} each) are taken"


def lowest_free(network: Network, taken: Iterable[str]) -> str | Exhausted:
    """The lowest subnet of `network` that overlaps with none of `taken` (in CIDR notation, of any length, in any order).

    Raises UsageError when one of `taken` is no IPv4 network: nobody knows then what it overlaps with."""
    whole = ipaddress.IPv4Network(network.cidr)
    length = network.subnet_prefix
    if length < whole.prefixlen:
        return Exhausted(network.cidr, length, 0)
    size = 1 << (32 - length)
    first, last = int(whole.network_address), int(whole.broadcast_address)
    candidate = first
    for low, high in sorted(map(_ends, taken)):
        if high < candidate:
            continue
        if low >= candidate + size:
            break  # they are in order: all others lie above
        candidate = first + -(-(high + 1 - first) // size) * size
    if candidate + size - 1 > last:
        return Exhausted(network.cidr, length, 1 << (length - whole.prefixlen))
    return f"{ipaddress.IPv4Address(candidate)}/{length}"


def gateway(subnet: str) -> str:
    """The first address of `subnet`: the node's own there, its bridge's. Containers send what is not for their subnet to it, and ask it
    for names. Raises UsageError."""
    low, high = _ends(subnet)
    if high - low < 3:
        raise UsageError(f"{subnet} has no room for a gateway and containers")
    return str(ipaddress.IPv4Address(low + 1))


def _ends(cidr: str) -> tuple[int, int]:
    try:
        parsed = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise UsageError(f"{cidr!r} is no IPv4 network in CIDR notation") from error
    return int(parsed.network_address), int(parsed.broadcast_address)
