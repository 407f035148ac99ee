"""Who holds another state than the majority: judged at equal log index only, and never a node that holds what most do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hmcore.errors import ConsensusError
from node_agent.consensus.divergence import agreement
from node_agent.consensus.divergence.agreement import Judgement, Ledger, Odd, Split, judge
from node_agent.consensus.divergence.selfcure import COOL_DOWN, ROUNDS, Action, HandOver, Reseed, Situation, Wait, decide
from node_agent.consensus.log.aside import seconds_since, set_aside
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.checkpoints import KEPT, Checkpoints
from node_agent.consensus.statemachine.commands import FormCluster, Noop, Proposal, PutKey, encode, encode_batch
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.replica import Replica
from node_agent.consensus.statemachine.state import State, snapshot, state_hash

THREE = ("a", "b", "c")
FIVE = ("a", "b", "c", "d", "e")


def test_one_that_tells_another_hash_than_the_majority_is_odd_since_the_first_index_known():
    told = {"a": {5: "x", 9: "y", 12: "z"}, "b": {5: "x", 9: "y", 12: "z"}, "c": {5: "x", 9: "!", 12: "?"}}
    assert judge(told, THREE) == Judgement((Odd("c", 9, "!", "y", ("a", "b")),))


def test_different_indexes_are_not_compared():
    assert judge({"a": {5: "x"}, "b": {6: "y"}, "c": {7: "z"}}, THREE) == Judgement()


def test_one_that_took_the_others_state_since_is_odd_no_longer():
    told = {"a": {9: "y", 12: "z"}, "b": {9: "y", 12: "z"}, "c": {9: "!", 12: "z"}}
    assert judge(told, THREE) == Judgement()


def test_two_of_three_are_enough_and_one_is_not():
    assert judge({"a": {5: "x"}, "c": {5: "!"}}, THREE) == Judgement((), Split(5, (("!", ("c",)), ("x", ("a",)))))
    assert judge({"a": {5: "x"}, "b": {5: "x"}}, THREE) == Judgement()


def test_no_majority_names_nobody():
    assert judge({"a": {5: "x"}, "b": {5: "y"}, "c": {5: "z"}}, THREE).odd == ()
    assert judge({"a": {5: "x"}, "b": {5: "y"}}, ("a", "b")) == Judgement((), Split(5, (("x", ("a",)), ("y", ("b",)))))


def test_a_split_that_a_majority_has_left_behind_or_that_is_one_odd_nodes_is_none():
    agreed = {9: "y"}
    assert judge({"a": {5: "x", **agreed}, "b": {5: "!", **agreed}, "c": agreed}, THREE) == Judgement()
    told = {"a": {9: "y", 11: "z"}, "b": {9: "y"}, "c": {9: "!", 11: "?"}}
    assert judge(told, THREE) == Judgement((Odd("c", 9, "!", "y", ("a", "b")),))


def test_a_learner_is_judged_but_does_not_judge():
    assert judge({"a": {5: "x"}, "b": {5: "x"}, "l": {5: "!"}}, THREE, ["l"]).odd == (Odd("l", 5, "!", "x", ("a", "b")),)
    assert judge({"a": {5: "x"}, "l": {5: "x"}, "m": {5: "x"}, "c": {5: "!"}}, THREE, ["l", "m"]).odd == ()
    assert judge({"a": {5: "x"}, "b": {5: "x"}, "stranger": {5: "!"}}, THREE) == Judgement()


claims = st.dictionaries(st.sampled_from(FIVE), st.dictionaries(st.integers(1, 4), st.sampled_from("xyz"), max_size=4))


@given(claims, st.sampled_from([THREE, FIVE, ("a", "b"), ("a",)]))
def test_whoever_is_odd_contradicts_a_majority_at_the_latest_index_where_it_can_be_judged(told, voters):
    quorum = len(voters) // 2 + 1
    found = {odd.node: odd for odd in judge(told, voters).odd}
    for name in voters:
        judged = {
            index: said
            for index in told.get(name, {})
            for said in "xyz"
            if sum(told.get(voter, {}).get(index) == said for voter in voters) >= quorum
        }
        if not judged:
            assert name not in found
            continue
        latest = max(judged)
        assert (name in found) is (told[name][latest] != judged[latest])
        if name in found:
            odd = found[name]
            assert (told[name][odd.index], judged[odd.index]) == (odd.hash, odd.agreed)
            assert len(odd.others) >= quorum
            assert name not in odd.others


@given(st.dictionaries(st.integers(1, 9), st.sampled_from("xyz"), min_size=1), st.sampled_from([THREE, FIVE]))
def test_nodes_that_hold_the_same_are_never_accused_whatever_they_have_told(hashes, voters):
    told = {name: {index: said for index, said in hashes.items() if (index + position) % 3} for position, name in enumerate(voters)}
    assert judge(told, voters) == Judgement()


# --- what a node keeps and tells


def run(replica: Replica, count: int, start: int = 1, *, key: str = "k") -> None:
    for index in range(start, start + count):
        command = FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST) if index == 1 else PutKey(key=key, value=b"%d" % index)
        replica.apply(encode_batch([Proposal(f"r{index}", encode(command))]), index)


def test_the_latest_and_the_latest_checkpoint_are_told_alike_by_all():
    one, other = Replica(), Replica()
    one.checkpoints, other.checkpoints = Checkpoints(every=10), Checkpoints(every=10)
    run(one, 27)
    run(other, 24)
    assert one.checkpoints.claims == ((27, state_hash(one.state)), (20, one.checkpoints.hashes[20]))
    assert other.checkpoints.claims[1] == one.checkpoints.claims[1]
    assert one.checkpoints.hashes[24] == other.checkpoints.claims[0][1]


def test_after_a_snapshot_only_what_was_applied_since_is_known():
    one, other = Replica(), Replica()
    run(one, 25)
    other.checkpoints = Checkpoints(every=10)
    other.restore(snapshot(one.state))
    assert other.checkpoints.claims == ((25, state_hash(one.state)),)
    run(other, 6, start=26)
    run(one, 6, start=26)
    assert other.checkpoints.claims == ((31, state_hash(one.state)), (30, one.checkpoints.hashes[30]))


def test_hashes_are_kept_of_the_latest_only():
    found, state = (
        Checkpoints(),
        apply_batch(State(), encode_batch([Proposal("r1", encode(FormCluster(id="a", bootstrap="b", level=2)))]), 1)[0],
    )
    for index in range(2, 3 * KEPT):
        found.note(replace(state, index=index - 1), replace(state, index=index))
    assert KEPT <= len(found.hashes) <= 2 * KEPT
    assert max(found.hashes) == 3 * KEPT - 1


def test_below_the_level_nothing_is_told():
    replica = Replica()
    replica.apply(encode_batch([Proposal("r1", encode(FormCluster(id="hm-a", bootstrap="b1"))), Proposal("r2", encode(Noop()))]), 1)
    assert replica.checkpoints.claims == ()


def test_a_ledger_compares_what_is_told_with_what_we_hold_at_that_index():
    ledger = Ledger("a")
    assert ledger.hear("b", [(9, "y")])
    assert not ledger.hear("b", [(9, "y")])
    ledger.hear("c", [(9, "!")])
    assert ledger.judge({8: "x", 9: "y", 10: "z"}, THREE).odd == (Odd("c", 9, "!", "y", ("a", "b")),)
    ledger.hear("a", [(9, "!")])  # we know ourselves best
    assert ledger.judge({9: "y"}, THREE).odd == (Odd("c", 9, "!", "y", ("a", "b")),)
    for index in range(10, 200):
        ledger.hear("b", [(index, "w")])
    assert len(ledger._told["b"]) == agreement.KEPT_OF_OTHERS


# --- what an odd node does


ODD = Odd("c", 9, "!", "y", ("a", "b"))
FINE = Situation(voters=THREE, leader="a", present=THREE, reseeding=(), since=None)


def act(situation: Situation = FINE, odd: Odd = ODD, more: tuple[Odd, ...] = (), rounds: int = ROUNDS) -> Action:
    return decide(odd.node, odd, Judgement((odd, *more)), situation, rounds)


def but(**changes: object) -> Situation:
    return Situation(**{**{name: getattr(FINE, name) for name in Situation.__slots__}, **changes})  # type: ignore[arg-type]


def test_an_odd_node_takes_the_others_state_once_it_is_sure():
    assert act(rounds=ROUNDS - 1) == Wait()
    assert act() == Reseed(9)


def test_a_leader_hands_over_first():
    assert act(but(leader="c")) == HandOver()


@pytest.mark.parametrize(
    ("situation", "why"),
    [
        (but(present=("a", "c")), "needs all other voters for that, and b cannot be heard"),
        (but(reseeding=("b",)), "b is being re-seeded first"),
        (but(since=COOL_DOWN - 1), "only lately"),
        (but(voters=("a", "c")), r"without it the other voters \(a\) are no majority"),
        (but(leader="z"), "the leader, z, is not known"),
    ],
)
def test_where_it_may_not_it_says_why(situation, why):
    found = act(situation)
    assert isinstance(found, Wait)
    assert re.search(why, found.reason)


def test_of_two_odd_ones_one_waits():
    other = Odd("b", 9, "?", "y", ("a", "d", "e"))
    situation = but(voters=FIVE, present=FIVE)
    assert act(situation, odd=ODD, more=(other,)) == Wait("b is re-seeded first")
    assert act(situation, odd=other, more=(ODD,)) == Reseed(9)


def test_after_the_cool_down_it_may_again_and_a_learner_needs_no_majority_without_it():
    assert act(but(since=COOL_DOWN + 1)) == Reseed(9)
    learner = Odd("l", 9, "!", "y", ("a",))
    assert act(but(voters=("a",), present=("a",)), odd=learner) == Reseed(9)


# --- what is moved aside


def test_what_was_wrong_is_kept_once_and_its_time_outlives_the_agent(tmp_path: Path):
    directory = tmp_path / "raft"
    assert seconds_since(directory, 100.0) is None
    for index in (9, 12):
        directory.mkdir()
        (directory / "journal").write_text(f"{index}")
        place = set_aside(directory, index, 1000.0 + index)
        assert (place.name, place.joinpath("journal").read_text()) == (f"raft.diverged-{index}", f"{index}")
    assert [each.name for each in tmp_path.iterdir()] == ["raft.diverged-12"]
    assert seconds_since(directory, 1072.0) == 60.0
    assert seconds_since(directory, 5.0) == 0.0  # the clock was set back


def test_what_cannot_be_moved_stays_and_is_told(tmp_path: Path):
    with pytest.raises(ConsensusError, match="cannot be moved aside"):
        set_aside(tmp_path / "raft", 9, 0.0)
