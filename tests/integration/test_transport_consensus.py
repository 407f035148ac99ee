"""From the connections to the log and back: whoever can reach a majority decides, nobody else, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from cluster import BOOTSTRAP, whole

from hmcore.api import FORM, FORMATION, STATE, Empty, FormRequest
from hmcore.config.agent import Voter
from hmcore.errors import InvalidRequest
from hmcore.records import ComponentState as S
from hmcore.records import NodeState
from hmcore.stoq.rpc import invoke


async def test_all_nodes_hold_the_same_members(cluster):
    states = []
    for name in cluster.nodes:
        async with cluster.connect(name) as connection:
            states.append(await invoke(connection, STATE, Empty(), timeout=2))
    assert len({state.leader for state in states}) == 1
    control = [[node.name for node in state.nodes] for state in states]
    assert control == [["node1", "node2", "node3", "node4"]] * len(cluster.nodes)
    report = await cluster.report("node4")
    assert report is not None
    assert report.raft.role == "observer"
    assert {event.kind for event in states[0].events} >= {"cluster.formed", "node.joined"}


async def test_a_killed_leader_is_replaced_and_called_down_and_comes_back(cluster):
    leader = (await cluster.reports())["node1"].raft.leader
    assert leader is not None
    cluster.nodes[leader].kill()

    def noticed(reports):
        others = [report for report in reports.values() if report.raft.role in ("leader", "follower")]
        return len(others) == 2 and all(
            report.raft.leader not in (None, leader) and {node.name: node.state for node in report.members}[leader] is NodeState.DOWN
            for report in others
        )

    await cluster.until(noticed, what="a new leader that calls the old one down")
    cluster.nodes[leader].start()
    await cluster.until_whole("it came back")


async def test_kill_9_of_all_loses_nothing(cluster):
    async with cluster.connect("node1") as connection:
        before = await invoke(connection, STATE, Empty(), timeout=2)
    for node in cluster.nodes.values():
        assert node.process is not None
        node.process.kill()
    for node in cluster.nodes.values():
        node.kill()
    cluster.start()
    await cluster.until_whole("the same cluster again")
    async with cluster.connect("node1") as connection:
        after = await invoke(connection, STATE, Empty(), timeout=2)
        formation = await invoke(connection, FORMATION, Empty(), timeout=2)
    assert after.index > before.index
    assert after.term > before.term
    assert after.events[: len(before.events)] == before.events
    assert formation.formed


async def test_a_survivor_without_quorum_stays_up_and_says_so(cluster):
    cluster.nodes["node2"].kill()
    cluster.nodes["node3"].kill()
    reports = await cluster.until(
        lambda reports: "node1" in reports and reports["node1"].components["consensus"].state is S.DEGRADED, what="no quorum"
    )
    assert "no quorum: 1 of 3 voters reachable" in reports["node1"].reasons
    assert reports["node1"].raft.leader is None
    cluster.nodes["node2"].start()
    cluster.nodes["node3"].start()
    await cluster.until_whole("the others came back")


async def test_a_node_whose_disk_was_emptied_is_filled_again_and_votes_again(cluster):
    cluster.nodes["node3"].kill()
    shutil.rmtree(cluster.nodes["node3"].config.data_dir)
    cluster.nodes["node3"].start()
    reports = await cluster.until(
        lambda reports: whole(reports, len(cluster.nodes)) and reports["node3"].raft.role in ("follower", "leader"), what="re-seeded"
    )
    assert reports["node3"].formed


@pytest.fixture
def edited(cluster):
    """node1 is down, and its agent.yaml is the operator's to edit; afterwards it is as it was."""
    node = cluster.nodes["node1"]
    original = node.config
    node.kill()
    yield node
    if node.process.poll() is None:
        node.kill()
    node.config = original
    node.start()


async def test_an_edited_file_adds_no_voter(cluster, edited):
    worker = cluster.nodes["node4"].config
    more = Voter(name="node4", address=worker.address, port=worker.port)
    edited.config = edited.config.model_copy(update={"voters": (*edited.config.voters, more)})
    edited.start()
    reports = await cluster.until(
        lambda reports: (
            "node1" in reports and any("agent.yaml names other voters (node4)" in reason for reason in reports["node1"].reasons)
        ),
        what="node1 says what is wrong",
    )
    assert all(report.raft.voters == ["node1", "node2", "node3"] for report in reports.values())
    assert reports["node1"].raft.leader is not None
    assert reports["node1"].components["consensus"].state is S.DEGRADED


async def test_an_edited_file_takes_no_vote_away(cluster, edited):
    """Alone in its file, node1 would be a majority of itself."""
    before = edited.log
    edited.config = edited.config.model_copy(update={"voters": tuple(voter for voter in edited.config.voters if voter.name == "node1")})
    edited.start()
    assert await asyncio.to_thread(edited.process.wait, 10) != 0
    assert "agent.yaml does not name node2, node3" in edited.log.removeprefix(before)


async def test_forming_again_changes_nothing(cluster):
    await cluster.form("node1")
    async with cluster.connect("node1") as connection:
        with pytest.raises(InvalidRequest, match="set up to form with node1, node2, node3, and is asked to form with node1"):
            await invoke(connection, FORM, FormRequest(bootstrap=BOOTSTRAP, voters=["node1"]), timeout=2)
        with pytest.raises(InvalidRequest, match="set up for another formation"):
            await invoke(connection, FORM, FormRequest(bootstrap="another", voters=cluster.voters), timeout=2)
    async with cluster.connect("node4") as connection:
        with pytest.raises(InvalidRequest, match="worker"):
            await invoke(connection, FORM, FormRequest(bootstrap=BOOTSTRAP, voters=cluster.voters), timeout=2)
