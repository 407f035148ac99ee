"""What an idle node costs: the agent's whole unit, children included, by its cgroup's own accounting. Beside it Docker's: too little to
divide by."""

from __future__ import annotations

import time

from bed import Bed
from figures import Figure

SECONDS = 60

AGENT, DOCKER = "hypermesh-agent", "docker"

PROBE = """
group=$(systemctl show -p ControlGroup --value UNIT)
for root in /sys/fs/cgroup/unified /sys/fs/cgroup; do [ -f $root$group/cpu.stat ] && break; done
awk '/^usage_usec/{print $2}' $root$group/cpu.stat
for pid in $(cat $root$group/cgroup.procs); do awk '/^VmRSS/{print $2}' /proc/$pid/status; done | awk '{sum += $1} END {print sum / 1024}'
"""


def measure(bed: Bed) -> list[Figure]:
    leader = bed.status()["leader"]
    names = [node["name"] for node in bed.status()["nodes"]]
    before = {name: (time.monotonic(), probe(bed, name)[0]) for name in names}
    docker = {name: probe(bed, name, DOCKER)[0] for name in names}
    time.sleep(SECONDS)
    shares: dict[str, float] = {}
    memory: dict[str, float] = {}
    for name in names:
        used, memory[name] = probe(bed, name)
        began, used_before = before[name]
        shares[name] = (used - used_before) / 1e6 / (time.monotonic() - began) * 100
    followers = max(share for name, share in shares.items() if name != leader)
    beside_it = max((probe(bed, name, DOCKER)[0] - docker[name]) / 1e6 / SECONDS * 100 for name in names)
    over = f"over {SECONDS} s; dockerd beside it {beside_it:.2f} % at most"
    largest = max(names, key=lambda name: memory[name])
    beside, note = probe(bed, largest, DOCKER)[1], "the largest of three, children included"
    return [
        Figure("idle follower", followers, "% of a core", 1, note=f"the costlier of two, {over}"),
        Figure("idle leader", shares[leader], "% of a core", 2, note=over),
        Figure("memory of the agent", memory[largest], "MB RSS", 90, "dockerd beside it", beside, note=note),
    ]


def probe(bed: Bed, node: str, unit: str = AGENT) -> tuple[float, float]:
    """Processor time used so far (microseconds) and resident memory (MB)."""
    usage, resident = bed.on(node, "sh", "-c", PROBE.replace("UNIT", unit)).split()
    return float(usage), float(resident)
