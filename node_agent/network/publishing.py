"""Which ports a node answers on, and who gets what comes there. Pure.

A replica answers at the ports of the spec that it is made of: while another takes its place, each is found where it listens. A port of
which nobody is fit is answered with a refusal.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from hmcore.apps.records import GivenPort
from hmcore.apps.spec import Port, ServiceSpec
from node_agent.network.ruleset import Endpoint, Published

FIRST, LAST = 30_000, 32_767  # of the ports that are given out where any will do: below those that the kernel gives to clients
_ANY = ("", "0.0.0.0", "::")  # noqa: S104 -- as compose files write it


@dataclass(frozen=True, slots=True)
class Replica:
    """One of a service: `spec` is what it is made of. `fit`: it shares the service's traffic; `well`: it would answer, whoever's turn it
    is. `serial`: a later one is younger."""

    node: str
    slot: int
    serial: int
    address: str
    spec: ServiceSpec
    weight: int = 100
    fit: bool = True
    well: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """A service as `APP/SERVICE`. `spec` None: it is not wanted any more. `replicas` have addresses in the containers' network."""

    service: str
    spec: ServiceSpec | None
    replicas: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class _Claim:
    """That a port leads to a service."""

    service: str
    endpoints: tuple[Endpoint, ...]


_Key = tuple[str, int, str]  # protocol, port, address


@dataclass(frozen=True, slots=True)
class Answers:
    """What a node answers on: `published`, in order. `given`: by the id of an allocation here, the ports among them that were given out for
    it. `problems`: what cannot be, in words."""

    published: tuple[Published, ...] = ()
    given: Mapping[str, tuple[GivenPort, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def answers(node: str, offers: Sequence[Offer]) -> Answers:
    """Of `node`."""
    claims: dict[_Key, list[_Claim]] = {}
    problems: list[str] = []
    for offer in offers:
        for key, endpoints in (*_everywhere(offer).items(), *_here(node, offer, problems).items()):
            claims.setdefault(key, []).append(_Claim(offer.service, tuple(sorted(endpoints))))
    chosen = {key: _choose(key, rivals, problems) for key, rivals in claims.items()}
    taken = {(protocol, port) for protocol, port, _ in chosen}
    given: dict[str, tuple[GivenPort, ...]] = {}
    for id, port, endpoint in _anywhere(node, offers, taken):
        chosen[port.protocol, port.published, port.address] = (endpoint,)
        given[id] = (*given.get(id, ()), port)
    found = (Published(protocol, port, endpoints, address) for (protocol, port, address), endpoints in sorted(chosen.items()))  # type: ignore[arg-type]
    return Answers(tuple(found), given, tuple(dict.fromkeys(problems)))


def _everywhere(offer: Offer) -> Mapping[_Key, set[Endpoint]]:
    """Ports of the mode `ingress`."""
    found: dict[_Key, set[Endpoint]] = {}
    for port in _ports(offer.spec, "ingress"):
        found[port.protocol, port.published, ""] = set()
    for replica in offer.replicas:
        for port in _ports(replica.spec, "ingress"):
            endpoints = found.setdefault((port.protocol, port.published, ""), set())
            if replica.fit:
                endpoints.add(Endpoint(replica.address, port.target, replica.weight))
    return found


def _here(node: str, offer: Offer, problems: list[str]) -> Mapping[_Key, set[Endpoint]]:
    """Ports of the mode `host`, of replicas on this node. There is nobody else whose turn it could be, so weights do not matter."""
    found: dict[_Key, set[Endpoint]] = {}
    for replica in offer.replicas:
        for port in _ports(replica.spec, "host") if replica.node == node else ():
            address = _address(port)
            if address is None:
                problems.append(f"{offer.service} cannot have port {port.published} on {port.address}: only IPv4 addresses can be had")
                continue
            endpoints = found.setdefault((port.protocol, port.published, address), set())
            if replica.well:
                endpoints.add(Endpoint(replica.address, port.target))
    return found


def _anywhere(node: str, offers: Iterable[Offer], taken: set[tuple[str, int]]) -> Iterator[tuple[str, GivenPort, Endpoint]]:
    """Ports of the mode `host` for which any number will do, each with its allocation's id: the same one for a replica as long
    as nobody else has it, whenever this is worked out. Older replicas come first."""
    own = [(replica.serial, offer.service, replica) for offer in offers for replica in offer.replicas if replica.node == node]
    for serial, service, replica in sorted(own, key=lambda each: each[:2]):
        for port in replica.spec.ports:
            address = _address(port)
            if port.mode != "host" or port.published or replica.spec.container.network_mode or address is None or not replica.well:
                continue
            seed = f"{service} {replica.slot} {serial} {port.protocol} {port.target}".encode()
            number = given_out(seed, {number for protocol, number in taken if protocol == port.protocol})
            if number:
                taken.add((port.protocol, number))
                id = f"{service}.{replica.slot}.{serial}"
                made = GivenPort(target=port.target, published=number, protocol=port.protocol, address=address)
                yield id, made, Endpoint(replica.address, port.target)


def given_out(seed: bytes, taken: set[int]) -> int:
    """A free port for whatever `seed` stands for; 0 if there is none."""
    size = LAST - FIRST + 1
    first = int.from_bytes(blake2b(seed, digest_size=8).digest(), "big") % size
    tries = (FIRST + (first + step) % size for step in range(size))
    return next((number for number in tries if number not in taken), 0)


def _ports(spec: ServiceSpec | None, mode: str) -> list[Port]:
    """Who uses his node's own network, or none, publishes nothing."""
    if spec is None or spec.container.network_mode:
        return []
    return [port for port in spec.ports if port.mode == mode and port.published]


def _address(port: Port) -> str | None:
    """Empty: all of the node's. None: one that is none of IPv4."""
    if port.address in _ANY:
        return ""
    try:
        return str(ipaddress.IPv4Address(port.address))
    except ValueError:
        return None


def _choose(key: _Key, rivals: Sequence[_Claim], problems: list[str]) -> tuple[Endpoint, ...]:
    """The scheduler does not place replicas whose port is another service's; where there are several all the same, one of them has it."""
    first = min(rivals, key=lambda each: (not each.endpoints, each.service))
    others = sorted(each.service for each in rivals if each is not first and each.endpoints)
    if others:
        protocol, port, _ = key
        problems.append(f"{protocol} port {port} is published by {first.service}, which has it, and by {', '.join(others)}")
    return first.endpoints
