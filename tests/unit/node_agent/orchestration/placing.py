"""Short words for what a scheduler is given, and the plain way to place: all is asked of every node, each time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import ip_address

from hmcore.apps.constraints import Platform, parse, parse_key
from hmcore.apps.records import Allocation, allocation_id
from hmcore.apps.spec import ContainerSpec, Mount, Placement, Port, Resources, ServiceSpec, Volume
from hmcore.errors import UsageError
from hmcore.records import Node, NodeState, Role
from node_agent.orchestration.scheduling.model import Assignment, Candidate, Outcome, Placed, Request

GIB = 1 << 30


def candidate(
    name: str,
    *,
    cpus: int = 4000,
    memory: int = 8 * GIB,
    role: Role = Role.WORKER,
    state: NodeState = NodeState.READY,
    labels: Mapping[str, str] | None = None,
    **kwargs,
) -> Candidate:
    node = Node(name=name, address="10.0.0.1", port=7443, role=role, release="r1", state=state, labels=dict(labels or {}))
    return Candidate(node=node, capacity=Resources(cpus=cpus, memory=memory), platform=Platform("linux", "x86_64"), **kwargs)


def nodes(count: int, **kwargs) -> list[Candidate]:
    return [candidate(f"node{number}", **kwargs) for number in range(1, count + 1)]


def service(
    *,
    cpus: int = 0,
    memory: int = 0,
    ports: Iterable[Port] = (),
    constraints: Iterable[str] = (),
    spread: Iterable[str] = (),
    most: int = 0,
    mode: str = "replicated",
    network: str = "",
    mounts: Iterable[str] = (),
) -> ServiceSpec:
    return ServiceSpec(
        container=ContainerSpec(
            image="web",
            network_mode=network,
            mounts=tuple(Mount(kind="volume", source=source, target=f"/{source}") for source in mounts),
        ),
        mode=mode,
        reservations=Resources(cpus=cpus, memory=memory),
        ports=tuple(ports),
        placement=Placement(constraints=tuple(constraints), spread=tuple(spread), max_per_node=most),
    )


def request(spec: ServiceSpec | None = None, slot: int = 1, *, app: str = "shop", name: str = "web", **kwargs) -> Request:
    return Request(app=app, service=name, slot=slot, spec=spec or service(), **kwargs)


def replicas(count: int, spec: ServiceSpec | None = None, **kwargs) -> list[Request]:
    return [request(spec, slot, **kwargs) for slot in range(1, count + 1)]


def placed(
    node: str,
    spec: ServiceSpec | None = None,
    slot: int = 1,
    serial: int = 1,
    *,
    app: str = "shop",
    name: str = "web",
    volumes: tuple[Volume, ...] = (),
    stop: bool = False,
) -> Placed:
    allocation = Allocation(
        id=allocation_id(app, name, slot, serial),
        app=app,
        service=name,
        slot=slot,
        node=node,
        generation=1,
        revision="r",
        stop=stop,
    )
    return Placed(allocation=allocation, spec=spec or service(), volumes=volumes)


def as_placed(outcomes: Sequence[Outcome], serial: int = 1000) -> list[Placed]:
    """What was placed, as it stands afterwards."""
    found = [each for each in outcomes if isinstance(each, Assignment)]
    return [
        placed(
            each.node,
            each.request.spec,
            each.request.slot,
            serial + number,
            app=each.request.app,
            name=each.request.service,
            volumes=each.request.volumes,
        )
        for number, each in enumerate(found)
    ]


def where(outcomes: Iterable[Outcome]) -> dict[tuple[str, str, int], str | None]:
    """The node of each request; None: it waits."""
    return {
        (each.request.app, each.request.service, each.request.slot): each.node if isinstance(each, Assignment) else None
        for each in outcomes
    }


class PlainWay:
    """`passing` and `first` look at everything anew each time."""

    def __init__(self, candidates: Iterable[Candidate], there: Iterable[Placed], homes: Mapping[str, str], leaving: Iterable[str]) -> None:
        self.candidates = sorted(candidates, key=lambda each: (_hash(each.name), each.name))
        self.there = list(there)
        self.leaving = set(leaving)
        self.homes = dict(homes)
        for each in sorted(self.there, key=lambda each: each.allocation.id):
            self._settle(each)

    def add(self, assignment: Assignment) -> None:
        self.there += as_placed([assignment], serial=10_000 + len(self.there))
        self._settle(self.there[-1])

    def _settle(self, each: Placed) -> None:
        for name in _bound(each.spec, each.volumes):
            self.homes.setdefault(name, each.allocation.node)

    def passing(self, asked: Request) -> list[Candidate]:
        return [each for each in self.candidates if self._passes(each, asked)]

    def _passes(self, each: Candidate, asked: Request) -> bool:
        spec = asked.spec
        here = [other for other in self.there if other.allocation.node == each.name]
        ready = each.node.state in (NodeState.READY, NodeState.DEGRADED) and each.engine
        return (
            ready
            and each.apps
            and asked.node in ("", each.name)
            and each.name not in asked.shunned
            and all(_holds(text, each) for text in spec.placement.constraints)
            and all(volume.name in each.volumes for volume in asked.volumes if volume.external and _local(volume))
            and all(self.homes.get(name, each.name) == each.name for name in _bound(spec, asked.volumes))
            and _room(each.capacity.cpus, spec.reservations.cpus, [other.spec.reservations.cpus for other in here])
            and _room(each.capacity.memory, spec.reservations.memory, [other.spec.reservations.memory for other in here])
            and not any(_same(one, two) for one in _own(spec) for other in here for two in _own(other.spec))
            and not self._rivals(asked)
            and (spec.mode == "global" or spec.placement.max_per_node == 0 or self._of(asked, here) < spec.placement.max_per_node)
        )

    def _of(self, asked: Request, here: list[Placed]) -> int:
        return sum((other.allocation.app, other.allocation.service) == (asked.app, asked.service) for other in here)

    def _rivals(self, asked: Request) -> bool:
        others = [
            other.spec
            for other in self.there
            if not other.allocation.stop and (other.allocation.app, other.allocation.service) != (asked.app, asked.service)
        ]
        ours, our_own = _everywhere(asked.spec), {port[:2] for port in _own(asked.spec)}
        published = {port for spec in others for port in _everywhere(spec)}
        own = {port[:2] for spec in others for port in _own(spec)}
        return bool(ours & (published | own) or our_own & published)

    def first(self, asked: Request) -> Candidate | None:
        fit = self.passing(asked)
        homeless = [name for name in _bound(asked.spec, asked.volumes) if name not in self.homes]
        most = max((len(each.volumes.intersection(homeless)) for each in fit), default=0)
        fit = [each for each in fit if len(each.volumes.intersection(homeless)) == most]
        return min(fit, key=lambda each: self._worth(each, asked), default=None)

    def _worth(self, each: Candidate, asked: Request) -> tuple[object, ...]:
        mine = [
            other.allocation.node
            for other in self.there
            if (other.allocation.app, other.allocation.service) == (asked.app, asked.service)
            and not other.allocation.stop
            and other.allocation.id not in self.leaving
        ]
        branches = [
            sum(_values(asked.spec.placement.spread[: level + 1], other) == _values(asked.spec.placement.spread[: level + 1], each)
                for node in mine for other in self.candidates if other.name == node)
            for level in range(len(asked.spec.placement.spread))
        ]  # fmt: skip
        here = [other.spec for other in self.there if other.allocation.node == each.name]
        start = _hash(f"{asked.app}/{asked.service}") % len(self.candidates)
        shares = (
            _share(sum(spec.reservations.cpus for spec in here), each.capacity.cpus),
            _share(sum(spec.reservations.memory for spec in here), each.capacity.memory),
        )
        return (
            branches,
            mine.count(each.name),
            min(max(shares), 2047),  # beyond twice what a node has, more is the same
            len(here),
            asked.image_id not in each.images,
            (self.candidates.index(each) - start) % len(self.candidates),
        )


def _holds(text: str, each: Candidate) -> bool:
    try:
        return parse(text).holds(each.node, each.platform)
    except UsageError:
        return False


def _values(spread: Sequence[str], each: Candidate) -> list[str]:
    return [parse_key(text).of(each.node, each.platform) for text in spread]


def _local(volume: Volume) -> bool:
    return volume.driver in ("", "local") and volume.options.get("type") != "nfs"


def _bound(spec: ServiceSpec, volumes: Iterable[Volume]) -> list[str]:
    return [volume.name for volume in volumes if not volume.external and _local(volume) and spec.mode != "global"]


def _room(capacity: int, wanted: int, taken: list[int]) -> bool:
    return not wanted or sum(taken) + wanted <= capacity


def _share(part: int, whole: int) -> int:
    return (part * 1000 // whole if whole else 1000) if part else 0


def _own(spec: ServiceSpec) -> list[tuple[int, str, str]]:
    """Ports that it has on its node, and the address there."""
    if spec.container.network_mode == "none":
        return []
    if spec.container.network_mode == "host":
        return [(port.target, port.protocol, "") for port in spec.ports]
    return [(port.published, port.protocol, port.address) for port in spec.ports if port.mode == "host" and port.published]


def _everywhere(spec: ServiceSpec) -> set[tuple[int, str]]:
    return {(port.published, port.protocol) for port in spec.ports if port.mode == "ingress" and port.published}


def _same(one: tuple[int, str, str], two: tuple[int, str, str]) -> bool:
    addresses = [address and ip_address(address) for address in (one[2], two[2])]
    anywhere = any(not address or address.is_unspecified for address in addresses)
    return one[:2] == two[:2] and (anywhere or addresses[0] == addresses[1])


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
