"""How this node reaches the other nodes' containers: what the kernel shall have, and what is to be done about the difference. Pure.

A subnet whose node is on one of our links is routed to that node. To any other there is a tunnel (VXLAN): a route through the tunnel's
device to the other node's gateway, that gateway's hardware address, and the node behind it. All follows from addresses and subnets, so
nothing has to be learnt or announced (docs/adr/0095).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hmcore.apps.subnets import gateway
from hmcore.config.settings import Network
from node_agent.network import actions
from node_agent.network.actions import Action
from node_agent.network.facts import BRIDGE, FORWARD, ROUTES, TUNNEL, Forwarding, Link, Neighbour, Route, Seen, Tunnel, sysctl

VNI = 7443  # tells our tunnels from others' on the same port
OVERHEAD = 50  # bytes that a tunnel adds to each packet (RFC 7348: Ethernet, VXLAN, UDP, IPv4)


@dataclass(frozen=True, slots=True)
class Place:
    """A node, as far as its containers are concerned."""

    node: str
    address: str  # IP address
    subnet: str


@dataclass(frozen=True, slots=True)
class Desired:
    """What the kernel shall have. `tunnel` None: none is needed. `carriers`: the devices over which containers' packets come and go, the
    bridge left out. `unreachable`: nodes whose containers ours cannot reach, each with the reason."""

    tunnel: Tunnel | None = None
    routes: tuple[Route, ...] = ()
    neighbours: frozenset[Neighbour] = frozenset()
    forwardings: frozenset[Forwarding] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    carriers: tuple[str, ...] = ()
    unreachable: Mapping[str, str] = field(default_factory=dict)


def desired(network: Network, own: Place, others: Sequence[Place], seen: Seen) -> Desired:
    """What this node (`own`) needs so that its containers reach those of `others`. Raises UsageError where a subnet is none."""
    routes: list[Route] = []
    neighbours: set[Neighbour] = set()
    forwardings: set[Forwarding] = set()
    beneath: list[Link] = []  # the links that carry tunnels
    direct: set[str] = set()
    unreachable: dict[str, str] = {}
    source = own_source(own, seen)
    for other in sorted(others, key=lambda place: place.node):
        if other.node == own.node:
            continue
        far = gateway(other.subnet)
        if not _is_ipv4(other.address):
            unreachable[other.node] = f"{other.address} is no IPv4 address"
            continue
        way = _way(other.address, seen)
        adjacent = way is not None and not way.gateway and _shared(way, seen)
        if adjacent and way is not None and network.encapsulation != "vxlan":
            routes.append(Route(other.subnet, way.device, other.address, source))
            direct.add(way.device)
        elif network.encapsulation == "plain":
            if way is not None:
                direct.add(way.device)  # to the routers, which know the way
        else:
            routes.append(Route(other.subnet, TUNNEL, far, source, onlink=True))
            neighbours.add(Neighbour(far, hardware_address(far)))
            forwardings.add(Forwarding(hardware_address(far), other.address))
            beneath += [link for link in seen.links if way is not None and link.name == way.device]
    tunnel = _tunnel(network, own, beneath, seen) if forwardings else None
    carriers = (*sorted(direct), *([TUNNEL] if tunnel else []))
    return Desired(
        tunnel=tunnel,
        routes=tuple(routes),
        neighbours=frozenset(neighbours),
        forwardings=frozenset(forwardings),
        sysctls=_sysctls((*([BRIDGE] if seen.link(BRIDGE) else []), *carriers)),
        carriers=carriers,
        unreachable=unreachable,
    )


def difference(wanted: Desired, seen: Seen) -> tuple[Action, ...]:
    """What is to be done, in this order, to make of what is `seen` what is `wanted`: nothing, if it is so. What is not ours stays.

    Ports of our bridge reflect: a container that asks for a published port may be the one that answers, and where br_netfilter is loaded
    (Docker does that) its packets never leave the bridge.
    """
    return (
        *_tunnel_actions(wanted, seen),
        *(actions.SetSysctl(name, value) for name, value in wanted.sysctls.items() if seen.sysctls.get(name) != value),
        *_entry_actions(wanted, seen),
        *_route_actions(wanted, seen),
        *(actions.LetReflect(link.name) for link in seen.links if link.bridge == BRIDGE and not link.reflects),
    )


def bridge_as_made(own: Place, seen: Seen, size: int) -> tuple[Action, ...]:
    """What is to be done so that there is the bridge that Docker made for our network, of `size` bytes MTU: nothing, if it is there."""
    bridge, address = seen.link(BRIDGE), f"{gateway(own.subnet)}/{own.subnet.partition('/')[2]}"
    if bridge is None:
        return (actions.MakeBridge(BRIDGE, size), actions.PutAddress(BRIDGE, address))
    lacks_address = () if address in bridge.addresses else (actions.PutAddress(BRIDGE, address),)
    return (*(() if bridge.up else (actions.RaiseLink(BRIDGE),)), *lacks_address)


def hardware_address(address: str) -> str:
    """The one that the tunnel's device of the node with the gateway `address` has: locally administered, and the IPv4 address itself."""
    return "02:48:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def own_source(own: Place, seen: Seen) -> str:
    """Whom other nodes' containers shall see when this node itself speaks to them: its gateway's address, once the bridge has it. Then
    their answers take the same way back."""
    bridge, address = seen.link(BRIDGE), gateway(own.subnet)
    return address if bridge is not None and any(each.partition("/")[0] == address for each in bridge.addresses) else ""


def mtu(seen: Seen, own: Place) -> int:
    """For the bridge: that of the link with this node's address, else the smallest of all. Tunnels cut TCP's segments to their own size."""
    shared = [link for link in seen.links if link.shared and link.name not in (BRIDGE, TUNNEL) and link.addresses]
    mine = [link.mtu for link in shared if any(each.partition("/")[0] == own.address for each in link.addresses)]
    return mine[0] if mine else min((link.mtu for link in shared), default=1500)


def _way(address: str, seen: Seen) -> Route | None:
    """The route that packets to `address` take: the most specific, of these the one with the lowest metric. Ours are none for nodes."""
    target = ipaddress.IPv4Address(address)
    fitting = [
        (-network.prefixlen, route.metric, index)
        for index, route in enumerate(seen.routes)
        if route.protocol != ROUTES and target in (network := ipaddress.IPv4Network(route.destination))
    ]
    return seen.routes[min(fitting)[2]] if fitting else None


def _shared(way: Route, seen: Seen) -> bool:
    link = seen.link(way.device)
    return link is not None and link.shared


def _tunnel(network: Network, own: Place, beneath: Sequence[Link], seen: Seen) -> Tunnel:
    configured = {each.partition("/")[0] for link in seen.links for each in link.addresses}
    return Tunnel(
        vni=VNI,
        port=network.vxlan_port,
        local=own.address if own.address in configured else "",  # behind address translation no device has it
        mac=hardware_address(gateway(own.subnet)),
        mtu=min((link.mtu for link in beneath), default=1500) - OVERHEAD,
    )


def _sysctls(devices: Sequence[str]) -> Mapping[str, str]:
    """Forwarding; what comes out of a tunnel need not go back into it; and `localhost:PORT` on the node may lead into a container, over
    any of these devices (ruleset.py keeps strangers from using that)."""
    found = {FORWARD: "1"}
    if TUNNEL in devices:
        found[sysctl(TUNNEL, "rp_filter")] = "2"
    return found | {sysctl(device, "route_localnet"): "1" for device in devices}


def _tunnel_actions(wanted: Desired, seen: Seen) -> Iterator[Action]:
    link = seen.link(TUNNEL)
    if wanted.tunnel is None:
        if link is not None:
            yield actions.DropTunnel(TUNNEL)
    elif link is None or link.tunnel != wanted.tunnel:
        yield actions.MakeTunnel(TUNNEL, wanted.tunnel)
    elif not link.up:
        yield actions.RaiseLink(TUNNEL)


def _fresh(wanted: Desired, seen: Seen) -> bool:
    """Whether the tunnel is made anew: what belonged to an old one is gone with it."""
    link = seen.link(TUNNEL)
    return link is None or link.tunnel != wanted.tunnel


def _entry_actions(wanted: Desired, seen: Seen) -> Iterator[Action]:
    if wanted.tunnel is None:
        return
    fresh = _fresh(wanted, seen)
    forwardings = frozenset() if fresh else seen.forwardings
    neighbours = frozenset() if fresh else seen.neighbours
    for forwarding in sorted(forwardings - wanted.forwardings, key=str):
        yield actions.DropForwarding(forwarding)
    for forwarding in sorted(wanted.forwardings - forwardings, key=str):
        yield actions.PutForwarding(forwarding)
    kept = {neighbour.address for neighbour in wanted.neighbours}
    for neighbour in sorted(neighbours - wanted.neighbours, key=str):
        if neighbour.address not in kept:
            yield actions.DropNeighbour(neighbour)
    for neighbour in sorted(wanted.neighbours - neighbours, key=str):
        yield actions.PutNeighbour(neighbour)


def _route_actions(wanted: Desired, seen: Seen) -> Iterator[Action]:
    """Ours that are not wanted go last: until then their destinations may still be reached by them. The kernel takes routes away with their
    device, or when it goes down."""
    link = seen.link(TUNNEL)
    gone = _fresh(wanted, seen) or (link is not None and not link.up)
    ours = [route for route in seen.routes if route.protocol == ROUTES and not (gone and route.device == TUNNEL)]
    for route in wanted.routes:
        if route not in ours:
            yield actions.PutRoute(route)
    kept = {route.destination for route in wanted.routes}
    for route in ours:
        if route.destination not in kept:
            yield actions.DropRoute(route)


def _is_ipv4(address: str) -> bool:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return True
