"""What is sampled, what is counted for the cluster, and what this process says of itself."""

from __future__ import annotations

import os

import pytest

from hmcore.records import Node, NodeReport, NodeState, RaftReport, Role
from node_agent.consensus.log.disk import Directory
from node_agent.platform.monitoring import Lag, cluster_score
from node_agent.platform.usage import room, usage


class View:
    """As much of a ClusterView as is asked for."""

    def __init__(self) -> None:
        self.mutes: dict[str, object] = {}


def report(*states: NodeState, score: float = 1.0, leader: str | None = "node1", formed: bool = True, reachable: int = 3) -> NodeReport:
    names = [f"node{number + 1}" for number in range(len(states))]
    members = [
        Node(name=name, address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1", state=state)
        for name, state in zip(names, states, strict=True)
    ]
    raft = RaftReport(role="leader", leader=leader, voters=names, reachable_voters=names[:reachable])
    return NodeReport(
        cluster="hm-a",
        name="node1",
        address="10.0.0.1",
        role=Role.CONTROL,
        release="r1",
        uptime_seconds=1.0,
        health_score=score,
        reasons=[],
        containers=None,
        components={},
        raft=raft,
        formed=formed,
        members=members,
    )


def test_the_cluster_is_as_well_as_its_nodes_its_leader_and_its_quorum():
    ready, down = NodeState.READY, NodeState.DOWN

    def score(*states: NodeState, **given: object) -> float:
        found = cluster_score(report(*states, **given), View())  # type: ignore[arg-type]
        assert found is not None
        return found

    well = score(ready, ready, ready)
    assert well == 1.0
    degraded = score(ready, NodeState.DEGRADED, ready)
    one_down = score(ready, ready, down, reachable=2)
    lost = score(ready, down, down, leader=None, reachable=1)
    assert well > degraded > one_down > lost
    assert score(ready, ready, ready, score=0.5) == degraded  # of itself it knows more than its state
    assert cluster_score(report(ready, formed=False), View()) is None  # type: ignore[arg-type]


def test_the_worst_of_the_last_samples_counts():
    lag = Lag(3)
    assert lag.worst is None
    for seconds in (0.5, 0.1, 0.2):
        lag.add(seconds)
    assert lag.worst == 0.5
    lag.add(0.0)
    assert lag.worst == 0.2


def test_a_process_knows_what_it_uses(tmp_path):
    before = usage()
    with (tmp_path / "file").open("w"):
        assert usage().open_files == before.open_files + 1
    assert before.resident_bytes > 1 << 20
    assert before.max_files >= before.open_files
    assert 0 < before.cpu_seconds <= usage().cpu_seconds


def test_the_room_on_a_disk_and_of_one_that_is_not_there(tmp_path):
    found = room(tmp_path)
    assert found is not None
    assert 0 < found.free <= found.size
    assert room(tmp_path / "nowhere") is None


def test_the_disk_tells_how_long_each_sync_took(tmp_path, monkeypatch):
    heard: list[float] = []
    disk = Directory(tmp_path / "raft", heard.append)
    file = disk.create("journal")
    file.append(b"x")
    file.sync()
    assert len(heard) == 1
    assert 0 <= heard[0] < 5
    monkeypatch.setattr(os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(OSError):
        file.sync()
    assert len(heard) == 1  # what failed took no time that means anything
    file.close()
    disk.close()
