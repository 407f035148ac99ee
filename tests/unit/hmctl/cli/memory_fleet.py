"""Agents that answer flows, events and the state without a network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hmcore import api
from hmcore.config.inventory import Host
from hmcore.errors import CallRefused, ConnectionLost, PeerUnreachable
from hmcore.records import Event, Flow, Instance, NodeEvent
from hmctl.client import Via

NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
NAMES = ("node1", "node2", "node3")


def flow(node: str, container: str, peer: str, **more: Any) -> Flow:
    values: dict[str, Any] = {
        "node": node,
        "container": container,
        "container_id": f"{container}-id",
        "service": container,
        "peer": peer,
        "protocol": "tcp",
        "bytes_in": 0,
        "bytes_out": 0,
        "packets_in": 0,
        "packets_out": 0,
    }
    return Flow(**{**values, **more})


def event(node: str, sequence: int, message: str, at: float = 0.0, container: str = "web-1", kind: str = "exec", **more: str) -> NodeEvent:
    return NodeEvent(
        sequence=sequence,
        unix_time=NOW + at,
        kind=kind,
        node=node,
        container=container,
        container_id=f"{container}-id",
        message=f"{kind} {message}",
        attributes=more,
    )


def replicated(index: int, kind: str, subject: str, message: str = "", at: float = 0.0, author: str = "") -> Event:
    return Event(index=index, kind=kind, subject=subject, message=message, author=author, unix_time=NOW + at)


@dataclass
class Fleet:
    """What the agents say; tests change it. A node in `down` cannot be reached, one in `refusing` has no eBPF layer.

    `on_poll` is called with the node's name at each long poll and each look at the state by a follower, and may change everything.
    """

    flows: dict[str, list[Flow]] = field(default_factory=lambda: {name: [] for name in NAMES})
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    events: dict[str, list[NodeEvent]] = field(default_factory=lambda: {name: [] for name in NAMES})
    journal: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 1))
    lost: dict[str, int] = field(default_factory=dict)
    state: list[Event] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    index: int = 10
    leader: str = "node1"
    down: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    connected: list[tuple[str, Via]] = field(default_factory=list)
    on_poll: Any = None

    async def connect(self, host: Host, access: Any, *, via: Via, timeout: float, connector: Any) -> Agent:
        self.connected.append((host.name, via))
        if host.name in self.down:
            raise PeerUnreachable("no answer within 2 s", host=host.name)
        return Agent(host.name, self)


@dataclass
class Agent:
    name: str
    fleet: Fleet

    async def close(self) -> None:
        pass

    async def state(self) -> api.StateReply:
        reply: api.StateReply = await self.call(api.STATE, api.StateRequest())
        return reply

    async def call(self, method: api.Method[Any, Any], request: Any, *, timeout: float | None = None) -> Any:
        fleet = self.fleet
        fleet.asked.append((self.name, request))
        if self.name in fleet.down:
            raise ConnectionLost("nothing listens there any more", host=self.name)
        match request:
            case api.StateRequest():
                return self._state(request)
            case api.EventsRequest():
                return await self._events(request)
        if method is api.REGISTRY:
            return api.RegistryReply(index=fleet.index, instances=fleet.instances)
        self._refuse()
        return api.FlowsReply(flows=fleet.flows[self.name], unix_time=NOW, names=fleet.names.get(self.name, {}))

    def _state(self, request: api.StateRequest) -> api.StateReply:
        fleet = self.fleet
        if request.since == fleet.index:
            return api.StateReply(index=fleet.index, leader=fleet.leader, term=1, nodes=[], unchanged=True)
        return api.StateReply(index=fleet.index, leader=fleet.leader, term=1, nodes=[], events=fleet.state)

    async def _events(self, request: api.EventsRequest) -> api.EventsReply:
        fleet = self.fleet
        self._refuse()
        journal = fleet.journal[self.name]
        after = 0 if request.journal not in (0, journal) else request.after
        found = self._after(after, request)
        if not found and request.wait:
            if fleet.on_poll:
                fleet.on_poll(self.name)
            await asyncio.sleep(0.05)
            self._fail_if_down()
            found = self._after(after, request)
        if request.after < 0:
            found = found[-request.limit :]
        last = max([each.sequence for each in fleet.events[self.name]], default=0)
        if len(found) > request.limit:  # as the real journal pages: there is more after these
            last = found[request.limit - 1].sequence
        return api.EventsReply(
            events=found[: request.limit], last=last, lost=fleet.lost.pop(self.name, 0), journal=fleet.journal[self.name]
        )

    def _after(self, after: int, request: api.EventsRequest) -> list[NodeEvent]:
        events = [each for each in self.fleet.events[self.name] if request.container in ("", each.container)]
        return [each for each in events if each.sequence > after and (not request.kinds or each.kind in request.kinds)]

    def _fail_if_down(self) -> None:
        if self.name in self.fleet.down:
            raise ConnectionLost("nothing listens there any more", host=self.name)

    def _refuse(self) -> None:
        if self.name in self.fleet.refusing:
            raise CallRefused("bcc is not installed", host=self.name, fix="apt-get install python3-bpfcc")
