"""Asking others for whoever asks us: whom, how long, and what is passed on. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from hmcore.api import MOST_REPORTS, ReportsReply, ReportsRequest
from hmcore.errors import InvalidRequest, PeerUnreachable
from hmcore.records import NodeReport, PeerReport, RaftReport, Role
from node_agent.platform.forwarding import PATIENCE, Forwarding

WALL = 1000.0  # our clock when we are asked


def report_of(name: str, unix_time: float = WALL) -> NodeReport:
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
        unix_time=unix_time,
    )


class Others:
    """Nodes that answer after so many seconds (None: never), by a clock that is ahead; `asked` are those that were."""

    def __init__(self, takes: Mapping[str, float | None], *, ahead: float = 0.0, broken: frozenset[str] = frozenset()) -> None:
        self.takes = takes
        self.ahead = ahead
        self.broken = broken
        self.asked: list[str] = []

    async def ask(self, name: str, timeout: float) -> NodeReport:
        self.asked.append(name)
        takes = self.takes[name]
        await asyncio.sleep(timeout if takes is None else min(takes, timeout))
        if takes is None or takes > timeout:
            raise PeerUnreachable("no answer", host=name)
        return report_of(name, WALL + self.ahead)

    def links(self) -> list[PeerReport]:
        return [
            PeerReport(name=name, address="10.0.0.1:7443", state="broken" if name in self.broken else "connected", rtt_ms=1.5)
            for name in self.takes
        ]


def ask(virtual, others: Others, *names: str, timeout: float = 2.0) -> tuple[ReportsReply, float]:
    """The answer, and the seconds until it came."""

    async def run() -> tuple[ReportsReply, float]:
        forwarding = Forwarding(others.ask, links=others.links, wall_clock=lambda: WALL)
        began = asyncio.get_running_loop().time()
        reply = await forwarding.reports(ReportsRequest(nodes=list(names or others.takes), timeout=timeout))
        return reply, asyncio.get_running_loop().time() - began

    found: tuple[ReportsReply, float] = virtual(run())
    return found


def names(reply: ReportsReply) -> list[str]:
    return sorted(each.report.name for each in reply.reports)


def test_who_is_connected_is_asked_once_and_nobody_else(virtual):
    others = Others({"node1": 0.01, "node2": 0.01, "node3": 0.01}, broken=frozenset({"node3"}))
    reply, took = ask(virtual, others, "node1", "node2", "node3", "stranger", "node1")
    assert names(reply) == ["node1", "node2"]
    assert others.asked == ["node1", "node2"]
    assert took == pytest.approx(0.01)
    assert {each.rtt_ms for each in reply.reports} == {1.5}


def test_a_node_that_hangs_delays_the_others_answers_by_our_patience_and_no_longer(virtual):
    reply, took = ask(virtual, Others({"node1": 0.01, "node2": 0.02, "hangs": None}))
    assert names(reply) == ["node1", "node2"]
    assert took == pytest.approx(0.02 + PATIENCE)


def test_where_all_are_slow_patience_grows_with_them(virtual):
    reply, took = ask(virtual, Others({"node1": 0.4, "node2": 0.4, "slower": 1.4, "hangs": None}), timeout=5.0)
    assert names(reply) == ["node1", "node2", "slower"]
    assert took == pytest.approx(5.0)


def test_the_timeout_is_the_end_even_when_hardly_anybody_answers(virtual):
    reply, took = ask(virtual, Others({"node1": 0.1, "hangs1": None, "hangs2": None}), timeout=1.0)
    assert names(reply) == ["node1"]
    assert took == pytest.approx(1.0)


def test_clocks_are_known_as_well_as_the_exchange_was_short(virtual):
    reply, _ = ask(virtual, Others({"node1": 0.2}, ahead=30.0))
    assert (reply.reports[0].ahead_least, reply.reports[0].ahead_most) == (pytest.approx(29.8), pytest.approx(30.0))


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        pytest.param(ReportsRequest(nodes=["node1"] * (MOST_REPORTS + 1)), "64 at most", id="too many"),
        pytest.param(ReportsRequest(nodes=["node1"], timeout=5.1), "5 at most", id="too long"),
        pytest.param(ReportsRequest(nodes=["node1"], timeout=0.0), "more than 0", id="no time"),
        pytest.param(ReportsRequest(nodes=["node1"], timeout=float("nan")), "more than 0", id="not a number"),
    ],
)
def test_what_is_too_much_is_refused_before_anybody_is_asked(virtual, request_, complaint):
    others = Others({"node1": 0.01})
    with pytest.raises(InvalidRequest, match=complaint):
        virtual(Forwarding(others.ask, links=others.links, wall_clock=lambda: WALL).reports(request_))
    assert others.asked == []


def test_an_answer_in_the_very_moment_in_which_time_is_up_spoils_nothing(virtual):
    """The answer and the limit come in one turn of the loop: when the task goes on, it is about to be cancelled."""

    class Late(Others):
        async def ask(self, name: str, timeout: float) -> NodeReport:
            if name != "late":
                return await super().ask(name, timeout)
            answer = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(timeout - 5e-10, answer.set_result, None)
            await answer
            return report_of(name)

    reply, took = ask(virtual, Late({"late": None, "node1": 0.01, "hangs1": None, "hangs2": None, "node2": 0.01}), timeout=1.0)
    assert names(reply) == ["late", "node1", "node2"]
    assert took == pytest.approx(1.0)


def test_a_caller_without_patience_is_not_taken_literally(virtual):
    """It would make well nodes look as if they had failed: what this node learns of its own calls decides whom it asks."""
    reply, _ = ask(virtual, Others({"node1": 0.1}), timeout=0.001)
    assert names(reply) == ["node1"]
