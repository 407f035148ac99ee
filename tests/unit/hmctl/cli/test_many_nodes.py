"""What a terminal is shown of hundreds of nodes: those that matter. A pipe gets all."""

from __future__ import annotations

from hmcore.records import NodeState, Role
from hmctl.actions.status import NodeStatus
from hmctl.cli.status import MANY, of_interest, summary


def node(number: int, state: NodeState = NodeState.READY, score: float = 1.0) -> NodeStatus:
    return NodeStatus(
        name=f"node{number}",
        address="10.0.0.1",
        role=Role.CONTROL if number <= 3 else Role.WORKER,
        state=state,
        health_score=score,
        reasons=[],
        release="r",
        uptime_seconds=1.0,
        rtt_ms=0.5 + number,
        containers=2,
        components={},
    )


def test_control_nodes_and_those_that_need_attention_the_silent_first() -> None:
    nodes = [node(number) for number in range(1, 101)]
    nodes[49] = node(50, NodeState.DEGRADED, 0.8)
    nodes[89] = node(90, NodeState.UNREACHABLE, 0.0)
    nodes[1] = node(2, NodeState.DEGRADED, 0.1)
    shown, rest = of_interest(nodes)
    assert [found.name for found in shown] == ["node1", "node2", "node3", "node90", "node50"]
    assert len(rest) == 95
    assert summary(rest) == "and 95 more nodes (95 ready): 190 containers, RTT 4.5 to 100.5 ms; --all lists them"


def test_no_more_than_a_screenful_of_trouble_and_nobody_is_lost() -> None:
    nodes = [node(number, NodeState.DOWN if number > 100 else NodeState.READY, 0.0) for number in range(1, 501)]
    shown, rest = of_interest(nodes)
    assert len(shown) == MANY + 3
    assert {found.name for found in shown} | {found.name for found in rest} == {found.name for found in nodes}
    assert len(shown) + len(rest) == 500
    assert "370 down" in summary(rest)
    assert "97 ready" in summary(rest)
