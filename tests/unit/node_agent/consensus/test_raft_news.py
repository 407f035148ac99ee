"""When followers hear of a commit: with the next entries if there are any soon, else by itself, and soon."""

from __future__ import annotations

import pytest
from raft_conversation import Conversation

from node_agent.consensus.protocol.append_guard import Append
from node_agent.consensus.protocol.engine import TELL
from node_agent.consensus.protocol.messages import NextIndex
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.commands import Receipt
from node_agent.consensus.statemachine.machine import Proposal


@pytest.fixture
def n0(converse) -> Conversation:
    """It leads, and nothing is left to be said."""
    n0 = converse().open()
    term = n0.lead()
    acknowledge(n0, term)
    n0.pass_time(2 * TELL)
    n0.taken()
    return n0


def acknowledge(n0: Conversation, term: int) -> None:
    n0.say("n1", NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
    n0.member.tick()


def propose(n0: Conversation, name: str, outcomes: list[object]) -> None:
    n0.member.propose(Proposal(name, machine.encode(machine.Noop())), outcomes.append)
    n0.member.tick()


def test_writes_one_after_the_other_cost_each_follower_one_message(n0):
    outcomes: list[object] = []
    for number in range(5):
        propose(n0, f"write-{number}", outcomes)
        acknowledge(n0, n0.engine.term)
    assert [type(outcome) for outcome in outcomes] == [Receipt] * 5
    told = n0.heard(Append, "n2")
    assert [len(append.entries) for append in told] == [1] * 5
    assert [append.commit_index for append in told[1:]] == [append.entries[0].index for append in told[:-1]]  # of the write before


def test_a_commit_that_nothing_follows_is_told_soon(n0):
    propose(n0, "write", [])
    n0.taken()
    acknowledge(n0, n0.engine.term)
    assert n0.heard(Append) == []
    assert n0.member.next_tick() <= n0.now + TELL
    n0.pass_time(TELL + 0.002)
    told = n0.heard(Append, "n2")
    assert [(append.commit_index, append.entries) for append in told] == [(n0.log[-1][0], ())]
    assert n0.member.next_tick() > n0.now + TELL  # and that was all


def test_what_waited_for_a_commit_goes_out_with_it(n0):
    """One message to each follower, not one that tells of the commit and another with the entries."""
    propose(n0, "first", [])
    propose(n0, "second", [])  # waits: one batch is under way
    n0.taken()
    acknowledge(n0, n0.engine.term)
    (told,) = n0.heard(Append, "n2")
    assert (told.commit_index, len(told.entries)) == (told.entries[0].index - 1, 1)


def test_a_heartbeat_tells_it_too(n0):
    propose(n0, "write", [])
    acknowledge(n0, n0.engine.term)
    n0.taken()
    n0.now = n0.engine.heartbeat_deadline + 0.001
    n0.member.tick()
    assert [append.commit_index for append in n0.heard(Append, "n2")] == [n0.log[-1][0]]
    assert n0.engine.tell_at == float("inf")


def test_a_new_leader_owes_no_news_of_an_earlier_term(n0):
    propose(n0, "write", [])
    acknowledge(n0, n0.engine.term)
    n0.say("n1", Append(n0.engine.term + 1, 1, *n0.log[-1], ()), term=n0.engine.term + 1)
    n0.member.tick()
    assert not n0.engine.leads
    assert n0.engine.tell_at == float("inf")
