"""From who votes to who shall: by the leader's word, additions first, the leader's vote last, nobody's without a successor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import PeerUnreachable
from hmcore.voters import RaftStatus
from hmctl.phases.electorate import Electorate, shift, steps, told

NAMES = [f"node{number}" for number in range(1, 6)]
names = st.sets(st.sampled_from(NAMES), min_size=1)


def status(name: str, role: str, term: int, *voters: str) -> RaftStatus:
    return RaftStatus(name=name, role=role, index=9, term=term, leader="node1", level=2, knows=2, voters=list(voters), learners=[])


def test_the_newest_leader_is_believed_and_nobody_else():
    old, new = status("node1", "leader", 3, "node1", "node2"), status("node2", "leader", 4, "node2")
    assert told({"node1": old, "node2": new, "node3": PeerUnreachable("no answer")}) == Electorate(("node2",), (), "node2", 2)
    assert told({"node3": status("node3", "follower", 9, "node3"), "node4": PeerUnreachable("no answer")}) is None


@given(names, st.sets(st.sampled_from(NAMES)), names, st.sets(st.sampled_from(NAMES)), st.randoms(use_true_random=False))
def test_in_whatever_order_things_stand_no_vote_goes_before_its_successor_comes(voters, learners, control, able, random):
    leader = random.choice(sorted(voters))
    now = Electorate(tuple(sorted(voters)), tuple(sorted(learners - voters)), leader, 2)
    change = shift(now, sorted(control), able)
    assert {*change.joining, *change.leaving} <= able
    assert set(change.joining) == (control - voters) & able
    if change.leaving:
        assert control <= voters | set(change.joining)
        assert leader not in change.leaving[:-1]
    assert set(change.leaving) | change.keeping.keys() == (voters | learners) - control
    assert not set(change.leaving) & change.keeping.keys()
    assert control & (voters | able) <= set(change.after)
    assert len(steps(change)) == len(change.joining) + len(change.leaving)
    after = shift(Electorate(tuple(set(change.after) - (learners - voters - control)), (), "nobody", 2), sorted(control), able)
    assert not after.joining, "what was done is planned again"


def test_who_only_learns_counts_for_nothing_yet():
    now = Electorate(("node1", "node2", "node3"), ("node4",), "node1", 2)
    assert [step.change for step in steps(shift(now, NAMES[:4], set(NAMES)))] == [
        "node4 becomes a voter, once it has caught up: 4 voters: 1 may fail"
    ]
    left = [step.change for step in steps(shift(now, NAMES[:3], set(NAMES)))]
    assert left == ["node4 is no voter any more: 3 voters: 1 may fail"]


def test_each_step_says_how_many_may_fail():
    now = Electorate(("node1", "node2", "node3"), (), "node1", 2)
    found = steps(shift(now, ["node2", "node3", "node4"], set(NAMES)))
    assert [step.change for step in found] == [
        "node4 becomes a voter, once it has caught up: 4 voters: 1 may fail",
        "node1 is no voter any more (it leads, and hands over first): 3 voters: 1 may fail",
    ]
