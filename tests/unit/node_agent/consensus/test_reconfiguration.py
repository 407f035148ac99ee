"""The rules of changing who votes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import InvalidRequest, LevelTooLow, NoQuorum
from hmcore.records import Configuration
from node_agent.consensus.rules import ALL
from node_agent.consensus.statemachine import levels
from node_agent.consensus.voters.reconfiguration import (
    CLOSE,
    Add,
    Done,
    Follower,
    HandOver,
    Propose,
    Remove,
    Step,
    View,
    Wait,
    next_step,
    promotion,
)

NAMES = ["a", "b", "c", "d", "e", "f"]


def view(voters: str = "abc", learners: str = "", *, index: int = 40, silent: str = "", matches: Mapping[str, int] = {}, **known) -> View:
    usual = {
        "name": "a",
        "configuration": Configuration(voters=tuple(voters), learners=tuple(learners), index=index),
        "commit_index": 100,
        "own_term": True,
        "last": 100,
        "level": levels.LATEST,
        "followers": {name: Follower(matches.get(name, 100), name not in silent) for name in voters + learners if name != "a"},
        "connected": frozenset(NAMES) - set(silent),
    }
    return View(**{**usual, **known})


def test_a_new_voter_is_a_learner_first():
    assert next_step(Add("d"), view()) == Propose(("a", "b", "c"), ("d",))


def test_without_that_rule_it_counts_at_once():
    assert next_step(Add("d"), view(), dataclasses.replace(ALL, learners_first=False)) == Propose(("a", "b", "c", "d"), ())


def test_one_that_is_not_connected_is_not_even_a_learner():
    assert next_step(Add("d"), view(silent="d")) == Wait("d is not connected to a")


def test_a_learner_is_waited_for_and_its_progress_told():
    assert next_step(Add("d"), view(learners="d", matches={"d": 7})) == Wait("d is a learner, and holds 7 of 100 log entries")
    assert next_step(Add("d"), view(learners="d", silent="d")) == Wait("d is a learner, and does not answer a")


@pytest.mark.parametrize(
    ("match", "answers", "promoted"),
    [(100, True, True), (100 - CLOSE, True, True), (99 - CLOSE, True, False), (100, False, False)],
)
def test_a_learner_votes_when_it_answers_and_is_close(match, answers, promoted):
    now = view(learners="d", matches={"d": match}, silent="" if answers else "d", index=20)
    assert promotion(now) == (Propose(("a", "b", "c", "d"), ()) if promoted else None)


def test_a_learner_that_does_not_know_that_it_is_one_does_not_vote():
    assert promotion(view(learners="d", matches={"d": 98}, index=99)) is None


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"index": 101}, "the change at log index 101 is not committed yet"),
        ({"own_term": False}, "a has led for too short a time"),
    ],
)
def test_a_change_waits_for_the_one_before_and_for_the_leaders_own_term(known, reason):
    now = view(learners="e", **known)
    assert next_step(Add("d"), now) == Wait(reason)
    assert next_step(Remove("c"), now) == Wait(reason)
    assert promotion(now) is None


@pytest.mark.parametrize(("rule", "known"), [("one_change_at_a_time", {"index": 101}), ("own_term_first", {"own_term": False})])
def test_without_these_rules_it_does_not(rule, known):
    without = dataclasses.replace(ALL, **{rule: False})
    assert isinstance(next_step(Add("d"), view(**known), without), Propose)
    assert isinstance(next_step(Remove("c"), view(**known), without), Propose)


def test_what_is_so_already_is_done_when_it_is_committed():
    assert next_step(Add("b"), view()) == Done(40)
    assert next_step(Remove("f"), view()) == Done(40)
    assert isinstance(next_step(Add("b"), view(index=101)), Wait)
    assert isinstance(next_step(Remove("f"), view(index=101)), Wait)


def test_a_leader_hands_over_before_it_goes():
    assert next_step(Remove("a"), view()) == HandOver()


def test_the_last_voter_stays():
    with pytest.raises(InvalidRequest, match="a is the last voter"):
        next_step(Remove("a"), view("a", "b"))


def test_a_learner_goes_whether_it_answers_or_not():
    assert next_step(Remove("d"), view(learners="d", silent="d")) == Propose(("a", "b", "c"), ())


def test_a_removal_that_would_leave_no_quorum_is_refused_and_says_why():
    with pytest.raises(NoQuorum, match=r"without b, 2 of 2 voters would be needed; 1 answer \(c: no answer\)"):
        next_step(Remove("b"), view(silent="c"))
    assert next_step(Remove("c"), view(silent="c")) == Propose(("a", "b"), ())
    with pytest.raises(NoQuorum):
        next_step(Remove("a"), view(silent="c"))


def test_an_earlier_level_knows_no_changes():
    with pytest.raises(LevelTooLow, match="from feature level 2 on; the cluster is at 1") as caught:
        next_step(Add("d"), view(level=levels.BASE))
    assert caught.value.fix == "hmctl deploy"


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a" * 64, "ä", "a\n"])
def test_only_names_are_taken(name):
    with pytest.raises(InvalidRequest, match="no name"):
        next_step(Add(name), view())


def quorums(voters: tuple[str, ...]) -> list[set[str]]:
    return [set(quorum) for quorum in combinations(voters, len(voters) // 2 + 1)]


@given(
    st.sets(st.sampled_from(NAMES), min_size=1).map(sorted),
    st.sets(st.sampled_from(NAMES)).map(sorted),
    st.sampled_from([Add, Remove]),
    st.sampled_from(NAMES),
    st.booleans(),
)
def test_whatever_is_proposed_any_two_majorities_share_a_voter(voters, others, wish, name, promote):
    learners = [other for other in others if other not in voters]
    now = dataclasses.replace(view("".join(voters), "".join(learners)), name=voters[0])
    followers = {one: Follower(100, True) for one in (*voters, *learners)}
    now = dataclasses.replace(now, followers=followers)
    try:
        step: Step | None = promotion(now) if promote else next_step(wish(name), now)
    except InvalidRequest:
        assert voters == [name]
        return
    if isinstance(step, Propose):
        assert not set(step.voters) & set(step.learners)
        assert list(step.voters) == sorted(set(step.voters))
        assert voters[0] in step.voters  # whoever leads goes on counting itself
        assert len(set(voters) ^ set(step.voters)) <= 1
        assert all(one & other for one in quorums(now.configuration.voters) for other in quorums(step.voters))
