"""The health score as operators meet it: told with its reason and fix, muted by name, and not forgotten with a leader. Units give little
away."""

from __future__ import annotations

import json
from typing import Any

from clusters import Cluster

CHECK = "component.container"


def health(cluster: Cluster) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(cluster.run("health", "-o", "json", check=False).stdout)
    return document


def check_of(document: dict[str, Any], node: str, name: str = CHECK) -> dict[str, Any]:
    checks = next(each for each in document["nodes"] if each["name"] == node)["checks"]
    found: dict[str, Any] = next(check for check in checks if check["name"] == name)
    return found


def test_a_degraded_node_says_why_and_a_mute_outlives_a_leader(cluster: Cluster) -> None:
    cluster.until_healthy()
    assert health(cluster)["health_score"] == 1.0
    leader = cluster.status()["leader"]
    node = next(name for name in cluster.names if name != leader)
    cluster.inside(node, "systemctl", "stop", "docker.socket", "docker.service")
    try:
        cluster.until(lambda document: document["health"] == "warning", 30.0, "the stopped Docker is noticed")
        document = health(cluster)
        check = check_of(document, node)
        assert (check["worth"], check["fix"], check["muted"]) == (0.5, "systemctl start docker", False)
        assert "Docker" in check["reason"]
        assert document["health_score"] < 1.0
        shown = cluster.run("health", node, check=False)
        assert shown.returncode == 3
        assert f"fix: on {node}: systemctl start docker" in shown.stdout

        wrong = cluster.run("health", "mute", "component.contaner", check=False)
        assert (wrong.returncode, "did you mean component.container" in wrong.stderr) == (2, True)
        cluster.run("health", "mute", CHECK, "--node", node, "--reason", "a new disk on Friday")
        cluster.until_healthy(5.0)
        told = check_of(health(cluster), node)
        assert (told["muted"], told["muted_because"], told["worth"]) == (True, "a new disk on Friday", 0.5)
        assert f"muted: {CHECK} on {node}" in cluster.run("status").stdout
        assert cluster.deploy().returncode == 0  # whose wait for health honours it, too

        before = cluster.status()
        cluster.kill_agent(before["leader"])
        cluster.until(lambda now: now["term"] > before["term"] and now["leader"], 30.0, "the cluster has a new leader")
        cluster.until_healthy()
        assert check_of(health(cluster), node)["muted"]

        cluster.run("health", "unmute", CHECK, "--node", node)
        cluster.until(lambda document: document["health"] == "warning", 5.0, "the unmuted check warns again")
    finally:
        cluster.run("health", "unmute", CHECK, "--node", node)
        cluster.inside(node, "systemctl", "start", "docker")
    cluster.until_healthy()


def test_no_unit_of_ours_is_exposed_more_than_four_of_ten(cluster: Cluster) -> None:
    node = cluster.names[0]
    units = cluster.inside(node, "sh", "-c", "ls /etc/systemd/system/hypermesh*.service").split()
    assert units
    for unit in units:  # ends with 1 when the exposure is above the threshold, in tenths
        cluster.inside(node, "systemd-analyze", "security", "--offline=true", "--threshold=40", "--no-pager", unit)
