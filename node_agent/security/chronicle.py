"""What the security layer saw, with names: flows when they are asked for, events as they come, for whoever follows them.

The shell around attribution.py and journal.py. An event of a container that Docker has not told about yet is held back for a moment: the
first program of a container begins before its name is known here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hmcore.api import EventsReply, EventsRequest, FlowsReply
from hmcore.errors import CallRefused, LayerDown
from node_agent.container.info import ContainerInfo
from node_agent.security.attribution import REMEMBERED, Attribution, kind_of, wall_time
from node_agent.security.journal import Journal, Page, Waiters
from node_agent.security.maps import RawFlow, Record, Totals

PATIENCE = 1.0  # seconds that an event waits for the name of its container
HELD = 1024  # events that may wait for it


class Source(Protocol):
    """The security layer, as far as it is needed here."""

    async def flows(self) -> list[RawFlow]: ...
    def totals(self) -> Totals: ...
    def cgroups(self) -> Mapping[int, str]: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as it is kept. Its container's name is looked up when somebody reads it."""

    unix_time: float
    record: Record
    container: str | None


class Chronicle:
    """`began`, a number that no other life of this agent has, tells followers that numbering began anew."""

    def __init__(
        self,
        node: str,
        source: Source,
        *,
        began: int,
        off: bool = False,
        trouble: Callable[[], tuple[str, str | None] | None],
        wall_clock: Callable[[], float] = time.time,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`off`: there shall be no flows and no events. `trouble`: why there are none though there should be, and what mends it; None
        when all is well."""
        self._source = source
        self._began = began
        self._off = off
        self._trouble = trouble
        self._wall_clock = wall_clock
        self._monotonic_ns = monotonic_ns
        self._attribution = Attribution(node)
        self._journal = Journal[Seen]()
        self._waiters = Waiters()
        self._held: deque[Seen] = deque()
        self._nameless: set[str] = set()  # containers that Docker never told of: nobody waits for them again
        self._timer: asyncio.TimerHandle | None = None
        self._lost: int | None = None
        self._cgroups: Mapping[int, str] = {}

    # --- what comes in

    def containers_changed(self, containers: Mapping[str, ContainerInfo]) -> None:
        """Docker told something new."""
        self._attribution.learn(containers)
        self._nameless.difference_update(containers)
        if self._held:
            self._release()

    def received(self, records: list[Record]) -> None:
        """A batch from the ring buffer."""
        lost = self._source.totals().events_lost
        if self._lost is not None and lost > self._lost:
            self._journal.skip(lost - self._lost)
        self._lost = lost
        cgroups, now, now_ns = self._cgroups_of(records), self._wall_clock(), self._monotonic_ns()
        self._held += [Seen(wall_time(record.time, now_ns=now_ns, now=now), record, cgroups.get(record.cgroup)) for record in records]
        self._release()
        if self._held and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._give_up)

    def _cgroups_of(self, records: list[Record]) -> Mapping[int, str]:
        """The source reads a directory for it: only when there is somebody new."""
        if any(record.cgroup not in self._cgroups for record in records):
            self._cgroups = self._source.cgroups()
        return self._cgroups

    def _release(self) -> None:
        """Everything up to the first event whose container's name may still come."""
        ready = []
        while self._held and (len(self._held) > HELD or self._is_named(self._held[0].container)):
            ready.append(self._held.popleft())
        if not self._held and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if ready:
            self._journal.add(ready)
            self._waiters.wake()

    def _is_named(self, container: str | None) -> bool:
        return container is None or container in self._nameless or self._attribution.knows(container)

    def _give_up(self) -> None:
        self._timer = None
        if len(self._nameless) > REMEMBERED:
            self._nameless.clear()
        self._nameless.update(seen.container for seen in self._held if seen.container and not self._is_named(seen.container))
        self._release()

    # --- what is asked

    async def flows(self) -> FlowsReply:
        """Raises CallRefused while nothing is counted."""
        if self._off:
            mends = "set security.mode to audit or enforce in the inventory, then hmctl config apply"
            raise CallRefused("no flows are counted there: the eBPF layer is switched off", fix=mends)
        self._refuse_if_down()
        try:
            raw = await self._source.flows()
        except (LayerDown, TimeoutError) as error:
            fix = error.fix if isinstance(error, LayerDown) else None
            raise CallRefused(f"flows cannot be read: {str(error) or 'the kernel did not answer in time'}", fix=fix) from error
        flows = await asyncio.to_thread(self._attribution.flows, raw, self._source.cgroups())  # there may be thousands
        return FlowsReply(flows=flows, unix_time=self._wall_clock(), names=dict(self._attribution.names))

    async def events(self, request: EventsRequest) -> EventsReply:
        """See EventsRequest. Raises CallRefused while events should come and do not."""
        if not self._off:
            self._refuse_if_down()
        after = request.after if request.journal in (0, self._began) or request.after < 0 else 0
        if request.wait > 0:
            await self._waiters.until(self._news(after, request), request.wait)
        page = self._page(after, request, request.limit)
        events = [self._attribution.event(number, seen.unix_time, seen.record, seen.container) for number, seen in page.events]
        return EventsReply(events=events, last=page.last, lost=page.lost, journal=self._began)

    def _news(self, after: int, request: EventsRequest) -> Callable[[], bool]:
        """Whether something wanted, or a gap, has come. What was looked at once is not looked at again."""

        def come() -> bool:
            nonlocal after
            page = self._page(after, request, 1)
            if page.events or page.lost:
                return True
            after = page.last
            return False

        return come

    def _page(self, after: int, request: EventsRequest, limit: int) -> Page[Seen]:
        def wanted(seen: Seen) -> bool:
            if request.kinds and kind_of(seen.record) not in request.kinds:
                return False
            if not request.container:
                return True
            return self._attribution.owner(seen.record.cgroup, seen.container).is_called(request.container)

        return self._journal.after(after, limit, wanted)

    def _refuse_if_down(self) -> None:
        trouble = self._trouble()
        if trouble is not None:
            reason, fix = trouble
            raise CallRefused(f"no flows and no events there: {reason}", fix=fix)
