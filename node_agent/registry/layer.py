"""The registry layer: tells this node's own instances, knows everybody's, and replicates them while this node leads.

Renewals ride on heartbeats: `renewal` says what the next one is to carry. A list that differs from the replicated one is carried by every
heartbeat until the log has it, so that no single lost message matters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from hmcore.api import InstancesReply, RegistryReply
from hmcore.errors import InvalidRequest
from hmcore.records import ComponentReport, ComponentState, Instance
from node_agent.container.info import ContainerInfo
from node_agent.orchestration.cluster import ClusterView
from node_agent.registry import own
from node_agent.registry.damping import LEAST, Track, damp
from node_agent.registry.own import PLATFORM, Place
from node_agent.registry.registry import Catalogue
from node_agent.registry.replication import Replication
from node_agent.waiting import woken

SETTLING = 10.0  # seconds for which a starting agent waits for its components before it tells what it runs

_STARTING = (ComponentState.UNINITIALIZED, ComponentState.INITIALIZING)

log = logging.getLogger(__name__)


class RegistryLayer:
    """See node_agent.platform.lifecycle.Component."""

    name = "registry"
    serving = True

    def __init__(
        self,
        place: Place,
        *,
        refresh: float,
        cluster: ClusterView,
        components: Callable[[], Mapping[str, ComponentReport]],
        containers: Callable[[], Mapping[str, ContainerInfo] | None],
        unwatched: Callable[[], Mapping[str, str]] = dict,
        incarnation: Callable[[], int],
        latency_ms: Callable[[], dict[str, float]],
        failures: Callable[[], dict[str, int]],
        replication: Replication | None,
        on_told: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`containers` gives None while Docker does not answer. `unwatched`: see own.py. `latency_ms` and `failures` are of this
        node's own calls. `replication`: what a control node does when it leads. `on_told`: `instances` answers otherwise than before."""
        self._place = place
        self._refresh = refresh
        self._cluster = cluster
        self._components = components
        self._containers = containers
        self._unwatched = unwatched
        self._incarnation = incarnation
        self._latency_ms = latency_ms
        self._failures = failures
        self._replication = replication
        self._on_told = on_told
        self._clock = clock
        self._catalogue = Catalogue()
        self._told: tuple[Instance, ...] | None = None
        self._revision = 0
        self._left_out = 0
        self._tracks: Mapping[str, Track] = {}
        self._again_at: float | None = None  # when something that flapped may be told as it is
        self._told_at = float("-inf")
        self._changed = asyncio.Event()
        self._renew_at = 0.0
        self._records: tuple[object, object] = (None, None)

    # --- as a component

    async def initialize(self) -> None:
        """Nothing is needed: what is known comes with the log."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell(), name="own instances")
            if self._replication is not None:
                tasks.create_task(self._replication.run(), name="registry of the leader")

    async def check(self) -> str | None:
        if self._left_out:
            return f"{self._left_out} containers are not registered: there are more than the registry can carry for one node"
        return None if self._replication is None else self._replication.trouble

    async def stop(self) -> None:
        """Nothing is held."""

    # --- what others say

    def changed(self) -> None:
        """A component or a container of this node is not as it was."""
        self._changed.set()

    def heard(self, name: str, incarnation: int, revision: int) -> None:
        """A node's heartbeat renews its instances."""
        if self._replication is not None:
            self._replication.heard(name, incarnation, revision)

    def poke(self) -> None:
        """The leader is another one than it was."""
        if self._replication is not None:
            self._replication.poke()

    def records_changed(self) -> None:
        """Something was applied. Only members and instances concern the leader's part."""
        now = (self._cluster.nodes, self._cluster.registrations)
        if any(new is not old for new, old in zip(now, self._records, strict=True)):
            self._records = now
            self.poke()

    # --- what others ask

    @property
    def catalogue(self) -> Catalogue:
        """All instances, as of now."""
        self._catalogue.update(self._cluster.nodes, self._cluster.registrations, self._cluster.maintenance)
        return self._catalogue

    def renewal(self) -> int | None:
        """The revision that the next heartbeat is to carry, if any."""
        if self._told is None:
            return None
        known = self._cluster.registrations.get(self._place.node)
        now = self._clock()
        if known is not None and known.revision == self._revision and not known.expired and now < self._renew_at:
            return None
        self._renew_at = now + self._refresh
        return self._revision

    def instances(self) -> InstancesReply:
        """This node's own. Raises InvalidRequest when it has only just started."""
        if self._told is None:
            raise InvalidRequest("this node is still starting: it does not know yet what it runs")
        return InstancesReply(revision=self._revision, incarnation=self._incarnation(), instances=list(self._told))

    def everything(self) -> RegistryReply:
        catalogue = self.catalogue
        maintenance = self._cluster.maintenance
        return RegistryReply(
            index=self._cluster.index,
            instances=[candidate.instance for candidate in catalogue],
            maintenance=[maintenance[target] for target in sorted(maintenance)],
            latency_ms=self._latency_ms(),
            failures=self._failures(),
        )

    # --- our own

    async def _tell(self) -> None:
        self._changed.set()
        while True:
            await self._news()
            if self._told is None:
                await self._settle()
            await asyncio.sleep(max(0.0, self._told_at + LEAST - self._clock()))
            self._changed.clear()
            self._look()

    async def _news(self) -> None:
        """Until something has changed, or something that flapped has been well for long enough."""
        await woken(self._changed, None if self._again_at is None else max(0.0, self._again_at - self._clock()))

    async def _settle(self) -> None:
        """Until no component is starting: what an agent's restart has not found again yet has not gone."""
        try:
            async with asyncio.timeout(SETTLING):
                while any(report.state in _STARTING for report in self._components().values()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.info("some component is still starting: telling what there is")

    def _look(self) -> None:
        """Tell what there is now, if it is anything new."""
        components = own.component_instances(self._place, self._components())
        damped = damp(self._tracks, [*components, *self._of_containers({instance.id for instance in components})], self._clock())
        self._tracks, self._again_at = damped.tracks, damped.again_at
        found, left_out = own.bounded(damped.instances)
        if left_out and left_out != self._left_out:
            log.warning("%d containers are not registered: there are more than the registry can carry for one node", left_out)
        self._left_out = left_out
        if self._told is None or own.differ(self._told, found):
            self._told, self._revision = found, own.revision(found)
            self._told_at = self._clock()
            self._on_told()

    def _of_containers(self, taken: set[str]) -> list[Instance]:
        containers = self._containers()
        if containers is not None:
            return own.container_instances(self._place, containers.values(), taken, self._unwatched())
        known = self._cluster.registrations.get(self._place.node)
        last = self._told if self._told is not None else known.instances if known is not None else ()
        return own.unanswered(instance for instance in last if not instance.service.startswith(PLATFORM))
