"""Containers that the cluster runs: created, more of them, replaced one by one, and running again after a host was killed; beside Docker
Swarm doing the same on the same hosts, with the same image, before.

Ours are in the cluster's network, with names. So are those of Swarm's service that targets speak of: in an overlay network, as
`docker stack deploy` makes one for every compose file. A service in no network costs Docker less (no name server and no second interface
for each container): everything is measured beside that, too, without a target.

What counts is the containers as Docker on the hosts tells of them (containers.py), for both: from the begin of the command, or the end of
the host, until all that shall run do.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from statistics import median
from typing import Protocol

import bed as beds
from bed import Bed
from containers import Wanted, Watch, anew, count, watch, without
from figures import Figure, Kind
from swarm import Swarm, swarm

FEW, MANY = 6, 30
ROUNDS = 3  # of creating and scaling
PATIENCE = 150.0  # seconds, for one step
NOISE = 1.05

PEER, AS_FAST = "Docker Swarm", "Docker Swarm's"
CREATED = Kind(f"apps: {FEW} replicas created", "s", None, PEER, tolerance=1.8)
SCALED = Kind(f"apps: {FEW} replicas scaled to {MANY}", "s", None, PEER, tolerance=1.8)
ROLLED = Kind(f"apps: {MANY} replicas restarted one by one", "s", None, PEER)
FOLLOWER = Kind("apps: a follower's node killed, all replicas run again", "s", 6, PEER, tolerance=1.8)
LEADER = Kind("apps: the leader's node killed, all replicas run again", "s", 8, PEER, tolerance=1.8)
CREATED_OVER = Kind(f"apps: {FEW} replicas created, over Swarm's", "x", 1, "as fast as Swarm", tolerance=1.8, slack=NOISE)
SCALED_OVER = Kind(f"apps: {FEW} replicas scaled to {MANY}, over Swarm's", "x", 1, "as fast as Swarm", tolerance=1.8, slack=NOISE)
ROLLED_OVER = Kind(f"apps: {MANY} replicas restarted one by one, over Swarm's", "x", 1, "as fast as Swarm")
FOLLOWER_OVER = Kind("apps: a follower's node killed, over Swarm's", "x", 1 / 3, "as fast as Swarm", tolerance=1.8)
LEADER_OVER = Kind("apps: the leader's node killed, over Swarm's", "x", 1 / 3, "as fast as Swarm", tolerance=1.8)
IN_NETWORK = (CREATED, CREATED_OVER, SCALED, SCALED_OVER, ROLLED, ROLLED_OVER, FOLLOWER, FOLLOWER_OVER, LEADER, LEADER_OVER)
APART = tuple(Kind(f"{kind.name}, beside a service in no network", "s", None, PEER, tolerance=1.8) for kind in IN_NETWORK[::2])
FIGURES = IN_NETWORK + APART

IMAGE, APP, SERVICE = "bench-app:1", "bench", "web"
COMMAND = ("sleep", "1000000")  # with Docker's own init before it, which ends at SIGTERM: nobody waits for the grace
MAKE_IMAGE = f"""
set -e; rm -rf /tmp/app; mkdir -p /tmp/app/bin /tmp/app/tmp; cp /bin/busybox /tmp/app/bin/sleep
tar -C /tmp/app -c . | docker import - {IMAGE} >/dev/null; docker save {IMAGE} | base64
"""


class Side(Protocol):
    """A way to run containers. What changes something returns when that began, in unix time."""

    @property
    def labels(self) -> dict[str, str]: ...
    def create(self, replicas: int) -> float: ...
    def scale(self, replicas: int) -> float: ...
    def restart(self) -> float: ...
    def remove(self) -> float: ...
    def leader(self) -> str: ...
    def healed(self) -> None:
        """Waits until all hosts are members again."""


@dataclass(frozen=True)
class Times:
    """Seconds; of what was done in rounds, the median."""

    created: float
    scaled: float
    rolled: float
    follower: float
    leader: float


def measure(bed: Bed) -> list[Figure]:
    nodes = bed.addresses()
    share_image(bed, list(nodes))
    theirs, apart = (_of_swarm(bed, nodes, network) for network in ("bench", ""))
    ours = times(bed, Ours(bed), list(nodes))
    return figures(ours, theirs, apart)


def _of_swarm(bed: Bed, nodes: dict[str, str], network: str) -> Times:
    with swarm(bed, nodes, network) as joined:
        found = times(bed, OfSwarm(joined), list(nodes))
    bed.until_healthy()
    return found


def figures(ours: Times, theirs: Times, apart: Times) -> list[Figure]:
    """`theirs`: of Swarm's service in a network; `apart`: of one in none."""
    overlay = "Swarm's in an overlay network, as a stack's"
    how = f"median of {ROUNDS}; from the command's begin until Docker on the hosts tells that all run; {overlay}"
    rolling = f"`stop-first`, watched for 1 s each; from the command's begin until all are new ones; {overlay}"
    killed = f"of {MANY} replicas on three nodes; from the host's end, as if its power failed, until all run on the others; {overlay}"
    return [
        CREATED.of(ours.created, theirs.created, how),
        CREATED_OVER.of(ours.created / theirs.created, 1.0, "the same"),
        SCALED.of(ours.scaled, theirs.scaled, how),
        SCALED_OVER.of(ours.scaled / theirs.scaled, 1.0, "the same"),
        ROLLED.of(ours.rolled, theirs.rolled, rolling),
        ROLLED_OVER.of(ours.rolled / theirs.rolled, 1.0, "the same"),
        FOLLOWER.of(ours.follower, theirs.follower, f"{killed}; Swarm's: a manager that does not lead"),
        FOLLOWER_OVER.of(ours.follower / theirs.follower, 1.0, "the same"),
        LEADER.of(ours.leader, theirs.leader, "the same, the node that leads; Swarm's: the manager that leads"),
        LEADER_OVER.of(ours.leader / theirs.leader, 1.0, "the same"),
        *(
            kind.of(one, other, "the same, but Swarm's in no network")
            for kind, one, other in zip(APART, astuple(ours), astuple(apart), strict=True)
        ),
    ]


def times(bed: Bed, side: Side, nodes: list[str]) -> Times:
    """Raises TimeoutError when something does not come to its end."""
    with running(bed, side, nodes) as seen:  # warm: what only a first service needs (networks) is made
        side.create(len(nodes))
        seen.until(count(len(nodes)), PATIENCE, "the first replicas")
    created, scaled = zip(*(_grown(bed, side, nodes) for _ in range(ROUNDS)), strict=True)
    with running(bed, side, nodes) as seen:
        side.create(MANY)
        seen.until(count(MANY), PATIENCE, f"{MANY} replicas")
        settle(seen)
        old = seen.running
        rolled = _took(seen, side.restart(), anew(MANY, old), f"{MANY} new replicas")
        settle(seen)
        leader = side.leader()
        follower = killed(bed, side, seen, next(node for node in nodes if node != leader))
    with running(bed, side, nodes) as seen:
        side.create(MANY)
        seen.until(count(MANY), PATIENCE, f"{MANY} replicas")
        settle(seen)
        led = killed(bed, side, seen, side.leader())
    return Times(median(created), median(scaled), rolled, follower, led)


def _grown(bed: Bed, side: Side, nodes: list[str]) -> tuple[float, float]:
    """Seconds to create FEW replicas, and to scale them to MANY."""
    with running(bed, side, nodes) as seen:
        created = _took(seen, side.create(FEW), count(FEW), f"{FEW} replicas")
        settle(seen)
        scaled = _took(seen, side.scale(MANY), count(MANY), f"{MANY} replicas")
        settle(seen)
        return created, scaled


@contextmanager
def running(bed: Bed, side: Side, nodes: list[str]) -> Iterator[Watch]:
    """A watch over what runs meanwhile; afterwards nothing does."""
    with watch(bed, nodes, side.labels) as seen:
        try:
            yield seen
        finally:
            side.remove()
        seen.until(count(0), PATIENCE, "no replicas")


def settle(seen: Watch, quiet: float = 3.0, within: float = PATIENCE) -> None:
    """Until nothing has begun or ended for so many seconds: what the last step left to do is not part of the next one."""
    deadline = time.monotonic() + within
    with seen.news:
        while seen.news.wait(quiet):
            if time.monotonic() > deadline:
                raise TimeoutError(f"containers begin and end for more than {within:g} s")


def killed(bed: Bed, side: Side, seen: Watch, node: str) -> float:
    """Seconds from the end of `node` until as many as before run elsewhere. It is there again afterwards."""
    before = len(seen.running)
    try:
        bed.lab("kill", "--name", beds.LAB, node)
        end = seen.end_of(node)
        return seen.until(without(before, node), PATIENCE, f"{before} replicas after the end of {node}") - end
    finally:
        bed.lab("start", "--name", beds.LAB, node)
        side.healed()


def _took(seen: Watch, began: float, wanted: Wanted, what: str) -> float:
    return seen.until(wanted, PATIENCE, what) - began


@dataclass(frozen=True)
class Ours:
    bed: Bed

    @property
    def labels(self) -> dict[str, str]:
        return {"hypermesh.service": f"{APP}/{SERVICE}"}

    def create(self, replicas: int) -> float:
        return self._begun("deploy", "--file", "-", "--yes", "--no-wait", stdin=compose(replicas))

    def scale(self, replicas: int) -> float:
        return self._begun("scale", f"{APP}/{SERVICE}={replicas}", "--no-wait")

    def restart(self) -> float:
        return self._begun("restart", f"{APP}/{SERVICE}", "--no-wait")

    def remove(self) -> float:
        return self._begun("rm", APP, "--yes")

    def leader(self) -> str:
        return self.bed.until_healthy()

    def healed(self) -> None:
        self.bed.until_healthy()

    def _begun(self, *args: str, stdin: str | None = None) -> float:
        began = time.time()
        self.bed.hmctl("app", *args, stdin=stdin)
        return began


@dataclass(frozen=True)
class OfSwarm:
    swarm: Swarm

    @property
    def labels(self) -> dict[str, str]:
        return {"com.docker.swarm.service.name": SERVICE}

    def create(self, replicas: int) -> float:
        return self.swarm.create(SERVICE, IMAGE, replicas, *COMMAND)

    def scale(self, replicas: int) -> float:
        return self.swarm.scale(SERVICE, replicas)

    def restart(self) -> float:
        return self.swarm.restart(SERVICE)

    def remove(self) -> float:
        return self.swarm.remove(SERVICE)

    def leader(self) -> str:
        return self.swarm.leader()

    def healed(self) -> None:
        self.swarm.until_all_are_there()


def compose(replicas: int) -> str:
    """The app as a compose file: JSON is YAML."""
    deploy = {"replicas": replicas, "update_config": {"parallelism": 1, "monitor": "1s"}}
    service = {"image": IMAGE, "command": COMMAND, "init": True, "deploy": deploy}
    return json.dumps({"name": APP, "services": {SERVICE: service}})


def share_image(bed: Bed, nodes: list[str]) -> None:
    """The same bytes in each host's Docker, and known to the cluster: neither side has anything to bring there."""
    first, *others = nodes
    archive = bed.directory / "app.tar"
    archive.write_bytes(base64.b64decode(bed.on(first, "sh", "-c", MAKE_IMAGE)))
    for node in others:
        bed.on(node, "sh", "-c", "base64 -d | docker load", stdin=base64.b64encode(archive.read_bytes()).decode())
    bed.hmctl("image", "push", str(archive))
