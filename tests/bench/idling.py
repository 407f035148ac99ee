"""What an idle node costs: the agent's whole unit, children included, by its cgroup's own accounting.

Beside it, in the same minute: a timer in asyncio that does a fixed piece of work. (Docker's share is told, but too little to divide by.)
"""

from __future__ import annotations

import time

from bed import Bed
from figures import Figure, Kind
from yardstick import TICKING, TIMER

SECONDS = 60

AGENT, DOCKER = "hypermesh-agent", "docker"

FOLLOWER = Kind("idle follower", "% of a core", 1, TIMER, tolerance=1.8)
LEADER = Kind("idle leader", "% of a core", 2, TIMER, tolerance=1.8)
MEMORY = Kind("memory of the agent", "MB RSS", 90, "dockerd beside it")
FIGURES = (FOLLOWER, LEADER, MEMORY)

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
    timer = ticking(bed, names[0], SECONDS)
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
        FOLLOWER.of(followers, timer, f"the costlier of two, {over}"),
        LEADER.of(shares[leader], timer, over),
        MEMORY.of(memory[largest], beside, note),
    ]


def ticking(bed: Bed, node: str, seconds: float) -> float:
    """Lets the yardstick's timer run on a host for so long; its processor time, in per cent of a core."""
    return float(bed.on(node, "python3", "-I", "-c", TICKING.replace("SECONDS", str(seconds)))) / seconds * 100


def probe(bed: Bed, node: str, unit: str = AGENT) -> tuple[float, float]:
    """Processor time used so far (microseconds) and resident memory (MB)."""
    usage, resident = bed.on(node, "sh", "-c", PROBE.replace("UNIT", unit)).split()
    return float(usage), float(resident)
