"""A voter that missed changes of the voters, and somebody whom it has never heard of: he may need its vote, or lead."""

from __future__ import annotations

import msgspec
import pytest
from raft_conversation import Conversation, append, configuring, entry
from test_membership_changes import follow

from hmcore.records import Configuration
from node_agent.consensus.protocol.messages import AskStanding, NextIndex, PreVote, PreVoteGranted, RequestVote, TellStanding, Vote

LATER = ("n0", "n3", "n4")  # n1 and n2 were removed, and may be gone
PROOF = TellStanding(9, True, True, LATER, (), 12, None, 20, "b1")


@pytest.fixture
def n0(converse) -> Conversation:
    """It missed that n3 and n4 came and n1 and n2 went; its leader has been silent for long."""
    n0 = follow(converse())
    n0.member.peer_up("n4")
    n0.pass_time(5.0)
    n0.taken()
    return n0


def prove(n0: Conversation, proof: TellStanding = PROOF) -> None:
    n0.say("n4", PreVote(10, 20, 9), term=9)
    assert n0.heard(AskStanding, "n4")
    n0.say("n4", proof, term=9)


def test_a_candidate_of_a_later_configuration_gets_our_vote(n0):
    """It counts {n0, n3, n4}, and n3 is dead: without n0 nobody can ever lead."""
    prove(n0)
    n0.say("n4", PreVote(10, 20, 9), term=9)
    assert n0.heard(PreVoteGranted, "n4") == [PreVoteGranted(10)]
    n0.say("n4", RequestVote(10, 20, 9), term=10)
    assert n0.heard(Vote, "n4") == [Vote(10)]


def test_a_leader_of_a_later_configuration_is_followed(n0):
    word = append(9, (2, 5), *(entry(index, 9) for index in range(3, 12)), configuring(12, 9, LATER), commit=12)
    n0.say("n4", word, term=9)
    assert n0.heard(AskStanding, "n4")
    assert n0.log[-1] == (2, 5)
    n0.say("n4", PROOF, term=9)
    n0.say("n4", word, term=9)
    assert n0.heard(NextIndex, "n4") == [NextIndex(13, reset=False, success=True)]
    assert n0.member.journal.configuration == Configuration(voters=LATER, index=12)


def test_while_the_leader_lives_it_gets_nothing(n0):
    n0.say("n1", append(n0.engine.term, (2, 5)), term=n0.engine.term)
    prove(n0)
    n0.say("n4", PreVote(10, 20, 9), term=9)
    n0.say("n4", RequestVote(10, 20, 9), term=10)
    assert n0.taken() == []
    assert n0.engine.term < 10


@pytest.mark.parametrize(
    "other",
    [
        {"bootstrap": "b2"},
        {"bootstrap": ""},  # of an earlier release, or of one that was never part of it
        {"member": False},
        {"formed": False},
        {"voters": ("n3", "n4")},  # which does not need us
        {"configured": 0},  # as it was formed, with another list than ours
        {"latest": Configuration(voters=("n3", "n4"), index=15)},
    ],
    ids=str,
)
def test_who_cannot_prove_it_stays_a_stranger(n0, other):
    prove(n0, msgspec.structs.replace(PROOF, **other))
    n0.say("n4", PreVote(10, 20, 9), term=9)
    n0.say("n4", RequestVote(10, 20, 9), term=10)
    n0.say("n4", append(10, (2, 5), entry(3, 10), commit=3), term=10)
    assert {type(envelope.message) for _, envelope in n0.taken()} == {AskStanding}
    assert n0.log[-1] == (2, 5)
    assert n0.engine.term < 10
