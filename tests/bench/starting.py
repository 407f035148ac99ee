"""How long the agent takes from its start to all components running, and what the operator waits for at the prompt."""

from __future__ import annotations

import statistics
import time

from bed import Bed
from figures import Figure

# Seconds that a Python process takes to start and to import what the agent is made of.
IMPORTING = """
import subprocess, sys, time
began = time.perf_counter()
program = "import node_agent.platform.platform, docker, pysyncobj, aioquic.quic.connection, uvloop"
subprocess.run([sys.executable, "-P", "-c", program], check=True, env={"PYTHONPATH": "/opt/hypermesh/current"})
print(time.perf_counter() - began)
"""


def measure(bed: Bed) -> list[Figure]:
    helped = _median(bed, "--help")
    importing = statistics.median(float(bed.on("node1", "python3", "-c", IMPORTING)) for _ in range(5))
    started = statistics.median(_restart(bed) for _ in range(3))
    compiled = statistics.median(_restart(bed, UNPIN) for _ in range(3))
    note = "`systemctl restart` of one node, by its journal; median of 3"
    return [
        Figure("agent start to all running", started, "s", 3, "its imports", importing, note=note),
        Figure(
            "agent start, eBPF programs compiled", compiled, "s", 3, "its imports", importing, note="the same, with nothing in the kernel"
        ),
        Figure("hmctl status", _median(bed, "status"), "s", 1, "hmctl --help", helped, note="three nodes, whole process, median of 7"),
        Figure("hmctl --help", helped, "s", 0.25, note="whole process, median of 7"),
    ]


def _median(bed: Bed, *args: str) -> float:
    return statistics.median(bed.timed(*args) for _ in range(7))


UNPIN = "rm -rf /sys/fs/bpf/hypermesh; "


def _restart(bed: Bed, before: str = "", deadline: float = 60.0) -> float:
    """Seconds from the unit's start until the last component of node1 is running, by the clock of its journal. Raises TimeoutError."""
    bed.on("node1", "sh", "-c", f"systemctl stop hypermesh-agent; {before}systemctl start hypermesh-agent")
    began = time.monotonic()
    while time.monotonic() - began < deadline:
        node = next(node for node in bed.status()["nodes"] if node["name"] == "node1")
        if {component["state"] for component in node["components"].values()} == {"running"}:
            journal = bed.on("node1", "journalctl", "-u", "hypermesh-agent", "-o", "short-unix", "--no-pager").splitlines()
            start = max(index for index, line in enumerate(journal) if "Starting hypermesh-agent" in line)
            running = [line for line in journal[start:] if line.endswith(" is running")]
            return max(float(line.split()[0]) for line in running) - float(journal[start].split()[0])
    raise TimeoutError("node1 is not running again")
