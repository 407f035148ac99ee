"""What the kernel has of links, routes and neighbours, as far as the containers' network is concerned. IPv4; values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BRIDGE = "hm0"  # Docker's bridge for our containers
TUNNEL = "hmvx"  # the VXLAN device
FORWARD = "net.ipv4.ip_forward"
ROUTES = 210  # the protocol number (rtnetlink(7)) of the routes that are ours


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A VXLAN device. `local`: the address that it sends from; empty: whichever the kernel takes. `mac` is what the other nodes send to."""

    vni: int
    port: int
    local: str
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Link:
    """`addresses` in CIDR notation, as configured: 192.0.2.7/24. `shared`: frames on it reach neighbours by their hardware addresses, as on
    Ethernet. `tunnel`: of a VXLAN device. `bridge`: whose port it is; `reflects`: what came in by that port may leave by it."""

    name: str
    up: bool = True
    mtu: int = 1500
    shared: bool = True
    addresses: tuple[str, ...] = ()
    tunnel: Tunnel | None = None
    bridge: str = ""
    reflects: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Of the main table, by the fields that matter here. `gateway` empty: what it leads to is on the link. `source` empty: none is
    preferred. `onlink`: the gateway is taken for a neighbour, whatever other routes say. `metric`: of two to the same, the lower counts."""

    destination: str
    device: str
    gateway: str = ""
    source: str = ""
    onlink: bool = False
    protocol: int = ROUTES
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """On the tunnel: an address there, and the hardware address that it has for ever."""

    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Forwarding:
    """On the tunnel: frames for `mac` are sent to the node at `remote`."""

    mac: str
    remote: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What is there. `neighbours` and `forwardings` are the tunnel's; empty without one. `sysctls`: by name, those that exist."""

    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: frozenset[Neighbour] = frozenset()
    forwardings: frozenset[Forwarding] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)


def sysctl(device: str, name: str) -> str:
    """Of an interface, written as sysctl(8) has it: a dot in the device's name (eth0.5) becomes a slash."""
    return f"net.ipv4.conf.{device.replace('.', '/')}.{name}"
