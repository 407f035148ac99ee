"""The leadership moves without an election's wait, and without a quorum everybody is told at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from clusters import AGENT, Cluster

AT_ONCE = 6.0  # seconds: looking who is there (2 s for the dead ones, twice at most), and a busy machine


@pytest.fixture(autouse=True)
def healthy_before_and_after(cluster: Cluster) -> Iterator[None]:
    cluster.until_healthy()
    yield
    cluster.until_healthy()


def transferred(cluster: Cluster, *words: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(cluster.run("raft", "transfer", *words, "--yes", "-o", "json").stdout)
    return document


def test_the_leadership_is_handed_over_on_demand_in_less_than_a_second(cluster: Cluster) -> None:
    for name in cluster.names:
        before = cluster.status()["leader"]
        done = transferred(cluster, name)
        assert (done["before"], done["leader"], done["changed"]) == (before, name, name != before)
        assert done["seconds"] is None or done["seconds"] < 1.0  # type: ignore[operator]
        cluster.until(lambda document, name=name: document["leader"] == name, 5, f"{name} leads")  # type: ignore[misc]
    done = transferred(cluster)
    assert done["leader"] in set(cluster.names) - {done["before"]}


def test_a_leader_that_is_stopped_hands_over_first(cluster: Cluster) -> None:
    leader, term = cluster.status()["leader"], cluster.status()["term"]
    began = time.monotonic()
    cluster.inside(leader, "systemctl", "stop", AGENT)
    try:
        assert time.monotonic() - began < 10
        assert "leads now, in term" in cluster.journal(leader)
        document = cluster.status()
        assert document["leader"] not in (None, leader)
        assert document["term"] == term + 1, "there was an election of its own"
    finally:
        cluster.inside(leader, "systemctl", "start", AGENT)


def test_without_a_quorum_changes_and_consistent_reads_fail_at_once_and_say_why(cluster: Cluster) -> None:
    survivor, *lost = cluster.names
    for name in lost:
        cluster.inside(name, "systemctl", "stop", AGENT)
    try:

        def sure(document: dict[str, object]) -> bool:
            return "1 of 3 voters" in " ".join(cluster.node(survivor)["reasons"])

        cluster.until(sure, 15, f"{survivor} says that it has no quorum")
        for words in (["service", "maintain", f"{survivor}/", "--on", "--yes"], ["health", "mute", "disk"]):
            began = time.monotonic()
            done = cluster.run(*words, check=False)
            took = time.monotonic() - began
            assert done.returncode == 1, done.stdout + done.stderr
            assert f"error: {survivor}: no quorum: 1 of 3 voters reachable" in done.stderr
            assert took < AT_ONCE, f"{words} took {took:.1f} s to say so"
        done = cluster.run("status", "--consistent", "-o", "json", check=False)
        document = json.loads(done.stdout)
        assert (done.returncode, document["consistent"]) == (4, False)
        check = next(check for check in document["checks"] if check["name"] == "consistent")
        assert "no quorum: 1 of 3 voters reachable" in check["message"]
    finally:
        for name in lost:
            cluster.inside(name, "systemctl", "start", AGENT)
    cluster.until_healthy()
    document = json.loads(cluster.run("status", "--consistent", "-o", "json", check=False).stdout)
    assert document["consistent"]
    assert document["maintenance"] == [], "a change that was refused has been made"
