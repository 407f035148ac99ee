"""Each rule of the transport in one exchange: what pysyncobj would get wrong, and that without the rule it does (rules.Protections)."""

from __future__ import annotations

import dataclasses

import pytest
from pysyncobj.config import SERIALIZER_STATE
from raft_conversation import Conversation, append, entry

from hmcore.errors import CommittedConflict, NoQuorum, NotLeader
from node_agent.consensus.limits import Limits
from node_agent.consensus.log import snapshots
from node_agent.consensus.log.snapshots import Snapshot
from node_agent.consensus.protocol import messages
from node_agent.consensus.protocol.append_guard import Append
from node_agent.consensus.protocol.messages import (
    NextIndex,
    PreVote,
    PreVoteGranted,
    RequestVote,
    SnapshotChunk,
    StaleTerm,
    TimeoutNow,
    Vote,
)
from node_agent.consensus.rules import ALL, Protections
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal, State


def without(rule: str) -> Protections:
    return dataclasses.replace(ALL, **{rule: False})


def follow(conversation: Conversation, *, term: int = 5, upto: int = 6, commit: int = 3) -> Conversation:
    """n1 leads in `term`; n0 holds entries 2..upto of it."""
    conversation.open()
    conversation.say("n1", append(term, (1, 0), *(entry(index, term) for index in range(2, upto + 1)), commit=commit))
    conversation.member.tick()
    conversation.taken()
    return conversation


# --- append guard


def test_an_append_that_overlaps_truncates_nothing(converse):
    n0 = follow(converse())
    n0.say("n1", append(5, (2, 5), entry(3, 5)))
    assert n0.log[-1] == (6, 5)
    assert n0.heard(NextIndex) == [NextIndex(7, reset=False, success=True)]


def test_without_the_guard_it_truncates(converse):
    n0 = follow(converse(rules=without("append_guard")))
    n0.say("n1", append(5, (2, 5), entry(3, 5)))
    assert n0.log[-1] == (3, 5)


def test_a_conflict_truncates_from_where_it_begins(converse):
    n0 = follow(converse())
    n0.say("n2", append(6, (3, 5), entry(4, 5), entry(5, 6)))
    assert n0.log[-2:] == [(4, 5), (5, 6)]


def test_a_leader_that_contradicts_what_is_committed_stops_the_node(converse):
    n0 = follow(converse(), commit=5)
    n0.say("n2", append(6, (3, 5), entry(4, 6)))
    assert isinstance(n0.member.failure, CommittedConflict)
    n0.say("n2", append(6, (6, 5), entry(7, 6)))
    n0.member.tick()
    assert n0.taken() == []


def test_a_gap_is_answered_with_what_is_missing(converse):
    n0 = follow(converse())
    n0.say("n1", append(5, (9, 5), entry(10, 5)))
    assert n0.heard(NextIndex) == [NextIndex(7, reset=True, success=False)]


@pytest.mark.parametrize(("rules", "wanted"), [(ALL, 4), (without("back_by_term"), 6)])
def test_an_entry_that_is_not_the_leaders_is_answered_with_where_its_term_began(converse, rules, wanted):
    n0 = follow(converse(rules=rules))
    n0.say("n2", append(7, (6, 6), entry(7, 7)), term=7)
    assert n0.heard(NextIndex) == [NextIndex(wanted, reset=True, success=False)]


# --- snapshots


def a_snapshot(index: int, term: int) -> bytes:
    state = machine.snapshot(State(index=index))
    return snapshots.pack(Snapshot(previous=entry(index - 1, term), last=entry(index, term), voters=("n0", "n1", "n2"), state=state))


def send_snapshot(conversation: Conversation, data: bytes, *, term: int, commit: int, size: int = 100) -> None:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for number, piece in enumerate(pieces):
        conversation.say("n1", SnapshotChunk(term, commit, piece, number == 0, number == len(pieces) - 1))


def test_a_snapshot_ahead_of_us_is_installed(converse):
    n0 = follow(converse())
    send_snapshot(n0, a_snapshot(20, 5), term=5, commit=20)
    assert n0.log == [(19, 5), (20, 5)]
    assert n0.heard(NextIndex)[-1] == NextIndex(21, reset=False, success=True)
    assert n0.member.replica.state.index == 20


@pytest.mark.parametrize(("rules", "committed"), [(ALL, 3), (without("snapshots_commit_nothing"), 6)])
def test_a_snapshot_commits_nothing_of_our_own_tail(converse, rules, committed):
    n0 = follow(converse(rules=rules))  # 4..6 may yet be truncated
    n0.say("n1", SnapshotChunk(6, 20, a_snapshot(20, 6)[:50], first=True, last=False))
    assert n0.engine.commit_index == committed


@pytest.mark.parametrize(("rules", "log_ends"), [(ALL, 6), (without("snapshots_go_forward"), 5)])
def test_a_snapshot_of_what_we_have_is_not_installed(converse, rules, log_ends):
    n0 = follow(converse(rules=rules))
    send_snapshot(n0, a_snapshot(5, 5), term=5, commit=6)
    assert n0.log[-1][0] == log_ends
    if rules is ALL:
        assert n0.heard(NextIndex)[-1] == NextIndex(6, reset=False, success=True)


def test_a_broken_snapshot_is_not_installed_and_ours_is_kept(converse):
    n0 = follow(converse())
    data = bytearray(a_snapshot(20, 5))
    data[-3] ^= 1
    send_snapshot(n0, bytes(data), term=5, commit=20)
    assert n0.log[-1] == (6, 5)
    assert n0.member.failure is None
    assert not any(answer.success for answer in n0.heard(NextIndex))


def test_a_chunk_that_is_lost_spoils_the_snapshot(converse):
    n0 = follow(converse())
    data = a_snapshot(20, 5)
    for piece, first, last in ((data[:100], True, False), (data[200:], False, True)):
        n0.say("n1", SnapshotChunk(5, 20, piece, first, last))
    assert n0.log[-1] == (6, 5)


def test_each_chunk_is_answered_so_that_the_leader_does_not_think_us_gone(converse):
    n0 = follow(converse())
    n0.say("n1", SnapshotChunk(5, 20, a_snapshot(20, 5)[:50], first=True, last=False))
    assert n0.heard(NextIndex) == [NextIndex(4, reset=False, success=False)]


# --- terms and votes


@pytest.mark.parametrize(("rules", "committed"), [(ALL, 1), (without("term_tags"), 3)])
def test_an_answer_given_in_another_term_says_nothing_about_this_log(converse, rules, committed):
    """n1 acknowledged up to 3 when we led before. What stood there was truncated since, and other entries stand there now."""
    n0 = converse(rules=rules).open()
    term = n0.lead()
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), lambda outcome: None)
    n0.member.tick()
    assert n0.log[-1] == (3, term)
    n0.say("n1", NextIndex(4, reset=False, success=True), term=term - 1)
    n0.member.tick()
    assert n0.engine.commit_index == committed


@pytest.mark.parametrize("rules", [ALL, without("stale_term_answers")])
def test_a_leader_of_an_old_term_is_told(converse, rules):
    n0 = follow(converse(rules=rules), term=5)
    n0.say("n2", append(4, (1, 0)))
    assert n0.heard(StaleTerm) == ([StaleTerm(5)] if rules is ALL else [])


def test_a_leader_that_is_told_of_a_later_term_steps_down_and_votes_for_nobody(converse):
    n0 = converse().open()
    term = n0.lead()
    n0.say("n1", StaleTerm(term + 3))
    assert not n0.engine.leads
    assert n0.engine.term == term + 3
    assert n0.member.journal.getVotedForNodeId() is None
    assert n0.heard(Vote) == []


@pytest.mark.parametrize(("rules", "leads"), [(ALL, True), (without("leader_stickiness"), False)])
def test_a_vote_request_does_not_unseat_a_leader(converse, rules, leads):
    n0 = converse(rules=rules).open()
    n0.lead()
    n0.say("n2", RequestVote(99, 50, 50))
    assert n0.engine.leads is leads


def test_a_vote_request_that_the_leader_wanted_is_heard(converse):
    n0 = follow(converse())
    n0.say("n2", RequestVote(6, 6, 5, transfer=True))
    assert n0.heard(Vote) == [Vote(6)]


def test_one_vote_a_term_also_after_a_restart(converse):
    n0 = follow(converse())
    n0.pass_time(0.6)  # n1 has fallen silent
    n0.say("n1", RequestVote(7, 6, 5))
    n0.say("n2", RequestVote(7, 6, 5))
    assert [(to, e.message) for to, e in n0.taken() if isinstance(e.message, Vote)] == [("n1", Vote(7))]
    n0 = converse().open()
    n0.say("n2", RequestVote(7, 6, 5))
    n0.say("n1", RequestVote(7, 6, 5))
    assert n0.heard(Vote) == []


@pytest.mark.parametrize(("rules", "leads"), [(ALL, False), (without("one_vote_each"), True)])
def test_a_vote_counts_once(converse, rules, leads):
    n0 = converse(rules=rules, voters=("n0", "n1", "n2", "n3", "n4")).open(connected=("n1", "n2", "n3", "n4"))
    n0.pass_time(0.2)
    for asked in n0.heard(PreVote, "n1"):
        n0.say("n1", PreVoteGranted(asked.term))
        n0.say("n2", PreVoteGranted(asked.term))
    requests: list[RequestVote] = []
    while not requests:
        n0.pass_time(0.05)
        requests = n0.heard(RequestVote, "n1")
    (asked,) = requests
    n0.say("n1", Vote(asked.term), term=asked.term)
    n0.say("n1", Vote(asked.term), term=asked.term)
    assert n0.engine.leads is leads


@pytest.mark.parametrize(("rules", "raised"), [(ALL, False), (without("pre_vote"), True)])
def test_who_would_not_be_elected_raises_no_terms(converse, rules, raised):
    n0 = follow(converse(rules=rules))
    n0.pass_time(5.0)  # everybody is connected, nobody answers: the others hear a leader
    assert (n0.engine.term > 5) is raised


def test_a_pre_vote_is_granted_only_for_a_log_as_good_as_ours_and_without_a_leader(converse):
    n0 = follow(converse())
    n0.say("n2", PreVote(6, 6, 5))
    assert n0.heard(PreVoteGranted) == []  # n1 was just heard
    n0.pass_time(0.6)
    n0.say("n2", PreVote(6, 5, 5))
    assert n0.heard(PreVoteGranted) == []
    n0.say("n2", PreVote(6, 6, 5))
    assert n0.heard(PreVoteGranted) == [PreVoteGranted(6)]
    n0.say("n2", PreVote(5, 6, 5))
    assert n0.heard(StaleTerm) == [StaleTerm(5)]
    assert n0.engine.term == 5  # a pre-vote binds nobody


def test_the_leader_may_hand_over(converse):
    n0 = follow(converse())
    n0.say("n1", TimeoutNow(5))
    n0.member.tick()
    assert n0.heard(RequestVote, "n2") == [RequestVote(6, 6, 5, transfer=True)]


def test_only_the_leader_may_hand_over(converse):
    n0 = follow(converse())
    n0.say("n2", TimeoutNow(5))
    n0.member.tick()
    assert n0.heard(RequestVote) == []


def test_a_stranger_is_not_heard(converse):
    n0 = converse().open()
    n0.lead()
    n0.say("stranger", NextIndex(9, reset=True, success=True), term=n0.engine.term)
    n0.say("stranger", RequestVote(99, 50, 50, transfer=True))
    assert n0.member.failure is None
    assert n0.member.transport.refused == 2


# --- order, and what is sent


@pytest.mark.parametrize(("rules", "heeded"), [(ALL, False), (without("in_order"), True)])
def test_what_comes_twice_or_late_is_dropped(converse, rules, heeded):
    n0 = follow(converse(rules=rules))
    n0.say("n1", append(5, (6, 5), entry(7, 5)))
    n0.taken()
    n0.number -= 1
    n0.say("n1", append(5, (6, 5), entry(7, 5, word="again")))
    assert bool(n0.taken()) is heeded


@pytest.mark.parametrize(("rules", "spins"), [(ALL, False), (without("hold_without_snapshot"), True)])
def test_a_leader_whose_snapshot_is_not_ready_does_not_spin(converse, rules, spins):
    n0 = converse(rules=rules).open()
    term = n0.lead()
    n0.member.store._finished = SERIALIZER_STATE.SUCCESS  # a snapshot was stored, and pysyncobj has not asked about it yet
    n0.say("n1", NextIndex(1, reset=True, success=False), term=term)  # n1 lags behind what the log holds
    n0.now = n0.engine.heartbeat_deadline + 0.001  # the tick sends
    n0.member.tick()
    assert (len(n0.heard(SnapshotChunk, "n1")) > 100) is spins


def test_entries_that_the_network_does_not_take_are_sent_when_it_does(converse):
    n0 = converse().open()
    term = n0.lead()
    n0.say("n1", NextIndex(3, reset=False, success=True), term=term)
    n0.pass_time(0.01)
    n0.full = True
    for number in range(3):
        n0.member.propose(Proposal(f"c{number}", machine.encode(machine.Noop())), lambda outcome: None)
        n0.member.tick()
    n0.full = False
    n0.taken()
    n0.pass_time(0.15)
    (first, *_) = n0.heard(Append, "n1")
    assert (first.prev_index, [item.index for item in first.entries]) == (2, [3])


def test_a_snapshot_that_the_network_does_not_take_goes_on_where_it_stopped(converse):
    n0 = converse(limits=Limits(compact_entries=2, chunk=64)).open()
    term = n0.lead()
    for number in range(8):
        n0.member.propose(Proposal(f"c{number}", machine.encode(machine.Noop())), lambda outcome: None)
        n0.member.tick()
        n0.say("n1", NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
        n0.member.tick()
    n0.pass_time(0.3)
    assert n0.log[0][0] > 1
    n0.taken()
    n0.full = True
    n0.say("n2", NextIndex(2, reset=True, success=False), term=term)
    n0.pass_time(0.3)
    n0.full = False
    n0.pass_time(0.3)
    chunks = n0.heard(SnapshotChunk, "n2")
    assert chunks[0].first
    assert chunks[-1].last
    assert n0.member.store.judge(b"".join(chunk.data or b"" for chunk in chunks)) is not None


# --- commands


def test_a_follower_names_the_leader_and_a_minority_says_so(converse):
    n0 = follow(converse())
    outcomes: list[object] = []
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), outcomes.append)
    (outcome,) = outcomes
    assert isinstance(outcome, NotLeader)
    assert outcome.leader == "n1"
    n0.member.peer_down("n1")
    n0.member.peer_down("n2")
    n0.pass_time(2.0)
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), outcomes.append)
    assert isinstance(outcomes[-1], NoQuorum)
    assert outcomes[-1].message == "no quorum: 1 of 3 voters reachable"


def test_a_leader_cut_off_answers_what_it_cannot_commit(converse):
    n0 = converse().open()
    n0.lead()
    outcomes: list[object] = []
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), outcomes.append)
    n0.member.peer_down("n1")
    n0.member.peer_down("n2")
    n0.pass_time(1.0)
    (outcome,) = outcomes
    assert isinstance(outcome, NoQuorum)
    assert outcome.message == "no quorum: 1 of 3 voters reachable"
    assert n0.member.leader is None


def test_nothing_is_sent_before_it_is_durable(converse, monkeypatch):
    n0 = follow(converse())
    synced: list[int] = []
    sync = n0.member.journal.sync

    def watched() -> None:
        sync()
        synced.append(len(n0.outbox))

    monkeypatch.setattr(n0.member.journal, "sync", watched)
    n0.say("n1", append(5, (6, 5), entry(7, 5)))
    assert synced == [0]  # synced while the answer had not left
    assert not n0.member.journal.dirty
    assert messages.NextIndex(8, reset=False, success=True) in n0.heard(NextIndex)
