"""Who talks to whom: what the nodes counted, with names for the peers, sorted, and compared with a moment ago. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from hmcore.api import FlowsReply
from hmcore.errors import HyperMeshError
from hmcore.records import Flow


class Sort(StrEnum):
    BYTES = "bytes"
    PACKETS = "packets"
    CONNECTIONS = "connections"


class FlowView(msgspec.Struct, frozen=True, kw_only=True):
    """One flow of `hmctl flows -o json`. `peer_name`: who it is, as NODE or NODE/CONTAINER; null when the cluster does not know it."""

    node: str
    container: str
    container_id: str
    service: str
    peer: str
    peer_name: str | None
    protocol: str
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    connections_in: int
    connections_out: int

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return self.node, self.container_id, self.container, self.peer, self.protocol


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A node that could not tell, and why."""

    node: str
    error: str
    fix: str | None


class FlowList(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl flows -o json`. `omitted`: flows beyond --limit."""

    flows: list[FlowView]
    omitted: int
    problems: list[Problem]


class FlowRate(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `hmctl flows -f -o json`: a flow that moved within the last `seconds`. `time` is RFC 3339."""

    time: str
    seconds: float
    node: str
    container: str
    container_id: str
    service: str
    peer: str
    peer_name: str | None
    protocol: str
    bytes_in_per_second: float
    bytes_out_per_second: float
    packets_in_per_second: float
    packets_out_per_second: float
    connections_in_per_second: float
    connections_out_per_second: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which flows. Names may hold * and ?; a container may be given as NODE/CONTAINER, too."""

    container: str | None = None
    service: str | None = None

    def __call__(self, flow: FlowView) -> bool:
        names = (flow.container, f"{flow.node}/{flow.container}")
        is_container = self.container is None or any(fnmatchcase(name, self.container) for name in names) or self._is_id(flow.container_id)
        return is_container and (self.service is None or fnmatchcase(flow.service, self.service))

    def _is_id(self, container_id: str) -> bool:
        return self.container is not None and len(self.container) >= 12 and container_id.startswith(self.container)


def views(replies: Mapping[str, FlowsReply], nodes: Mapping[str, str]) -> list[FlowView]:
    """All flows. `nodes`: the nodes' names by address."""
    return [_view(flow, reply.names, nodes) for reply in replies.values() for flow in reply.flows]


def _view(flow: Flow, names: Mapping[str, str], nodes: Mapping[str, str]) -> FlowView:
    values = {name: getattr(flow, name) for name in flow.__struct_fields__}
    return FlowView(**values, peer_name=peer_name(flow.node, flow.peer, names, nodes))


def peer_name(node: str, peer: str, names: Mapping[str, str], nodes: Mapping[str, str]) -> str | None:
    """Who `peer` is, seen from `node`: its own containers have addresses (`names`) that mean others elsewhere; the nodes' do not."""
    if peer in nodes:
        return nodes[peer]
    if peer in names:
        return node if names[peer] == node else f"{node}/{names[peer]}"
    try:
        return "itself" if ipaddress.ip_address(peer).is_loopback else None
    except ValueError:
        return None


def by_size(flows: Iterable[FlowView], sort: Sort) -> list[FlowView]:
    """The largest first."""

    def size(flow: FlowView) -> int:
        match sort:
            case Sort.BYTES:
                return flow.bytes_in + flow.bytes_out
            case Sort.PACKETS:
                return flow.packets_in + flow.packets_out
            case Sort.CONNECTIONS:
                return flow.connections_in + flow.connections_out

    return sorted(flows, key=lambda flow: (-size(flow), flow.key))


def problems(answers: Mapping[str, object]) -> list[Problem]:
    """The nodes that did not answer."""
    return [
        Problem(node=name, error=answer.message, fix=answer.fix) for name, answer in answers.items() if isinstance(answer, HyperMeshError)
    ]


def exit_code(asked: int, failed: int) -> int:
    """0: everybody answered; 3: some did; 4: nobody."""
    return 0 if failed == 0 else 4 if failed >= asked else 3


@dataclass(frozen=True, slots=True)
class Sample:
    """What one node counted, and when it said so on our own clock: the node's may jump."""

    at: float
    flows: Mapping[tuple[str, str, str, str, str], FlowView]

    @classmethod
    def of(cls, at: float, flows: Sequence[FlowView]) -> Sample:
        return cls(at, {flow.key: flow for flow in flows})


COUNTERS = ("bytes_in", "bytes_out", "packets_in", "packets_out", "connections_in", "connections_out")


def rates(before: Sample, after: Sample, time: str) -> list[FlowRate]:
    """What moved between two samples of a node. Counters that went back began anew: the node was restarted, or the flow was forgotten.

    A flow without a container was there before: its container is gone, and its agent, restarted, has forgotten the name.
    """
    seconds = after.at - before.at
    if seconds <= 0:
        return []
    alive = [(key, flow) for key, flow in after.flows.items() if flow.container_id or key in before.flows]
    moved = [(flow, _moved(before.flows.get(key), flow)) for key, flow in alive]
    return [_rate(flow, counts, time, seconds) for flow, counts in moved if any(counts.values())]


def _rate(flow: FlowView, moved: Mapping[str, int], time: str, seconds: float) -> FlowRate:
    values: dict[str, Any] = {name: getattr(flow, name) for name in flow.__struct_fields__ if name not in COUNTERS}
    values |= {f"{name}_per_second": round(count / seconds, 3) for name, count in moved.items()}
    return FlowRate(time=time, seconds=round(seconds, 3), **values)


def _moved(before: FlowView | None, after: FlowView) -> dict[str, int]:
    now = {name: getattr(after, name) for name in COUNTERS}
    then = {name: getattr(before, name) for name in COUNTERS} if before is not None else {}
    if any(count < then.get(name, 0) for name, count in now.items()):
        return now
    return {name: count - then.get(name, 0) for name, count in now.items()}
