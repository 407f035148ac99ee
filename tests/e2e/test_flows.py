"""Who talks to whom and what happens inside containers, with real containers on real hosts, as `hmctl flows` and `hmctl events` tell it."""

from __future__ import annotations

import json
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from clusters import AGENT, Cluster

SIZE = 300_000  # bytes of the page that is fetched
IMAGE = """
set -e
mkdir -p /tmp/flows/bin /tmp/flows/www
cp /bin/busybox /tmp/flows/bin/
for name in wget httpd sleep mark-one mark-two mark-three; do ln -sf busybox /tmp/flows/bin/$name; done
head -c 300000 /dev/zero > /tmp/flows/www/page
tar -C /tmp/flows -c . | docker import - hm-flows
"""


def address(cluster: Cluster, node: str) -> str:
    return next(host.address for host in cluster.lab.view().hosts if host.name == node)


@pytest.fixture(scope="module")
def talking(cluster: Cluster) -> Iterator[Cluster]:
    """A web server on node2, its port 8080 published, with a neighbour; a client on node1."""
    cluster.until_healthy()
    identity = cluster.run("config", "show", "-o", "json").stdout
    label = f"hypermesh.cluster={json.loads(identity)['id']}"

    def start(node: str, name: str, *more: str) -> None:
        head, tail = more[: more.index("--")], more[more.index("--") + 1 :]
        options = ("--init=false", "--cgroup-parent=/hypermesh", "--label", label, "--name", name)
        cluster.inside(node, "docker", "run", "--detach", *options, *head, "hm-flows", *tail)

    try:
        for node in ("node1", "node2"):
            cluster.inside(node, "sh", "-c", IMAGE)
        web = ("--publish", "8080:80", "--label", "hypermesh.service=shop/web")
        start("node2", "web-1", *web, "--", "/bin/httpd", "-f", "-p", "80", "-h", "/www")
        start("node2", "neighbour", "--", "/bin/sleep", "3600")
        start("node1", "client", "--", "/bin/sleep", "3600")
        yield cluster
    finally:
        for node in ("node1", "node2"):
            cluster.lab.exec(node, ["sh", "-c", "docker rm --force web-1 neighbour client; docker rmi hm-flows"])


def flows(cluster: Cluster, *options: str) -> dict[tuple[str, str | None], dict[str, Any]]:
    """By container and the peer's name."""
    document = json.loads(cluster.run("flows", "-o", "json", *options).stdout)
    assert document["problems"] == []
    return {(f"{flow['node']}/{flow['container']}", flow["peer_name"]): flow for flow in document["flows"] if flow["protocol"] == "tcp"}


def fetch(cluster: Cluster, node: str, container: str, url: str) -> None:
    cluster.inside(node, "docker", "exec", container, "/bin/wget", "-q", "-O", "/dev/null", url)


def test_traffic_between_hosts_is_seen_from_both_ends(talking: Cluster) -> None:
    before = flows(talking)
    for _ in range(3):
        fetch(talking, "node1", "client", f"http://{address(talking, 'node2')}:8080/page")
    after = flows(talking)

    def more(key: tuple[str, str], counter: str) -> int:
        return int(after[key][counter]) - int(before.get(key, {}).get(counter, 0))

    client, server = ("node1/client", "node2"), ("node2/web-1", "node1")
    assert (more(client, "connections_out"), more(client, "connections_in")) == (3, 0)
    assert (more(server, "connections_in"), more(server, "connections_out")) == (3, 0)
    assert 3 * SIZE < more(client, "bytes_in") < 3.2 * SIZE
    assert 3 * SIZE < more(server, "bytes_out") < 3.2 * SIZE
    assert more(client, "packets_out") > 0
    assert after[client]["peer"] == address(talking, "node2")
    assert (after[client]["service"], after[server]["service"]) == ("client", "shop/web")
    assert set(flows(talking, "--node", "node1", "--container", "client")) == {client}
    table = talking.run("flows", "--service", "shop/*").stdout.splitlines()
    assert table[0].split()[:3] == ["CONTAINER", "SERVICE", "PEER"]
    assert all(line.startswith("node2/web-1") for line in table[1:])


def test_a_neighbour_has_its_name_and_a_container_that_is_gone_keeps_its_own(talking: Cluster, eventually: Callable[..., None]) -> None:
    inspect = ("docker", "inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "web-1")
    fetch(talking, "node2", "neighbour", f"http://{talking.inside('node2', *inspect).strip()}/page")
    assert flows(talking)["node2/neighbour", "node2/web-1"]["connections_out"] == 1
    assert flows(talking)["node2/web-1", "node2/neighbour"]["connections_in"] == 1
    talking.inside("node2", "docker", "rm", "--force", "neighbour")
    eventually(lambda: ("node2/web-1", "node2/neighbour") not in flows(talking))
    assert flows(talking)["node2/neighbour", "node2/web-1"]["connections_out"] == 1


class Follower:
    """A running `hmctl ... -f -o json`, and its lines as they come."""

    def __init__(self, cluster: Cluster, *args: str) -> None:
        self.process = cluster.hmctl.start("-i", cluster.inventory, *args, "-f", "-o", "json")
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def until(self, wanted: Callable[[dict[str, Any]], object], within: float) -> dict[str, Any]:
        deadline = time.monotonic() + within
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"not within {within:g} s")
            if wanted(line):
                return line


@contextmanager
def following(cluster: Cluster, *args: str) -> Iterator[Follower]:
    follower = Follower(cluster, *args)
    try:
        yield follower
    finally:
        if follower.process.poll() is None:
            follower.process.kill()
        follower.process.communicate()


def test_a_program_that_begins_is_told_at_once_also_by_a_restarted_agent(talking: Cluster) -> None:
    def is_mark(name: str) -> Callable[[dict[str, Any]], object]:
        return lambda line: line["attributes"].get("filename") == f"/bin/mark-{name}"

    def run(name: str) -> float:
        done = talking.lab.exec(
            "node1", ["docker", "exec", "client", f"/bin/mark-{name}"]
        )  # no applet of that name: it fails, but it began
        assert b"applet not found" in done.stderr + done.stdout
        return time.monotonic()

    with following(talking, "events", "--kind", "exec", "--container", "node1/client", "-n", "10") as follower:
        run("one")
        follower.until(is_mark("one"), within=15)  # it takes a while until hmctl itself is there
        began = run("two")
        line = follower.until(is_mark("two"), within=5)
        assert time.monotonic() - began < 2
        assert (line["node"], line["container"], line["kind"]) == ("node1", "client", "exec")
        assert line["message"].startswith("exec /bin/mark-two (pid ")

        talking.kill_agent("node1")
        talking.until_healthy()
        run("three")
        follower.until(is_mark("three"), within=15)
        follower.process.send_signal(signal.SIGINT)
        assert follower.process.wait(timeout=10) == 0


def test_rates_of_what_moves(talking: Cluster) -> None:
    with following(talking, "flows", "--interval", "0.5", "--container", "client") as follower:
        deadline = time.monotonic() + 15
        while follower.lines.empty() and time.monotonic() < deadline:
            fetch(talking, "node1", "client", f"http://{address(talking, 'node2')}:8080/page")
        line = follower.until(lambda line: line["peer_name"] == "node2", within=5)
        assert line["bytes_in_per_second"] > SIZE / 10
        assert line["connections_out_per_second"] > 0
        assert line["connections_in_per_second"] == 0


def test_the_clusters_events_have_their_time_and_author_beside_the_nodes_own(talking: Cluster) -> None:
    began = time.time()
    talking.run("service", "maintain", "node1/client", "--on", "--reason", "flows test", "--yes")
    try:
        found = json.loads(talking.run("events", "-o", "json", "--since", "10m").stdout)["events"]
    finally:
        talking.run("service", "maintain", "node1/client", "--off", "--yes")
    assert all(event["time"] for event in found)
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    (maintained,) = [event for event in found if event["kind"].startswith("maintenance.") and "flows test" in event["message"]]
    assert maintained["author"]
    assert maintained["time"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began - 1))
    assert {"exec", "tcp"} <= {event["kind"] for event in found}


def test_a_node_that_is_not_there_is_named_and_the_others_are_shown(talking: Cluster) -> None:
    talking.until_healthy()
    talking.inside("node2", "systemctl", "stop", AGENT)
    try:
        for command in ("flows", "events"):
            done = talking.run(command, "-o", "json", check=False)
            assert done.returncode == 3
            assert [problem["node"] for problem in json.loads(done.stdout)["problems"]] == ["node2"]
            assert "warning: node2: " in done.stderr
        assert talking.run("flows", "--node", "node2", check=False).returncode == 4
    finally:
        talking.inside("node2", "systemctl", "start", AGENT)
    talking.until_healthy()
