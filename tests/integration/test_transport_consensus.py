"""From the connections to the log and back: whoever can reach a majority decides, nobody else, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import shutil
import signal

import pytest
from cluster import BOOTSTRAP, WAIT, whole
from operators import TRANSIENT, Operator, new_id

from hmcore.api import FORM, FORMATION, MAINTAIN, MUTE, PING, STATE, Empty, FormRequest, MaintainRequest, MuteRequest, StateRequest
from hmcore.config.agent import Voter
from hmcore.errors import InvalidRequest, NoQuorum, NotLeader
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
    first = after.events[0].index  # the list is bounded; one entry of the log may make many events, of which some have been pushed out
    kept = [event for event in before.events if event.index > first]
    assert kept
    assert [event for event in after.events if event.index > first][: len(kept)] == kept
    assert formation.formed


async def test_a_leader_that_slept_through_its_deposition_decides_nothing(cluster):
    """It wakes up believing that it leads, with a change waiting to be carried out: the change fails, or is the cluster's."""
    old = (await cluster.reports())["node1"].raft.leader
    assert old is not None
    async with Operator(cluster, "asleep") as asleep, Operator(cluster, "tester") as tester:
        await asleep.ask(old, PING, Empty())
        cluster.nodes[old].send(signal.SIGSTOP)
        late = asyncio.create_task(asleep.ask(old, MUTE, MuteRequest(id=new_id(), check="disk", reason="of the sleeper"), timeout=10))
        try:
            other = next(name for name in cluster.voters if name != old)
            reports = await cluster.until(
                lambda reports: other in reports and reports[other].raft.leader not in (None, old), what="another leads meanwhile"
            )
            reply = await tester.change(MUTE, MuteRequest(id=new_id(), check="memory", reason="of the waking"))
            term = reports[other].raft.term
        finally:
            cluster.nodes[old].send(signal.SIGCONT)
        try:
            landed = await late
        except TRANSIENT:
            landed = None
        states = await cluster.until_states(lambda state: state.index >= reply.index and state.leader is not None, "all know of it")
        assert {state.term >= term for state in states.values()} == {True}
        assert len({state.leader for state in states.values()}) == 1
        wanted = {"memory"} if landed is None else {"memory", "disk"}
        assert {name: {mute.check for mute in state.mutes} for name, state in states.items()} == dict.fromkeys(cluster.nodes, wanted)
        for check in wanted:
            await tester.change(MUTE, MuteRequest(id=new_id(), check=check, on=False))


async def test_what_was_acknowledged_is_known_to_all_and_survives_kill_9_of_all(cluster):
    async with Operator(cluster, "tester") as tester:
        reply = await tester.change(MAINTAIN, MaintainRequest(id=new_id(), target="node4/", on=True, reason="to be kept"))
        for node in cluster.nodes.values():
            node.kill()
        cluster.start()
        await cluster.until_whole("the same cluster again")
        states = await cluster.until_states(lambda state: state.index >= reply.index, "all have caught up")
        kept = {name: [(each.target, each.reason, each.author, each.index) for each in state.maintenance] for name, state in states.items()}
        assert kept == {name: [("node4/", "to be kept", "tester", reply.index)] for name in cluster.nodes}
    async with Operator(cluster, "tester") as tester:
        assert (await tester.change(MAINTAIN, MaintainRequest(id=new_id(), target="node4/", on=False))).changed


async def test_without_quorum_a_change_is_refused_at_once(cluster):
    cluster.nodes["node2"].kill()
    cluster.nodes["node3"].kill()
    try:
        await cluster.until(
            lambda reports: "node1" in reports and reports["node1"].raft.leader is None, what="node1 knows that it is alone"
        )
        async with Operator(cluster, "tester") as tester:
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises((NotLeader, NoQuorum)):
                await tester.ask("node1", MUTE, MuteRequest(id=new_id(), check="disk"))
            assert loop.time() - began < 1
            assert (await tester.ask("node1", STATE, StateRequest())).mutes == []
    finally:
        cluster.revive()


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
        lambda reports: len(reports) == 4 and all(report.raft.leader for report in reports.values()), what="node1 follows again"
    )
    assert all(report.raft.voters == ["node1", "node2", "node3"] for report in reports.values())
    assert reports["node4"].raft.role == "observer"


async def test_an_edited_file_takes_no_vote_away(cluster, edited):
    """Alone in its file, node1 would be a majority of itself."""
    before = edited.log
    edited.config = edited.config.model_copy(update={"voters": tuple(voter for voter in edited.config.voters if voter.name == "node1")})
    edited.start()
    assert await asyncio.to_thread(edited.process.wait, WAIT) != 0
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
