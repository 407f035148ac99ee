"""Ports: what a service publishes, in all the forms that Compose knows, and who takes the same one. Pure.

A published port answers on every node. One for an address can only be that of the nodes that have the address, and one without a number
only that of the node which gives it one: these are published where a replica runs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hmcore.apps.spec import Port
from hmctl.compose.parts.part import Fields, Part

MOST = 1000  # of one service
_SPAN = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_NUMBERS = re.compile(r"0*([0-9]{1,20})(?:-0*([0-9]{1,20}))?", re.ASCII)
_HIGHEST = 65_535
_TOO_HIGH = "is a higher number than ports have"
_RANGE = f"a port is a number from 1 to {_HIGHEST}"
_IPV4 = 'an IPv4 address of the node, such as "127.0.0.1:8080:80", or no address: then every node answers'

Ports = dict[Port, Part]  # each with where it was written
Mode = Literal["", "ingress", "host"]


def ports_of(part: Part) -> Ports:
    found: Ports = {}
    for entry in part.entries():
        for port in _long(entry) if isinstance(entry.value, Mapping) else _short(entry):
            found.setdefault(port, entry)
            if len(found) > MOST:
                entry.unsupported("network_mode: host", f"more than {MOST} ports of one service are too many to publish", leaves=part)
                return {}
    return found


@dataclass(frozen=True, slots=True)
class Exposed:
    tcp: tuple[int, ...]
    udp: tuple[int, ...]


def exposed(part: Part) -> Exposed:
    """`PORT[-PORT][/PROTOCOL]` each."""
    found: dict[str, set[int]] = {"tcp": set(), "udp": set()}
    for entry in part.entries():
        text, slash, protocol = entry.scalar().partition("/")
        span, transport = _span(text), protocol.lower() if slash else "tcp"
        if entry.value is None or not span or len(span) + sum(map(len, found.values())) > MOST:
            entry.wrong("is no port, nor a range of them", 'such as 8080 or "8080-8085/tcp"')
        elif transport in found:
            found[transport].update(span)
        elif transport == "sctp":
            entry.warn("does nothing here", "containers reach each other at all ports; only tcp and udp are told")
        else:
            entry.wrong("is of no protocol that a port can have", "tcp or udp")
    return Exposed(tuple(sorted(found["tcp"])), tuple(sorted(found["udp"])))


def in_own_network(mode: str, ports: Ports) -> tuple[Port, ...]:
    """The ports of a service as they can be with its network mode: in its node's network it has them there and nowhere else."""
    if mode == "none":
        for entry in dict.fromkeys(ports.values()):
            entry.warn("does nothing here", "network_mode: none leaves the service without a network")
        return ()
    if mode == "host":
        for port, entry in ports.items():
            if port.published not in (0, port.target):
                entry.warn(
                    f"the service is reached at port {port.target} of its node, not at {port.published}",
                    "network_mode: host publishes nothing",
                )
        taken = {(port.target, port.protocol): None for port in ports}
        return tuple(Port(target=target, published=target, protocol=protocol, mode="host") for target, protocol in taken)
    return tuple(ports)


def clashes(services: Mapping[str, Ports]) -> Iterator[tuple[Part, str]]:
    """Each part that publishes what an earlier one does, and in which words."""
    taken: dict[tuple[int, str], list[tuple[str, Port]]] = {}
    for service, ports in services.items():
        for port, entry in ports.items():
            if not port.published:
                continue
            others = taken.setdefault((port.published, port.protocol), [])
            for other, its in others:
                if not (port.address and its.address and port.address != its.address):
                    who = "this service" if other == service else other
                    yield entry, f"port {port.published}/{port.protocol} is published by {who} already"
                    break
            others.append((service, port))


def _short(entry: Part) -> Iterator[Port]:
    """`[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`; ports may be ranges."""
    text, _, protocol = entry.scalar().partition("/")
    rest, _, target = text.rpartition(":")
    address, _, published = rest.rpartition(":")
    targets, outer = _span(target), _outer(published)
    if any(map(_too_high, (target, published))):
        entry.wrong(_TOO_HIGH, _RANGE)
        return
    if entry.value is None or not targets or outer is None:
        if isinstance(entry.value, str | int | float | None):
            entry.wrong("is no port to publish", 'such as "8080:80", "127.0.0.1:8080:80/udp" or "8000-8010:8000-8010"')
        return
    yield from _ports(entry, "", address, outer, targets, protocol or "tcp")


def _long(entry: Part) -> Iterator[Port]:
    fields = entry.of("service.ports")
    target = fields["target"].whole(1, _HIGHEST)
    mode = fields["mode"].choice(("ingress", "host"), "") if fields.given("mode") else ""
    outer = _published(fields)
    protocol = fields["protocol"].text(None, "tcp")
    if fields["host_ip"].value == "":
        fields["host_ip"].wrong("is no IP address", "such as 127.0.0.1, or leave it out")
    if not target or outer is None:
        if not fields.given("target"):
            entry.wrong("has no target", "target: the port in the container")
        return
    yield from _ports(
        entry, "host" if mode == "host" else "ingress" if mode else "", fields["host_ip"].text(), outer, range(target, target + 1), protocol
    )


def _published(fields: Fields) -> range | None:
    part = fields["published"]
    if _too_high(part.scalar()):
        part.wrong(_TOO_HIGH, _RANGE)
        return None
    if (found := _outer(part.scalar())) is None:
        part.wrong("is no port, nor a range of them", 'such as "8080" or "8080-8090"')
    return found


def _ports(entry: Part, mode: Mode, address: str, outer: range, targets: range, protocol: str) -> Iterator[Port]:
    if (transport := _transport(entry, protocol)) is None or (where := _address(entry, address)) is None:
        return
    if len(outer) > 1 and len(targets) == 1:
        message = "any one of several ports cannot be published"
        entry.unsupported(f"{outer[0]}:{targets[0]}", message, then="the first is", becomes=_first(entry, outer[0]))
        outer = outer[:1]
    if outer and len(outer) != len(targets):
        entry.wrong("publishes another number of ports than the container has", "ranges of the same length on both sides")
        return
    numbers: Sequence[int] = outer or [0] * len(targets)
    if mode == "ingress" and not any(numbers):
        entry.warn("any free port of the node is published where a replica runs, not the same one on every node", "published: a port")
    if where and mode != "host":
        entry.warn(f"published on {where} of the nodes where a replica runs, not on every node", "without an address it is every node's")
    for published, target in zip(numbers, targets, strict=True):
        host = mode == "host" or where or not published
        yield Port(target=target, published=published, protocol=transport, mode="host" if host else "ingress", address=where)


def _first(entry: Part, published: int) -> Any:
    """The same, publishing one port."""
    if isinstance(entry.value, Mapping):
        return {**entry.value, "published": str(published)}
    rest, _, target = str(entry.value).rpartition(":")
    address, colon, _ = rest.rpartition(":")
    return f"{address}{colon}{published}:{target}"


def _transport(entry: Part, protocol: str) -> Literal["tcp", "udp"] | None:
    match protocol.lower():
        case "tcp":
            return "tcp"
        case "udp":
            return "udp"
        case "sctp":
            entry.unsupported("network_mode: host", "only tcp and udp can be published")
        case _:
            entry.wrong("is of no protocol that can be published", "tcp or udp")
    return None


def _address(entry: Part, address: str) -> str | None:
    """Empty: all of a node's."""
    if not address:
        return ""
    try:
        found = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        entry.wrong("is not for an IP address", 'such as "127.0.0.1:8080:80"')
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_unspecified:
            return ""
        if found.ipv4_mapped is None:
            entry.unsupported(_IPV4, f"ports are published on IPv4 addresses, and {found} is none")
            return None
        found = found.ipv4_mapped
    return "" if found.is_unspecified else str(found)


def _outer(text: str) -> range | None:
    """Nothing, and 0: any free one."""
    return range(0) if text in ("", "0") else _span(text)


def _too_high(text: str) -> bool:
    found = _NUMBERS.fullmatch(text)
    return found is not None and any(len(number) > 5 or int(number) > _HIGHEST for number in found.groups("0"))


def _span(text: str) -> range | None:
    """`80` or `8000-8010`."""
    found = _SPAN.fullmatch(text)
    if found is None:
        return None
    first = int(found[1])
    last = int(found[2] or first)
    return range(first, last + 1) if 1 <= first <= last <= _HIGHEST else None
