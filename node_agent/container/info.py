"""What Docker's list of containers says of ours. Pure and total: whatever Docker, or whoever wrote the labels, put there, it gives a value.

Everything comes from the one list call (`GET /containers/json`): nothing is asked per container.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

CLUSTER = "hypermesh.cluster"  # on every container of ours, with the cluster's id
APP = "hypermesh.app"
SERVICE = "hypermesh.service"
ALLOCATION = "hypermesh.allocation"  # on every container that an allocation is made of; nobody else's is ever stopped or removed
REVISION = "hypermesh.revision"
GENERATION = "hypermesh.generation"
EXCLUSIVE = "hypermesh.exclusive"  # 1: it ends with the node's lease (fencing/)
GRACE = "hypermesh.stop-grace"  # seconds: how long it may take to end, also when nobody knows its spec any more
PORT = "hypermesh.port"
WEIGHT = "hypermesh.weight"
PRIORITY = "hypermesh.priority"
VERSION = "hypermesh.version"

ALIVE = ("running", "paused", "restarting")  # states, in Docker's words: it can be told to end
IDLE = ("created", "exited", "dead")  # it can be removed

DEFAULT_WEIGHT = 100
MOST_WEIGHT = 1_000_000
MOST_PRIORITY = 1_000_000
MOST_GRACE = 86_400.0  # seconds
DEFAULT_GRACE = 10.0
MOST_COMPLAINT = 200  # characters: statuses are replicated

_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)")  # the end of Docker's status: "Up 5 minutes (health: starting)"
_EXITED = re.compile(r"(?:Exited|Restarting) \((-?[0-9]{1,10})\)")  # its beginning: "Exited (137) 5 minutes ago"


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One container of ours.

    `service`: its label, else its name. `state`: Docker's word (created, running, paused, restarting, exited ...). `health`: healthy,
    unhealthy or starting; empty when it has no health check. `address`: on its own network, which only its node may be able to reach;
    empty when it has none. `network`: Docker's mode, such as bridge, host (it uses its node's), none, or container:ID (another one's).
    `gateway`: how its node looks from there. `port`: its label, else the lowest TCP port that its image exposes; 0 when it says nothing.
    `started`: seconds since 1970 when Docker made it (the list does not tell later starts). `exit_code`: None unless it has ended.
    `image_id`: what `image` was when it was made, `sha256:...`. `complaint`: what its health check said when it failed; the list does not
    tell, so it is asked for (`complaint_of`) once it is unhealthy. `serves`: it, or its image, names a port, or it uses its node's network:
    others may be led to it.
    """

    id: str
    name: str
    service: str
    image: str = ""
    state: str = "running"
    health: str = ""
    address: str = ""
    network: str = ""
    gateway: str = ""
    port: int = 0
    version: str = ""
    weight: int = DEFAULT_WEIGHT
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    started: float = 0.0
    exit_code: int | None = None
    image_id: str = ""
    complaint: str = ""
    serves: bool = True

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def allocation(self) -> str:
        """Of which it is the container; empty: of none, somebody started it by hand."""
        return self.labels.get(ALLOCATION, "")

    @property
    def revision(self) -> str:
        return self.labels.get(REVISION, "")

    @property
    def grace(self) -> float:
        """Seconds that it may take to end once it was told to."""
        label = self.labels.get(GRACE, "")
        return min(float(label), MOST_GRACE) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", label) else DEFAULT_GRACE


def containers_of(answer: object) -> dict[str, ContainerInfo]:
    """By id: what Docker's list holds. An entry without an id is left out."""
    found = (container_of(entry) for entry in (answer if isinstance(answer, list) else []))
    return {info.id: info for info in found if info is not None}


def container_of(entry: object) -> ContainerInfo | None:
    """One entry of the list; None when it names no container."""
    if not isinstance(entry, dict) or not isinstance(entry.get("Id"), str) or not entry["Id"]:
        return None
    labels = {key: value for key, value in _dict(entry.get("Labels")).items() if isinstance(key, str) and isinstance(value, str)}
    name = _name(entry)
    address, gateway = _network(entry)
    network = _text(_dict(entry.get("HostConfig")).get("NetworkMode"))
    port = _number(labels.get(PORT), 65_535, _exposed(entry))
    return ContainerInfo(
        id=entry["Id"],
        name=name,
        service=labels.get(SERVICE) or name,
        image=_text(entry.get("Image")),
        state=_text(entry.get("State")),
        health=_health(_text(entry.get("Status"))),
        address=address,
        network=network,
        gateway=gateway,
        port=port,
        version=labels.get(VERSION, ""),
        weight=_number(labels.get(WEIGHT), MOST_WEIGHT, DEFAULT_WEIGHT),
        priority=_number(labels.get(PRIORITY), MOST_PRIORITY, 0),
        labels=labels,
        started=_seconds(entry.get("Created")),
        exit_code=_exit_code(_text(entry.get("Status"))),
        image_id=_text(entry.get("ImageID")),
        serves=bool(port or _list(entry.get("Ports")) or network == "host"),
    )


def complaint_of(inspected: object) -> str:
    """What its health check said last, or ended with, as `GET /containers/ID/json` has it; empty: nothing is known."""
    entries = _list(_dict(_dict(_dict(inspected).get("State")).get("Health")).get("Log"))
    failed = [entry for entry in map(_dict, entries) if entry.get("ExitCode") != 0]
    if not failed:
        return ""
    said = " ".join(_text(failed[-1].get("Output")).split())
    return said[:MOST_COMPLAINT] or f"it ends with {failed[-1].get('ExitCode')}"


def _name(entry: Mapping[str, object]) -> str:
    """Links give a container further names, with a slash in them: `/web` is its own, `/proxy/web` is not."""
    names = [name.removeprefix("/") for name in _list(entry.get("Names")) if isinstance(name, str)]
    own = [name for name in names if name and "/" not in name]
    return own[0] if own else str(entry["Id"])[:12]


def _health(status: str) -> str:
    found = _HEALTH.search(status)
    return found[1] if found else ""


def _exit_code(status: str) -> int | None:
    found = _EXITED.match(status)
    return int(found[1]) if found else None


def _network(entry: Mapping[str, object]) -> tuple[str, str]:
    """Its address and its gateway on the first network that gave it one, by the networks' names."""
    networks = _dict(_dict(entry.get("NetworkSettings")).get("Networks"))
    for name in sorted(key for key in networks if isinstance(key, str)):
        network = _dict(networks[name])
        for address, gateway in (("IPAddress", "Gateway"), ("GlobalIPv6Address", "IPv6Gateway")):
            if found := _address(network.get(address)):
                return found, _address(network.get(gateway))
    return "", ""


def _exposed(entry: Mapping[str, object]) -> int:
    ports = (_dict(port) for port in _list(entry.get("Ports")))
    numbers = (port.get("PrivatePort") for port in ports if port.get("Type") == "tcp")
    return min((number for number in numbers if isinstance(number, int) and 0 < number < 65_536), default=0)


def _number(label: str | None, most: int, default: int) -> int:
    """A label's number; the default when it is none, or out of bounds."""
    if label is None or not re.fullmatch(r"[0-9]{1,9}", label) or int(label) > most:
        return default
    return int(label)


def _address(value: object) -> str:
    try:
        return str(ipaddress.ip_address(value)) if isinstance(value, str) else ""
    except ValueError:
        return ""


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else 0.0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> dict[object, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
