"""What happens to machines: crashes, cuts, a full disk, Docker going away. The cluster is healthy again by itself, and forgets nothing."""

from __future__ import annotations

import json

import pytest
from clusters import AGENT, Cluster

CONFIG = "/etc/hypermesh/agent.yaml"
LABELS = """
import re, sys
path = sys.argv[1]
labels = ", ".join(f"note-{number}: {'x' * 60}" for number in range(100))
text, changed = re.subn(r"(?m)^labels: .*$", "labels: {" + labels + "}", open(path).read())
assert changed == 1, "no labels in agent.yaml"
open(path, "w").write(text)
"""


def leader_of(cluster: Cluster) -> str:
    leader = cluster.status()["leader"]
    assert leader is not None
    return str(leader)


@pytest.fixture(autouse=True)
def healthy_before_and_after(cluster: Cluster) -> object:
    cluster.until_healthy()
    yield
    cluster.lab.heal()
    cluster.until_healthy()


def test_an_agent_killed_comes_back_by_itself(cluster: Cluster) -> None:
    follower = next(name for name in cluster.names if name != leader_of(cluster))
    pid = cluster.agent_pid(follower)
    cluster.kill_agent(follower)
    cluster.until_healthy()
    assert cluster.agent_pid(follower) not in (0, pid)


def test_the_leaders_agent_killed_another_leads(cluster: Cluster) -> None:
    leader, term = leader_of(cluster), cluster.status()["term"]
    cluster.inside(leader, "systemctl", "kill", "--signal=KILL", AGENT)
    cluster.until(lambda document: document["term"] > term and document["leader"], 10, "a new term has a leader")
    cluster.until_healthy()


def test_all_agents_killed_at_once_nothing_is_forgotten(cluster: Cluster) -> None:
    before, term = cluster.applied(), cluster.status()["term"]
    for name in cluster.names:
        cluster.kill_agent(name)
    cluster.until(lambda document: document["leader"] and document["term"] > term, 20, "they elect a leader in a later term")
    cluster.until_healthy()
    assert len(cluster.leaders()) == 1
    assert min(cluster.applied().values()) >= max(before.values()), "a log that begins anew has forgotten what was committed"


def test_the_leaders_host_crashes_it_is_called_down_and_comes_back(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    cluster.lab.kill(leader)
    try:

        def noticed(document: dict[str, object]) -> bool:
            state = next(node["state"] for node in document["nodes"] if node["name"] == leader)  # type: ignore[attr-defined]
            return document["leader"] not in (None, leader) and state in ("down", "unreachable")

        took = cluster.until(noticed, 10, f"{leader} is called down and another leads")
        assert took <= 6
    finally:
        cluster.lab.start(leader)


def test_a_leader_cut_off_is_replaced_and_says_why_it_cannot_decide(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    others = [name for name in cluster.names if name != leader]
    cluster.lab.partition([[leader], others])
    cluster.until_leader_is_not(leader, within=10)

    def reasons() -> str:
        return " ".join(cluster.node(leader)["reasons"])

    cluster.until(lambda document: "1 of 3 voters" in reasons(), 10, f"{leader} says that it has no quorum")
    cluster.lab.heal()
    cluster.until_healthy()


def test_without_quorum_the_survivor_stays_up_and_says_so(cluster: Cluster) -> None:
    survivor, *lost = cluster.names
    pid = cluster.agent_pid(survivor)
    for name in lost:
        cluster.lab.kill(name)
    try:
        cluster.until(lambda document: document["health"] == "critical", 15, "status is critical")
        assert cluster.run("status", check=False).returncode == 4
        assert cluster.agent_pid(survivor) == pid
    finally:
        for name in lost:
            cluster.lab.start(name)


def test_docker_stopped_degrades_and_started_again_mends(cluster: Cluster) -> None:
    node = cluster.names[1]
    pid = cluster.agent_pid(node)
    cluster.inside(node, "systemctl", "stop", "docker.socket", "docker.service")
    try:
        cluster.until(
            lambda document: next(n for n in document["nodes"] if n["name"] == node)["components"]["container"]["state"] == "degraded",
            20,
            "the container layer is degraded",
        )
        assert any("Docker" in reason for reason in cluster.node(node)["reasons"])
    finally:
        cluster.inside(node, "systemctl", "start", "docker.socket", "docker.service")
    cluster.until_healthy()
    assert cluster.agent_pid(node) == pid


def test_a_full_disk_is_reported_and_waited_out(cluster: Cluster) -> None:
    node = leader_of(cluster)
    folder = "/var/lib/hypermesh/raft"
    # A disk that holds what is there, and that once more for a snapshot which is written beside its predecessor.
    used = int(cluster.inside(node, "du", "-sk", folder).split()[0])
    mount = f"mount -t tmpfs -o size={2 * used + 1024}k,mode=700 tmpfs {folder}"
    move = f"systemctl stop {AGENT}; mkdir /mnt/kept; cp -a {folder}/. /mnt/kept/; {mount}; cp -a /mnt/kept/. {folder}/"
    other = next(name for name in cluster.names if name != node)
    try:
        cluster.inside(node, "sh", "-ec", f"{move}; systemctl start {AGENT}")
        cluster.until_healthy()
        cluster.inside(node, "sh", "-c", f"dd if=/dev/zero of={folder}/ballast bs=4k 2>/dev/null; true")
        # A record of several disk blocks, which everybody must write down: a short one may still fit into the journal's last block.
        cluster.inside(other, "cp", "-a", CONFIG, CONFIG + ".kept")
        cluster.inside(other, "python3", "-c", LABELS, CONFIG)
        cluster.inside(other, "systemctl", "restart", AGENT)
        cluster.until(lambda document: "room" in " ".join(_reasons(document, node)), 20, f"{node} says that its disk is full")
        cluster.until(lambda document: document["leader"] not in (None, node), 10, "the others go on")
        cluster.inside(node, "rm", f"{folder}/ballast")
        cluster.until_healthy()
    finally:
        cluster.inside(other, "sh", "-c", f"mv {CONFIG}.kept {CONFIG} && systemctl restart {AGENT}")
        keep = f"systemctl stop {AGENT}; rm -rf {folder}/ballast /mnt/kept; cp -a {folder} /mnt/kept"
        back = f"umount {folder}; cp -a /mnt/kept/. {folder}/; rm -rf /mnt/kept"
        cluster.inside(node, "sh", "-c", f"{keep}; {back}; systemctl start {AGENT}")


def _reasons(document: dict[str, object], node: str) -> list[str]:
    return next(n for n in document["nodes"] if n["name"] == node)["reasons"]  # type: ignore[attr-defined,no-any-return]


def _state(document: dict[str, object], node: str) -> str:
    return next(n for n in document["nodes"] if n["name"] == node)["state"]  # type: ignore[attr-defined,no-any-return]


def test_a_node_that_lost_its_disk_is_reseeded_and_forms_nothing(cluster: Cluster) -> None:
    node = next(name for name in cluster.names if name != leader_of(cluster))
    cluster.inside(node, "sh", "-ec", f"systemctl stop {AGENT}; rm -rf /var/lib/hypermesh/raft; systemctl start {AGENT}")
    cluster.until_healthy()
    assert len(cluster.leaders()) == 1


def test_a_damaged_journal_is_told_by_status_and_mended_with_the_command_that_it_names(cluster: Cluster) -> None:
    node = next(name for name in cluster.names if name != leader_of(cluster))
    spoil = "import sys; p = sys.argv[1]; b = bytearray(open(p, 'rb').read()); b[len(b) // 3] ^= 255; open(p, 'wb').write(b)"
    cluster.inside(node, "systemctl", "stop", AGENT)
    cluster.inside(node, "python3", "-c", spoil, "/var/lib/hypermesh/raft/journal")
    spoiled = cluster.inside(node, "sha256sum", "/var/lib/hypermesh/raft/journal").split()[0]
    cluster.inside(node, "systemctl", "start", AGENT)

    def complaint(document: dict[str, object]) -> dict[str, str] | None:
        checks: list[dict[str, str]] = document["checks"]  # type: ignore[assignment]
        return next((check for check in checks if "raft/journal is damaged at byte" in check["message"]), None)

    cluster.until(complaint, 20, f"status says that the journal of {node} is damaged")
    said = complaint(cluster.status())
    assert said is not None
    assert node in said["message"]
    assert said["fix"] == f"hmctl raft reseed {node}"
    assert "/var/lib/hypermesh/raft/journal is damaged at byte" in cluster.journal(node)
    done = json.loads(cluster.run(*said["fix"].split()[1:], "--yes", "-o", "json").stdout)
    assert done["node"] == node
    assert spoiled in cluster.inside(node, "sha256sum", f"{done['kept']}/journal"), "what was damaged is kept"
    cluster.until_healthy()
    assert len(cluster.leaders()) == 1
    cluster.inside(node, "rm", "-r", done["kept"])


def test_re_seeding_is_refused_where_the_others_are_no_quorum(cluster: Cluster) -> None:
    node, other = [name for name in cluster.names if name != leader_of(cluster)]
    before = cluster.agent_pid(node)
    cluster.inside(other, "systemctl", "stop", AGENT)
    try:
        cluster.until(lambda document: _state(document, other) in ("down", "unreachable"), 15, f"{other} is away")
        refused = cluster.run("raft", "reseed", node, "--yes", check=False)
        assert refused.returncode == 1
        assert "without it there is no quorum" in refused.stderr
        assert cluster.agent_pid(node) == before
    finally:
        cluster.inside(other, "systemctl", "start", AGENT)


def test_a_paused_host_is_noticed_and_rejoins(cluster: Cluster) -> None:
    node = next(name for name in cluster.names if name != leader_of(cluster))
    cluster.lab.pause(node)
    try:
        cluster.until(lambda document: document["health"] == "warning", 15, "the pause is noticed")
    finally:
        cluster.lab.pause(node, paused=False)
