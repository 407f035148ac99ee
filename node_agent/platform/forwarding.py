"""Other nodes' reports, asked over the connections that this node holds anyway: whoever wants to know of hundreds asks a few instead.

What is passed on is each node's own word of this moment, not what is replicated about it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from math import inf

from hmcore.api import LONGEST_REPORT, MOST_REPORTS, ForwardedReport, ReportsReply, ReportsRequest
from hmcore.errors import HyperMeshError, InvalidRequest
from hmcore.records import NodeReport, PeerReport

CONNECTED = "connected"
LEAST = 0.2  # seconds: an impatient caller must not make nodes look as if they failed us
PATIENCE = 0.25  # seconds for the rest, once most have answered: whoever is left out is dialled by the caller anyway

log = logging.getLogger(__name__)

Ask = Callable[[str, float], Awaitable[NodeReport]]


class Forwarding:
    """Asks nodes that this one is connected to, all at once."""

    def __init__(
        self,
        ask: Ask,
        *,
        links: Callable[[], Sequence[PeerReport]],
        wall_clock: Callable[[], float],
    ) -> None:
        """`ask` gets a node's name and the seconds it has, and raises HyperMeshError; `links` are our connections."""
        self._ask = ask
        self._links = links
        self._wall_clock = wall_clock

    async def reports(self, request: ReportsRequest) -> ReportsReply:
        """Nodes that are not connected, or do not answer in time, are left out. Raises InvalidRequest when it is too much to ask."""
        if len(request.nodes) > MOST_REPORTS:
            raise InvalidRequest(f"reports of {len(request.nodes)} nodes: {MOST_REPORTS} at most")
        if not 0 < request.timeout <= LONGEST_REPORT:
            raise InvalidRequest(f"a timeout of {request.timeout:g} s: more than 0, {LONGEST_REPORT:g} at most")
        timeout = max(LEAST, request.timeout)
        near = {link.name: link.rtt_ms for link in self._links() if link.state == CONNECTED}
        wanted = [name for name in dict.fromkeys(request.nodes) if name in near]
        loop = asyncio.get_running_loop()
        found: list[ForwardedReport] = []

        async def ask(name: str) -> None:
            sent, began = self._wall_clock(), loop.time()
            try:
                report = await self._ask(name, timeout)
            except HyperMeshError:
                return  # not ours to judge: whoever asked will ask the node itself, and hear why
            took = loop.time() - began
            ahead = report.unix_time - sent
            found.append(ForwardedReport(report=report, ahead_least=ahead - took, ahead_most=ahead, rtt_ms=near[name]))
            if 2 * len(found) > len(wanted) and not limit.expired():  # whoever is silent now is dead or far worse off than the rest
                limit.reschedule(min(limit.when() or inf, loop.time() + max(PATIENCE, 3 * took)))

        try:
            async with asyncio.timeout(timeout) as limit, asyncio.TaskGroup() as group:
                for name in wanted:
                    group.create_task(ask(name), name=f"report of {name}")
        except TimeoutError:
            log.debug("%d of %d nodes did not report in time", len(wanted) - len(found), len(wanted))
        return ReportsReply(reports=found)
