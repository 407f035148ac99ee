"""The replicas of apps on this node as a component: makes of what Docker has what the cluster wants here, and tells how it fares.

It goes on while Docker is away: what ran runs, and what is to be done waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from msgspec.structs import replace

from hmcore.apps.records import Allocation, AllocationStatus, Generation, GivenPort, Machine, NodeStatuses
from hmcore.errors import LayerDown
from hmcore.records import Cluster, Registration
from node_agent.container.creation import NodeFacts, Wanted
from node_agent.container.executor import Files, NoFence
from node_agent.container.fencing.keeper import Keeper
from node_agent.container.images import Images
from node_agent.container.info import ContainerInfo
from node_agent.container.layer import ContainerLayer
from node_agent.container.rounds import Rounds
from node_agent.container.telling import Telling
from node_agent.container.wanted import known_fit, permitted, registered, wanted_of
from node_agent.waiting import woken

LOOK = 60.0  # seconds between two looks at what the node has, beside those that something sets off
BETWEEN = 2.0  # seconds at least


log = logging.getLogger(__name__)


class View(Protocol):
    """The replicated state, as far as it concerns this node."""

    @property
    def allocations(self) -> Mapping[str, Allocation] | None: ...
    @property
    def own_index(self) -> int:
        """The log index as of which they are known."""

    @property
    def generations(self) -> Mapping[str, Generation]: ...
    @property
    def statuses(self) -> NodeStatuses | None: ...
    @property
    def nodes(self) -> Mapping[str, object]: ...
    @property
    def registrations(self) -> Mapping[str, Registration]: ...
    @property
    def leader(self) -> str | None: ...
    @property
    def cluster(self) -> Cluster | None: ...


class Workload:
    """See node_agent.platform.lifecycle.Component. `wanted` and `statuses`: of the allocations here, by id; `wanted` None while nobody
    knows."""

    name = "apps"

    def __init__(
        self,
        me: str,
        *,
        view: View,
        layer: ContainerLayer,
        facts: Callable[[], NodeFacts | None],
        images: Images,
        files: Files,
        telling: Telling,
        on_change: Callable[[], None],
        fencing: Keeper | None = None,
        apps: bool = True,
        ports: Callable[[], Mapping[str, tuple[GivenPort, ...]] | None] = dict,
        before_removal: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`facts`: None while the node is not ready for containers. `on_change`: some replica fares otherwise than before, or is wanted no
        longer. `fencing`: without it nothing exclusive is started here. `apps`: the leader is told that replicas may be placed here.
        `ports`: see NetworkLayer.given. `before_removal`: see Executor."""
        self._me = me
        self._apps = apps
        self._view = view
        self._layer = layer
        self._telling = telling
        self._on_change = on_change
        self._images = images
        self._ports = ports
        self._has_told = False
        self._keeper = fencing
        self._fencing: Keeper | NoFence = fencing or NoFence()
        self._known: tuple[object, ...] = ()
        self.wanted: Mapping[str, Wanted] | None = None
        self.as_of = 0  # the log index as of which `wanted` is so
        self._recalled = False
        self._told_where: tuple[bool, str | None, int] | None = None  # member, leader, feature level
        self._registered: Registration | None = None
        self._look = asyncio.Event()
        self.statuses: Mapping[str, AllocationStatus] = {}
        self._rounds = Rounds(
            wanted=self._permitted,
            facts=facts,
            observe=self._observe,
            ends=layer.ends,
            going=layer.going,
            hands=lambda: layer.engine,
            images=images,
            files=files,
            on_statuses=self._tell,
            fencing=self._fencing,
            fit=self._fit,
            before_removal=before_removal,
        )

    # --- as a component

    async def initialize(self) -> None:
        """Nothing is needed: what is wanted comes with the log."""
        self._fencing.need(False)
        self.state_changed()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._rounds.run(), name="replicas")
            tasks.create_task(self._telling.run(), name="telling")
            tasks.create_task(self._take_stock(), name="what this node has")
            if self._keeper is not None:
                tasks.create_task(self._keeper.run(), name="lease")

    @property
    def serving(self) -> bool:
        """Not while Docker answers and the leader, who does not know it yet, would place nothing here."""
        return self._telling.is_open or self._layer.running is None

    async def check(self) -> str | None:
        return self._telling.trouble or (None if self._keeper is None else self._keeper.trouble)

    async def stop(self) -> None:
        """Containers run on."""

    # --- what others say

    def state_changed(self) -> None:
        """Something was applied."""
        view = self._view
        as_of, allocations = view.own_index, view.allocations
        known = (allocations, view.generations)
        if allocations is not None and any(new is not old for new, old in zip(known, self._known or (None, None), strict=True)):
            self._known = known
            self.wanted = wanted_of(allocations, view.generations)
            if not self._recalled:
                self._recalled = True
                before = view.statuses
                self._rounds.recall(() if before is None else before.allocations)
            self._notice_need()
            self._rounds.poke()
            self._on_change()
        if self.wanted is not None and allocations is not None:
            self.as_of = as_of
        self._notice(view)
        self._notice_registration(view)
        self._fencing.state_changed()

    def _notice(self, view: View) -> None:
        """What was told may be forgotten with this node, or not have reached another leader, or could not be told at a lower level."""
        told_where = self._me in view.nodes, view.leader, 0 if view.cluster is None else view.cluster.feature_level
        if told_where != self._told_where:
            self._told_where = told_where
            self._telling.anew()
            self._fencing.poke()

    def _notice_registration(self, view: View) -> None:
        """What is to stop may be waiting for the cluster to know it as unfit."""
        registered = view.registrations.get(self._me)
        if registered is not self._registered:
            self._registered = registered
            if any(want.allocation.stop for want in (self.wanted or {}).values()):
                self._rounds.poke()

    def _notice_need(self) -> None:
        """Of a lease for what is exclusive."""
        exclusive = [want for want in (self.wanted or {}).values() if want.exclusive]
        ending = all(want.allocation.stop for want in exclusive)
        self._fencing.need(bool(exclusive), forsaken=ending and self._layer.running is None)

    def containers_changed(self) -> None:
        self._notice_need()
        self._rounds.poke()
        self._look.set()

    def ports_changed(self) -> None:
        """Other ports were given out for replicas here."""
        if self._has_told:
            self._telling.statuses(self._with_ports())

    def poke(self) -> None:
        """What containers here have in common is known, or is another."""
        self._rounds.poke()

    # --- what others ask

    def containers(self) -> Mapping[str, ContainerInfo]:
        """Our containers as the registry shall know them."""
        return registered(self._layer.containers(), self.wanted or {}, self.statuses)

    def _permitted(self) -> Mapping[str, Wanted] | None:
        return permitted(self.wanted, self._fencing.permit()) if self._recalled and self.wanted is not None else None

    def _fit(self) -> frozenset[str] | None:
        return None if self._view.leader is None else known_fit(self._view.registrations.get(self._me))

    async def _observe(self) -> Mapping[str, ContainerInfo]:
        containers = await self._layer.observe()
        self._fencing.cover(containers)
        return containers

    # --- what is told

    def _tell(self, statuses: Mapping[str, AllocationStatus]) -> None:
        self.statuses = statuses
        self._has_told = True
        self._telling.statuses(self._with_ports())
        self._on_change()

    def _with_ports(self) -> list[AllocationStatus]:
        """While nobody knows which ports were given out, they are as they were told last: the agent has just started."""
        given = self._ports()
        if given is None:
            before = self._view.statuses
            given = {} if before is None else {status.id: status.ports for status in before.allocations}
        return [replace(status, ports=given.get(id, ())) for id, status in self.statuses.items()]

    async def _take_stock(self) -> None:
        while True:
            self._look.clear()
            found = await self._layer.machine(self._me)
            if found is None and self._layer.running is not None:  # it is busy: that is no reason to place nothing here
                await asyncio.sleep(BETWEEN)
                continue
            if found is not None:
                await self._look_at_images()
            self._telling.machine(replace(found or Machine(node=self._me), apps=self._apps))
            if found is not None:
                await asyncio.sleep(BETWEEN)
            await woken(self._look, LOOK)

    async def _look_at_images(self) -> None:
        try:
            await self._images.look()
        except LayerDown as error:
            log.debug("%s", error)  # the next look will tell
