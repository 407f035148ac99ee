"""How long the agent takes from its start to all components running, and what the operator waits for at the prompt."""

from __future__ import annotations

import statistics
import time

from bed import Bed
from figures import Figure


def measure(bed: Bed) -> list[Figure]:
    return [
        Figure("agent start to all running", _restart(bed), "s", 3, note="`systemctl restart` on one node, until status says so"),
        Figure("hmctl status", _median(bed, "status"), "s", 1, note="three nodes, whole process, median of 7"),
        Figure("hmctl --help", _median(bed, "--help"), "s", 0.25, note="whole process, median of 7"),
    ]


def _median(bed: Bed, *args: str) -> float:
    return statistics.median(bed.timed(*args) for _ in range(7))


def _restart(bed: Bed, deadline: float = 30.0) -> float:
    """Seconds from the restart's request until node1 reports every component as running. Raises TimeoutError."""
    began = time.monotonic()
    bed.on("node1", "systemctl", "restart", "--no-block", "hypermesh-agent")
    while time.monotonic() - began < deadline:
        node = next(node for node in bed.status()["nodes"] if node["name"] == "node1")
        states = {component["state"] for component in node.get("components", {}).values()}
        restarted = 0 < (node.get("uptime_seconds") or 0) < time.monotonic() - began
        if restarted and states == {"running"}:
            return time.monotonic() - began
    raise TimeoutError("node1 is not running again")
