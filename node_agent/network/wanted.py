"""What this node's part of the containers' network shall be, from what the cluster knows. Pure.

Nothing but nodes, subnets, generations and the registry is needed, which every node has: who is fit, in maintenance or of another priority
is the registry's to say (hmcore/pool.py), and what a replica is made of stands in its instance.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hmcore.apps.records import Generation, GivenPort, Subnet
from hmcore.apps.spec import AppSpec, ServiceSpec, revision
from hmcore.pool import Candidate
from hmcore.records import ALLOCATION, GENERATION, InstanceHealth, Node
from hmcore.selection import Filter
from node_agent.container.info import APP, SERVICE, ContainerInfo
from node_agent.network import names, publishing
from node_agent.network.plan import Place
from node_agent.network.publishing import Replica
from node_agent.network.ruleset import Published
from node_agent.registry.registry import Catalogue

_EVERYBODY = Filter(include_maintenance=True)
_PLACE = re.compile(r"(?P<service>.+)\.(?P<slot>[0-9]{1,9})\.(?P<serial>[0-9]{1,18})")  # an Allocation's id
_WELL = (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED)


@dataclass(frozen=True, slots=True)
class Known:
    """What the cluster agreed on, as this node knows it; `nodes` and `subnets` by node, `generations` by their keys. Of each app the one
    with the highest number is what it shall be. `containers`: this node's own."""

    nodes: Mapping[str, Node]
    subnets: Mapping[str, Subnet]
    generations: Mapping[str, Generation]
    catalogue: Catalogue
    containers: Iterable[ContainerInfo] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """`own` None: this node has no subnet yet. `given`: see publishing.Answers. `services`, `askers`: see names.Directory. `problems`:
    what cannot be as it was asked for, in words."""

    own: Place | None
    others: tuple[Place, ...] = ()
    published: tuple[Published, ...] = ()
    given: Mapping[str, tuple[GivenPort, ...]] = field(default_factory=dict)
    services: tuple[names.Service, ...] = ()
    askers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _App:
    """`specs` by generation; the last is what it shall be."""

    name: str
    specs: Mapping[int, AppSpec]

    @property
    def current(self) -> AppSpec:
        return self.specs[max(self.specs)]

    def latest(self, service: str) -> ServiceSpec | None:
        """Also of a service that is not wanted any more."""
        found = (self.specs[number].services.get(service) for number in sorted(self.specs, reverse=True))
        return next((each for each in found if each is not None), None)

    def made_of(self, service: str, generation: int) -> ServiceSpec | None:
        """What a replica is: an old one keeps to its own generation, where its container is another than the current one makes."""
        own = self.specs.get(generation, self.current)
        if service not in own.services:
            return self.latest(service)
        if own is self.current:
            return own.services[service]
        if service in self.current.services and revision(own, service) == revision(self.current, service):
            return self.current.services[service]
        return own.services[service]


def wanted(node: str, cidr: str, known: Known) -> Wanted:
    """For `node`. `cidr`: the network of all containers."""
    places = [
        Place(name, member.address, known.subnets[name].cidr) for name, member in sorted(known.nodes.items()) if name in known.subnets
    ]
    whole = ipaddress.IPv4Network(cidr)
    services: list[names.Service] = []
    offers: list[publishing.Offer] = []
    for app in _apps(known.generations):
        for service in _services(app, known.catalogue):
            spec, found = app.latest(service), list(_replicas(app, service, known.catalogue))
            if spec is None:
                continue
            replicas = [names.Replica(each.slot, each.address, each.fit, each.well) for each in found if each.address]
            services.append(names.Service(app.name, service, spec.container.networks, tuple(replicas)))
            within = [each for each in found if _within(whole, each.address)]
            offers.append(publishing.Offer(f"{app.name}/{service}", app.current.services.get(service), tuple(within)))
    answers = publishing.answers(node, offers)
    return Wanted(
        own=next((place for place in places if place.node == node), None),
        others=tuple(place for place in places if place.node != node),
        published=answers.published,
        given=answers.given,
        services=tuple(services),
        askers=dict(_askers(known.containers)),
        problems=answers.problems,
    )


def _apps(generations: Mapping[str, Generation]) -> list[_App]:
    found: dict[str, dict[int, AppSpec]] = {}
    for each in generations.values():
        found.setdefault(each.app, {})[each.number] = each.spec
    return [_App(name, specs) for name, specs in sorted(found.items())]


def _services(app: _App, catalogue: Catalogue) -> Sequence[str]:
    """Those that it shall have, and others of which replicas are left."""
    prefix = f"{app.name}/"
    left = {name.removeprefix(prefix) for name in catalogue.services() if name.startswith(prefix)}
    return sorted(left | app.current.services.keys())


def _replicas(app: _App, service: str, catalogue: Catalogue) -> Iterator[Replica]:
    """Whoever else calls himself an instance of the service, without being an allocation of it, is none of its replicas."""
    name = f"{app.name}/{service}"
    pool = {each.instance.id for each in catalogue.pool(name)}
    made_of: dict[int, ServiceSpec | None] = {}
    for candidate in catalogue.lookup(name, _EVERYBODY):
        attributes = candidate.instance.attributes
        place = _PLACE.fullmatch(attributes.get(ALLOCATION, ""))
        if place is None or place["service"] != name:
            continue
        generation = int(attributes[GENERATION]) if attributes.get(GENERATION, "").isdecimal() else 0
        if generation not in made_of:
            made_of[generation] = app.made_of(service, generation)
        spec = made_of[generation]
        if spec is not None:
            yield _replica(candidate, spec, int(place["slot"]), int(place["serial"]), fit=candidate.instance.id in pool)


def _replica(candidate: Candidate, spec: ServiceSpec, slot: int, serial: int, *, fit: bool) -> Replica:
    instance = candidate.instance
    well = candidate.maintenance is None and instance.health in _WELL
    return Replica(
        node=instance.node,
        slot=slot,
        serial=serial,
        address=instance.address,
        spec=spec,
        weight=instance.weight,
        fit=fit,
        well=well,
    )


def _within(network: ipaddress.IPv4Network, address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address) in network
    except ValueError:
        return False


def _askers(containers: Iterable[ContainerInfo]) -> Iterator[tuple[str, tuple[str, str]]]:
    for info in containers:
        app, service = info.labels.get(APP, ""), info.labels.get(SERVICE, "")
        if info.allocation and info.running and info.address and app and service.startswith(f"{app}/"):
            yield info.address, (app, service.removeprefix(f"{app}/"))
