"""/metrics as something that lives: it is brought up, retried while its port is taken, and asks the layers when somebody scrapes.

It is supervised like a component (lifecycle.Managed), but it is none: nothing that the cluster does depends on it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version

from hmcore.config.agent import AgentConfig
from hmcore.errors import HyperMeshError
from hmcore.health import ClusterCondition, NodeCondition, cluster_checks, score
from hmcore.records import NodeReport, NodeState
from node_agent.consensus.outlook import Figures
from node_agent.orchestration.cluster import ClusterView
from node_agent.platform.exposition import Exposition, Proof
from node_agent.platform.http import Response, text
from node_agent.platform.layers import Layers
from node_agent.platform.snapshot import Snapshot
from node_agent.platform.tally import Tally
from node_agent.platform.usage import Room, room, usage

BEATS = 10  # by how much the event loop is late is looked at so often per `metrics.interval`

_WORTH = {NodeState.READY: 1.0, NodeState.DEGRADED: 0.5}


class Monitoring:
    """See node_agent.platform.lifecycle.Component."""

    name = "metrics"
    serving = True

    def __init__(
        self,
        config: AgentConfig,
        layers: Layers,
        tally: Tally,
        *,
        report: Callable[[], NodeReport],
        expires: Callable[[], datetime | None],
        stopping: Callable[[], bool],
        started: float,
    ) -> None:
        """`report` is the node's, `expires` its certificate's end, `started` when the agent began, in Unix time."""
        self._config = config
        self._layers = layers
        self._tally = tally
        self._report = report
        self._expires = expires
        self._stopping = stopping
        self._started = started
        self._version = version("hypermesh")
        self._lag = Lag(BEATS)
        self._room: Room | None = None
        self._show: Callable[[Snapshot], Response] | None = None
        self._exposition = Exposition(config.settings.metrics, Proof(config.pki_dir, config.cluster_id), self._scrape)

    async def initialize(self) -> None:
        self._show = await asyncio.to_thread(_load)
        self._exposition.open()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample(), name="sample")
            tasks.create_task(self._exposition.serve(), name="serve metrics")

    async def check(self) -> str | None:
        return None

    async def stop(self) -> None:
        self._exposition.close()

    async def _sample(self) -> None:
        """What cannot be read at the moment of a scrape: between two of them the event loop may have been late."""
        loop = asyncio.get_running_loop()
        pause = self._config.settings.metrics.interval / BEATS
        beat = 0
        while True:
            if beat % BEATS == 0:
                self._room = room(self._config.data_dir)
            beat += 1
            due = loop.time() + pause
            await asyncio.sleep(pause)
            self._lag.add(max(0.0, loop.time() - due))

    def _scrape(self) -> Response:
        if self._stopping():
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "the agent is stopping")
        if self._show is None:
            raise HyperMeshError("the agent is starting")
        return self._show(self._snapshot())

    def _snapshot(self) -> Snapshot:
        layers, report, expires = self._layers, self._report(), self._expires()
        return Snapshot(
            report=report,
            version=self._version,
            started=self._started,
            usage=usage(),
            tally=self._tally,
            cluster_score=cluster_score(report, layers.cluster),
            instances=tuple(candidate.instance for candidate in layers.registry.catalogue),
            containers=None if layers.container.running is None else Counter(each.state for each in layers.container.containers().values()),
            log=self._figures(),
            totals=None if report.security is None or report.security.mode == "off" else layers.security.totals(),
            certificate_expires=expires.timestamp() if expires else None,
            loop_lag=self._lag.worst,
            room=self._room,
        )

    def _figures(self) -> Figures | None:
        return None if self._layers.control is None else self._layers.control.voter.raft.figures


def _load() -> Callable[[Snapshot], Response]:
    from node_agent.platform.metrics import CONTENT_TYPE, expose  # noqa: PLC0415 -- takes a while, hence here: in a thread, beside other phases

    return lambda snapshot: Response(HTTPStatus.OK, expose(snapshot), CONTENT_TYPE)


class Lag:
    """By how many seconds a timer was late: the worst of the last `size` times."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._last: list[float] = []

    def add(self, seconds: float) -> None:
        self._last = [*self._last[1 - self._size :], seconds]

    @property
    def worst(self) -> float | None:
        return max(self._last, default=None)


def cluster_score(report: NodeReport, cluster: ClusterView) -> float | None:
    """The cluster's health as this node knows it: of other nodes, only the replicated state. None before there is a cluster."""
    if not report.formed:
        return None
    condition = ClusterCondition(
        voters=len(report.raft.voters),
        following=len(report.raft.reachable_voters),
        leader=report.raft.leader,
        nodes=[
            NodeCondition(member.name, member.state, report.health_score if member.name == report.name else _WORTH.get(member.state, 0.0))
            for member in report.members
        ],
        diverged=[found.node for found in report.raft.divergences],
    )
    return score(cluster_checks(condition, cluster.mutes))
