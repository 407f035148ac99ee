"""What one scrape shows: plain data, taken in one step of the event loop, so that its figures belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hmcore.records import Instance, NodeReport
from node_agent.consensus.outlook import Figures
from node_agent.platform.tally import Tally
from node_agent.platform.usage import Room, Usage
from node_agent.security.maps import Totals


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`None` where this node has nothing to tell: a worker has no journal, a node without eBPF no totals."""

    report: NodeReport
    version: str
    started: float  # the process, in Unix time
    usage: Usage
    tally: Tally
    cluster_score: float | None = None
    instances: tuple[Instance, ...] = ()
    containers: Mapping[str, int] | None = None  # ours, by state
    log: Figures | None = None
    totals: Totals | None = None
    certificate_expires: float | None = None  # Unix time
    loop_lag: float | None = None  # seconds
    room: Room | None = None
