"""Settings of a running cluster: rolled node by node, taken back where a node does not come back, drift shown. Each test leaves the
cluster with the settings that it found."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import pytest
from clusters import AGENT, Cluster, settings

from hmcore.config.settings import Settings

CONFIG = "/etc/hypermesh/agent.yaml"
DROP_IN = f"/etc/systemd/system/{AGENT}.d/refuses.conf"
# A machine on which an agent with these settings does not come up, whatever its configuration looks like elsewhere; and on which something
# else befalls the start with others: $3.
REFUSES = """
mkdir -p "$(dirname "$1")"
cat > /usr/local/bin/refuses <<END
#!/bin/sh
! grep "interval: 7" $2 >/dev/null || { echo cannot do with 7 >&2; exit 1; }
$3
END
chmod 755 /usr/local/bin/refuses
printf '[Service]\\nExecStartPre=/usr/local/bin/refuses\\n' > "$1"
systemctl daemon-reload
"""
ACCEPTS = 'rm "$1" /usr/local/bin/refuses; systemctl daemon-reload; systemctl -q is-active "$2" || systemctl restart "$2"'
# Once, and only the connections that there are: hmctl dials again at once.
SSH_DROPS = """
test -e /run/dropped || {
  touch /run/dropped
  ss -Htn state established sport = :22 | while read -r _ _ _ peer; do ss -K dport = ":${peer##*:}" >/dev/null; done
}
true
"""
HANGS = "exec sleep 1000"
CONTAINER = """
mkdir -p /tmp/i/bin && cp /bin/busybox /tmp/i/bin/ && ln -sf busybox /tmp/i/bin/sleep
tar -C /tmp/i -c . | docker import - tiny >/dev/null
docker run --detach --init=false --name=stays --label hypermesh.cluster="$1" tiny /bin/sleep 3600 >/dev/null
"""


def configs(cluster: Cluster) -> dict[str, str]:
    return {name: cluster.inside(name, "cat", CONFIG) for name in cluster.names}


def diff(cluster: Cluster) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(cluster.run("config", "diff", "-o", "json", check=False).stdout)
    return document


def began(cluster: Cluster, name: str) -> int:
    """When its agent was up, in microseconds on the clock that all hosts of a lab share."""
    return int(cluster.inside(name, "systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", "--value", AGENT))


def stopped(cluster: Cluster, name: str) -> int:
    """When its agent was last stopped, on the same clock."""
    return int(cluster.inside(name, "systemctl", "show", "-p", "ActiveExitTimestampMonotonic", "--value", AGENT))


@dataclass(frozen=True)
class Look:
    """What status said, and when, in microseconds on the clock of `began`."""

    at: int
    health: str
    leader: str | None


def look(cluster: Cluster) -> Look:
    document = cluster.status()
    return Look(time.monotonic_ns() // 1000, document["health"], document["leader"])


@contextmanager
def looks(cluster: Cluster) -> Iterator[list[Look]]:
    """What status says before the block runs, and again and again while it does."""
    seen = [look(cluster)]
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            seen.append(look(cluster))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield seen
    finally:
        over.set()
        asking.join()


def longest_critical(seen: Sequence[Look]) -> float:
    """Seconds from the first to the last of those that found the cluster critical in a row."""
    spells = [list(spell) for health, spell in groupby(seen, lambda one: one.health) if health == "critical"]
    return max(((spell[-1].at - spell[0].at) / 1e6 for spell in spells), default=0.0)


@pytest.fixture
def container(cluster: Cluster) -> Iterator[Callable[[], str]]:
    """A container of the cluster on node1; called, says when it began."""
    cluster.inside("node1", "sh", "-c", CONTAINER, "container", "hm-any")
    try:
        yield lambda: cluster.inside("node1", "docker", "inspect", "-f", "{{.State.Running}} {{.State.StartedAt}} {{.State.Pid}}", "stays")
    finally:
        cluster.inside("node1", "docker", "rm", "--force", "stays")


def test_other_settings_are_rolled_leader_last_and_containers_go_on(cluster: Cluster, container: Callable[[], str]) -> None:
    cluster.until_healthy()
    runs, pids = container(), [cluster.agent_pid(name) for name in cluster.names]
    with settings(cluster, "{raft: {heartbeat: 0.15}, metrics: {interval: 7}}"):
        found = diff(cluster)
        assert [(change["path"], change["new"]) for change in found["common"]] == [
            ("settings.raft.heartbeat", 0.15),
            ("settings.metrics.interval", 7),
        ]
        assert cluster.run("config", "apply", "--dry-run", "--detailed-exitcode", check=False).returncode == 10
        assert [cluster.agent_pid(name) for name in cluster.names] == pids
        with looks(cluster) as seen:
            done = cluster.run("config", "apply", "--yes", "-o", "json")
        report = json.loads(done.stdout)
        assert (report["healthy"], report["rolled_back"]) == (True, False)
        # Leadership moves, once at least, and whoever looks in that moment finds no leader. A write waits that long, and does not fail.
        assert longest_critical(seen) < Settings().calls.timeout, seen
        assert all("heartbeat: 0.15" in text and "interval: 7" in text for text in configs(cluster).values())
        rolled = sorted(cluster.names, key=lambda name: stopped(cluster, name))
        assert f"order: {', then '.join(rolled)}\n" in done.stderr
        assert all(began(cluster, one) < stopped(cluster, following) for one, following in pairwise(rolled)), "one at a time"
        assert rolled[-1] in {one.leader for one in seen if one.at < stopped(cluster, rolled[0])}, seen
        assert cluster.run("config", "diff", "--detailed-exitcode").returncode == 0
        pending = json.loads(cluster.run("deploy", "--dry-run", "-o", "json").stdout)
        # Of the settings nothing is left to deploy. A release may be: of the tree, which may have been edited since the cluster was made.
        todo = [change for host in pending["hosts"] for change in host["changes"]]
        assert not [change for change in todo if CONFIG in change or "configuration" in change], todo
    cluster.run("config", "apply", "--yes")
    assert diff(cluster)["changed"] is False
    assert container() == runs
    cluster.until_healthy()


@contextmanager
def refusing(cluster: Cluster, name: str, also: str) -> Iterator[None]:
    cluster.inside(name, "sh", "-c", REFUSES, "refuses", DROP_IN, CONFIG, also)
    try:
        yield
    finally:
        cluster.lab.start(name)
        cluster.inside(name, "sh", "-c", ACCEPTS, "accepts", DROP_IN, AGENT)


def second(cluster: Cluster) -> str:
    """A follower before which another one has its turn."""
    return sorted(name for name in cluster.names if name != cluster.status()["leader"])[-1]


def test_when_a_node_does_not_come_back_all_are_taken_back_though_ssh_drops_meanwhile(cluster: Cluster) -> None:
    cluster.until_healthy()
    sick, before = second(cluster), configs(cluster)
    with refusing(cluster, sick, SSH_DROPS), settings(cluster, "{metrics: {interval: 7}}"):
        done = cluster.run("config", "apply", "--yes", "-o", "json", check=False)
        dropped = cluster.inside(sick, "sh", "-c", "ls /run/dropped; rm -f /run/dropped")
    assert dropped
    assert done.returncode == 1
    report = json.loads(done.stdout)
    nodes = {node["name"]: node for node in report["nodes"]}
    assert report["rolled_back"] is True
    assert nodes[sick]["error"] == "the agent does not start: cannot do with 7"
    assert "cannot do with 7" in nodes[sick]["log"]
    assert sorted(node["status"] for node in nodes.values()) == ["restored", "restored", "untouched"]
    assert configs(cluster) == before
    assert diff(cluster)["changed"] is False
    cluster.until_healthy()


def test_a_host_that_dies_while_it_is_taken_back_is_named_left_out_and_caught_up_with(cluster: Cluster) -> None:
    cluster.until_healthy()
    sick, leader, before = second(cluster), cluster.status()["leader"], configs(cluster)
    (other,) = set(cluster.names) - {sick, leader}
    with refusing(cluster, sick, HANGS):
        with settings(cluster, "{metrics: {interval: 7}}"):
            process = cluster.hmctl.start("-i", cluster.inventory, "config", "apply", "--yes", "-o", "json")
            try:
                assert process.stderr is not None
                assert any(f"{sick}: restarting the agent with its previous settings" in line for line in process.stderr)
                cluster.lab.kill(sick)
                out, err = process.communicate(timeout=120)
            finally:
                process.kill()
        report = json.loads(out)
        assert {node["name"]: node["status"] for node in report["nodes"]} == {sick: "stuck", other: "restored", leader: "untouched"}
        assert (process.returncode, f"once {sick} can be reached" in report["fix"]) == (1, True), err
        alive = {name: before[name] for name in (other, leader)}
        assert {name: cluster.inside(name, "cat", CONFIG) for name in alive} == alive

        eight = "{metrics: {interval: 8}, upgrade: {soak: 2}}"
        with settings(cluster, eight):
            done = cluster.run("config", "apply", "--yes", "--skip-unreachable", "-o", "json", check=False)
        assert {node["name"]: node["status"] for node in json.loads(done.stdout)["nodes"]} == {
            sick: "left",
            other: "changed",
            leader: "changed",
        }
        assert done.returncode == 3
        apart = abs(began(cluster, leader) - began(cluster, other))  # whoever leads by now is the last
        assert apart >= 2_000_000, "the next one waits while the one before soaks"
    cluster.until(lambda _: cluster.node(sick)["state"] == "ready", 30, f"{sick} is back")
    with settings(cluster, eight):
        assert [node["name"] for node in diff(cluster)["nodes"] if node["status"] == "differs"] == [sick]
        cluster.run("config", "apply", "--yes")
        assert all("interval: 8" in text for text in configs(cluster).values())
    cluster.run("config", "apply", "--yes")
    assert configs(cluster) == before
    cluster.until_healthy()


def test_ctrl_c_takes_back_what_was_begun(cluster: Cluster, eventually: Callable[..., None]) -> None:
    cluster.until_healthy()
    before = configs(cluster)
    with settings(cluster, "{metrics: {interval: 7}}"):
        process = cluster.hmctl.start("-i", cluster.inventory, "config", "apply", "--yes")
        try:
            eventually(lambda: any("interval: 7" in text for text in configs(cluster).values()), within=60)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, out + err
    assert "previous settings again" in out
    assert configs(cluster) == before
    cluster.until_healthy()
    assert diff(cluster)["changed"] is False


def test_a_hand_edit_shows_and_apply_mends_it(cluster: Cluster) -> None:
    cluster.until_healthy()
    before = configs(cluster)
    cluster.inside("node2", "sed", "-i", "s/suspect: 2.0/suspect: 3.0/", CONFIG)
    found = diff(cluster)
    node = found["nodes"][1]
    assert [(change["path"], change["old"], change["new"]) for change in node["changes"]] == [("settings.membership.suspect", 3, 2)]
    assert any("edited by hand" in drift for drift in node["drift"])
    assert any("the file was changed after the agent had started" in drift for drift in node["drift"])
    assert [other["status"] for other in found["nodes"]] == ["same", "differs", "same"]
    pids = {name: cluster.agent_pid(name) for name in cluster.names}
    cluster.run("config", "apply", "--yes")
    assert configs(cluster) == before
    assert {name for name in cluster.names if cluster.agent_pid(name) != pids[name]} <= {"node2"}
    cluster.until_healthy()
