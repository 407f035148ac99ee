"""From a container on one node to one on another: iperf3 through the cluster's network, beside plain containers, and beside the hosts.

Plain containers are on a Docker bridge of their own on the same hosts, joined by routes that were typed in: nothing of ours handles their
packets, so that what is between the two is ours alone. Two equal ones of them say how much of that is noise.
"""

from __future__ import annotations

import base64
import json
import random
import statistics
from dataclasses import dataclass

from bed import Bed
from containers import count, watch
from figures import Figure, Kind

ROUNDS, SECONDS = 6, 2
NOISE = 1.03
PATIENCE = 60.0  # seconds

KEPT = Kind("container to container across nodes", "of plain routes", 0.95, "plain beside plain", at_least=True, tolerance=1.1, slack=NOISE)
TO_HOSTS = Kind("container to container across nodes, of host to host", "of it", None, "plain containers", at_least=True, tolerance=1.2)
FIGURES = (KEPT, TO_HOSTS)

APP, IMAGE, PORT = "cross", "bench-iperf:1", 5201
MAKE_IMAGE = f"""
set -e; rm -rf /tmp/iperf; mkdir -p /tmp/iperf/bin /tmp/iperf/tmp; cp -L /usr/bin/iperf3 /tmp/iperf/bin/
for library in $(ldd /usr/bin/iperf3 | grep -o '/[^ ]*'); do
  mkdir -p /tmp/iperf$(dirname $library); cp -L $library /tmp/iperf$library
done
tar -C /tmp/iperf -c . | docker import - {IMAGE} >/dev/null; docker save {IMAGE} | base64
"""
# A bridge of $1, where $2 is reached by way of $3; two plain containers on it, and one that is the host itself. Docker forwards to a bridge
# only what it publishes, or what somebody lets through before.
PLAIN = f"""
set -e; docker network create --subnet "$1" -o com.docker.network.bridge.enable_ip_masquerade=false plain >/dev/null
ip route add "$2" via "$3"; iptables -I DOCKER-USER -d "$1" -s "$2" -j ACCEPT
for name in plain control; do docker run -d --name $name --network plain --cgroup-parent=/plain {IMAGE} iperf3 -s >/dev/null; done
docker run -d --name host --network host --cgroup-parent=/plain {IMAGE} iperf3 -s -p 5211 >/dev/null
"""
CLEAR = """
docker rm -f plain control host >/dev/null 2>&1; docker network rm plain >/dev/null 2>&1
ip route del "$2" 2>/dev/null; iptables -D DOCKER-USER -d "$1" -s "$2" -j ACCEPT; true
"""
ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
SUBNETS = ("10.99.1.0/24", "10.99.2.0/24")


@dataclass(frozen=True)
class Way:
    """`client`: the container on the second node that sends; `server`: where to."""

    client: str
    server: str
    port: int = PORT


def measure(bed: Bed) -> list[Figure]:
    nodes = bed.addresses()
    ends = tuple(nodes)[:2]
    content = bed.on(ends[0], "bash", "-c", MAKE_IMAGE)
    bed.on(ends[1], "sh", "-c", "base64 -d | docker load", stdin=content)
    image = bed.directory / "iperf.tar"
    image.write_bytes(base64.b64decode(content))
    bed.hmctl("image", "push", str(image))
    try:
        ways = _ways(bed, nodes, ends)
        rounds = [{name: rate(bed, ends[1], ways[name]) for name in random.sample(sorted(ways), len(ways))} for _ in range(ROUNDS)]
    finally:
        bed.hmctl("app", "rm", APP, "--yes", check=False)
        for node, near, far in zip(ends, SUBNETS, reversed(SUBNETS), strict=True):
            bed.on(node, "sh", "-c", CLEAR, "sh", near, far)
    return figures(rounds)


def figures(rounds: list[dict[str, float]]) -> list[Figure]:
    """`rounds`: Gbit/s by way."""

    def typical(name: str) -> float:
        return statistics.median(row[name] for row in rounds)

    kept = statistics.median(2 * row["ours"] / (row["plain"] + row["control"]) for row in rounds)
    spread = [row["control"] / row["plain"] for row in rounds]
    plain = statistics.median((row["plain"] + row["control"]) / 2 / row["host"] for row in rounds)
    note = (
        f"iperf3 at {typical('ours'):.1f} Gbit/s, median of {len(rounds)} rounds of {SECONDS} s in a drawn order; plain containers "
        f"{typical('plain'):.1f}, hosts {typical('host'):.1f}; two equal ones differ by {min(spread):.2f} to {max(spread):.2f}"
    )
    over = statistics.median(row["ours"] / row["host"] for row in rounds)
    return [
        KEPT.of(kept, statistics.median(spread), note),
        TO_HOSTS.of(over, plain, "the same; a bridge and a route more at both ends"),
    ]


def rate(bed: Bed, node: str, way: Way) -> float:
    """Gbit/s that arrive. Raises RuntimeError with what iperf3 says if it fails."""
    argv = ("docker", "exec", way.client, "iperf3", "-c", way.server, "-p", str(way.port), "-t", str(SECONDS), "-J")
    told = json.loads(bed.on(node, *argv))
    if "error" in told:
        raise RuntimeError(f"iperf3 from {way.client} to {way.server}:{way.port}: {told['error']}")
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9


def _ways(bed: Bed, nodes: dict[str, str], ends: tuple[str, ...]) -> dict[str, Way]:
    """What is to be measured, all of it running."""
    for (node, other), (near, far) in zip((ends, reversed(ends)), (SUBNETS, reversed(SUBNETS)), strict=True):
        bed.on(node, "sh", "-c", PLAIN, "sh", near, far, nodes[other])
    with watch(bed, ends, {"hypermesh.app": APP}) as seen:
        bed.hmctl("app", "deploy", "--file", "-", "--yes", stdin=compose(ends))
        seen.until(count(2), PATIENCE, "a server and a client")
        containers = {node: container for container, node in seen.running.items()}
    server, client = (containers[node] for node in ends)
    ways = {name: Way(name, _address(bed, ends[0], name)) for name in ("plain", "control")}
    return ways | {"ours": Way(client, _address(bed, ends[0], server)), "host": Way("host", nodes[ends[0]], 5211)}


def _address(bed: Bed, node: str, container: str) -> str:
    return bed.on(node, "docker", "inspect", "-f", ADDRESS, container).strip()


def compose(ends: tuple[str, ...]) -> str:
    services = {
        name: {
            "image": IMAGE,
            "command": ["iperf3", "-s"],
            "init": True,
            "deploy": {"placement": {"constraints": [f"node.hostname=={node}"]}},
        }
        for name, node in zip(("server", "client"), ends, strict=True)
    }
    return json.dumps({"name": APP, "services": services})
