"""What an idle node costs: the agent's whole unit, children included, by its cgroup's own accounting; and beside it Docker's."""

from __future__ import annotations

import time

from bed import Bed
from figures import Figure

SECONDS = 60

AGENT, DOCKER = "hypermesh-agent", "docker"
PEER = "dockerd beside it"

PROBE = """
group=$(systemctl show -p ControlGroup --value UNIT)
for root in /sys/fs/cgroup/unified /sys/fs/cgroup; do [ -f $root$group/cpu.stat ] && break; done
awk '/^usage_usec/{print $2}' $root$group/cpu.stat
for pid in $(cat $root$group/cgroup.procs); do awk '/^VmRSS/{print $2}' /proc/$pid/status; done | awk '{sum += $1} END {print sum / 1024}'
"""


def measure(bed: Bed) -> list[Figure]:
    leader = bed.status()["leader"]
    names = [node["name"] for node in bed.status()["nodes"]]
    watched = [(name, unit) for name in names for unit in (AGENT, DOCKER)]
    before = {key: (time.monotonic(), probe(bed, *key)[0]) for key in watched}
    time.sleep(SECONDS)
    shares: dict[tuple[str, str], float] = {}
    memory: dict[tuple[str, str], float] = {}
    for key in watched:
        used, memory[key] = probe(bed, *key)
        began, used_before = before[key]
        shares[key] = (used - used_before) / 1e6 / (time.monotonic() - began) * 100
    follower = max((name for name in names if name != leader), key=lambda name: shares[name, AGENT])
    largest = max(names, key=lambda name: memory[name, AGENT])
    over = f"over {SECONDS} s"
    return [
        _idle("idle follower", shares[follower, AGENT], 1, shares[follower, DOCKER], f"{over}, the costlier of two"),
        _idle("idle leader", shares[leader, AGENT], 2, shares[leader, DOCKER], over),
        Figure(
            "memory of the agent",
            memory[largest, AGENT],
            "MB RSS",
            90,
            PEER,
            memory[largest, DOCKER],
            note="the largest of three, children included",
        ),
    ]


def _idle(name: str, share: float, target: float, docker: float, note: str) -> Figure:
    return Figure(name, share, "% of a core", target, PEER, docker, note=note, tolerance=2.0)


def probe(bed: Bed, node: str, unit: str = AGENT) -> tuple[float, float]:
    """Processor time used so far (microseconds) and resident memory (MB)."""
    usage, resident = bed.on(node, "sh", "-c", PROBE.replace("UNIT", unit)).split()
    return float(usage), float(resident)
