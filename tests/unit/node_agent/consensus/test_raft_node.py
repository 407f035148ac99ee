"""RaftNode on a real loop with real files: election, replication, restarts, kill -9, minorities, failures."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from raft_cluster import VOTERS, Cluster, running, until

from hmcore.errors import CommittedConflict, ConsensusError, NoQuorum, NotLeader, StorageDamaged
from hmcore.records import Node, Role
from node_agent.consensus.statemachine import machine

HERE = Path(__file__).parent
FORM = machine.FormCluster(id="hm-a", bootstrap="b1")


def a_node(name: str) -> Node:
    return Node(name=name, address="198.18.0.1", port=7443, role=Role.CONTROL, release="r1")


async def test_a_leader_is_elected_and_the_node_records_reach_every_voter(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", FORM)
        for name in VOTERS:
            await cluster.write(f"put-{name}", machine.PutNode(node=a_node(name)))
        await until(lambda: all(set(node.state.nodes) == set(VOTERS) for node in cluster.nodes.values()))
        assert len({machine.state_hash(node.state) for node in cluster.nodes.values()}) == 1
        leader = await cluster.elected()
        report = leader.report()
        assert (report.role, report.voters, report.reachable_voters) == ("leader", list(VOTERS), list(VOTERS))
        await until(lambda: {node.leader for node in cluster.nodes.values()} == {cluster.leader and cluster.leader.leader})
        await until(lambda: all(node.trouble is None for node in cluster.nodes.values()))
        figures = leader.figures
        assert figures is not None
        assert (figures.elections >= 1, figures.entries > len(VOTERS), figures.size > 0) == (True, True, True)
        assert all(node.figures.elections <= report.term for node in cluster.nodes.values() if node.figures)  # one vote for oneself a term


@pytest.mark.long
async def test_without_permission_nobody_votes(tmp_path):
    async with running(tmp_path, permitted=False) as cluster:
        with pytest.raises(TimeoutError):
            await until(lambda: cluster.leader is not None, seconds=1.4)
        assert {node.report().role for node in cluster.nodes.values()} == {"unformed"}
        with pytest.raises(NoQuorum, match="not yet part"):
            await cluster.nodes["n1"].propose(machine.encode(FORM), request_id="x")


async def test_a_follower_says_who_leads_and_a_retry_is_applied_once(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.elected()
        first = await leader.propose(machine.encode(FORM), request_id="form")
        assert await leader.propose(machine.encode(FORM), request_id="form") == first
        assert await leader.propose(machine.encode(FORM), request_id="other") != first
        follower = next(node for node in cluster.nodes.values() if node is not leader)
        await until(lambda: follower.leader is not None)
        with pytest.raises(NotLeader) as caught:
            await follower.propose(machine.encode(FORM), request_id="x")
        assert caught.value.leader == leader.leader


@pytest.mark.long
async def test_a_minority_refuses_writes_with_a_clear_error_and_the_rest_goes_on(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", FORM)
        old = await cluster.elected()
        name = str(old.leader)
        cluster.isolate(name)
        with pytest.raises(NoQuorum, match="no quorum: 1 of 3 voters reachable"):
            await old.propose(machine.encode(machine.Noop()), request_id="lost", timeout=5.0)
        with pytest.raises(NoQuorum, match="no quorum: 1 of 3 voters reachable"):
            await asyncio.wait_for(old.propose(machine.encode(machine.Noop()), request_id="at-once"), 0.05)
        await cluster.write("goes-on", machine.PutNode(node=a_node("n9")))
        cluster.rejoin(name)
        await until(lambda: "n9" in old.state.nodes)
        assert "lost" not in old.state.receipts or "lost" in (await cluster.elected()).state.receipts


async def test_a_write_that_nobody_acknowledges_fails_within_its_timeout(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", FORM)
        leader = await cluster.elected()
        cluster.cut.update(VOTERS)  # messages vanish, but nobody notices yet
        began = asyncio.get_running_loop().time()
        with pytest.raises(NoQuorum):
            await leader.propose(machine.encode(machine.Noop()), request_id="x", timeout=0.1)
        assert asyncio.get_running_loop().time() - began < 0.25


async def test_a_restarted_component_finds_its_connections_and_its_log(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", FORM)
        leader = await cluster.elected()
        follower = next(node for node in cluster.nodes.values() if node is not leader)
        await follower.stop()
        assert follower.state == machine.State()
        await cluster.write("while-away", machine.PutNode(node=a_node("n9")))
        await follower.open()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follower.run(), name="again")
            await until(lambda: "n9" in follower.state.nodes)
            await follower.stop()


async def test_an_emptied_node_is_re_seeded_and_votes_again(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", FORM)
        await cluster.write("put", machine.PutNode(node=a_node("n9")))
        await until(lambda: all("n9" in node.state.nodes for node in cluster.nodes.values()))
        leader = await cluster.elected()
        name, node = next((name, node) for name, node in cluster.nodes.items() if node is not leader)
        await node.stop()
        for file in (tmp_path / name).iterdir():
            file.unlink()
        await node.open()
        assert node.formation().empty
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(node.run(), name="again")
            await until(lambda: node.formation().formed)
            await until(lambda: node.formation().permitted)
            assert "n9" in node.state.nodes
            await node.stop()


async def test_what_must_stop_a_node_is_told_and_ends_run(tmp_path, monkeypatch):
    cluster = Cluster(tmp_path)
    cluster.nodes["n1"] = node = cluster.make("n1")
    await node.open()
    node.permit("b1")

    def conflict(*_: object) -> None:
        raise CommittedConflict("entry 3 differs")

    monkeypatch.setattr(node._member.transport, "receive", conflict)
    async with asyncio.TaskGroup() as tasks:
        running_ = tasks.create_task(_caught(node.run()), name="raft")
        node.receive("n2", b"whatever")
        assert isinstance(await asyncio.wait_for(running_, 5), CommittedConflict)
    assert [type(error) for error in cluster.fatal] == [CommittedConflict]
    with pytest.raises(CommittedConflict):
        await node.propose(b"", request_id="x")
    await node.stop()


async def _caught(coroutine) -> BaseException | None:
    try:
        await coroutine
    except ConsensusError as error:
        return error
    return None


async def test_a_damaged_journal_is_refused_and_can_be_tried_again(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", FORM)
    file = tmp_path / "n1" / "journal"
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    node = Cluster(tmp_path).make("n1")
    for _ in range(2):  # the lock is let go of
        with pytest.raises(StorageDamaged) as caught:
            await node.open()
        assert caught.value.fix == "hmctl raft reseed n1"
    assert node.trouble == "not open"


async def test_stopping_twice_or_unopened_is_harmless(tmp_path):
    node = Cluster(tmp_path).make("n1")
    await node.stop()
    await node.open()
    await node.stop()
    await node.stop()
    node.receive("n2", b"late")
    node.peer_down("n2")


@pytest.mark.long
async def test_kill_9_of_all_voters_at_once_loses_no_acknowledged_write(tmp_path):
    """Again and again on the same disks; the last time they are opened here and everything must be there."""
    acknowledged: list[str] = []
    for life in range(3):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "raft_writer.py"), str(tmp_path), f"life{life}", stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parents[3])))},
        )  # fmt: skip
        assert writer.stdout is not None
        async with asyncio.timeout(30):
            for _ in range(150 + 37 * life):
                acknowledged.append((await writer.stdout.readline()).decode().strip())
            writer.send_signal(signal.SIGKILL)
            acknowledged += (await writer.stdout.read()).decode().splitlines()
            await writer.wait()
    assert len(acknowledged) >= 400
    async with running(tmp_path) as cluster:
        await cluster.write("last")
        for node in cluster.nodes.values():
            await until(lambda node=node: "last" in node.state.receipts)
            assert set(acknowledged) <= set(node.state.receipts)
