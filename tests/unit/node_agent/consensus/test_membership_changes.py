"""Who takes part, in exchanges of messages with one member: learners, those who were removed, those who wait to be added."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from raft_conversation import Conversation, append, configuring, entry
from test_raft_rules import send_snapshot

from hmcore.errors import NoQuorum
from hmcore.records import Configuration
from node_agent.consensus import codec, member
from node_agent.consensus.log import entries, snapshots
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.log.snapshots import Snapshot, SnapshotStore
from node_agent.consensus.protocol.append_guard import Append
from node_agent.consensus.protocol.messages import (
    AskStanding,
    NextIndex,
    PreVote,
    PreVoteGranted,
    RequestVote,
    StaleTerm,
    TellStanding,
    Vote,
)
from node_agent.consensus.rules import ALL, Protections
from node_agent.consensus.statemachine import levels, machine
from node_agent.consensus.statemachine.machine import Proposal
from node_agent.consensus.statemachine.state import State
from node_agent.consensus.voters.reconfiguration import Add, Done, Propose, Remove, Wait

THREE = ("n0", "n1", "n2")


def without(rule: str) -> Protections:
    return dataclasses.replace(ALL, **{rule: False})


def formed(index: int, term: int) -> Entry:
    form = machine.FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST)
    batch = machine.encode_batch([Proposal("form", machine.encode(form))])
    return Entry(entries.command(entries.APPLY, batch), index, term)


def follow(n0: Conversation, *more: Entry, term: int = 5, commit: int = 2) -> Conversation:
    """n1 leads in `term`; entry 2 forms the cluster."""
    n0.open(connected=("n1", "n2", "n3"))
    n0.say("n1", append(term, (1, 0), formed(2, term), *more, commit=commit))
    n0.member.tick()
    n0.taken()
    return n0


def lead(n0: Conversation) -> int:
    """n0 leads a formed cluster, all of whose entries are committed; n3 is connected, and no member."""
    n0.open(connected=("n1", "n2", "n3"))
    term = n0.lead()
    form = machine.FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST)
    n0.member.propose(Proposal("form", machine.encode(form)), lambda outcome: None)
    n0.member.tick()
    acknowledge(n0, term, "n1", "n2")
    return term


def acknowledge(n0: Conversation, term: int, *peers: str) -> None:
    for peer in peers:
        n0.say(peer, NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
    n0.member.tick()


def settle(n0: Conversation, term: int, *peers: str) -> None:
    """Lead on, for longer than an election timeout; only these answer."""
    for _ in range(12):
        n0.pass_time(0.1)
        acknowledge(n0, term, *peers)


def wish(n0: Conversation, what: Add | Remove):
    return n0.member.change_voters(what, request_id="w")


# --- a leader adds and removes


def test_a_learner_catches_up_and_then_votes(converse):
    n0 = converse()
    term = lead(n0)
    n0.taken()
    assert wish(n0, Add("n3")) == Propose(THREE, ("n3",))
    assert n0.member.outlook.learners == ("n3",)
    assert n0.heard(Append, "n3")  # it is sent what the others are sent, at once
    last = n0.log[-1][0]
    n0.say("n3", NextIndex(last + 1, reset=False, success=True), term=term)
    n0.member.tick()
    assert n0.engine.commit_index == last - 1  # it does not count
    assert isinstance(wish(n0, Add("n3")), Wait)
    acknowledge(n0, term, "n1")
    assert n0.engine.commit_index == last
    assert n0.member.journal.configuration == Configuration(voters=(*THREE, "n3"), index=last + 1)
    acknowledge(n0, term, "n1")
    assert n0.engine.commit_index == last  # two of four
    acknowledge(n0, term, "n3")
    assert wish(n0, Add("n3")) == Done(last + 1)
    assert n0.member.replica.state.configuration == n0.member.journal.configuration
    assert wish(n0, Add("n3")) == Done(last + 1)  # harmless to repeat


def test_a_removed_follower_neither_gets_anything_nor_counts(converse):
    n0 = converse()
    term = lead(n0)
    acknowledge(n0, term, "n1", "n2")
    assert wish(n0, Remove("n2")) == Propose(("n0", "n1"), ())
    n0.taken()
    acknowledge(n0, term, "n2")  # it was on its way
    n0.pass_time(0.3)
    assert n0.engine.commit_index < n0.log[-1][0]
    assert not n0.heard(Append, "n2")
    assert isinstance(wish(n0, Remove("n2")), Wait)
    acknowledge(n0, term, "n1")
    assert isinstance(wish(n0, Remove("n2")), Done)


@pytest.mark.parametrize(("rules", "changes"), [(ALL, 1), (without("one_change_at_a_time"), 2)])
def test_one_change_at_a_time(converse, rules, changes):
    """Two at once, and {n0, n3, n4} could be a majority of five beside {n1, n2} of three."""
    n0 = converse(rules=rules)
    lead(n0)
    n0.member.peer_up("n4")
    before = n0.log[-1][0]
    for name in ("n3", "n4"):
        wish(n0, Add(name))
    assert n0.log[-1][0] == before + changes


@pytest.mark.parametrize(("rules", "changes"), [(ALL, 0), (without("own_term_first"), 1)])
def test_no_change_before_the_leader_has_committed_an_entry_of_its_own_term(converse, rules, changes):
    """Of its term it knows only its own no-op: a leader before it may have a change in flight that it does not know of."""
    follow(converse())
    n0 = converse(rules=rules).open(permitted=False, connected=("n1", "n2", "n3"))
    n0.say("n1", append(5, (2, 5), entry(3, 5), commit=3))
    n0.member.tick()
    n0.lead()
    assert n0.member.replica.state.level == levels.LATEST
    before = n0.log[-1][0]
    wish(n0, Add("n3"))
    assert n0.log[-1][0] == before + changes


@pytest.mark.parametrize(("rules", "stalls"), [(ALL, False), (without("learners_first"), True)])
def test_a_write_does_not_wait_for_one_that_is_only_catching_up(converse, rules, stalls):
    """Two voters, one of them gone, and a third that holds nothing yet."""
    n0 = converse(rules=rules)
    term = lead(n0)
    wish(n0, Add("n3"))
    acknowledge(n0, term, "n1", "n2")
    n0.member.peer_down("n2")
    receipts: list[object] = []
    n0.member.propose(Proposal("write", machine.encode(machine.Noop())), receipts.append)
    n0.member.tick()
    acknowledge(n0, term, "n1")
    assert (receipts == []) is stalls


def test_a_removal_that_would_leave_no_quorum_is_refused(converse):
    n0 = converse()
    term = lead(n0)
    n0.member.peer_down("n2")
    assert isinstance(wish(n0, Remove("n1")), Wait)  # it has led for a moment: n2 may still answer
    settle(n0, term, "n1")
    with pytest.raises(NoQuorum, match="without n1, 2 of 2 voters would be needed; 1 answer"):
        wish(n0, Remove("n1"))
    assert isinstance(wish(n0, Remove("n2")), Propose)


def test_a_new_connection_is_no_answer(converse):
    """Behind it may be a disk that was emptied."""
    n0 = converse()
    term = lead(n0)
    settle(n0, term, "n1", "n2")
    n0.member.peer_up("n1")
    with pytest.raises(NoQuorum):
        wish(n0, Remove("n2"))


# --- who counts


@pytest.mark.parametrize(("rules", "leads"), [(ALL, False), (without("members_only"), True)])
def test_the_vote_of_one_that_is_no_voter_does_not_count(converse, rules, leads):
    n0 = follow(converse(rules=rules), configuring(3, 5, THREE, ("n3",)), commit=3)
    requests: list[RequestVote] = []
    while not requests:
        n0.pass_time(0.05)
        for peer, sent in n0.taken():
            match sent.message:
                case PreVote(term=term) if peer == "n1":
                    n0.say("n1", PreVoteGranted(term))
                case RequestVote() if peer == "n1":
                    requests.append(sent.message)
    n0.say("n3", Vote(requests[0].term), term=requests[0].term)
    assert n0.engine.leads is leads


def test_a_learner_does_not_stand_but_may_be_needed_for_a_vote(converse):
    """The others may have made it a voter by an entry that it does not hold yet."""
    n0 = follow(converse(), configuring(3, 5, ("n1", "n2"), ("n0",)), commit=3)
    assert n0.member.outlook.role == "learner"
    n0.pass_time(5.0)
    assert not n0.heard(PreVote)
    n0.say("n2", RequestVote(9, 3, 5))
    assert n0.heard(Vote) == [Vote(9)]


def test_who_leads_may_be_news(converse):
    """n3 was added while n0 was away: the log of n0 does not know it, but n2 does."""
    n0 = follow(converse())
    n0.say("n3", append(7, (2, 5), configuring(3, 6, (*THREE, "n3"))), term=7)
    assert n0.log[-1] == (2, 5)
    n0.say("n2", TellStanding(7, True, True, (*THREE, "n3"), (), 3))
    n0.say("n3", append(7, (2, 5), configuring(3, 6, (*THREE, "n3"))), term=7)
    assert n0.log[-1] == (3, 6)
    assert n0.member.outlook.voters == (*THREE, "n3")


def test_a_voter_that_hears_no_leader_asks_again_and_again(converse):
    """n1 and n2 had not heard of the new voters either when the connections came up."""
    n0 = follow(converse())
    n0.pass_time(3.5)
    asked = [to for to, sent in n0.taken() if isinstance(sent.message, AskStanding)]
    assert asked.count("n1") == asked.count("n2") >= 2
    n0.say("n1", append(9, (2, 5)), term=9)
    n0.taken()
    n0.pass_time(0.4)
    assert not n0.heard(AskStanding)


def test_a_change_that_is_truncated_is_undone(converse):
    n0 = follow(converse(), configuring(3, 5, ("n0", "n1")), commit=2)
    assert n0.member.outlook.voters == ("n0", "n1")
    n0.say("n2", append(6, (2, 5), entry(3, 6)), term=6)  # n2 was voted for by n1, who never held it
    assert n0.member.outlook.voters == THREE


# --- restarts and snapshots


def test_a_configuration_counts_after_a_restart(converse):
    follow(converse(), configuring(3, 5, ("n0", "n1")), commit=2)
    n0 = converse().open(permitted=False)
    assert n0.member.outlook.voters == ("n0", "n1")
    assert n0.member.outlook.warning is None  # what agent.yaml says is of no account any more
    assert n0.engine._core._SyncObj__otherNodes == {n0.engine._core._SyncObj__nodeClass("n1")}


class DumpsTheLatest(SnapshotStore):
    """As pysyncobj's own dump does."""

    def serialize(self, data: Any, covers: int) -> None:
        history = self._configurations

        class Latest:
            def configuration_at(self, index: int) -> Configuration:
                return history.configuration_at(1 << 60)

        self._configurations = Latest()  # type: ignore[assignment]
        super().serialize(data, covers)
        self._configurations = history


@pytest.mark.parametrize(("store", "wanted"), [(SnapshotStore, (*THREE, "n3")), (DumpsTheLatest, ("n0", "n1", "n3"))])
def test_a_snapshot_holds_the_configuration_as_of_its_last_entry(converse, monkeypatch, store, wanted):
    """The latest one is truncated: who counts by it after a restart counts a majority of a configuration that never was."""
    monkeypatch.setattr(member, "SnapshotStore", store)
    more = [configuring(3, 5, (*THREE, "n3")), entry(4, 5), configuring(5, 5, ("n0", "n1", "n3"))]
    n0 = follow(converse(), *more, commit=4)
    n0.engine.compact()
    n0.member.tick()
    n0.member.tick()
    stored = n0.member.store.load()
    assert stored is not None
    assert (stored.last.index, stored.voters) == (4, wanted)
    n0.say("n2", append(6, (4, 5), entry(5, 6)), term=6)
    assert n0.member.outlook.voters == (*THREE, "n3")
    n0 = converse().open(permitted=False)
    assert n0.member.outlook.voters == wanted


def test_an_earlier_levels_snapshot_has_nothing_new(converse):
    n0 = follow(converse())
    n0.say("n1", append(5, (2, 5), entry(3, 5), commit=3))
    n0.engine.compact()
    n0.member.tick()
    n0.member.tick()
    data = n0.member.store._disk.read("snapshot")
    assert data is not None
    assert b"learners" not in data
    assert b"configured" not in data
    assert snapshots.unpack(data).voters == THREE


def test_a_snapshot_that_is_installed_brings_its_configuration(converse):
    n0 = follow(converse())
    state = machine.snapshot(State(index=20))
    data = snapshots.pack(
        Snapshot(previous=entry(19, 5), last=entry(20, 5), voters=("n0", "n1"), learners=("n4",), configured=12, state=state)
    )
    send_snapshot(n0, data, term=5, commit=20)
    wanted = Configuration(voters=("n0", "n1"), learners=("n4",), index=12)
    assert n0.member.journal.configuration == wanted
    assert converse().open(permitted=False).member.journal.configuration == wanted


# --- removed


def removed(n0: Conversation) -> None:
    n0.say("n1", TellStanding(7, True, True, ("n1", "n2"), (), 30))


def test_a_removed_node_is_told_says_so_and_stays_out(converse):
    n0 = follow(converse())
    removed(n0)
    assert n0.member.outlook.role == "outsider"
    assert n0.member.outlook.trouble == "n0 was removed from the voters (log index 30); to let it vote again: hmctl raft add n0"
    n0.taken()
    n0 = converse().open(permitted=False)
    n0.pass_time(5.0)
    n0.say("n2", RequestVote(9, 99, 8))
    n0.say("n2", PreVote(9, 99, 8))
    assert {type(sent.message) for _, sent in n0.taken()} == {AskStanding}
    refusal = n0.member.outlook.refusal()
    assert isinstance(refusal, NoQuorum)
    assert "was removed" in refusal.message


def test_an_addition_that_was_lost_is_refuted_by_what_was_committed_since(converse):
    n0 = follow(converse())
    removed(n0)
    more = [entry(index, 7) for index in range(3, 30)]
    n0.say("n1", append(7, (2, 5), *more, configuring(30, 7, ("n1", "n2")), configuring(31, 7, ("n1", "n2"), ("n0",)), commit=30), term=7)
    n0.member.tick()
    assert n0.member.outlook.role == "learner"
    n0.say("n2", TellStanding(9, True, True, ("n1", "n2"), (), 30, None, 30))
    assert n0.member.outlook.role == "learner"  # it may yet be committed
    n0.say("n2", TellStanding(9, True, True, ("n1", "n2"), (), 30, None, 33))
    assert n0.member.outlook.role == "outsider"
    assert converse().open(permitted=False).member.outlook.role == "outsider"


def test_a_leader_that_learns_of_its_removal_leads_no_more(converse):
    n0 = converse()
    term = lead(n0)
    n0.say("n1", TellStanding(term + 1, True, True, ("n1", "n2"), (), 30, None, 30))
    assert not n0.engine.leads
    n0.pass_time(5.0)
    assert not n0.engine.leads


def test_a_removed_node_that_is_added_again_takes_part_again(converse):
    n0 = follow(converse())
    removed(n0)
    more = [entry(index, 7) for index in range(3, 30)]
    n0.say("n1", append(7, (2, 5), *more, configuring(30, 7, ("n1", "n2")), configuring(31, 7, ("n1", "n2"), ("n0",)), commit=31), term=7)
    n0.member.tick()
    assert n0.member.outlook.role == "learner"
    assert n0.member.outlook.trouble is None
    n0.say("n1", append(7, (31, 7), configuring(32, 7, THREE), commit=31), term=7)
    assert n0.member.outlook.role == "follower"


def test_the_word_of_one_who_is_no_member_shuts_nobody_down(converse):
    n0 = follow(converse())
    for peer, told in (
        ("n3", TellStanding(7, True, True, ("n1", "n2", "n3"), (), 30)),  # a stranger
        ("n1", TellStanding(7, True, True, ("n2", "n3"), (), 30)),  # who is none by its own word
        ("n1", TellStanding(7, False, True, ("n1", "n2"), (), 30)),
        ("n1", TellStanding(7, True, True, ("n1", "n2"), ("n0",), 30)),  # we are a learner there
    ):
        n0.say(peer, told)
        assert n0.member.outlook.role == "follower"


def test_nor_does_the_word_of_one_who_lags_behind(converse):
    more = [configuring(3, 5, ("n1", "n2")), configuring(4, 5, ("n1", "n2"), ("n0",)), configuring(5, 5, THREE)]
    n0 = follow(converse(), *more, commit=5)
    stale = TellStanding(5, True, True, ("n1", "n2"), (), 3)
    n0.say("n1", stale)
    assert n0.member.outlook.role == "follower"
    n0 = converse().open(permitted=False)  # by now it does not know what is committed, but its log holds it
    n0.say("n1", stale)
    assert n0.member.outlook.role == "follower"
    assert n0.member.journal.configuration.index == 5


def test_who_behaves_as_if_it_were_a_voter_is_told_that_it_is_none(converse):
    n0 = follow(converse(), configuring(3, 5, ("n0", "n1")), entry(4, 5), commit=4)
    for word in (PreVote(9, 99, 8), RequestVote(9, 99, 8), AskStanding(), append(5, (4, 5))):
        n0.say("n2", word)
        assert n0.heard(TellStanding, "n2") == [TellStanding(5, True, True, ("n0", "n1"), (), 3, None, 4, "b1")]
    n0.say("n2", StaleTerm(99))
    n0.say("n2", Vote(99))
    assert n0.engine.term == 5


def test_a_change_that_is_not_committed_is_not_told_as_if_it_were(converse):
    n0 = follow(converse(), configuring(3, 5, ("n0", "n1")), commit=2)
    n0.say("n2", AskStanding())
    latest = Configuration(voters=("n0", "n1"), index=3)
    assert n0.heard(TellStanding, "n2") == [TellStanding(5, True, True, THREE, (), 0, latest, 2, "b1")]


def test_nor_what_is_told_of_a_time_that_we_know_more_of(converse):
    """Its own removal and return are in a snapshot by now; who tells of the removal has not heard of the return."""
    n0 = follow(converse())
    state = machine.snapshot(State(index=20))
    data = snapshots.pack(Snapshot(previous=entry(19, 5), last=entry(20, 5), voters=THREE, configured=12, state=state))
    send_snapshot(n0, data, term=5, commit=20)
    before = n0.member.journal.standing
    n0.say("n1", TellStanding(5, True, True, ("n1", "n2"), (), 9, None, 9))
    assert n0.member.outlook.role == "follower"
    assert n0.member.journal.standing == before


# --- waiting to be added


def test_a_new_node_waits_until_a_leader_speaks_to_it(converse):
    n0 = converse(voters=(*THREE, "n3")).open(permitted=False, connected=("n1", "n2", "n3"))
    others = ("n1", "n2", "n3")
    for peer in others:
        n0.say(peer, TellStanding(7, True, True, others, (), 12))
    assert n0.member.outlook.trouble == "n0 is none of the voters, and waits to be added: hmctl raft add n0"
    n0 = converse(voters=(*THREE, "n3")).open(permitted=False, connected=("n1", "n2", "n3"))  # also after a restart
    assert n0.member.outlook.role == "outsider"
    n0.taken()
    more = [entry(index, 7) for index in range(3, 12)]
    n0.say("n3", append(8, (1, 0), formed(2, 7), *more, configuring(12, 7, others), configuring(13, 8, others, ("n0",)), commit=13), term=8)
    n0.member.tick()
    assert n0.heard(NextIndex, "n3") == [NextIndex(14, reset=False, success=True)]
    assert n0.member.outlook.role == "learner"


def test_what_it_was_in_an_earlier_life_does_not_make_it_a_voter_while_it_catches_up(converse):
    """Once n0 was alone in the cluster: by the log up to there, it would elect itself."""
    n0 = converse(voters=(*THREE, "n3")).open(permitted=False, connected=("n1", "n2"))
    for peer in ("n1", "n2"):
        n0.say(peer, TellStanding(7, True, True, ("n1", "n2"), (), 40))
    n0.say("n1", append(7, (1, 0), formed(2, 1), configuring(3, 1, ("n0",)), commit=3), term=7)
    n0.pass_time(5.0)
    assert not n0.engine.leads
    assert n0.member.outlook.role == "outsider"


def test_only_names_that_the_others_or_the_file_know_are_followed(converse):
    n0 = converse().open(permitted=False, connected=("n1", "n2", "n9"))
    for peer in ("n1", "n2"):
        n0.say(peer, TellStanding(7, True, True, ("n1", "n2"), (), 12))
    n0.say("n9", append(99, (1, 0), entry(2, 99), commit=2), term=99)
    assert n0.log == [(1, 0)]
    assert n0.member.term < 99
    n0.member.receive("n9", codec.dumps("nonsense"))
    assert n0.member.failure is None
