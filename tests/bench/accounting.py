"""What counting flows costs: iperf3 between containers of two hosts, with and without our programs above them, in turn.

On a shared machine single runs differ by tens of percent: hence rounds in a drawn order, the median of their ratios, and a third container
that shows by how much two equal ones differ. Beside it the time that the kernel itself says our programs took
(kernel.bpf_stats_enabled), which does not depend on who else was busy.
"""

from __future__ import annotations

import json
import random
import statistics

from bed import Bed
from figures import Figure

ROUNDS = 10
SECONDS = 2
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

    def gigabits(name: str) -> float:
        argv = ("docker", "exec", name, "iperf3", "-c", server, "-p", str(PORTS[name]), "-t", str(SECONDS), "-J")
        return float(json.loads(bed.on("node2", *argv))["end"]["sum_received"]["bits_per_second"]) / 1e9

    def program_seconds() -> float:
        return float(json.loads(bed.on("node1", "python3", "-c", PROGRAMS))) / 1e9  # of all hosts: they share a kernel

    try:
        rounds = []
        for _ in range(ROUNDS):
            rounds.append({name: gigabits(name) for name in random.sample(list(PORTS), len(PORTS))})
        bed.on("node1", "sysctl", "-q", "kernel.bpf_stats_enabled=1")
        before = program_seconds()
        gigabits("counted")
        share = (program_seconds() - before) / SECONDS
    finally:
        bed.on("node1", "sysctl", "-q", "kernel.bpf_stats_enabled=0")
        for node in ("node1", "node2"):
            bed.on(node, "docker", "rm", "-f", *PORTS)
    kept, noise = (statistics.median(row[name] / row["plain"] for row in rounds) for name in ("counted", "control"))
    spread = [row["control"] / row["plain"] for row in rounds]
    rate = statistics.median(row["counted"] for row in rounds)
    note = (
        f"iperf3 between two hosts at {rate:.1f} Gbit/s, {ROUNDS} rounds of {SECONDS} s; "
        f"two equal ones differ by {min(spread):.2f} to {max(spread):.2f}"
    )
    clock = "both ends together, by the kernel's own clock"
    return [
        Figure("throughput that counting leaves", kept, "of plain", 0.97, "plain beside plain", noise, at_least=True, note=note),
        Figure("time in our programs at full throughput", 100 * share, "% of a core", 3, note=clock),
    ]
