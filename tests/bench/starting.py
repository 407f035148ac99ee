"""How long the agent takes from its start to all components running, and what the operator waits for at the prompt."""

from __future__ import annotations

import statistics
import time

from bed import Bed
from figures import Figure, Kind
from yardstick import PROGRAM, START, start

STARTED = Kind("agent start to all running", "s", 3, START, tolerance=1.8)
COMPILED = Kind("agent start, eBPF programs compiled", "s", 3, START, tolerance=1.8)
STATUS = Kind("hmctl status", "s", 1, START)
HELP = Kind("hmctl --help", "s", 0.25, START)
FIGURES = (STARTED, COMPILED, STATUS, HELP)

ROUNDS, RESTARTS = 11, 3

# Seconds that the same takes on the host, with its own Python.
STARTING = f"""
import subprocess, sys, time
began = time.perf_counter()
subprocess.run([sys.executable, "-I", "-c", {PROGRAM!r}], check=True)
print(time.perf_counter() - began)
"""


def measure(bed: Bed) -> list[Figure]:
    again, compiled = _restarts(bed, ""), _restarts(bed, UNPIN)
    status, helped, beside = (
        statistics.median(times)
        for times in zip(*[(bed.timed("status"), bed.timed("--help"), start().wall) for _ in range(ROUNDS)], strict=True)
    )
    whole = f"whole process, by turns, median of {ROUNDS}"
    return [
        STARTED.of(*again, f"`systemctl restart` of one node, by its journal; median of {RESTARTS}"),
        COMPILED.of(*compiled, "the same, with nothing in the kernel"),
        STATUS.of(status, beside, f"three nodes, {whole}"),
        HELP.of(helped, beside, whole),
    ]


def _restarts(bed: Bed, before: str) -> tuple[float, float]:
    """The medians of the agent's start and, by turns on the same host, of the peer's."""
    pairs = [(_restart(bed, before), float(bed.on("node1", "python3", "-c", STARTING))) for _ in range(RESTARTS)]
    ours, peers = (statistics.median(times) for times in zip(*pairs, strict=True))
    return ours, peers


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
