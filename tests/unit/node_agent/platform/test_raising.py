"""Raising the feature level: only to what every member is known to understand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.api import Heartbeat, RaiseReply, RaiseRequest
from hmcore.errors import LevelTooLow, NotLeader
from hmcore.pki import Identity, Kind
from hmcore.records import Cluster, Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import Applied, RaiseFeatureLevel, decode, encode_result
from node_agent.orchestration.advance import Known, known, to_form_at
from node_agent.orchestration.hearing import Heard, View
from node_agent.platform.changes import Changes
from node_agent.platform.raising import Raising, decide

AT_BASE = Cluster(id="hm-a", bootstrap="b1")
OPERATOR = Identity("hm-a", Kind.OPERATOR, "ann")


def beat(level: int, *, leaving: bool = False) -> Heartbeat:
    return Heartbeat(
        address="10.0.0.1", port=7443, role=Role.CONTROL, release="r", incarnation=1, health_score=1.0, level=level, leaving=leaving
    )


def view(levels_: dict[str, int], at: float = 9.5, leaving: str = "") -> View:
    return View({name: Heard(beat(level, leaving=name == leaving), at, None) for name, level in levels_.items()}, 9.0, 0.0)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, levels.LATEST + 1)), st.sets(st.sampled_from("abcd"), min_size=1))
def test_nobody_is_taken_to_know_more_than_it_said(told, names):
    found = known(names, view(told), now=10.0, patience=2.0)
    assert set(found.silent) == names - told.keys()
    assert found.level <= levels.LATEST
    assert all(found.level <= told[name] for name in names & told.keys())
    assert {name for name in names & told.keys() if told[name] < levels.LATEST} == set(found.behind)


def test_what_was_heard_long_ago_or_from_one_that_leaves_tells_nothing():
    assert known("ab", view({"a": 2, "b": 2}, at=7.9), now=10.0, patience=2.0).silent == ("a", "b")
    assert known("ab", view({"a": 2, "b": 2}, leaving="b"), now=10.0, patience=2.0).silent == ("b",)


def test_the_cluster_is_formed_when_all_voters_were_heard_or_no_longer_waited_for():
    assert to_form_at("ab", view({"a": 2, "b": 2}), now=10.0, patience=2.0) == 2
    assert to_form_at("ab", view({"a": 2, "b": 1}), now=10.0, patience=2.0) == 1
    assert to_form_at("abc", view({"a": 2, "b": 2}), now=10.0, patience=2.0) is None
    assert to_form_at("abc", view({"a": 2, "b": 2}), now=11.0, patience=2.0) == levels.BASE


def test_it_is_raised_only_if_everybody_was_heard_and_knows_more():
    assert decide(AT_BASE, Known(2, (), (("a", 2), ("b", 2)))) == 2
    assert decide(Cluster(id="hm-a", bootstrap="b1", feature_level=levels.LATEST), Known(1, ("a",), ())) is None
    with pytest.raises(LevelTooLow, match="stays at 1: b, c cannot be asked"):
        decide(AT_BASE, Known(2, ("b", "c"), (("a", 2),)))
    with pytest.raises(LevelTooLow, match="stays at 1: b runs a release that knows no other"):
        decide(AT_BASE, Known(1, (), (("a", levels.LATEST), ("b", 1))))


class Log:
    index = 7
    leader = "node1"
    is_leader = True
    caught_up = True
    no_quorum = None

    def __init__(self, cluster: Cluster | None = AT_BASE) -> None:
        self.cluster = cluster
        self.proposed: list[object] = []

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        self.proposed.append(decode(command))
        return 8, encode_result(Applied())


def raising(log: Log, found: Known) -> Raising:
    return Raising(Changes("node1", log, log, timeout=1.0), lambda: found)  # type: ignore[arg-type]


ALL_KNOW = Known(2, (), (("a", 2),))
REQUEST = RaiseRequest(id="request-1")


async def test_the_leader_raises_it_at_an_operators_word():
    log = Log()
    assert await raising(log, ALL_KNOW).carry_out(REQUEST, OPERATOR) == RaiseReply(index=8, level=2, changed=True)
    assert log.proposed == [RaiseFeatureLevel(level=2)]


async def test_where_there_is_nothing_to_do_nothing_is_written():
    log = Log(Cluster(id="hm-a", bootstrap="b1", feature_level=levels.LATEST))
    assert await raising(log, ALL_KNOW).carry_out(REQUEST, OPERATOR) == RaiseReply(index=7, level=levels.LATEST, changed=False)
    assert log.proposed == []


async def test_it_is_refused_without_a_cluster_and_by_who_does_not_lead():
    with pytest.raises(LevelTooLow, match="not formed"):
        await raising(Log(None), ALL_KNOW).carry_out(REQUEST, OPERATOR)
    log = Log()
    log.is_leader = False
    with pytest.raises(NotLeader):
        await raising(log, ALL_KNOW).carry_out(REQUEST, OPERATOR)
