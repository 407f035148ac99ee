"""Names of services, as containers ask for them. Pure: who asks and for what in, what to answer out.

A container is told of services that share a network with it: `SERVICE` (and its aliases there), `SERVICE.APP`, and single replicas as
`APP-SERVICE-SLOT` and `SLOT.SERVICE`; and by what Swarm calls them: `APP_SERVICE`, and each name of a service after `tasks.`. Fit replicas
only. A name of one label, or below the name of the asker's app, is nobody else's business; all others are for the node's own resolvers
(docs/adr/0096).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hmcore.errors import UsageError
from node_agent.network.message import AAAA, ANY, PTR, A

TTL = 1  # seconds: whoever asks again is soon told of a replica that has gone
DEFAULT = "default"  # the network of services that name none
TASKS = "tasks."  # Swarm: of a service's replicas, where its own name is that of one address for all of them
_REVERSE = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.in-addr\.arpa")


@dataclass(frozen=True, slots=True)
class Replica:
    """`fit`: it shares its service's traffic. `standby`: it does not, but is well: it answers to names of its own."""

    slot: int
    address: str
    fit: bool = True
    standby: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """`networks`: by name, further names of the service there (ContainerSpec.networks)."""

    app: str
    name: str
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    replicas: Sequence[Replica] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """At least one address."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Called:
    """What an address is called."""

    name: str


@dataclass(frozen=True, slots=True)
class Empty:
    """The name is ours, but there is nothing of the kind that was asked for."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The name would be ours, and there is none."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """It is not known yet who asks: its container has just been started. To be asked again."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Others know."""


Reply = Found | Called | Empty | Unknown | NotYet | Elsewhere


class Directory:
    """All services at one moment, and who asks from which address.

    `askers`: this node's own containers by address, as (app, service): they ask before they are fit, and before anybody else knows of
    them. Names are compared in lower case.
    """

    def __init__(self, cidr: str, services: Iterable[Service], askers: Mapping[str, tuple[str, str]]) -> None:
        """Raises UsageError where `cidr` is no network."""
        try:
            self._cidr = ipaddress.IPv4Network(cidr)
        except ValueError as error:
            raise UsageError(f"{cidr!r} is no IPv4 network") from error
        self._names: dict[tuple[str, str], dict[str, list[str]]] = {}  # of (app, network): addresses by name
        self._swarm: dict[tuple[str, str], dict[str, list[str]]] = {}  # the same by Swarm's names, which give way to all others
        self._callers: dict[str, tuple[str, str]] = {}
        self._networks: dict[tuple[str, str], tuple[str, ...]] = {}
        self._called: dict[str, str] = {}
        for service in sorted(services, key=lambda each: (each.app, each.name)):
            self._add(service)
        self._callers |= askers

    def _add(self, service: Service) -> None:
        networks = dict(service.networks) or {DEFAULT: ()}
        app, name = service.app.lower(), service.name.lower()
        self._networks[service.app, service.name] = tuple(networks)
        slots: dict[int, list[str]] = {}
        everything: list[str] = []
        for replica in sorted(service.replicas, key=lambda each: (each.slot, each.address)):
            self._callers[replica.address] = (service.app, service.name)
            self._called[replica.address] = f"{app}-{name}-{replica.slot}"
            slots.setdefault(replica.slot, []).extend([replica.address] if replica.fit or replica.standby else [])
            everything += [replica.address] if replica.fit else []
        for network, aliases in networks.items():
            names = self._names.setdefault((service.app, network), {})
            swarm = self._swarm.setdefault((service.app, network), {})
            for each in dict.fromkeys((name, *(alias.lower() for alias in aliases))):
                for known in (each, f"{each}.{app}"):
                    names.setdefault(known, []).extend(everything)
                    swarm.setdefault(f"{TASKS}{known}", []).extend(everything)
            for known in (f"{app}_{name}", f"{TASKS}{app}_{name}"):
                swarm.setdefault(known, []).extend(everything)
            for slot, found in slots.items():
                for known in (f"{app}-{name}-{slot}", f"{slot}.{name}"):
                    names.setdefault(known, []).extend(found)

    def resolve(self, asker: str, name: str, kind: int, turn: int) -> Reply:
        """`asker`: an IP address. `name` in lower case, without the last dot; empty: none of ours. `turn`: which of the addresses comes
        first, so that whoever takes the first does not always take the same."""
        if (reverse := _REVERSE.fullmatch(name)) is not None:
            return self._reverse(asker, ".".join(reversed(reverse.groups())), kind)
        caller = self._callers.get(asker)
        if caller is None:
            return NotYet() if name and "." not in name.removeprefix(TASKS) else Elsewhere()
        networks = [(caller[0], network) for network in self._networks.get(caller, ())]
        spaces = [space for network in networks if (space := self._names.get(network))]
        known = [addresses for space in spaces if (addresses := space.get(name)) is not None]
        known = known or [addresses for network in networks if (addresses := self._swarm.get(network, {}).get(name)) is not None]
        if not known:
            return Unknown() if self._ours(name, caller[0], spaces) else Elsewhere()
        found = list(dict.fromkeys(address for addresses in known for address in addresses))
        if not found or kind not in (A, ANY):
            return Empty()
        first = turn % len(found)
        return Found((*found[first:], *found[:first]))

    def _ours(self, name: str, app: str, spaces: Sequence[Mapping[str, object]]) -> bool:
        """Whether nobody else can know a name that we do not know."""
        first, dot, rest = name.partition(".")
        if not dot:
            return bool(name)
        return name.endswith(f".{app.lower()}") or (first.isdigit() and any(rest in space for space in spaces))

    def _reverse(self, asker: str, text: str, kind: int) -> Reply:
        """Of containers nobody else knows; and who asks whom a connection comes from must not wait for resolvers that never heard of it."""
        try:
            address = ipaddress.IPv4Address(text)
        except ValueError:
            return Elsewhere()
        if address not in self._cidr:
            return Elsewhere()
        called, asked = self._called.get(str(address)), self._callers.get(str(address))
        if called is None or asked is None or not self._share(self._callers.get(asker), asked):
            return Unknown()
        return Called(called) if kind in (PTR, ANY) else Empty()

    def _share(self, one: tuple[str, str] | None, other: tuple[str, str]) -> bool:
        """Whether two services are in the same network of the same app."""
        return one is not None and one[0] == other[0] and not set(self._networks.get(one, ())).isdisjoint(self._networks.get(other, ()))


__all__ = ["AAAA", "Called", "Directory", "Elsewhere", "Empty", "Found", "NotYet", "Replica", "Reply", "Service", "Unknown"]
