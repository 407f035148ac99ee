"""What is done to the kernel's links, routes and neighbours: values that plan.py decides on and links.py carries out."""

from __future__ import annotations

from dataclasses import dataclass

from node_agent.network.facts import Forwarding, Neighbour, Route, Tunnel


@dataclass(frozen=True, slots=True)
class MakeBridge:
    """The containers', as Docker made it, where somebody has taken it away."""

    name: str
    mtu: int


@dataclass(frozen=True, slots=True)
class PutAddress:
    """In CIDR notation, as configured."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class MakeTunnel:
    """Of this name; one that is there already is removed first."""

    name: str
    tunnel: Tunnel


@dataclass(frozen=True, slots=True)
class DropTunnel:
    name: str


@dataclass(frozen=True, slots=True)
class RaiseLink:
    name: str


@dataclass(frozen=True, slots=True)
class PutNeighbour:
    neighbour: Neighbour


@dataclass(frozen=True, slots=True)
class DropNeighbour:
    neighbour: Neighbour


@dataclass(frozen=True, slots=True)
class PutForwarding:
    """In the place of another one for the same hardware address."""

    forwarding: Forwarding


@dataclass(frozen=True, slots=True)
class DropForwarding:
    forwarding: Forwarding


@dataclass(frozen=True, slots=True)
class PutRoute:
    """In the place of another one of ours to the same destination."""

    route: Route


@dataclass(frozen=True, slots=True)
class DropRoute:
    route: Route


@dataclass(frozen=True, slots=True)
class LetReflect:
    """Of a bridge's port: what came in by it may leave by it."""

    name: str


@dataclass(frozen=True, slots=True)
class SetSysctl:
    name: str
    value: str


Action = (
    MakeBridge
    | PutAddress
    | MakeTunnel
    | DropTunnel
    | RaiseLink
    | PutNeighbour
    | DropNeighbour
    | PutForwarding
    | DropForwarding
    | PutRoute
    | DropRoute
    | LetReflect
    | SetSysctl
)
