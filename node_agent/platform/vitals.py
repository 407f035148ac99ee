"""Observes what the node's health checks judge (health.py): asked with every heartbeat, it looks at slow things only now and then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from hmcore.config.agent import AgentConfig
from hmcore.records import CheckReport, ComponentReport
from node_agent.consensus.log.room import low_disk
from node_agent.platform.health import Memory, Observations, checks
from node_agent.platform.layers import Layers
from node_agent.transport.identity import expiry_reason

_PAGE = os.sysconf("SC_PAGE_SIZE")
_KIB = 1024


class Vitals:
    """The node's health checks as they are now, muted as the cluster has it."""

    def __init__(
        self,
        config: AgentConfig,
        layers: Layers,
        *,
        expires: Callable[[], datetime | None],
        metrics: Callable[[], ComponentReport],
        wall_clock: Callable[[], float],
    ) -> None:
        """`expires`: when the node's certificate does, once that is known. `metrics`: how serving them goes."""
        self._node = config.node
        self._directory = config.data_dir
        self._layers = layers
        self._expires = expires
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._links = Links(config.settings.membership.down)
        self._slow = Slow(
            interval=config.settings.health.interval, disk=lambda: low_disk(self._directory), events_lost=self._count_events_lost
        )

    def checks(self) -> list[CheckReport]:
        return checks(self._observe(time.monotonic()), self._node, self._layers.cluster.mutes)

    def _observe(self, now: float) -> Observations:
        layers, slow = self._layers, self._slow
        slow.look(now)
        peers = layers.transport.peers
        expires = self._expires()
        return Observations(
            components={name: managed.report() for name, managed in layers.managed.items()},
            leader=layers.cluster.leader,
            members=layers.cluster.nodes,
            unlinked=self._links.lost(peers, layers.transport.connected, now),
            peers=len(peers),
            disk=slow.disk,
            directory=str(self._directory),
            certificate=expiry_reason(expires, datetime.fromtimestamp(self._wall_clock(), UTC)) if expires else None,
            memory=slow.memory,
            events_lost=slow.events_lost,
            metrics=self._metrics(),
        )

    def _count_events_lost(self) -> int | None:
        """Those that found the ring buffer full. None while the kernel tells us of no events: then none are lost."""
        layer = self._layers.security
        return layer.totals().events_overrun if layer.serving and layer.report() is not None else None


class Links:
    """How long each peer has had no connection with us. A restart or a lost packet is no trouble: only `grace` seconds are."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._since: Mapping[str, float] = {}

    def lost(self, peers: frozenset[str], connected: frozenset[str], now: float) -> frozenset[str]:
        """The peers that have been away for longer than that. `now` is monotonic, in seconds."""
        self._since = {name: self._since.get(name, now) for name in peers - connected}
        return frozenset(name for name, since in self._since.items() if now - since >= self._grace)


class Slow:
    """Disk and memory, and events lost: looked at every `interval` seconds at most."""

    def __init__(
        self,
        *,
        interval: float,
        disk: Callable[[], str | None],
        events_lost: Callable[[], int | None],
        memory: Callable[[], Memory | None] | None = None,
    ) -> None:
        """`events_lost` is a counter that only grows; None where there is none."""
        self.disk: str | None = None
        self.memory: Memory | None = None
        self.events_lost: int | None = None  # since the look before
        self._interval = interval
        self._ask = (disk, memory or read_memory, events_lost)
        self._counted: int | None = None
        self._looked: float | None = None

    def look(self, now: float) -> None:
        if self._looked is not None and now - self._looked < self._interval:
            return
        self._looked = now
        disk, memory, events_lost = self._ask
        self.disk, self.memory = disk(), memory()
        count = events_lost()
        before, self._counted = self._counted, count
        self.events_lost = None if count is None else max(0, count - (count if before is None else before))


def read_memory(proc: Path = Path("/proc")) -> Memory | None:
    """The machine's memory and our own; None where the kernel does not say."""
    try:
        fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines() if ":" in line)
        own = int((proc / "self/statm").read_text().split()[1]) * _PAGE
        return Memory(total=_kib(fields["MemTotal"]), available=_kib(fields["MemAvailable"]), own=own)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _kib(field: str) -> int:
    return int(field.split()[0]) * _KIB
