"""Roles change in the inventory while writers work: who is to vote joins, who is not leaves, and nothing acknowledged is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from clusters import AGENT, Cluster
from writing import WRITERS, Writing, writing

RAFT = "/var/lib/hypermesh/raft"
CONFIG = "/etc/hypermesh/agent.yaml"


def give(cluster: Cluster, node: str, role: str) -> None:
    text = cluster.inventory.read_text()
    changed = re.sub(rf"(name: {node}, .*role: )\w+", rf"\g<1>{role}", text)
    assert changed != text
    cluster.inventory.write_text(changed)


def raft(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.run("raft", "ls", "-o", "json").stdout)
    return found


def deployed(cluster: Cluster) -> dict[str, Any]:
    """Done, healthy, and nothing is left to do."""
    report: dict[str, Any] = json.loads(cluster.deploy("-o", "json").stdout)
    assert (report["error"], report["healthy"]) == (None, True)
    again = cluster.run("deploy", "--dry-run", "--detailed-exitcode", check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    return report


@pytest.mark.timeout(600, func_only=True)
def test_four_hosts_take_turns_at_voting_while_writers_work(new_cluster: Callable[[str, int], Cluster]) -> None:
    cluster = new_cluster("r", 4)
    deployed(cluster)
    first = raft(cluster)
    assert (first["voters"], first["may_fail"]) == (["node1", "node2", "node3"], 1)
    assert [node["lag"] is not None for node in first["nodes"]] == [True] * 3

    with writing(cluster, "roles") as work:
        give(cluster, "node4", "control")
        report = deployed(cluster)
        assert report["cluster_changes"] == ["node4 votes"]
        assert raft(cluster)["voters"] == ["node1", "node2", "node3", "node4"]
        work.until_acknowledged(20, writers=WRITERS)

        cluster.run("raft", "transfer", "node1", "--yes")
        cluster.until(lambda document: document["leader"] == "node1", 10, "node1 leads")
        give(cluster, "node1", "worker")
        report = deployed(cluster)
        assert report["cluster_changes"] == ["node1 is no voter any more"]
        assert report["leader"] in ("node2", "node3", "node4")
        assert raft(cluster)["voters"] == ["node2", "node3", "node4"]
        work.until_acknowledged(20, writers=WRITERS)

        removed_and_added_by_hand(cluster, work)
    assert cluster.node("node1")["role"] == "worker"

    back_with_its_old_memory(cluster)


def removed_and_added_by_hand(cluster: Cluster, work: Writing) -> None:
    """node2 leads, and hands over before it goes. It keeps what it holds; let back in, it votes only once it has caught up."""
    refused = cluster.run("raft", "add", "node1", "--yes", check=False)
    assert refused.returncode == 2
    assert "node1 is a worker" in refused.stderr

    cluster.run("raft", "transfer", "node2", "--yes")
    work.until_acknowledged(20, writers=WRITERS, by="node2")
    removed = cluster.run("raft", "rm", "node2", "--yes", "-o", "json")
    done = json.loads(removed.stdout)
    assert (done["voters"], done["may_fail"], done["changed"]) == (["node3", "node4"], 0, True)
    assert done["leader"] in ("node3", "node4")
    assert "node2 leads: it hands over to another voter first" in removed.stderr
    work.until_acknowledged(20, writers=WRITERS)
    cluster.until(lambda _: leaders_since_asked(cluster), 10, "node2 knows who leads")
    assert leaders_since_asked(cluster)[0] in ("the leader is node3", "the leader is node4"), "it was removed before it had handed over"
    assert role(cluster, "node2") in ("removed", "outsider")

    cluster.until(lambda document: document["leader"] in ("node3", "node4"), 20, "one of the two that are left leads")
    cluster.lab.partition([["node2"], ["node1", "node3", "node4"]])
    try:
        unfinished = cluster.run("raft", "add", "node2", "--yes", "--timeout", "3", check=False)
        assert unfinished.returncode == 1
        assert "it goes on" in unfinished.stderr
        cluster.until(lambda _: raft(cluster)["learners"] == ["node2"], 20, "node2 is to learn")
        assert raft(cluster)["voters"] == ["node3", "node4"]
        assert role(cluster, "node2") == "learner"
        work.until_acknowledged(20, writers=WRITERS)
    finally:
        cluster.lab.heal()
    done = json.loads(cluster.run("raft", "add", "node2", "--yes", "-o", "json").stdout)
    assert (done["voters"], done["may_fail"]) == (["node2", "node3", "node4"], 1)
    assert done["seconds"] < 30
    cluster.until_healthy()


def leaders_since_asked(cluster: Cluster) -> list[str]:
    """What node2 said about leaders since it was asked to remove itself."""
    said = cluster.journal("node2").rpartition("asks to remove the voter node2")[2]
    return [line for line in said.splitlines() if "leader" in line]


def role(cluster: Cluster, node: str) -> str:
    found: str = next(each["role"] for each in raft(cluster)["nodes"] if each["name"] == node)
    return found


def back_with_its_old_memory(cluster: Cluster) -> None:
    """Somebody starts node1 with the role and the directory that it had: it says what it is, and stays out."""
    aside = cluster.inside("node1", "sh", "-c", f"echo {RAFT}.aside-*").split()
    assert len(aside) == 1
    cluster.inside("node1", "sh", "-ec", f"systemctl stop {AGENT}; rm -rf {RAFT}; cp -a {aside[0]} {RAFT}; cp -p {CONFIG} {CONFIG}.kept")
    cluster.inside("node1", "sed", "-i", "s/^role: worker$/role: control/", CONFIG)
    try:
        cluster.inside("node1", "systemctl", "start", AGENT)

        def says(document: dict[str, Any]) -> bool:
            reasons = next(node["reasons"] for node in document["nodes"] if node["name"] == "node1")
            return any("node1 was removed from the voters" in reason for reason in reasons)

        cluster.until(says, 30, "node1 says that it was removed")
        found = raft(cluster)
        assert (found["voters"], found["learners"]) == (["node2", "node3", "node4"], [])
        assert found["leader"] != "node1"
    finally:
        cluster.inside("node1", "sh", "-ec", f"systemctl stop {AGENT}; mv {CONFIG}.kept {CONFIG}")
    deployed(cluster)
    assert cluster.inside("node1", "sh", "-c", f"ls -A {RAFT} 2>/dev/null; true") == ""
