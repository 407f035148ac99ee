"""How the log stands on real nodes: what the leader knows of the others, and what one that was removed says of itself."""

from __future__ import annotations

import asyncio

from raft_cluster import Cluster, running, until

from hmcore.errors import NoQuorum, NotLeader
from node_agent.consensus.statemachine import levels, machine


async def removed(cluster: Cluster, name: str) -> int:
    async with asyncio.timeout(15):
        while True:
            leader = await cluster.elected()
            try:
                return await leader.change_voters(remove=name, request_id="request-1")
            except (NotLeader, NoQuorum):
                await asyncio.sleep(0.005)  # who leads next is to be found out


async def test_the_leader_tells_how_far_each_is_and_a_removed_node_what_it_is(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", machine.FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST))
        leader = await cluster.elected()
        before = leader.status()
        assert before is not None
        assert before.role == "leader"
        assert (before.voters, before.learners, before.configured, before.committed) == (["n1", "n2", "n3"], [], 0, True)
        assert before.hash
        assert [follower.name for follower in before.followers] == sorted({"n1", "n2", "n3"} - {before.name})
        assert all(follower.connected for follower in before.followers)
        await until(lambda: any(f.match == before.last_index and f.answered is not None for f in (leader.status() or before).followers))
        gone = next(name for name in ("n1", "n2", "n3") if name != before.name)
        index = await removed(cluster, gone)
        status = (await cluster.elected()).status()
        assert status is not None
        assert (gone in status.voters, status.configured, status.committed) == (False, index, True)
        assert gone not in [follower.name for follower in status.followers]
        await until(lambda: (said := cluster.nodes[gone].status()) is not None and said.removed)
        told = cluster.nodes[gone].status()
        assert told is not None
        assert (told.role, told.followers) == ("outsider", [])
        assert f"{gone} was removed from the voters (log index {index})" in told.trouble
    assert cluster.nodes[gone].status() is None  # it is not open any more
