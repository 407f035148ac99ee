"""Docker Swarm on the lab's hosts, as a peer: every host a manager, nothing of ours asked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bed import Bed

LEFT_BEHIND = "docker swarm leave --force >/dev/null 2>&1; docker network rm docker_gwbridge >/dev/null 2>&1; true"


@dataclass(frozen=True)
class Swarm:
    """`nodes`: names of hosts with their addresses. Commands are given on the first, and begin when Docker's own does, unix time.
    `network`: that services are in; empty: none that hosts share."""

    bed: Bed
    nodes: Mapping[str, str]
    network: str = ""

    @property
    def first(self) -> str:
        return next(iter(self.nodes))

    def docker(self, *argv: str) -> float:
        told = self.bed.on(self.first, "sh", "-c", 'date +%s.%N; exec "$@" >/dev/null', "sh", "docker", *argv)
        return float(told.split()[0])

    def create(self, name: str, image: str, replicas: int, *command: str) -> float:
        rolling = ("--update-parallelism", "1", "--update-monitor", "1s", "--update-delay", "0s")
        argv = ("service", "create", "--detach", "--no-resolve-image", "--init", "--name", name, *rolling)
        # By names and addresses of replicas; the one address for all of a service would need IPVS in the kernel.
        within = ("--network", self.network, "--endpoint-mode", "dnsrr") if self.network else ()
        return self.docker(*argv, *within, "--replicas", str(replicas), image, *command)

    def scale(self, name: str, replicas: int) -> float:
        return self.docker("service", "scale", "--detach", f"{name}={replicas}")

    def restart(self, name: str) -> float:
        return self.docker("service", "update", "--detach", "--force", name)

    def remove(self, name: str) -> float:
        return self.docker("service", "rm", name)

    def leader(self) -> str:
        return next(row["Hostname"] for row in self._managers() if row["ManagerStatus"] == "Leader")

    def until_all_are_there(self, within: float = 60.0) -> None:
        """Raises TimeoutError."""
        deadline = time.monotonic() + within
        while not self._all_are_there():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all managers of the swarm are there: {self._managers()}")
            time.sleep(0.2)

    def _all_are_there(self) -> bool:
        return sum(_is_there(row) for row in self._managers()) == len(self.nodes)

    def _managers(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.bed.on(self.first, "docker", "node", "ls", "--format", "{{json .}}").splitlines()]


def _is_there(row: Mapping[str, str]) -> bool:
    return row["Status"] == "Ready" and row["ManagerStatus"] in ("Leader", "Reachable")


@contextmanager
def swarm(bed: Bed, nodes: Mapping[str, str], network: str = "") -> Iterator[Swarm]:
    """All hosts joined as managers, with a network over all of them that is called so; afterwards none is, and what Swarm made on them is
    gone."""
    first, *others = nodes
    try:
        bed.on(first, "docker", "swarm", "init", "--advertise-addr", nodes[first])
        token = bed.on(first, "docker", "swarm", "join-token", "-q", "manager").strip()
        for node in others:
            bed.on(node, "docker", "swarm", "join", "--token", token, "--advertise-addr", nodes[node], f"{nodes[first]}:2377")
        made = Swarm(bed, nodes, network)
        made.until_all_are_there()
        if network:
            made.docker("network", "create", "--driver", "overlay", network)
        yield made
    finally:
        for node in nodes:
            bed.on(node, "sh", "-c", LEFT_BEHIND)
