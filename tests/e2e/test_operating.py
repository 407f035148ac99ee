"""A healthy cluster, and the operator who looks at it and changes nothing."""

from __future__ import annotations

import json
import time

from clusters import AGENT, Cluster


def test_deploy_with_nothing_to_do_changes_and_restarts_nothing(cluster: Cluster) -> None:
    cluster.until_healthy()
    pids = [cluster.agent_pid(name) for name in cluster.names]
    pending = cluster.run("deploy", "--dry-run", "--detailed-exitcode", "--yes")
    assert pending.returncode == 0
    report = json.loads(cluster.deploy("-o", "json").stdout)
    assert report["changed"] is False
    assert all(not host["changes"] for host in report["hosts"])
    assert [cluster.agent_pid(name) for name in cluster.names] == pids


def test_looking_leaves_a_stopped_docker_stopped(cluster: Cluster) -> None:
    """systemd would start it for whoever connects to its socket."""
    cluster.until_healthy()
    cluster.inside("node3", "systemctl", "stop", "docker.service")
    try:
        assert cluster.inside("node3", "systemctl", "is-active", "docker.socket").strip() == "active"
        done = cluster.run("deploy", "--dry-run", "--yes", check=False)
        assert "node3: Docker is installed but does not answer: it is stopped" in done.stdout + done.stderr
        state = cluster.inside("node3", "systemctl", "show", "-p", "ActiveState", "--value", "docker.service")
        assert state.strip() == "inactive"
    finally:
        cluster.inside("node3", "systemctl", "start", "docker.service")
    cluster.until_healthy()


def test_a_changed_setting_is_pending_and_then_rolled_out(cluster: Cluster) -> None:
    cluster.until_healthy()
    text = cluster.inventory.read_text()
    cluster.inventory.write_text(text + "settings: {health: {interval: 9}}\n")
    try:
        assert cluster.run("deploy", "--dry-run", "--detailed-exitcode", check=False).returncode == 10
        cluster.deploy()
        cluster.until_healthy()
        assert "interval: 9" in cluster.inside("node1", "cat", "/etc/hypermesh/agent.yaml")
    finally:
        cluster.inventory.write_text(text)
    cluster.deploy()
    cluster.until_healthy()


def test_status_is_what_design_promises(cluster: Cluster) -> None:
    cluster.until_healthy()
    document = cluster.status()
    assert document["health"] == "healthy"
    assert document["leader"] in cluster.names
    assert [check["status"] for check in document["checks"]] == ["ok"] * len(document["checks"])
    assert [node["name"] for node in document["nodes"]] == cluster.names
    for node in document["nodes"]:
        assert node["state"] == "ready"
        assert node["health_score"] == 1
        assert {component["state"] for component in node["components"].values()} == {"running"}
        assert {"transport", "consensus", "container", "orchestration"} <= set(node["components"])
    table = cluster.run("status").stdout
    assert all(name in table for name in cluster.names)


def test_status_answers_through_ssh_where_udp_is_closed(cluster: Cluster) -> None:
    cluster.until_healthy()
    for name in cluster.names:
        cluster.lab.block(name, "udp", 7443)
    try:
        document = json.loads(cluster.run("status", "--via", "ssh", "-o", "json", check=False).stdout)
        assert all(node["state"] != "unreachable" for node in document["nodes"])
        auto = json.loads(cluster.run("status", "-o", "json", check=False).stdout)
        assert any(node["components"] for node in auto["nodes"]), "status found no way in by itself"
    finally:
        cluster.lab.heal()
    cluster.until_healthy()


def test_a_dead_host_does_not_delay_the_status_of_the_others(cluster: Cluster) -> None:
    cluster.until_healthy()
    follower = next(name for name in cluster.names if name != cluster.status()["leader"])
    cluster.lab.kill(follower)
    try:
        cluster.until(lambda document: document["health"] == "warning", 15, "the loss shows")
        began = time.monotonic()
        done = cluster.run("status", check=False)
        assert time.monotonic() - began < 5
        assert done.returncode == 3
        assert follower in done.stdout
    finally:
        cluster.lab.start(follower)
    cluster.until_healthy()


def test_node_and_logs_tell_about_one_node(cluster: Cluster) -> None:
    cluster.until_healthy()
    rows = json.loads(cluster.run("node", "ls", "-o", "json").stdout)
    assert "node2" in json.dumps(rows)
    inspected = json.loads(cluster.run("node", "inspect", "node2", "-o", "json").stdout)
    assert {"identity", "transport", "consensus", "container", "orchestration", "api"} <= {phase["name"] for phase in inspected["phases"]}
    assert {peer["name"] for peer in inspected["peers"]} == {"node1", "node3"}
    assert all(peer["rtt_ms"] is not None for peer in inspected["peers"])
    logs = cluster.run("logs", "node2", "--tail", "5").stdout
    assert logs.splitlines()
    assert all("node2" in line for line in logs.splitlines())


def test_the_unit_is_enabled_and_ready_when_systemd_says_so(cluster: Cluster) -> None:
    said = cluster.inside("node1", "systemctl", "show", "-p", "ActiveState,UnitFileState,Type", AGENT)
    assert "ActiveState=active" in said
    assert "UnitFileState=enabled" in said
    assert "Type=notify" in said
