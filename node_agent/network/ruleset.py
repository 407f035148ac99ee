"""The packet filter's part in the containers' network, as text for `nft -f`. Pure; docs/adr/0095 says what meets what.

One table, `ip hm_net`, is ours, and nothing else is touched. Its chains are fixed but for one per published port, whose name carries a
digest of its content: so what is loaded can be told from what shall be by names alone, also after the agent was away. The table and its
maps stay while their kind does: a packet that is on its way through a table that is deleted would be led nowhere.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from hmcore.apps.subnets import gateway
from hmcore.config.settings import Network
from hmcore.errors import UsageError
from node_agent.network.facts import BRIDGE, TUNNEL
from node_agent.network.plan import VNI, Desired, Place

TABLE = "ip hm_net"
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,14}")  # of what the kernel allows (15 bytes), what nft needs no escapes for
VERSION = "base_"  # begins the name of an empty chain that says which fixed chains are loaded: a digest of their kind, one of their rules
SERVICE = "to_"  # begins the name of a published port's chain
KEYS = {"published_at": "ip daddr . meta l4proto . th dport", "published": "meta l4proto . th dport"}  # in the order of being asked
REFUSED = {"published_at": "refused_at", "published": "refused"}  # where nobody is fit
_TYPES = {"published_at": "ipv4_addr . inet_proto . inet_service", "published": "inet_proto . inet_service"}


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A container that may get traffic: `weight` is its share among all of a port. Its address is in the containers' network."""

    address: str
    port: int
    weight: int = 100


@dataclass(frozen=True, slots=True)
class Published:
    """A port that this node answers on, whichever of its addresses is asked for; with `address` on that one alone. Without endpoints, or
    when all weights are 0, connections are refused."""

    protocol: Literal["tcp", "udp"]
    port: int
    endpoints: tuple[Endpoint, ...] = ()
    address: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """What the fixed chains are made of. `carriers`: see plan.Desired. `nodes`: the addresses of the others, who may send us tunnels."""

    cidr: str
    subnet: str
    gateway: str
    carriers: tuple[str, ...]
    nodes: tuple[str, ...]
    vxlan_port: int


def base(network: Network, own: Place, others: Iterable[Place], wanted: Desired) -> Base:
    """What the fixed chains follow from. Raises UsageError."""
    nodes = tuple(sorted(place.address for place in others if place.node != own.node and place.node not in wanted.unreachable))
    return Base(network.cidr, own.subnet, gateway(own.subnet), wanted.carriers, nodes, network.vxlan_port)


@dataclass(frozen=True, slots=True)
class Service:
    """A published port, checked and written down. `element` as in sets: `tcp . 80`, or `127.0.0.1 . tcp . 80`. `chain` empty: connections
    are refused. `addresses`: who answers."""

    element: str
    chain: str = ""
    rule: str = ""
    addresses: frozenset[str] = frozenset()


def service(base: Base, published: Published) -> Service:
    """Raises UsageError where an endpoint is not in the containers' network, or a number is out of bounds."""
    if published.protocol not in ("tcp", "udp"):
        raise UsageError(f"{published.protocol!r} is neither tcp nor udp")
    place = f"{_address(published.address)} . " if published.address else ""
    element = f"{place}{published.protocol} . {_number(published.port, 1, 65_535)}"
    fit = sorted({each for each in published.endpoints if _number(each.weight, 0, 1_000_000)})
    if not fit:
        return Service(element)
    rule = f"meta l4proto {published.protocol} dnat ip to {_target(base, fit)}"
    digest = blake2b(f"{element} {rule}".encode(), digest_size=8).hexdigest()
    return Service(element, f"{SERVICE}{published.protocol}_{published.port}_{digest}", rule, frozenset(each.address for each in fit))


def _target(base: Base, endpoints: Sequence[Endpoint]) -> str:
    network = checked_network(base.cidr)
    places = [f"{_within(network, each.address)} . {_number(each.port, 1, 65_535)}" for each in endpoints]
    if len(places) == 1:
        return places[0].replace(" . ", ":")
    unit = math.gcd(*(each.weight for each in endpoints))
    total, shares = 0, []
    for place, each in zip(places, endpoints, strict=True):
        share = each.weight // unit
        shares.append(f"{total}-{total + share - 1} : {place}" if share > 1 else f"{total} : {place}")
        total += share
    return f"numgen random mod {total} map {{ {', '.join(shares)} }}"


def whole(base: Base, services: Iterable[Service]) -> str:
    """Everything, in the place of whatever the table held, as one transaction. A connection that begins at that moment may be refused: the
    kernel asks old and new chains one after the other, and in between their turn can come."""
    all_services = list(services)
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"add table {TABLE}", *_kind(base), *_rules(base), *members("add", base.nodes)]
    lines += [f"add chain {TABLE} {version(base)}", *chains(all_services)]
    lines += elements("add", {each.element: each.chain for each in all_services})
    return "\n".join((*lines, ""))


def refreshed(base: Base, loaded_version: str) -> list[str]:
    """Other rules in the same chains. The kernel takes them in one step: a packet meets the old ones or the new."""
    emptied = [f"flush chain {TABLE} {chain.partition(' ')[0]}" for chain in fixed_chains(base)]
    named = [] if loaded_version == version(base) else [f"delete chain {TABLE} {loaded_version}", f"add chain {TABLE} {version(base)}"]
    return [*_kind(base), *emptied, *_rules(base), *named]


def version(base: Base) -> str:
    """The name of the chain that says that the fixed ones are those of `base`; whose nodes may be others."""
    return f"{kind(base)}{_digest(_rules(base))}"


def kind(base: Base) -> str:
    """How the version begins wherever rules can be exchanged and nothing else need be."""
    return f"{VERSION}{_digest(_kind(base))}_"


def _digest(lines: Sequence[str]) -> str:
    return blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def _kind(base: Base) -> list[str]:
    """Sets, maps and chains without what is in them. Where they are there already, this changes nothing."""
    lines = [f"add set {TABLE} nodes {{ type ipv4_addr; }}"]
    for name in KEYS:
        lines.append(f"add map {TABLE} {name} {{ type {_TYPES[name]} : verdict; }}")
        lines.append(f"add set {TABLE} {REFUSED[name]} {{ type {_TYPES[name]}; }}")
    return lines + [f"add chain {TABLE} {chain}" for chain in fixed_chains(base)]


def _rules(base: Base) -> list[str]:
    return [f"add rule {TABLE} {chain.partition(' ')[0]} {rule}" for chain, rules in fixed_chains(base).items() for rule in rules]


def members(verb: str, nodes: Iterable[str]) -> list[str]:
    """`verb`: add or delete, in the set of those who may send tunnels."""
    named = ", ".join(sorted(str(ipaddress.IPv4Address(_address(each))) for each in nodes))
    return [f"{verb} element {TABLE} nodes {{ {named} }}"] if named else []


def fixed_chains(base: Base) -> dict[str, list[str]]:
    """Rules by chain, which is written as nft takes it. Priorities are a little before those of Docker and most firewalls: a published port
    is ours before anybody's, and only the last word on what is dropped is everybody's."""
    cidr, subnet = str(checked_network(base.cidr)), str(checked_network(base.subnet))
    own = _within(checked_network(base.subnet), base.gateway)
    devices = ", ".join(f'"{_device(each)}"' for each in sorted({BRIDGE, *base.carriers}))
    # Names are asked for at the gateway's port 53, whatever is published.
    names = f"meta l4proto {{ tcp, udp }} ip daddr {own} th dport 53 accept"
    published = [f"fib daddr type local {key} vmap @{name}" for name, key in KEYS.items()]
    refused = [f"ct state new fib daddr type local {key} @{REFUSED[name]} jump refuse" for name, key in KEYS.items()]
    return {
        # What comes from outside for 127.0.0.1 is forged. The kernel drops it unless route_localnet is set, which we need (plan.py).
        "strangers { type filter hook prerouting priority -310; policy accept; }": ['iifname != "lo" ip daddr 127.0.0.0/8 drop'],
        "arriving { type nat hook prerouting priority -110; policy accept; }": [names, *published],
        "own { type nat hook output priority -110; policy accept; }": [names, *published],
        "leaving { type nat hook postrouting priority 90; policy accept; }": [
            f'ip saddr {subnet} ip daddr != {cidr} oifname != "{BRIDGE}" masquerade',
            # Answers must come back through this node, which knows what they are answers to: so the asker is its gateway's address, unless
            # the answer passes here anyway. A container's neighbour on the same bridge would answer it directly.
            f"ct status dnat ip daddr {cidr} ip saddr 127.0.0.0/8 snat to {own}",
            f'ct status dnat ip daddr {cidr} ip saddr != {subnet} oifname != "{BRIDGE}" snat to {own}',
            f"ct status dnat ip daddr {subnet} ip saddr {subnet} snat to {own}",
        ],
        # Docker's rules have their own say on what is forwarded (forwarding.py); this is who may reach containers at all.
        "forwarded { type filter hook forward priority -10; policy accept; }": [
            f'oifname "{TUNNEL}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu',
            f'oifname != "{BRIDGE}" accept',
            "ct state established,related accept",
            "ct status dnat accept",
            f"iifname {{ {devices} }} ip saddr {cidr} accept",
            "drop",
        ],
        "entering { type filter hook input priority -10; policy accept; }": [
            f"udp dport {_number(base.vxlan_port, 1, 65_535)} @th,96,24 {VNI} ip saddr != @nodes drop",
            *refused,
        ],
        "refuse": ["meta l4proto tcp reject with tcp reset", "reject"],
    }


def chains(services: Iterable[Service]) -> list[str]:
    named = [each for each in services if each.chain]
    return [f"add chain {TABLE} {each.chain}" for each in named] + [f"add rule {TABLE} {each.chain} {each.rule}" for each in named]


def elements(verb: str, answers: dict[str, str]) -> list[str]:
    """`verb`: add or delete. Elements by hundreds to a line: one line each takes nft much longer."""
    lines = []
    for name, refused in REFUSED.items():
        mine = {element: chain for element, chain in answers.items() if (element.count(" . ") == 2) is (name == "published_at")}
        leading = [f"{element} : goto {chain}" if verb == "add" else element for element, chain in mine.items() if chain]
        nobody = [element for element, chain in mine.items() if not chain]
        lines += [f"{verb} element {TABLE} {name} {{ {', '.join(leading)} }}"] * bool(leading)
        lines += [f"{verb} element {TABLE} {refused} {{ {', '.join(nobody)} }}"] * bool(nobody)
    return lines


def _number(value: int, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{value!r} is no number from {least} to {most}")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError as error:
        raise UsageError(f"{value!r} is no IPv4 address") from error


def checked_network(value: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(value)
    except ValueError as error:
        raise UsageError(f"{value!r} is no IPv4 network") from error


def _within(network: ipaddress.IPv4Network, value: str) -> str:
    address = _address(value)
    if ipaddress.IPv4Address(address) not in network:
        raise UsageError(f"{address} is not in {network}")
    return address


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise UsageError(f"{value!r} is no name of a network device")
    return value
