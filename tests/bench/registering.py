"""How soon all nodes know what one of them runs: containers that start are found in the registry of the other nodes' agents.

Beside it, in the same run: how long Docker takes to start one.
"""

from __future__ import annotations

import json
import time

from bed import Bed
from figures import Figure

CONTAINERS = 20

IMAGE = """
set -e; rm -rf /tmp/reg && mkdir -p /tmp/reg/bin && cp /bin/busybox /tmp/reg/bin/sh && tar -C /tmp/reg -c . | docker import - reg >/dev/null
"""
START = """
now() { date +%s%N; }
began=$(now)
for number in $(seq COUNT); do
  docker run -d --name reg$number --cgroup-parent=/hypermesh --label hypermesh.cluster=ID --label hypermesh.service=bench/reg reg \
    /bin/sh -c "trap exit TERM; while :; do sleep 3600 & wait; done" >/dev/null
done
echo $(( ($(now) - began) / 1000000 ))
"""


def measure(bed: Bed) -> list[Figure]:
    cluster = json.loads(bed.hmctl("config", "show", "-o", "json").stdout)["id"]
    bed.on("node1", "bash", "-c", IMAGE)
    try:
        took = float(bed.on("node1", "bash", "-c", START.replace("COUNT", str(CONTAINERS)).replace("ID", cluster))) / 1e3
        began = time.monotonic()
        while _known(bed) < CONTAINERS:
            if time.monotonic() - began > 60:
                raise TimeoutError("the containers are not in the registry")
        lag = time.monotonic() - began
    finally:
        bed.on("node1", "bash", "-c", "docker rm -f $(docker ps -aq --filter ancestor=reg) >/dev/null 2>&1 || true")
    note = f"{CONTAINERS} containers started one after the other; from the last one's start until `hmctl service` lists all as fit"
    return [Figure("registry: containers known to all", lag, "s", 3, f"docker run of {CONTAINERS}", took, note=note, tolerance=3.0)]


def _known(bed: Bed) -> int:
    """How many are fit for traffic."""
    document = json.loads(bed.hmctl("service", "ls", "bench/reg", "-o", "json", check=False).stdout or "{}")
    return sum(instance["health"] == "healthy" for instance in document.get("instances", []))
