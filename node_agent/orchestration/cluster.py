"""The cluster as this node sees it. A control node holds the replicated state itself, a worker is told: both look the same from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hmcore.api import Formation
from hmcore.apps.records import Allocation, Generation, Image, NodeStatuses, Subnet
from hmcore.errors import NoQuorum
from hmcore.records import Cluster, Event, Maintenance, Mute, Node, RaftReport, Registration
from node_agent.consensus.statemachine.commands import Receipt


class ClusterView(Protocol):
    @property
    def index(self) -> int:
        """The log index that the rest is from."""

    @property
    def cluster(self) -> Cluster | None: ...
    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def registrations(self) -> Mapping[str, Registration]:
        """The instances of each node."""

    @property
    def maintenance(self) -> Mapping[str, Maintenance]:
        """By target."""

    @property
    def mutes(self) -> Mapping[str, Mute]: ...
    @property
    def generations(self) -> Mapping[str, Generation]:
        """Of apps, by `app@number`."""

    @property
    def subnets(self) -> Mapping[str, Subnet]:
        """Of nodes' containers, by node."""

    @property
    def images(self) -> Mapping[str, Image]:
        """By Image.key."""

    @property
    def allocations(self) -> Mapping[str, Allocation] | None:
        """This node's own, by id; None while nobody knows."""

    @property
    def own_index(self) -> int:
        """The log index as of which they are known: of a worker, which follows them apart from the rest, another than `index`."""

    @property
    def statuses(self) -> NodeStatuses | None:
        """Of those, as this node told them last; None: never."""

    @property
    def events(self) -> Sequence[Event]: ...
    @property
    def leader(self) -> str | None: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def no_quorum(self) -> NoQuorum | None:
        """That nothing can be decided for want of voters, once this node is sure of it: not while an election may still end that."""

    @property
    def fresh(self) -> bool:
        """Whether all this is how things are now, as far as anybody can tell."""

    @property
    def formed(self) -> bool:
        """Whether the cluster exists, as far as this node knows."""

    def formation(self) -> Formation: ...
    def report(self) -> RaftReport: ...


class Proposer(ClusterView, Protocol):
    """A control node's view: it can write while it leads."""

    @property
    def caught_up(self) -> bool:
        """Whether it leads and knows all that was decided before it did. Sooner nothing can be judged by what it knows."""

    def receipt(self, request_id: str) -> Receipt | None:
        """What came of a request, if it was carried out lately."""

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]: ...
