"""How this node's replicas fare, told to the leader: at once, and again until it has been recorded.

What is told is all that there is, never what has changed: whatever got lost on the way is part of the next telling.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable

from msgspec.structs import replace

from hmcore.api import InstancesReply
from hmcore.apps.calls import TellRequest
from hmcore.apps.records import AllocationStatus, Machine
from hmcore.errors import HyperMeshError, LevelTooLow
from node_agent.waiting import woken

LEAST = 0.05  # seconds between two tellings: what a node's containers do comes in bursts
PATIENCE = 0.5  # seconds after one that failed, at first; doubled each time, up to the longest
LONGEST = 4.0
NO_APPS = 60.0  # seconds while the cluster can have no apps, as far as its oldest release goes

log = logging.getLogger(__name__)


class Telling:
    """`tell` brings it to the leader and returns once it is recorded; raises HyperMeshError. `incarnation`: of this agent's start.
    `is_open`: the cluster has been told that containers can run here, or could not have any; before that nothing is placed here."""

    def __init__(
        self,
        tell: Callable[[TellRequest], Awaitable[None]],
        *,
        incarnation: Callable[[], int],
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_open`: `is_open` has become true."""
        self._tell = tell
        self._incarnation = incarnation
        self._on_open = on_open
        self.is_open = False
        self._allocations: tuple[AllocationStatus, ...] | None = None
        self._machine: Machine | None = None
        self._instances: InstancesReply | None = None
        self._recorded: TellRequest | None = None
        self._news = asyncio.Event()
        self._again = asyncio.Event()
        self.trouble: str | None = None

    def statuses(self, statuses: Iterable[AllocationStatus]) -> None:
        """Of all allocations that are here."""
        self._allocations = tuple(sorted(statuses, key=lambda status: status.id))
        self._news.set()

    def machine(self, machine: Machine) -> None:
        if machine != self._machine:
            self._machine = machine
            self._news.set()

    def instances(self, instances: InstancesReply) -> None:
        """Of this node, for the registry."""
        if instances != self._instances:
            self._instances = instances
            self._news.set()

    def anew(self) -> None:
        """What was recorded may be gone: the cluster has another leader, or has forgotten this node."""
        self._recorded = None
        self._news.set()
        self._again.set()

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        failures, told_at = 0, -math.inf
        while True:
            await self._news.wait()
            await asyncio.sleep(max(0.0, told_at + LEAST - clock()))
            self._news.clear()
            self._again.clear()
            whole, request = self._whole(), self._request()
            if whole is None or request is None:
                continue
            told_at = clock()
            try:
                await self._tell(request)
            except LevelTooLow:
                self.trouble, failures = None, 0
                self._open(True)
                await woken(self._again, NO_APPS)
                self._news.set()
                continue
            except HyperMeshError as error:
                failures += 1
                self._complain(error, failures)
                await woken(self._again, min(PATIENCE * 2.0 ** min(failures - 1, 10), LONGEST))
                self._news.set()
                continue
            self.trouble, failures = None, 0
            if whole.machine is not None:
                self._open(whole.machine.engine)
            if not self._again.is_set():
                self._recorded = whole

    def _request(self) -> TellRequest | None:
        """None: there is nothing to tell. What is large is told only if it has changed."""
        whole = self._whole()
        if whole is None or whole == self._recorded:
            return None
        before = self._recorded
        if before is None or before.incarnation != whole.incarnation:
            return whole
        return replace(
            whole,
            machine=None if whole.machine == before.machine else whole.machine,
            instances=None if whole.instances == before.instances else whole.instances,
        )

    def _whole(self) -> TellRequest | None:
        if self._allocations is None:
            return None
        return TellRequest(incarnation=self._incarnation(), allocations=self._allocations, machine=self._machine, instances=self._instances)

    def _open(self, is_open: bool) -> None:
        before, self.is_open = self.is_open, is_open
        if is_open and not before:
            self._on_open()

    def _complain(self, error: HyperMeshError, failures: int) -> None:
        if failures == 1:
            log.info("how the replicas here fare cannot be told: %s", error)
        if failures <= 5:  # some seconds: longer than an election takes
            return
        if self._allocations:
            self.trouble = f"how the replicas here fare cannot be told: {error.message}"
        else:  # nobody misses it; a leader of an earlier release, or a lower feature level, cannot even take it
            self._open(True)
