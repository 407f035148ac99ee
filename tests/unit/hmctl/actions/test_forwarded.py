"""Reports through control nodes: who is asked for whom, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.api import MOST_REPORTS, ForwardedReport, ReportsReply, ReportsRequest
from hmcore.errors import HyperMeshError, InvalidRequest
from hmcore.records import NodeReport, RaftReport, Role
from hmctl.actions.forwarded import Ahead, GoBetween, forwarded, shares


def report_of(name: str) -> NodeReport:
    return NodeReport(
        cluster="hm-abc123defg",
        name=name,
        address="10.0.0.1",
        role=Role.WORKER,
        release="r1",
        uptime_seconds=1.0,
        health_score=1.0,
        reasons=[],
        containers=0,
        components={},
        raft=RaftReport(role="observer"),
        formed=True,
        members=[],
        unix_time=0.0,
    )


@dataclass
class Control:
    """A control node that reaches `knows`; `asked` are the lists that it was asked for."""

    name: str
    knows: Sequence[str] = ()
    failure: HyperMeshError | None = None
    ahead: tuple[float, float] = (0.0, 0.0)
    asked: list[list[str]] = field(default_factory=list)

    async def reports(self, request: ReportsRequest, *, timeout: float) -> ReportsReply:
        assert timeout > request.timeout
        self.asked.append(request.nodes)
        if self.failure is not None:
            raise self.failure
        least, most = self.ahead
        return ReportsReply(
            reports=[
                ForwardedReport(report=report_of(name), ahead_least=least, ahead_most=most, rtt_ms=2.0)
                for name in self.knows
                if name in request.nodes
            ]
        )


def through(*controls: Control, distance: float = 0.01, ahead: Ahead = Ahead(0.0, 0.0)) -> list[GoBetween]:  # noqa: B008  frozen
    return [GoBetween(control, distance, ahead) for control in controls]


async def test_each_control_node_is_asked_for_its_share_and_the_answers_say_through_whom():
    names = [f"node{number}" for number in range(100)]
    first, second = Control("control1", names), Control("control2", names)
    found = await forwarded(names, through(first, second), timeout=1.0)
    assert sorted(found) == sorted(names)
    assert [sorted({found[name].through for name in asked}) for asked in (first.asked[0], second.asked[0])] == [["control1"], ["control2"]]
    assert (len(first.asked), len(second.asked)) == (1, 1)
    assert found["node1"].rtt_seconds == pytest.approx(0.012), "to the control node, and on from there"


async def test_who_is_not_reached_or_not_answered_for_is_missing():
    names = ["node1", "node2", "node3", "node4"]
    older = Control("control1", names, InvalidRequest("no method 'cluster.reports' here"))
    found = await forwarded(names, through(older, Control("control2", ["node3"])), timeout=1.0)
    assert set(found) == {"node3"}
    assert await forwarded(names, [], timeout=1.0) == {}


async def test_reports_that_nobody_asked_for_are_not_taken():
    class Talkative(Control):
        async def reports(self, request: ReportsRequest, *, timeout: float) -> ReportsReply:
            return ReportsReply(reports=[ForwardedReport(report=report_of("node9"), ahead_least=0.0, ahead_most=0.0)])

    assert await forwarded(["node1"], through(Talkative("control1")), timeout=1.0) == {}


async def test_clocks_add_up():
    control = Control("control1", ["node1"], ahead=(9.0, 9.5))
    found = await forwarded(["node1"], through(control, ahead=Ahead(-3.5, -3.0)), timeout=1.0)
    assert found["node1"].offset_seconds == pytest.approx(5.5)


@given(
    least=st.floats(-1e6, 1e6),
    width=st.floats(0, 1e3),
)
def test_what_is_certain_lies_in_the_bounds_and_is_nothing_when_they_allow_that(least: float, width: float) -> None:
    ahead = Ahead(least, least + width)
    assert ahead.least <= ahead.certain <= ahead.most
    assert (ahead.certain == 0.0) == (ahead.least <= 0.0 <= ahead.most)


@given(names=st.lists(st.text(max_size=3), max_size=700), count=st.integers(0, 5))
def test_shares_hold_everybody_once_and_no_more_than_an_answer_holds(names: list[str], count: int) -> None:
    parts = shares(names, count)
    assert [name for part in parts for name in part] == (names if count else [])
    assert all(0 < len(part) <= MOST_REPORTS for part in parts)
    assert len({len(part) for part in parts[:-1]}) <= 1
    if count and names:
        assert len(parts) <= count * -(-len(names) // (count * MOST_REPORTS))
