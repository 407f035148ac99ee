"""What the scheduler is given and what it answers. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hmcore.apps.constraints import Platform
from hmcore.apps.explanation import Explanation
from hmcore.apps.records import Allocation
from hmcore.apps.spec import AppSpec, Resources, ServiceSpec, Volume
from hmcore.records import Node, NodeState

_FIT = (NodeState.READY, NodeState.DEGRADED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A node that replicas might run on.

    `capacity`: all that it has for apps; `images`: as Machine tells them; `volumes`: Docker's names of those there.
    `engine`: its Docker answers. `apps`: it runs any, by its configuration.
    """

    node: Node
    capacity: Resources
    platform: Platform = field(default_factory=Platform)
    images: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    engine: bool = True
    apps: bool = True

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def obstacle(self) -> str:
        """Why nothing new goes there, in a word or two; empty: nothing speaks against it."""
        if self.node.state not in _FIT:
            return self.node.state.value
        return "" if self.engine else "without Docker"

    @property
    def open(self) -> bool:
        """Replicas may be placed there."""
        return self.apps and not self.obstacle

    @property
    def emptied(self) -> bool:
        """What is there shall leave."""
        return not self.apps or self.node.state in (NodeState.DRAINING, NodeState.DRAINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An allocation that there is, the spec that it is made of, and the volumes that it mounts (`volumes_of`)."""

    allocation: Allocation
    spec: ServiceSpec
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A place is wanted for a replica. `reason` is why, in words, and decides nothing.

    `image_id`: what candidates know its image by: the id, or the digest by which a registry has it; empty: it is not known.
    `node`: only there (a global service has a request for every node). `instead_of`: the ids of the allocations that will stop for it:
    these take up room as long as they are there, but are not counted as replicas where they are spread evenly. `shunned`: nodes where it
    could not be started a while ago: not there.
    """

    app: str
    service: str
    slot: int
    spec: ServiceSpec
    image_id: str = ""
    volumes: tuple[Volume, ...] = ()
    reason: str = ""
    node: str = ""
    instead_of: tuple[str, ...] = ()
    shunned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    request: Request
    node: str


class Outlook(StrEnum):
    """Of what finds no place beside all that is there now."""

    NONE = "none"  # not known to change
    SOON = "soon"  # there is one once what was stopped is gone
    INSTEAD = "instead"  # there is one once those that it is to replace are gone, and not before


@dataclass(frozen=True, slots=True)
class Pending:
    request: Request
    explanation: Explanation
    outlook: Outlook = Outlook.NONE


Outcome = Assignment | Pending


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Of a global service. `nodes`: it must run there. `keep`: what is there stays, and nothing new is started (a node that is suspect,
    down or without Docker). Anywhere else it must not run. `explanation`: of all that are not in `nodes`."""

    nodes: tuple[str, ...]
    keep: tuple[str, ...]
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Move:
    """`allocation` were better off on `node`; why, in words."""

    allocation: Allocation
    node: str
    reason: str


def volumes_of(app: AppSpec, service: str) -> tuple[Volume, ...]:
    """The named volumes that a service mounts."""
    used = {mount.source for mount in app.services[service].container.mounts if mount.kind == "volume"}
    return tuple(app.volumes[name] for name in sorted(used) if name in app.volumes)
