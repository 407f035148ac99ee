"""One node's answer for many: agents ask each other, over the connections that they have."""

from __future__ import annotations

import signal
import time

from hmcore.api import REPORTS, ReportsRequest
from hmcore.pki import Kind
from hmcore.stoq.rpc import invoke


async def test_a_control_node_tells_how_the_others_are_and_what_it_does_not_know_it_leaves_out(cluster):
    request = ReportsRequest(nodes=["node2", "node3", "node4", "node1", "stranger"])
    async with cluster.connect("node1", Kind.VIEWER) as connection:
        reply = await invoke(connection, REPORTS, request, timeout=5)
    reports = {each.report.name: each for each in reply.reports}
    assert set(reports) == {"node2", "node3", "node4"}
    for name, each in reports.items():
        assert each.report.formed
        assert each.report.components["consensus"].state == "running", name
        assert each.report.members == [], "in a large cluster, these would be most of the answer"
        assert each.rtt_ms is not None
        assert abs(each.report.unix_time - time.time()) < 5.0
        assert each.ahead_least <= 0.0 <= each.ahead_most, "they share our clock"


async def test_a_node_that_hangs_is_left_out_in_time(cluster):
    node = cluster.nodes["node4"]
    async with cluster.connect("node1") as connection:
        node.send(signal.SIGSTOP)
        try:
            began = time.monotonic()
            reply = await invoke(connection, REPORTS, ReportsRequest(nodes=["node2", "node3", "node4"], timeout=5.0), timeout=8)
            took = time.monotonic() - began
        finally:
            node.send(signal.SIGCONT)
    assert {each.report.name for each in reply.reports} == {"node2", "node3"}
    assert took < 2.5, "most had answered"
