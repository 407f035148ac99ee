"""Failure detection, case by case and as properties over everything a leader could have heard."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.api import Heartbeat
from hmcore.config.settings import Membership
from hmcore.records import Node, NodeState, Role
from node_agent.consensus.statemachine.machine import Entry, PutNode, SetNodeState, State, apply, encode
from node_agent.orchestration.hearing import Heard, Hearing, View
from node_agent.orchestration.membership import decide, next_change

TIMING = Membership()  # 0.5 / 2 / 4 s


def beat(incarnation: int = 1, **kwargs) -> Heartbeat:
    given = {"address": "10.0.0.1", "port": 7443, "role": Role.CONTROL, "release": "r1", "incarnation": incarnation, "health_score": 1.0}
    return Heartbeat(**(given | kwargs))


def node(state: NodeState = NodeState.READY, incarnation: int = 1, **kwargs) -> Node:
    given = {"name": "n1", "address": "10.0.0.1", "port": 7443, "role": Role.CONTROL, "release": "r1"}
    return Node(**(given | {"state": state, "incarnation": incarnation} | kwargs))


def judge(record: Node | None, heard: Heard | None, now: float, *, leader_since: float = 0.0, listening_since: float = 0.0):
    """The one command about n1, or None."""
    view = View({} if heard is None else {"n1": heard}, leader_since, listening_since)
    commands = decide({} if record is None else {"n1": record}, view, now, TIMING)
    assert len(commands) <= 1
    return commands[0] if commands else None


@pytest.mark.parametrize(
    ("before", "silence", "after"),
    [
        (NodeState.READY, 1.9, None),
        (NodeState.READY, 2.0, NodeState.SUSPECT),
        (NodeState.DEGRADED, 2.0, NodeState.SUSPECT),
        (NodeState.SUSPECT, 3.9, None),
        (NodeState.SUSPECT, 4.0, NodeState.DOWN),
        (NodeState.READY, 4.0, NodeState.DOWN),
        (NodeState.DOWN, 400.0, None),
        (NodeState.DRAINED, 4.0, NodeState.DOWN),
    ],
)
def test_silence(before, silence, after):
    reason = {NodeState.SUSPECT: "no heartbeat for 2 s", NodeState.DOWN: "no heartbeat for 4 s"}
    command = judge(node(before, state_reason=reason.get(before, "")), Heard(beat(), 10.0, None), 10.0 + silence)
    assert command == (None if after is None else SetNodeState(name="n1", state=after, reason=reason[after], incarnation=1))


def test_a_new_leader_acts_at_once_on_those_it_knows_and_waits_a_window_for_those_it_never_heard():
    assert judge(node(), Heard(beat(), 10.0, None), 14.0, leader_since=13.9) is not None
    assert judge(node(), None, 14.0, leader_since=13.9) is None
    assert judge(node(), None, 17.9, leader_since=13.9) == SetNodeState(
        name="n1", state=NodeState.DOWN, reason="no heartbeat for 4 s", incarnation=1
    )


def test_a_heartbeat_of_an_earlier_start_does_not_count_as_known():
    assert judge(node(incarnation=2), Heard(beat(1), 0.0, None), 14.0, leader_since=13.9) is None


def test_silence_while_we_could_not_hear_does_not_count():
    assert judge(node(), Heard(beat(), 10.0, None), 30.0, listening_since=29.0) is None


@pytest.mark.parametrize("before", [NodeState.SUSPECT, NodeState.DOWN])
def test_a_newer_heartbeat_brings_a_node_back(before):
    command = judge(node(before, state_reason="no heartbeat for 4 s"), Heard(beat(), 10.0, None), 10.1)
    assert command == SetNodeState(name="n1", state=NodeState.READY, reason="", incarnation=1)


def test_an_unknown_node_joins_and_a_restarted_one_is_put_again():
    assert judge(None, Heard(beat(), 10.0, None), 10.1) == PutNode(node=node())
    assert judge(node(NodeState.DOWN), Heard(beat(2), 10.0, None), 10.1) == PutNode(node=node(incarnation=2))


@pytest.mark.parametrize(
    "change", [{"address": "10.0.0.9"}, {"port": 7444}, {"role": Role.WORKER}, {"release": "r2"}, {"labels": {"zone": "b"}}]
)
def test_a_changed_record_is_put(change):
    assert judge(node(), Heard(beat(**change), 10.0, None), 10.1) == PutNode(node=node(**change))


def test_a_good_bye_is_down_at_once_and_stays_so():
    gone = Heard(beat(leaving=True), 10.0, None)
    assert judge(node(), gone, 10.1) == SetNodeState(name="n1", state=NodeState.DOWN, reason="stopped", incarnation=1)
    assert judge(node(NodeState.DOWN, state_reason="stopped"), gone, 50.0) is None
    assert judge(None, gone, 10.1) is None


def test_complaints_make_a_node_degraded_once_they_last():
    ill = beat(reasons=["Docker does not answer", "no leader"], health_score=0.5)
    assert judge(node(), Heard(ill, 10.9, 10.0), 10.9) is None
    command = judge(node(), Heard(ill, 11.0, 10.0), 11.0)
    assert command == SetNodeState(name="n1", state=NodeState.DEGRADED, reason="Docker does not answer; no leader", incarnation=1)
    degraded = node(NodeState.DEGRADED, state_reason="Docker does not answer; no leader")
    assert judge(degraded, Heard(ill, 20.0, 10.0), 20.0) is None
    assert judge(degraded, Heard(beat(), 20.5, None), 20.5) == SetNodeState(name="n1", state=NodeState.READY, reason="", incarnation=1)


def test_health_does_not_end_a_drain():
    assert judge(node(NodeState.DRAINED, state_reason="by ops"), Heard(beat(), 10.0, None), 10.1) is None


def hearing() -> Hearing:
    return Hearing("me", 0.0, heartbeat=TIMING.heartbeat, suspect=TIMING.suspect)


def listen(ear: Hearing, since: float, until: float) -> None:
    """Be awake, hearing nothing."""
    while (since := since + TIMING.heartbeat) < until:
        ear.clock(since)


def test_only_news_is_news():
    ear = hearing()
    assert ear.hear("n1", beat(), 0.5)
    assert not ear.hear("n1", beat(), 1.0)
    assert ear.view().heard["n1"].at == 1.0
    assert ear.hear("n1", beat(health_score=0.5, reasons=["x"]), 1.5)
    assert not ear.hear("n1", beat(health_score=0.5, reasons=["x"]), 2.0)
    assert ear.view().heard["n1"].ill_since == 1.5
    assert ear.hear("n1", beat(health_score=0.4, reasons=["x", "y"]), 2.5)
    assert ear.view().heard["n1"].ill_since == 1.5
    assert ear.hear("n1", beat(), 3.0)
    listen(ear, 3.0, 6.0)
    assert ear.hear("n1", beat(), 6.0)  # the same words, after a silence


def test_old_starts_and_what_follows_a_good_bye_are_ignored():
    ear = hearing()
    ear.hear("n1", beat(5), 0.1)
    assert not ear.hear("n1", beat(4, release="old"), 0.2)
    assert ear.view().heard["n1"].beat.release == "r1"
    assert ear.hear("n1", beat(5, leaving=True), 0.3)
    assert not ear.hear("n1", beat(5), 0.4)
    assert ear.view().heard["n1"].beat.leaving
    assert ear.hear("n1", beat(6), 0.5)


def test_while_we_stand_still_no_silence_grows():
    ear = hearing()
    ear.hear("n1", beat(), 0.5)
    listen(ear, 0.5, 2.0)
    assert ear.clock(2.0) == 2.0
    assert ear.clock(60.0) == 2.5
    assert ear.clock(60.5) == 3.0


def test_a_silence_of_all_is_ours_when_it_ends_and_our_own_voice_does_not_count():
    ear = hearing()
    ear.hear("n1", beat(), 0.5)
    listen(ear, 0.5, 6.0)
    ear.hear("me", beat(), 6.0)
    assert ear.view().listening_since == 0.0
    ear.hear("n2", beat(), 6.0)
    assert ear.view().listening_since == 6.0


def test_a_leader_elected_before_it_hears_anybody_again_blames_nobody():
    ear = hearing()
    ear.hear("n1", beat(), 0.5)
    ear.lead(1.0)
    assert (ear.view().leader_since, ear.view().listening_since) == (1.0, 0.0)
    listen(ear, 1.0, 12.0)
    ear.lead(12.0)
    assert (ear.view().leader_since, ear.view().listening_since) == (12.0, 12.0)


names = st.sampled_from(["n1", "n2", "n3"])
times = st.floats(0, 20)
beats = st.builds(
    beat, st.integers(1, 3), leaving=st.booleans(), release=st.sampled_from(["r1", "r2"]), reasons=st.lists(st.just("x"), max_size=1)
)
heards = st.dictionaries(names, st.builds(Heard, beats, times, st.none() | times)).map(
    lambda by_name: {
        name: Heard(heard.beat, heard.at, min(heard.at, heard.ill_since or heard.at) if heard.beat.reasons else None)
        for name, heard in by_name.items()
    }
)
records = st.dictionaries(names, st.builds(node, st.sampled_from([s for s in NodeState if s != "unreachable"]), st.integers(1, 3))).map(
    lambda by_name: {name: msgspec.structs.replace(record, name=name) for name, record in by_name.items()}
)
views = st.builds(View, heards, times, times)


def carry_out(nodes, commands):
    state = State(nodes=nodes)
    for index, command in enumerate(commands, start=1):
        state, _ = apply(state, encode(command), Entry(index))
    return dict(state.nodes)


@given(records, views, times)
def test_what_was_decided_and_applied_is_not_decided_again(nodes, view, now):
    after = carry_out(nodes, decide(nodes, view, now, TIMING))
    assert decide(after, view, now, TIMING) == []


@given(records, views, times, st.floats(0.001, 10))
def test_nothing_changes_before_the_announced_time(nodes, view, now, later):
    settled = carry_out(nodes, decide(nodes, view, now, TIMING))
    at = next_change(settled, view, now, TIMING)
    moment = now + later if at is None else min(now + later, at - 1e-6)
    if moment > now:
        assert decide(settled, view, moment, TIMING) == []


@given(records, views, times)
def test_no_command_is_about_a_start_that_is_over(nodes, view, now):
    for command in decide(nodes, view, now, TIMING):
        match command:
            case PutNode(node=put):
                assert put.name not in nodes or put.incarnation >= nodes[put.name].incarnation
            case SetNodeState(name=name, incarnation=incarnation):
                assert incarnation >= nodes[name].incarnation
