"""How long the agent takes from its start to all components running, and what the operator waits for at the prompt."""

from __future__ import annotations

import statistics
import time

from bed import Bed
from figures import Figure


def measure(bed: Bed) -> list[Figure]:
    return [
        Figure("agent start to all running", _restart(bed), "s", 3, note="`systemctl restart` of one node, by its journal"),
        Figure("hmctl status", _median(bed, "status"), "s", 1, note="three nodes, whole process, median of 7"),
        Figure("hmctl --help", _median(bed, "--help"), "s", 0.25, note="whole process, median of 7"),
    ]


def _median(bed: Bed, *args: str) -> float:
    return statistics.median(bed.timed(*args) for _ in range(7))


def _restart(bed: Bed, deadline: float = 60.0) -> float:
    """Seconds from the unit's start until the last component of node1 is running, by the clock of its journal. Raises TimeoutError."""
    bed.on("node1", "systemctl", "restart", "hypermesh-agent")
    began = time.monotonic()
    while time.monotonic() - began < deadline:
        node = next(node for node in bed.status()["nodes"] if node["name"] == "node1")
        if {component["state"] for component in node["components"].values()} == {"running"}:
            journal = bed.on("node1", "journalctl", "-u", "hypermesh-agent", "-o", "short-unix", "--no-pager").splitlines()
            start = max(index for index, line in enumerate(journal) if "Starting hypermesh-agent" in line)
            running = [line for line in journal[start:] if line.endswith(" is running")]
            return max(float(line.split()[0]) for line in running) - float(journal[start].split()[0])
    raise TimeoutError("node1 is not running again")
