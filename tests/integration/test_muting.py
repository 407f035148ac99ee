"""Mutes are the cluster's word: a muted trouble degrades a node for nobody, the worker included, and whoever leads next knows of it."""

from __future__ import annotations

from collections.abc import Mapping

from cluster import ClusterOfProcesses
from operators import Operator, new_id

from hmcore.api import MUTE, MuteRequest, StateReply
from hmcore.records import NodeReport, NodeState

CHECK = "component.container"  # there is no Docker here


def state_of(state: StateReply, name: str) -> NodeState:
    return next(node.state for node in state.nodes if node.name == name)


def muted(reports: Mapping[str, NodeReport]) -> dict[str, bool]:
    return {name: next(check.muted for check in report.checks if check.name == CHECK) for name, report in reports.items()}


async def test_a_muted_trouble_degrades_nobody_and_outlives_the_leader(cluster: ClusterOfProcesses) -> None:
    async with Operator(cluster, "tester") as operator:
        before = await cluster.until(lambda reports: all(report.health_score < 1.0 for report in reports.values()), what="Docker is missed")
        assert all("Docker" in reason for report in before.values() for reason in report.reasons)
        await operator.change(MUTE, MuteRequest(id=new_id(), check=CHECK, reason="a test"))
        try:
            well = await cluster.until(
                lambda reports: (
                    len(reports) == 4 and all((report.health_score, report.reasons) == (1.0, []) for report in reports.values())
                ),
                what="the mute holds on every node",
            )
            assert set(muted(well).values()) == {True}
            await cluster.until_states(
                lambda state: all(state_of(state, name) is NodeState.READY for name in cluster.nodes), "the leader calls all ready"
            )
            leader = well["node1"].raft.leader
            assert leader is not None
            cluster.nodes[leader].kill()
            after = await cluster.until(
                lambda reports: len(reports) == 3 and all(report.raft.leader not in (None, leader) for report in reports.values()),
                what="somebody else leads",
            )
            cluster.nodes[leader].start()
            assert set(muted(after).values()) == {True}
            again = await cluster.until_whole("the old leader is back")
            assert muted(again)[leader]
        finally:
            await operator.change(MUTE, MuteRequest(id=new_id(), check=CHECK, on=False))
        await cluster.until(lambda reports: not any(muted(reports).values()), what="the mute is taken back everywhere")
        await cluster.until_states(
            lambda state: all(state_of(state, name) is NodeState.DEGRADED for name in cluster.nodes), "Docker is missed again"
        )
