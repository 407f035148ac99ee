"""Voters are added and removed in a cluster of real nodes: real files, real time."""

from __future__ import annotations

import asyncio

import pytest
from raft_cluster import VOTERS, Cluster, running, until

from hmcore.errors import ChangeUnfinished, InvalidRequest, LevelTooLow, NotLeader
from node_agent.consensus.raft import RaftNode
from node_agent.consensus.statemachine import levels, machine

FORM = machine.FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST)


async def change(cluster: Cluster, **wish: str) -> int:
    """As a client does: on to whom the answer names."""
    node = await cluster.elected()
    for _ in range(5):
        try:
            return await node.change_voters(**wish, request_id="w", timeout=5.0)
        except NotLeader as error:
            node = cluster.nodes[error.leader] if error.leader else await cluster.elected()
    raise AssertionError("nobody carried it out")


async def join(cluster: Cluster, name: str, tasks: asyncio.TaskGroup) -> RaftNode:
    node = cluster.make(name, (*VOTERS, name))
    await node.open()
    cluster.nodes[name] = node
    tasks.create_task(node.run(), name=f"raft-{name}")
    cluster.rejoin(name)
    return node


async def test_a_node_joins_and_the_leader_leaves(tmp_path):
    async with running(tmp_path) as cluster, asyncio.TaskGroup() as tasks:
        await cluster.write("form", FORM)
        new = await join(cluster, "n4", tasks)
        await until(lambda: new.report().role == "outsider")
        assert "waits to be added" in (new.trouble or "")
        index = await change(cluster, add="n4")
        await until(lambda: new.state.configuration is not None and new.state.configuration.index == index)
        assert new.report().voters == [*VOTERS, "n4"]
        assert new.trouble is None
        leader = await cluster.elected()
        name = str(leader.leader)
        index = await change(cluster, remove=name)
        rest = sorted({*VOTERS, "n4"} - {name})
        await until(lambda: leader.report().role == "outsider")
        assert leader.trouble == f"{name} was removed from the voters (log index {index}); to let it vote again: hmctl raft add {name}"
        assert (await cluster.elected()).report().voters == rest
        await cluster.write("goes-on")
        assert await change(cluster, remove=name) == index  # harmless to repeat
        assert await change(cluster, add=name) > index  # and it may come back, with the disk that it has
        await until(lambda: leader.trouble is None)
        await new.stop()


async def test_a_learner_that_does_not_answer_is_told_in_time(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", FORM)
        leader = await cluster.elected()
        with pytest.raises(ChangeUnfinished, match=r"n9 is not a voter after 0\.2 s: n9 is not connected to n\d"):
            await leader.change_voters(add="n9", request_id="w", timeout=0.2)
        assert leader.report().voters == list(VOTERS)
        assert leader.report().learners == []


async def test_what_cannot_be_is_refused_at_once(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", machine.FormCluster(id="hm-a", bootstrap="b1"))
        leader = await cluster.elected()
        with pytest.raises(LevelTooLow):
            await leader.change_voters(add="n4", request_id="w")
        with pytest.raises(InvalidRequest, match="one voter"):
            await leader.change_voters(add="n4", remove="n1", request_id="w")
        follower = next(node for node in cluster.nodes.values() if node is not leader)
        await until(lambda: follower.leader is not None)
        with pytest.raises(NotLeader):
            await follower.change_voters(add="n4", request_id="w")
