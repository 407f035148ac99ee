"""The life of a running agent: what goes and comes back beside it, what fails inside it, and its end."""

from __future__ import annotations

import asyncio

from hmcore.records import NodeState


async def test_a_stopped_node_says_good_bye_and_exits_with_0(cluster):
    follower = next(report.name for report in (await cluster.reports()).values() if report.raft.role == "follower")
    assert cluster.nodes[follower].terminate() == 0

    def stopped(reports):
        states = [{node.name: (node.state, node.state_reason) for node in report.members} for report in reports.values()]
        return len(reports) == len(cluster.nodes) - 1 and all(state[follower] == (NodeState.DOWN, "stopped") for state in states if state)

    await cluster.until(stopped, what="everybody knows that it was stopped")
    assert not cluster.nodes[follower].config.socket.exists()
    cluster.nodes[follower].start()
    await cluster.until_whole("it came back")


async def test_sigterm_while_starting_ends_it(lone):
    lone.start()
    async with asyncio.timeout(20):
        while "transport is" not in lone.nodes["node1"].log:  # noqa: ASYNC110 -- another process writes it
            await asyncio.sleep(0.01)
    assert lone.nodes["node1"].terminate() == 0
