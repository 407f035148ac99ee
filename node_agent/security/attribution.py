"""Whose flows and events they are: from cgroups to containers, by name. Pure.

The kernel knows cgroups, their directories the containers' ids, and Docker the names. What a container was called is remembered when it is
gone, for its counters and events outlive it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hmcore.records import Flow, NodeEvent
from node_agent.container.info import ContainerInfo
from node_agent.security.maps import TCP_STATES, ExecRecord, RawFlow, Record, TcpRecord

REMEMBERED = 4096  # containers
SHORT = 12  # characters of an id, as Docker shows it
PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmp6", 132: "sctp"}


@dataclass(frozen=True, slots=True)
class Owner:
    """A container by all its names. Without `id` it was gone before anybody saw its directory: the kernel's number is all there is."""

    id: str
    name: str
    service: str = ""

    def is_called(self, wanted: str) -> bool:
        """By its name, or by (the beginning of) its id."""
        return wanted == self.name or (len(wanted) >= SHORT and self.id.startswith(wanted))


class Attribution:
    """The containers of a node, gone ones included, as far as remembered."""

    def __init__(self, node: str, *, remembered: int = REMEMBERED) -> None:
        self._node = node
        self._most = remembered
        self._owners: dict[str, Owner] = {}
        self._names: dict[str, str] = {}

    def learn(self, containers: Mapping[str, ContainerInfo]) -> None:
        """What there is now. Who has been gone longest is forgotten first, once there are too many."""
        for info in containers.values():
            self._owners.pop(info.id, None)
            self._owners[info.id] = Owner(info.id, info.name, info.service)
        for gone in list(self._owners)[: max(0, len(self._owners) - max(self._most, len(containers)))]:
            del self._owners[gone]
        running = [info for info in containers.values() if info.running]
        self._names = {info.gateway: self._node for info in running if info.gateway}
        self._names |= {info.address: info.name for info in running if info.address}

    @property
    def names(self) -> Mapping[str, str]:
        """Who has which address, seen from the containers: themselves, and the node at their gateways."""
        return self._names

    def knows(self, container: str) -> bool:
        return container in self._owners

    def owner(self, cgroup: int, container: str | None) -> Owner:
        """`container`: the id that belongs to the cgroup, if it is known."""
        if container is None:
            return Owner("", f"cgroup-{cgroup}")
        return self._owners.get(container) or Owner(container, container[:SHORT])

    def flows(self, raw: Iterable[RawFlow], cgroups: Mapping[int, str]) -> list[Flow]:
        """By container, peer and protocol: a container that was started again has a cgroup for each of its lives."""
        sums: dict[tuple[Owner, str, int], list[int]] = {}
        for flow in raw:
            owner = self.owner(flow.cgroup, cgroups.get(flow.cgroup))
            counts = sums.setdefault((owner, flow.peer, flow.protocol), [0] * 6)
            for place, count in enumerate(
                (flow.bytes_in, flow.bytes_out, flow.packets_in, flow.packets_out, flow.connections_in, flow.connections_out)
            ):
                counts[place] += count
        return [self._flow(owner, peer, protocol, counts) for (owner, peer, protocol), counts in sums.items()]

    def _flow(self, owner: Owner, peer: str, protocol: int, counts: list[int]) -> Flow:
        bytes_in, bytes_out, packets_in, packets_out, connections_in, connections_out = counts
        return Flow(
            node=self._node,
            container=owner.name,
            container_id=owner.id,
            service=owner.service,
            peer=peer,
            protocol=PROTOCOLS.get(protocol, str(protocol)),
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            packets_in=packets_in,
            packets_out=packets_out,
            connections_in=connections_in,
            connections_out=connections_out,
        )

    def event(self, sequence: int, unix_time: float, record: Record, container: str | None) -> NodeEvent:
        owner = self.owner(record.cgroup, container)
        kind, message, attributes = described(record)
        return NodeEvent(
            sequence=sequence,
            unix_time=unix_time,
            kind=kind,
            node=self._node,
            container=owner.name,
            container_id=owner.id,
            message=message,
            attributes=attributes | ({"service": owner.service} if owner.service else {}),
        )


def kind_of(record: Record) -> str:
    match record:
        case ExecRecord():
            return "exec"
        case TcpRecord():
            return "tcp"


def described(record: Record) -> tuple[str, str, dict[str, str]]:
    """An event's kind, words and attributes."""
    match record:
        case ExecRecord():
            name, known = program(record)
            message = f"exec {name} ({known}pid {record.pid}, uid {record.uid})"
            return "exec", message, {"filename": record.filename, "comm": record.comm, "pid": str(record.pid), "uid": str(record.uid)}
        case TcpRecord():
            local, peer = endpoint(record.local, record.local_port), endpoint(record.peer, record.peer_port)
            old, new = (TCP_STATES.get(state, str(state)) for state in (record.old, record.new))
            attributes = {"local": local, "peer": peer, "old": old, "new": new}
            match record.old:
                case 2:  # SYN_SENT: the container called
                    return "tcp", f"{local} -> {peer} {new}", attributes | {"direction": "out"}
                case 3:  # SYN_RECV: it was called
                    return "tcp", f"{peer} -> {local} {new}", attributes | {"direction": "in"}
                case _:
                    return "tcp", f"{local} <-> {peer} {new}", attributes


def program(record: ExecRecord) -> tuple[str, str]:
    """What to call a program, and its file where that is said beside it: `/proc/self/exe`, which busybox executes for its applets, or a
    file that was opened before names nothing. The task's name does, unless the kernel took that from the file, too."""
    stands_in = record.filename.startswith(("/proc/self/", "/dev/fd/"))
    if stands_in and record.comm not in ("", record.filename.rpartition("/")[2]):
        return record.comm, f"{record.filename}, "
    return record.filename, ""


def endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def wall_time(record_ns: int, *, now_ns: int, now: float) -> float:
    """When it happened by the wall clock: so long before now. The kernel's clock never jumps, and what it told last is always recent, so
    a wall clock that was set meanwhile moves only what happens from then on."""
    return now - max(0, now_ns - record_ns) / 1e9
