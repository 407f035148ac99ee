"""This node's own instances: every component of its agent, and every container of ours. Pure.

Nothing here is written by us alone: names and labels come from whoever started a container. They are cut to a tight grammar before they
reach the replicated state, and none of them can take the platform's own names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from hmcore.records import ALLOCATION, GENERATION, UNWATCHED, ComponentReport, ComponentState, Instance, InstanceHealth
from node_agent.container import info as labels
from node_agent.container.info import ContainerInfo

PLATFORM = "hypermesh/"  # begins the names of the components' services
TAGS = "hypermesh.tags"
MOST_BYTES = 900_000  # of a node's encoded list: with the command round it, it stays below what an entry of the log may have (1 MiB)
MOST_TAGS = 16
REASON_LENGTH = 200

_HOST = "host"  # Docker's word for a container that has its node's network
_OF_ANOTHER = "container:"  # and what begins it for one that has another container's

_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}(/[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127})?")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_TAG = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:=-]{0,62}")
_ALLOCATED = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}/[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\.[0-9]{1,9}\.[0-9]{1,18}")
_COUNTED = re.compile(r"[0-9]{1,18}")
_VERSION_LENGTH = 128
_IMAGE_LENGTH = 256

_ALL_WATCHED: Mapping[str, str] = {}

_deterministic = msgspec.msgpack.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the instances are."""

    node: str
    address: str
    port: int  # STOQ's
    release: str


def component_instances(place: Place, reports: Mapping[str, ComponentReport]) -> list[Instance]:
    """All of them answer on the one port of STOQ."""
    return [
        Instance(
            id=f"{place.node}/{name}",
            service=PLATFORM + name,
            node=place.node,
            address=place.address,
            port=place.port,
            version=place.release[:12],
            health=_component_health(report.state),
            reason=(report.error or "")[:REASON_LENGTH],
        )
        for name, report in reports.items()
    ]


def _component_health(state: ComponentState) -> InstanceHealth:
    match state:
        case ComponentState.RUNNING | ComponentState.READY:
            return InstanceHealth.HEALTHY
        case ComponentState.DEGRADED:
            return InstanceHealth.DEGRADED
        case ComponentState.UNINITIALIZED | ComponentState.INITIALIZING:
            return InstanceHealth.UNKNOWN
        case ComponentState.ERROR | ComponentState.STOPPING | ComponentState.STOPPED:
            return InstanceHealth.UNHEALTHY


def container_instances(
    place: Place, containers: Iterable[ContainerInfo], taken: Iterable[str], unwatched: Mapping[str, str] = _ALL_WATCHED
) -> list[Instance]:
    """One for each container. `taken`: ids that are others' already; a container that is called so is told apart by its own id.
    `unwatched`: why a container, by its own id, is not watched. It is as well as any other; its operator has to know all the same."""
    ids = set(taken)
    found = []
    ordered = sorted(containers, key=lambda info: (info.name, info.id))
    known = {info.id: info for info in ordered}
    for info in ordered:
        name = info.name if _NAME.fullmatch(info.name) else info.id[:12]
        id = f"{place.node}/{name}"
        if id in ids:
            id = f"{id[:242]}-{info.id[:12]}"
        ids.add(id)
        address = _address(info, known, place)
        health, reason = _container_health(info, address)
        attributes = {"container": info.id[:12], "image": info.image[:_IMAGE_LENGTH], **_replica(info)}
        if info.id in unwatched:
            attributes[UNWATCHED] = unwatched[info.id]
        found.append(
            Instance(
                id=id,
                service=_service(info, name),
                node=place.node,
                address=address,
                port=info.port,
                version=info.version[:_VERSION_LENGTH],
                weight=info.weight,
                priority=info.priority,
                tags=_tags(info.labels.get(TAGS, "")),
                attributes=attributes,
                health=health,
                reason=reason,
            )
        )
    return found


def _service(info: ContainerInfo, name: str) -> str:
    """What it is registered under: its label, unless that is no name or one of the platform's."""
    wanted = info.service
    return wanted if _SERVICE.fullmatch(wanted) and not wanted.startswith(PLATFORM) else name


def _replica(info: ContainerInfo) -> dict[str, str]:
    """Of which allocation it is, and what that was made of, if its labels say so."""
    generation = info.labels.get(labels.GENERATION, "")
    if not _ALLOCATED.fullmatch(info.allocation) or not _COUNTED.fullmatch(generation):
        return {}
    return {ALLOCATION: info.allocation, GENERATION: generation}


def _tags(label: str) -> list[str]:
    tags = {tag.strip() for tag in label.split(",")}
    return sorted(tag for tag in tags if _TAG.fullmatch(tag))[:MOST_TAGS]


def _address(info: ContainerInfo, known: Mapping[str, ContainerInfo], place: Place) -> str:
    """Where it answers; empty where nobody does. Docker may still tell the address of one that has ended, which is another's by now."""
    if not _is_up(info):
        return ""
    mode = info.network
    if mode.startswith(_OF_ANOTHER):
        other = known.get(mode.removeprefix(_OF_ANOTHER))
        if other is None or not _is_up(other):
            return ""
        info, mode = other, other.network  # Docker lets nobody join one that has joined another itself
    return place.address if mode == _HOST else info.address


def _is_up(info: ContainerInfo) -> bool:
    return info.state in ("running", "paused")


def _container_health(info: ContainerInfo, address: str) -> tuple[InstanceHealth, str]:
    """A running one that is to be called at a port, and has no address where that would be, is not to get calls."""
    match info.state, info.health:
        case "running", "" | "healthy" if info.port and not address:
            return InstanceHealth.UNKNOWN, f"it has no address that is known (its network: {info.network[:32] or 'none'})"
        case "running", "" | "healthy":
            return InstanceHealth.HEALTHY, ""
        case "running", "starting":
            return InstanceHealth.UNKNOWN, "its health check has not passed yet"
        case "running", _:
            return InstanceHealth.UNHEALTHY, "its health check fails"
        case "created", _:
            return InstanceHealth.UNKNOWN, "it has not been started"
        case state, _:
            return InstanceHealth.UNHEALTHY, f"it is {state[:32] or 'in no state that is known'}"


def unanswered(instances: Iterable[Instance]) -> list[Instance]:
    """Containers as they were last seen, while Docker does not answer: they may run on, but nobody can tell."""
    return [replace(instance, health=InstanceHealth.UNKNOWN, reason="Docker does not answer") for instance in instances]


def bounded(instances: Sequence[Instance], most: int = MOST_BYTES) -> tuple[tuple[Instance, ...], int]:
    """As many of the first ones as one command can carry, and how many are left out."""
    size = 0
    for number, instance in enumerate(instances):
        size += len(_deterministic.encode(instance))
        if size > most:
            return tuple(instances[:number]), len(instances) - number
    return tuple(instances), 0


def revision(instances: Iterable[Instance]) -> int:
    """A digest of 63 bits, never 0: equal lists have equal ones on every node and after every start."""
    digest = blake2b(_deterministic.encode(list(instances)), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def differ(before: Sequence[Instance], now: Sequence[Instance]) -> bool:
    """Whether there is anything to tell. Other words for the same health are not: they may change all the time."""
    return len(before) != len(now) or any(replace(new, reason=old.reason) != old for old, new in zip(before, now, strict=True))
