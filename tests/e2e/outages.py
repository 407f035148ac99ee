"""An app in the lab to which its tests do harm: as its operator sees it, and as Docker on the hosts has it. And what others run there."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusters import AGENT, Cluster
from composing import tar
from docker_archives import Made, oci

OURS = "label=hypermesh.allocation"
UNPACKING = "/var/lib/docker/tmp"  # where Docker puts an archive that it loads, and layers that it pulls
STRANGERS = ("stranger", "stranger-of-the-cluster")  # the second has the cluster's label, as one started by hand may have; no allocation
INSPECT = """
for _ in 1 2 3 4 5; do  # what went between the two commands is no error
    docker ps --all --quiet --filter "$1" | xargs --no-run-if-empty docker inspect >/tmp/inspected && exec cat /tmp/inspected
done
exit 1
"""
COMPOSE = """
name: {name}
services:
  web:
    image: {image}
    command: {command}
    init: true
    stop_grace_period: 2s
    environment: {{REVISION: "{revision}"}}
    deploy: {deploy}
"""


@dataclass(frozen=True)
class Container:
    """As Docker has it. `started`: its last start, as Docker writes it; it tells a container that was left alone from all others."""

    id: str
    node: str
    name: str
    image: str
    started: str
    running: bool
    allocation: str


def containers(cluster: Cluster, chosen: str, nodes: Iterable[str] | None = None) -> dict[str, Container]:
    """By id, all that fit a filter of `docker ps`, running or not, on hosts that are up."""
    found = {}
    for node in cluster.names if nodes is None else nodes:
        listed = cluster.inside(node, "sh", "-c", INSPECT, "-", chosen)
        for each in json.loads(listed or "[]"):
            labels = each["Config"]["Labels"] or {}
            found[each["Id"]] = Container(
                each["Id"], node, each["Name"].removeprefix("/"), each["Image"], each["State"]["StartedAt"], each["State"]["Running"],
                labels.get("hypermesh.allocation", ""),
            )  # fmt: skip
    return found


def image_ids(cluster: Cluster, app: str) -> dict[str, set[str]]:
    """Of which images, by Docker's word, the running containers of an app are, by node."""
    found: dict[str, set[str]] = {}
    for each in containers(cluster, OURS).values():
        if each.running and each.allocation.startswith(f"{app}/"):
            found.setdefault(each.node, set()).add(each.image)
    return found


@dataclass(frozen=True)
class App:
    """One app with one service, `web`."""

    cluster: Cluster
    folder: Path
    name: str
    image: str
    deploy: str = "{replicas: 6, restart_policy: {delay: 1s}, update_config: {parallelism: 2, monitor: 2s}}"
    command: str = '[sleep, "3600"]'

    def file(self, revision: int) -> Path:
        path = self.folder / f"{self.name}-{revision}.yaml"
        path.write_text(COMPOSE.format(name=self.name, image=self.image, revision=revision, deploy=self.deploy, command=self.command))
        return path

    def run(self, command: str, *args: str | Path, **options: Any) -> Any:
        return self.cluster.run("app", command, *args, **options)

    def roll_out(self, revision: int, *args: str) -> None:
        self.run("deploy", "--file", self.file(revision), "--yes", *args)

    def rolling_out(self, revision: int) -> subprocess.Popen[str]:
        """hmctl, which follows the rollout, once some replicas are of the new generation and some are not."""
        generation = self.generation
        process = self.cluster.hmctl.start(
            "-i", self.cluster.inventory, "app", "deploy", "--file", self.file(revision), "--yes", "--timeout", "120", "-o", "json"
        )

        def halfway() -> bool:
            live = self.replicas()
            return any(is_fit(each) and each["generation"] > generation for each in live) and is_mixed(live)

        self.until(halfway, 30, "the rollout is on its way")
        return process

    def is_halfway(self) -> bool:
        return is_mixed(self.replicas())

    @property
    def generation(self) -> int:
        return int(self._ps()["generation"])

    def _ps(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run("ps", self.name, "-o", "json").stdout)
        return document

    def replicas(self) -> list[dict[str, Any]]:
        """Those that shall not stop."""
        return [each for each in self._ps()["replicas"] if not each["stop"]]

    def fit(self) -> list[dict[str, Any]]:
        return [each for each in self.replicas() if is_fit(each)]

    def containers(self, *nodes: str) -> dict[str, Container]:
        found = containers(self.cluster, OURS, nodes or None)
        return {id: each for id, each in found.items() if each.allocation.startswith(f"{self.name}/")}

    def until(self, condition: Callable[[], object], within: float, what: str) -> float:
        """Seconds until it is so. Fails the test, showing the replicas, when it never is."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > within:
                pytest.fail(f"not within {within:g} s: {what}\n{self.run('ps', self.name, check=False).stdout}{self.explained()}")
        return time.monotonic() - began

    def until_whole(self, within: float = 60.0, *, count: int = 6, without: Collection[str] = ()) -> float:
        """Until all `count` replicas are as they shall be, none of them on the nodes `without`; and Docker says so, too."""
        up = [name for name in self.cluster.names if name not in without]

        def whole() -> bool:
            live = self.replicas()
            if len(live) != count or not all(each["current"] and is_fit(each) and each["node"] not in without for each in live):
                return False
            running = {id for id, each in self.containers(*up).items() if each.running}
            return {each["container"] for each in live} <= running

        return self.until(whole, within, f"{count} replicas of {self.name} are healthy")

    def until_nothing_else(self, within: float = 30.0) -> None:
        """Until Docker has a container for each replica, and none beside them."""
        self.until(lambda: set(self.containers()) == {each["container"] for each in self.replicas()}, within, "nothing old is left")

    def explained(self) -> str:
        return str(self.run("explain", self.name, check=False).stdout)


def is_fit(replica: Mapping[str, Any]) -> bool:
    return (replica["phase"], replica["health"]) == ("running", "healthy")


def is_mixed(replicas: Iterable[Mapping[str, Any]]) -> bool:
    """Some are as they shall be, and some are to be replaced."""
    return {each["current"] for each in replicas} == {True, False}


@dataclass(frozen=True)
class Strangers:
    """Containers that are none of our business, on every host."""

    cluster: Cluster

    def start(self) -> None:
        made = "mkdir -p /tmp/stranger/bin; cp /bin/busybox /tmp/stranger/bin/sleep; tar -C /tmp/stranger -c . | docker import - stranger"
        run = "docker run --detach --init --cgroup-parent=/hypermesh --stop-timeout 1"
        labels = f"--label hypermesh.cluster={self._id}"
        for node in self.cluster.names:
            plain = f"{run} --name {STRANGERS[0]} stranger /bin/sleep 86400"
            labelled = f"{run} --name {STRANGERS[1]} {labels} stranger /bin/sleep 86400"
            self.cluster.inside(node, "sh", "-ec", f"{made}; {plain}; {labelled}")

    def remove(self) -> None:
        for node in self.cluster.names:
            self.cluster.inside(node, "docker", "rm", "--force", *STRANGERS)

    @property
    def _id(self) -> str:
        return next(line.split()[1] for line in self.cluster.inventory.read_text().splitlines() if line.startswith("id:"))

    def seen(self) -> dict[str, tuple[str, dict[str, Container]]]:
        """By node: which start of Docker this is, and what it has."""
        found = containers(self.cluster, "name=stranger")
        assert len(found) == len(STRANGERS) * len(self.cluster.names)
        return {
            node: (
                self.cluster.inside(node, "systemctl", "show", "-p", "InvocationID", "--value", "docker.service").strip(),
                {id: each for id, each in found.items() if each.node == node},
            )
            for node in self.cluster.names
        }

    def were_left_alone(self, before: dict[str, tuple[str, dict[str, Container]]]) -> None:
        """What Docker ends with itself stays so: nobody starts it, and nobody removes it."""
        for node, (docker, there) in self.seen().items():
            docker_before, there_before = before[node]
            if docker == docker_before:
                assert there == there_before
            assert {(each.id, each.started) for each in there.values()} == {(each.id, each.started) for each in there_before.values()}


def image(cluster: Cluster, folder: Path, name: str, ballast: bytes = b"") -> str:
    """An image with busybox of the lab's hosts in it, pushed as `name`; with a layer of its own if there is `ballast`."""
    done = cluster.lab.exec(cluster.names[0], ["cat", "/bin/busybox"])
    assert done.returncode == 0
    layers = [tar({"bin/busybox": done.stdout, "bin/sh": "busybox", "bin/sleep": "busybox"})]
    layers += [tar({"ballast": ballast})] if ballast else []
    path = folder / f"{name.replace(':', '-')}.tar"
    path.write_bytes(oci(Made(layers=tuple(layers), names=(name,), extra="PATH=/bin")))
    cluster.run("image", "push", path)
    return name


@contextmanager
def small(cluster: Cluster, node: str, folder: str) -> Iterator[None]:
    """There is room for 1 MiB in it."""
    cluster.inside(node, "mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", folder)
    try:
        yield
    finally:
        cluster.inside(node, "umount", folder)


def agents_started(cluster: Cluster) -> dict[str, int]:
    """The process of each agent, once systemd calls it started."""
    for node in cluster.names:
        cluster.inside(node, "sh", "-c", f"until systemctl is-active --quiet {AGENT}; do sleep 0.1; done")
    return {node: cluster.agent_pid(node) for node in cluster.names}
