"""How soon all nodes know what one of them runs: containers that start are found in the registry of the other nodes' agents.

It waits on timers, hardly on the processor: it took as long on a machine so busy that Docker took thrice as long to start the containers.
Hence it is compared with itself in seconds, and what Docker took is only told.
"""

from __future__ import annotations

import json
import statistics
import time

from bed import Bed
from figures import Figure, Kind

CONTAINERS = 20
ROUNDS = 3

KNOWN = Kind("registry: containers known to all", "s", 3, "a second by the clock", tolerance=1.8)
FIGURES = (KNOWN,)

IMAGE = """
set -e; rm -rf /tmp/reg && mkdir -p /tmp/reg/bin && cp /bin/busybox /tmp/reg/bin/sh && tar -C /tmp/reg -c . | docker import - reg >/dev/null
"""
START = """
now() { date +%s%N; }
began=$(now)
for number in $(seq COUNT); do
  docker run -d --name reg$number --cgroup-parent=/hypermesh --label hypermesh.cluster=ID --label hypermesh.service=SERVICE reg \
    /bin/sh -c "trap exit TERM; while :; do sleep 3600 & wait; done" >/dev/null
done
echo $(( ($(now) - began) / 1000000 ))
"""


def measure(bed: Bed) -> list[Figure]:
    cluster = json.loads(bed.hmctl("config", "show", "-o", "json").stdout)["id"]
    bed.on("node1", "bash", "-c", IMAGE)
    lag, took = (statistics.median(times) for times in zip(*[_round(bed, cluster, f"bench/reg{n}") for n in range(ROUNDS)], strict=True))
    how = f"{CONTAINERS} containers started one after the other, median of {ROUNDS}"
    docker = f"starting them took Docker {took:.1f} s"
    return [KNOWN.of(lag, 1.0, f"{how}; from the last one's start until `hmctl service` lists all as fit; {docker}")]


def _round(bed: Bed, cluster: str, service: str) -> tuple[float, float]:
    """Seconds until all are known, and those that Docker took. Raises TimeoutError when they do not become known."""
    start = START.replace("COUNT", str(CONTAINERS)).replace("ID", cluster).replace("SERVICE", service)
    try:
        took = float(bed.on("node1", "bash", "-c", start)) / 1e3
        began = time.monotonic()
        while _known(bed, service) < CONTAINERS:
            if time.monotonic() - began > 60:
                raise TimeoutError("the containers are not in the registry")
        return time.monotonic() - began, took
    finally:
        bed.on("node1", "bash", "-c", "docker rm -f $(docker ps -aq --filter ancestor=reg) >/dev/null 2>&1 || true")


def _known(bed: Bed, service: str) -> int:
    """How many are fit for traffic."""
    document = json.loads(bed.hmctl("service", "ls", service, "-o", "json", check=False).stdout or "{}")
    return sum(instance["health"] == "healthy" for instance in document.get("instances", []))
