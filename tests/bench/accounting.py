"""What counting flows costs: iperf3 between containers of two hosts, with and without our programs above them, in turn.

On a shared machine single runs differ by tens of percent: hence rounds in a drawn order, the median of their ratios, and a third container
that shows by how much two equal ones differ: when these do, there are more rounds. Beside it the time that the kernel itself says our
programs took (kernel.bpf_stats_enabled), which does not depend on who else was busy, and what iperf3 took for the same traffic.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable

from bed import Bed
from figures import Figure, Kind

ROUNDS, MOST_ROUNDS = 10, 14
SECONDS = 2
NOISE = 1.03  # by what two equal ones may differ; above it there are more rounds

KEPT = Kind("throughput that counting leaves", "of plain", 0.97, "plain beside plain", at_least=True, tolerance=1.1, slack=NOISE)
SHARE = Kind("time in our programs at full throughput", "% of a core", 3, "iperf3 itself")
FIGURES = (KEPT, SHARE)

PORTS = {"counted": 5301, "plain": 5302, "control": 5303}  # the parent cgroup of the last two has no programs

IMAGE = """
set -e; rm -rf /tmp/bench && mkdir -p /tmp/bench/bin /tmp/bench/tmp && cp -L /usr/bin/iperf3 /tmp/bench/bin/
for library in $(ldd /usr/bin/iperf3 | grep -o '/[^ ]*'); do mkdir -p /tmp/bench$(dirname $library); cp -L $library /tmp/bench$library; done
tar -C /tmp/bench -c . | docker import - bench >/dev/null; docker rm -f counted plain control >/dev/null 2>&1 || true
docker run -d --name counted --network host --cgroup-parent=/hypermesh bench iperf3 -s -p 5301 >/dev/null
docker run -d --name plain --network host --cgroup-parent=/plain bench iperf3 -s -p 5302 >/dev/null
docker run -d --name control --network host --cgroup-parent=/plain bench iperf3 -s -p 5303 >/dev/null
"""
PROGRAMS = """
import json, subprocess
rows = json.loads(subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True).stdout)
print(json.dumps(sum(row.get("run_time_ns", 0) for row in rows if row.get("name", "").startswith("hm_"))))
"""


def measure(bed: Bed) -> list[Figure]:
    document = json.loads(bed.hmctl("config", "show", "-o", "json").stdout)
    server = next(host["address"] for host in document["hosts"] if host["name"] == "node1")
    for node in ("node1", "node2"):
        bed.on(node, "bash", "-c", IMAGE)

    def transfer(name: str) -> tuple[float, float]:
        """Gbit/s, and what iperf3 took at both ends together, in per cent of a core."""
        argv = ("docker", "exec", name, "iperf3", "-c", server, "-p", str(PORTS[name]), "-t", str(SECONDS), "-J")
        end = json.loads(bed.on("node2", *argv))["end"]
        busy = end["cpu_utilization_percent"]
        return end["sum_received"]["bits_per_second"] / 1e9, busy["host_total"] + busy["remote_total"]

    def program_seconds() -> float:
        return float(json.loads(bed.on("node1", "python3", "-c", PROGRAMS))) / 1e9  # of all hosts: they share a kernel

    try:
        rounds: list[dict[str, float]] = []
        while len(rounds) < ROUNDS or (len(rounds) < MOST_ROUNDS and not 1 / NOISE <= _noise(rounds) <= NOISE):
            rounds.append({name: transfer(name)[0] for name in random.sample(list(PORTS), len(PORTS))})
        bed.on("node1", "sysctl", "-q", "kernel.bpf_stats_enabled=1")
        runs = [_share(program_seconds, transfer) for _ in range(3)]
    finally:
        bed.on("node1", "sysctl", "-q", "kernel.bpf_stats_enabled=0")
        for node in ("node1", "node2"):
            bed.on(node, "docker", "rm", "-f", *PORTS)
    kept = statistics.median(2 * row["counted"] / (row["plain"] + row["control"]) for row in rounds)
    spread = [row["control"] / row["plain"] for row in rounds]
    rate = statistics.median(row["counted"] for row in rounds)
    note = (
        f"iperf3 between two hosts at {rate:.1f} Gbit/s, {len(rounds)} rounds of {SECONDS} s; "
        f"two equal ones differ by {min(spread):.2f} to {max(spread):.2f}"
    )
    share, busy = (statistics.median(column) for column in zip(*runs, strict=True))
    clock = "both ends together, by the kernel's own clock; median of three"
    return [KEPT.of(kept, _noise(rounds), note), SHARE.of(share, busy, clock)]


def _noise(rounds: list[dict[str, float]]) -> float:
    """By what two that nothing distinguishes differ."""
    return statistics.median(row["control"] / row["plain"] for row in rounds)


def _share(program_seconds: Callable[[], float], transfer: Callable[[str], tuple[float, float]]) -> tuple[float, float]:
    """What our programs and iperf3 took during one transfer, in per cent of a core."""
    before = program_seconds()
    _, busy = transfer("counted")
    return 100 * (program_seconds() - before) / SECONDS, busy
