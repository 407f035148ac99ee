"""A voter makes something else of the log than the others: it is found out, says so, takes their state, and nothing is lost.

Its agent stands still while a committed entry of its journal is altered, every checksum included: what memory that flips a bit would do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import AGENT, Cluster

from hmctl import layout

RIGHT, WRONG = "as it was agreed", "as it was broken"  # as long as each other: what is around them stays as it is
COOL_DOWN_OVER = "11 minutes ago"  # docs/adr/0075

ALTER = """
import sys
from pathlib import Path
from node_agent.consensus.log import changes, wal
from node_agent.consensus.log.changes import Add

path, right, wrong = Path(sys.argv[1]), sys.argv[2].encode(), sys.argv[3].encode()
found = 0

def altered(change):
    global found
    if not isinstance(change, Add) or right not in change.entry.command:
        return change
    found += 1
    return Add(change.entry._replace(command=change.entry.command.replace(right, wrong)))

frames = [[altered(change) for change in changes.decode(frame.body)] for frame in wal.scan(path.read_bytes()) if frame.body is not None]
path.write_bytes(wal.MAGIC + b"".join(wal.frame(changes.encode(frame)) for frame in frames))
print(found)
"""


@pytest.fixture
def odd(cluster: Cluster) -> Iterator[str]:
    """A follower, which may be given another state: afterwards it has the others', and what it set aside is gone."""
    cluster.until_healthy()
    leader = cluster.status()["leader"]
    node = next(name for name in cluster.names if name != leader)
    yield node
    cluster.inside(node, "systemctl", "start", AGENT)
    if cluster.status()["health"] != "healthy":  # the test has failed; those that follow it are not to
        cluster.run("raft", "reseed", node, "--yes")
    cluster.until_healthy()
    cluster.inside(node, "sh", "-c", f"rm -rf {layout.JOURNAL}.diverged-*")


def alter(cluster: Cluster, node: str) -> int:
    """In how many entries. By the release that is installed there."""
    python = cluster.inside(node, "readlink", "-f", f"/proc/{cluster.agent_pid(node)}/exe").strip()
    cluster.inside(node, "systemctl", "stop", AGENT)
    script = ["env", f"PYTHONPATH={layout.CURRENT}", python, "-P", "-c", ALTER, f"{layout.JOURNAL}/journal", RIGHT, WRONG]
    return int(cluster.inside(node, *script))


def set_asides(cluster: Cluster, node: str) -> list[str]:
    return cluster.inside(node, "sh", "-c", f"ls -d {layout.JOURNAL}.diverged-* 2>/dev/null; true").split()


def test_a_voter_whose_state_diverged_is_critical_and_takes_the_others_state(cluster: Cluster, odd: str, tmp_path: Path) -> None:
    alone = {name: cluster.alone(name, tmp_path) for name in cluster.names}

    def held(key: str) -> dict[str, str]:
        """By each node, as it has it itself."""
        return {name: cluster.hmctl("-i", alone[name], "kv", "get", key, check=False).stdout for name in cluster.names}

    def everywhere(value: str) -> dict[str, str]:
        return dict.fromkeys(cluster.names, value)

    cluster.run("kv", "put", "divergence/1", RIGHT)
    cluster.run("kv", "put", "divergence/2", "something else")
    assert alter(cluster, odd) == 1
    # As if it had re-seeded itself only now: it then waits, or it would be cured before anybody could look.
    cluster.inside(odd, "mkdir", f"{layout.JOURNAL}.diverged-1")
    cluster.inside(odd, "systemctl", "start", AGENT)

    def state(document: dict[str, Any]) -> tuple[str, str]:
        check = next(check for check in document["checks"] if check["name"] == "state")
        return check["status"], check["message"]

    cluster.until(lambda document: "re-seeded itself only lately" in state(document)[1], 30, f"{odd} says that it must not cure itself")
    document = cluster.status()
    assert (document["health"], state(document)[0]) == ("critical", "error")
    assert state(document)[1].startswith(f"the state of {odd} (")
    assert cluster.run("status", check=False).returncode == 4
    health = cluster.run("health", check=False)
    assert health.returncode == 4
    assert f"the state of {odd} is not that of the others" in health.stdout
    assert held("divergence/1") == everywhere(RIGHT) | {odd: WRONG}
    cluster.run("kv", "put", "divergence/3", "meanwhile")  # it still votes and stores: its log is right
    assert set_asides(cluster, odd) == [f"{layout.JOURNAL}.diverged-1"], "it may not yet"

    cluster.inside(odd, "touch", "-d", COOL_DOWN_OVER, f"{layout.JOURNAL}.diverged-1")
    cluster.until_healthy(30)
    (aside,) = set_asides(cluster, odd)
    cluster.until(lambda document: state(document)[0] == "ok", 10, "all hold the same state")
    assert aside != f"{layout.JOURNAL}.diverged-1"
    cluster.run("kv", "put", "divergence/4", "after")
    assert held("divergence/1") == everywhere(RIGHT)
    assert held("divergence/2") == everywhere("something else")
    assert held("divergence/3") == everywhere("meanwhile")
    assert cluster.run("kv", "get", "divergence/4", "--consistent").stdout == "after"
    events = json.loads(cluster.run("events", "--kind", "state.diverged", "-o", "json").stdout)["events"]
    assert odd in [event["subject"] for event in events]
