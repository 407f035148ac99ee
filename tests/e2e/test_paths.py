"""The ways through the layers, on real hosts: what happens in one of them arrives in the next, also when something breaks in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from clusters import AGENT, Cluster

from hmcore import pki
from hmcore.api import FLOWS, MAINTAIN, REGISTRY, STATE, Empty, MaintainRequest, Method, StateReply, StateRequest
from hmcore.config import yaml12
from hmcore.errors import NoQuorum, NotLeader, PermissionDenied
from hmcore.pki import Identity, Kind
from hmcore.records import Instance, InstanceHealth
from hmcore.stoq.endpoint import Credentials, Local, dial
from hmcore.stoq.rpc import invoke
from hmctl.state import OperatorStore

Req = TypeVar("Req")
Res = TypeVar("Res")

IMAGE = """
mkdir -p /tmp/paths/bin /tmp/paths/www && cp /bin/busybox /tmp/paths/bin/ && head -c 100000 /dev/zero > /tmp/paths/www/page
for name in wget httpd sleep mark-one mark-two; do ln -sf busybox /tmp/paths/bin/$name; done
tar -C /tmp/paths -c . | docker import - hm-paths >/dev/null
"""
SLEEP = ("/bin/sleep", "3600")
SERVE = ("/bin/httpd", "-f", "-p", "80", "-h", "/www")


@dataclass(frozen=True)
class Bed:
    """A healthy cluster with an image for containers on every node, and whoever holds its CA."""

    cluster: Cluster
    id: str
    authority: pki.KeyPair

    def ask(self, node: str, method: Method[Req, Res], request: Req, kind: Kind = Kind.VIEWER, name: str = "paths") -> Res:
        """From this machine, which is none of the nodes, over mutual TLS."""
        who = Identity(self.id, kind, name)
        pair = pki.issue(self.authority, who, datetime.now(UTC))
        credentials = Credentials(self.authority.certificate, pair.certificate, pair.key)
        host = next(host for host in self.cluster.lab.view().hosts if host.name == node)

        async def call() -> Res:
            server = Identity(self.id, Kind.NODE, node)
            connection = await dial(
                host.address, 7443, credentials=credentials, local=Local(who, kind.value, "r1"), server=server, timeout=10.0
            )
            try:
                return await invoke(connection, method, request, timeout=10.0)
            finally:
                await connection.close()

        return asyncio.run(call())

    def run(self, node: str, name: str, *command: str, service: str = "paths/web", options: tuple[str, ...] = ()) -> None:
        labels = ("--label", f"hypermesh.cluster={self.id}", "--label", f"hypermesh.service={service}", "--label", "hypermesh.port=80")
        head = ("docker", "run", "--detach", "--init=false", "--cgroup-parent=/hypermesh", "--stop-signal=KILL", "--name", name)
        self.cluster.inside(node, *head, *labels, *options, "hm-paths", *command)

    def seen_by(self, node: str) -> dict[str, Instance]:
        """The instances as this node knows them."""
        return {instance.id: instance for instance in self.ask(node, REGISTRY, Empty()).instances}

    def health(self, instance: str, *nodes: str) -> set[InstanceHealth | None]:
        """What all nodes (or those named) think of an instance; None when one does not know it."""
        found = [self.seen_by(node).get(instance) for node in nodes or self.cluster.names]
        return {None if each is None else each.health for each in found}

    def state(self, node: str) -> StateReply:
        return self.ask(node, STATE, StateRequest())

    def leader(self) -> str:
        leader = self.cluster.status()["leader"]
        assert isinstance(leader, str)
        return leader

    def follower(self) -> str:
        return next(name for name in self.cluster.names if name != self.leader())

    def flows(self) -> dict[str, dict[str, Any]]:
        """TCP counters of each container, by `node/container`, summed over its peers."""
        document = json.loads(self.cluster.run("flows", "-o", "json").stdout)
        total: dict[str, dict[str, Any]] = {}
        for flow in document["flows"]:
            if flow["protocol"] == "tcp":
                mine = total.setdefault(f"{flow['node']}/{flow['container']}", {"bytes_in": 0, "connections_out": 0, "connections_in": 0})
                for counter in mine:
                    mine[counter] += flow[counter]
        return total

    def address_of(self, node: str, container: str) -> str:
        form = "{{.NetworkSettings.Networks.bridge.IPAddress}}"
        return self.cluster.inside(node, "docker", "inspect", "--format", form, container).strip()

    def fetch(self, node: str, container: str, times: int = 1) -> None:
        """`container` fetches the page from `server`, its neighbour."""
        url = f"http://{self.address_of(node, 'server')}/page"
        for _ in range(times):
            self.cluster.inside(node, "docker", "exec", container, "/bin/wget", "-q", "-O", "/dev/null", url)

    def executed(self, program: str) -> set[str]:
        """In which containers a program began, as `hmctl events` tells it."""
        document = json.loads(self.cluster.run("events", "--kind", "exec", "--since", "10m", "-o", "json").stdout)
        return {f"{e['node']}/{e['container']}" for e in document["events"] if e.get("attributes", {}).get("filename") == program}


@pytest.fixture(scope="module")
def made(cluster: Cluster) -> Iterator[Bed]:
    cluster.until_healthy()
    document = yaml12.load(cluster.inventory.read_text(), "lab").value
    assert isinstance(document, dict)
    store = OperatorStore.open(document["id"], Path(cluster.hmctl.environ["XDG_DATA_HOME"]) / "hypermesh")
    for node in cluster.names:
        cluster.inside(node, "sh", "-ec", IMAGE)
    yield Bed(cluster, document["id"], store.authority())
    for node in cluster.names:
        cluster.inside(node, "docker", "rmi", "--force", "hm-paths")


@pytest.fixture
def bed(made: Bed) -> Iterator[Bed]:
    made.cluster.until_healthy()
    yield made
    made.cluster.lab.heal()
    for node in made.cluster.names:
        made.cluster.inside(node, "sh", "-c", "docker ps --all --quiet --filter ancestor=hm-paths | xargs -r docker rm --force >/dev/null")
    made.cluster.until_healthy()


def test_transport_to_consensus_a_leader_cut_off_decides_nothing_and_learns_what_was_decided(bed: Bed) -> None:
    cluster, old = bed.cluster, bed.leader()
    others = [name for name in cluster.names if name != old]
    cluster.lab.partition([[old], others])
    change = MaintainRequest(id=uuid4().hex, target=f"{old}/", on=True, reason="by whom nobody hears")
    with pytest.raises((NotLeader, NoQuorum)):
        bed.ask(old, MAINTAIN, change, Kind.OPERATOR)  # at once: it still believes that it leads
    cluster.until_leader_is_not(old, within=15)
    with pytest.raises((NotLeader, NoQuorum)):
        bed.ask(old, MAINTAIN, change, Kind.OPERATOR)
    cluster.run("service", "maintain", f"{others[0]}/registry", "--on", "--reason", "by the majority", "--yes")
    assert bed.state(old).maintenance == [], "who is cut off cannot know"
    cluster.lab.heal()
    try:
        cluster.until_healthy()
        states = {name: bed.state(name) for name in cluster.names}
        wanted = [(f"{others[0]}/registry", "by the majority")]
        assert {name: [(each.target, each.reason) for each in state.maintenance] for name, state in states.items()} == {
            name: wanted for name in cluster.names
        }
        assert len({state.leader for state in states.values()}) == 1
    finally:
        cluster.run("service", "maintain", f"{others[0]}/registry", "--off", "--yes")


def test_consensus_to_container_an_instance_lives_and_ends_with_its_container_whoever_leads(
    bed: Bed, eventually: Callable[..., None]
) -> None:
    cluster, node = bed.cluster, bed.follower()
    mine = f"{node}/paths-web"
    bed.run(node, "paths-web", *SERVE)
    eventually(lambda: bed.health(mine) == {InstanceHealth.HEALTHY}, within=15)
    known = {name: bed.seen_by(name)[mine] for name in cluster.names}
    assert len(set(map(str, known.values()))) == 1, "all know it alike"
    assert (known[node].service, known[node].port, known[node].address) == ("paths/web", 80, bed.address_of(node, "paths-web"))

    old = bed.leader()
    cluster.kill_agent(old)
    cluster.until_healthy()
    assert bed.health(mine) == {InstanceHealth.HEALTHY}, "a new leader, or the same one anew, knows what the log says"
    assert {str(bed.seen_by(name)[mine]) for name in cluster.names} == set(map(str, known.values()))

    cluster.kill_agent(bed.leader())
    cluster.inside(node, "docker", "rm", "--force", "paths-web")  # while nobody leads
    cluster.until_healthy()
    eventually(lambda: bed.health(mine) == {None}, within=20)


def test_container_to_security_traffic_and_programs_are_those_of_their_container(bed: Bed, eventually: Callable[..., None]) -> None:
    cluster, node = bed.cluster, "node1"
    bed.run(node, "server", *SERVE)
    for name in ("busy", "quiet"):
        bed.run(node, name, *SLEEP, service=f"paths/{name}")
    bed.fetch(node, "busy", 3)
    cluster.lab.exec(node, ["docker", "exec", "quiet", "/bin/mark-one"])  # no such applet: it fails, but it began

    def counted(connections: int) -> bool:
        flows = bed.flows()
        assert flows[f"{node}/busy"]["connections_out"] == connections
        assert flows[f"{node}/server"]["connections_in"] == connections
        assert flows[f"{node}/busy"]["bytes_in"] > connections * 100_000
        assert flows.get(f"{node}/quiet", {"bytes_in": 0})["bytes_in"] == 0
        return True

    eventually(lambda: counted(3), within=5)
    eventually(lambda: bed.executed("/bin/mark-one") == {f"{node}/quiet"}, within=5)

    cluster.inside(node, "systemctl", "stop", AGENT)
    try:
        bed.fetch(node, "busy", 2)  # counted while nobody looks
    finally:
        cluster.inside(node, "systemctl", "start", AGENT)
    cluster.until_healthy()
    eventually(lambda: counted(5), within=5)
    cluster.lab.exec(node, ["docker", "exec", "busy", "/bin/mark-two"])
    eventually(lambda: bed.executed("/bin/mark-two") == {f"{node}/busy"}, within=5)


def test_security_to_transport_what_a_kernel_counted_is_read_from_elsewhere_by_those_who_may(
    bed: Bed, eventually: Callable[..., None]
) -> None:
    cluster, node = bed.cluster, bed.follower()
    others = [name for name in cluster.names if name != node]
    bed.run(node, "server", *SERVE)
    bed.run(node, "client", *SLEEP)
    bed.fetch(node, "client")
    eventually(lambda: bed.flows()[f"{node}/client"]["connections_out"] == 1, within=5)

    for kind in (Kind.VIEWER, Kind.OPERATOR):
        assert {flow.container for flow in bed.ask(node, FLOWS, Empty(), kind).flows} >= {"client", "server"}
    with pytest.raises(PermissionDenied, match=rf"node {others[0]} may not call security\.flows"):
        bed.ask(node, FLOWS, Empty(), Kind.NODE, others[0])

    cluster.lab.partition([[node], others])
    cluster.lab.block(node, "udp", 7443)
    done = cluster.run("flows", "-o", "json", "--via", "quic", check=False)
    assert done.returncode == 3
    assert [problem["node"] for problem in json.loads(done.stdout)["problems"]] == [node]
    bed.fetch(node, "client", 2)  # counted while nobody can ask
    cluster.lab.heal()
    cluster.until_healthy()
    assert bed.flows()[f"{node}/client"]["connections_out"] == 3


def test_orchestration_what_a_dead_host_ran_is_unfit_everywhere_until_it_returns(bed: Bed, eventually: Callable[..., None]) -> None:
    cluster, node = bed.cluster, bed.follower()
    others = [name for name in cluster.names if name != node]
    mine, component = f"{node}/paths-web", f"{node}/transport"
    bed.run(node, "paths-web", *SERVE, options=("--restart=always",))
    eventually(lambda: bed.health(mine) == bed.health(component) == {InstanceHealth.HEALTHY}, within=15)
    cluster.lab.kill(node)
    try:
        eventually(lambda: bed.health(mine, *others) == bed.health(component, *others) == {InstanceHealth.UNHEALTHY}, within=15)
        for name in others:
            seen = bed.seen_by(name)
            assert seen[mine].reason.startswith(f"{node} is "), "its node's state is the reason"
            assert seen[f"{others[0]}/transport"].health is InstanceHealth.HEALTHY
        assert cluster.run("service", "resolve", "paths/web", check=False).returncode == 1
    finally:
        cluster.lab.start(node)
    cluster.until_healthy()
    eventually(lambda: bed.health(mine) == bed.health(component) == {InstanceHealth.HEALTHY}, within=30)
    assert json.loads(cluster.run("service", "resolve", "paths/web", "-o", "json").stdout)["chosen"] == [mine]
