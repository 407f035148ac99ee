"""Formation, re-seeding, a full disk and failures, in conversations with one voter."""

from __future__ import annotations

import errno
import math

import pytest
from pysyncobj.config import SERIALIZER_STATE
from raft_conversation import VOTERS, append, entry
from raft_cramped import Cramped

from hmcore.errors import ConsensusError, FormationFailed, HyperMeshError, InvalidRequest, StorageDamaged, StorageFailed, StorageFull
from node_agent.consensus import codec
from node_agent.consensus.limits import MAX_COMMAND, Limits
from node_agent.consensus.log.changes import Standing
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.protocol import engine
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
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal, Receipt

MEMBER = TellStanding(7, member=True, formed=True)


def form(index: int, term: int) -> Entry:
    batch = machine.encode_batch([Proposal("form", machine.encode(machine.FormCluster(id="hm-a", bootstrap="b1")))])
    return Entry(codec.REGULAR + codec.dumps((0, (batch,))), index, term)


# --- formation


def test_an_empty_node_says_nothing_but_asks(converse):
    n0 = converse().open(permitted=False)
    n0.pass_time(5.0)
    n0.say("n1", RequestVote(3, 9, 3))
    n0.say("n1", PreVote(3, 9, 3))
    n0.say("n1", append(3, (1, 0), entry(2, 3)))
    assert {type(envelope.message) for _, envelope in n0.taken()} == {AskStanding}
    status = n0.member.formation()
    assert (status.empty, status.permitted, status.formed, status.term) == (True, False, False, 0)
    assert n0.member.outlook.role == "unformed"
    assert n0.member.outlook.trouble == "not yet part of a formed cluster"


def test_permission_is_durable_and_lets_it_vote(converse):
    converse().open()
    n0 = converse().open(permitted=False)
    assert n0.member.formation().permitted
    assert not n0.member.formation().empty
    n0.pass_time(0.6)
    n0.say("n1", RequestVote(1, 1, 0))
    assert n0.heard(Vote) == [Vote(1)]


def test_a_node_is_permitted_one_formation(converse):
    n0 = converse().open()
    n0.member.permit("b1")
    with pytest.raises(FormationFailed, match="b1"):
        n0.member.permit("b2")


def test_knowing_the_formation_outlives_a_restart_without_a_leader(converse):
    n0 = converse().open()
    n0.say("n1", append(1, (1, 0), form(2, 1), commit=2))
    n0.member.tick()
    n0.say("n1", append(1, (2, 1), entry(3, 1), commit=2))
    assert n0.member.formation().formed
    n0 = converse().open(permitted=False)
    assert n0.member.formation().formed
    n0.say("n2", AskStanding())
    assert n0.heard(TellStanding) == [TellStanding(1, member=True, formed=True, voters=VOTERS, commit_index=1, bootstrap="b1")]


def test_a_single_voter_forms_its_cluster_alone(converse):
    n0 = converse(voters=("n0",)).open(connected=())
    n0.pass_time(1.5)
    assert n0.member.is_leader
    outcomes: list[object] = []
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), outcomes.append)
    n0.member.tick()
    n0.member.tick()
    assert isinstance(outcomes[0], Receipt)


# --- re-seeding


def reseeding(converse):
    n0 = converse().open(permitted=False)
    n0.say("n1", MEMBER)
    n0.say("n2", TellStanding(9, member=True, formed=False))
    n0.taken()
    return n0


def test_an_empty_node_that_hears_of_the_cluster_is_never_permitted(converse):
    n0 = converse().open(permitted=False)
    n0.say("n1", MEMBER)
    with pytest.raises(FormationFailed, match="formed already"):
        n0.member.permit("b1")
    assert n0.member.outlook.role == "reseeding"
    assert n0.member.outlook.trouble == "re-seeding: n2 must say how far the cluster has come"
    n0 = converse().open(permitted=False)  # nor after a restart
    with pytest.raises(FormationFailed, match="formed already"):
        n0.member.permit("b1")


def test_it_takes_a_term_above_all_and_unseats_leaders_it_may_have_acknowledged(converse):
    n0 = reseeding(converse)
    assert n0.member.term == 10
    n0.say("n1", append(9, (1, 0), form(2, 9), commit=2))
    assert n0.heard(StaleTerm) == [StaleTerm(10)]
    assert n0.log == [(1, 0)]


def test_it_neither_votes_nor_stands_until_it_has_caught_up(converse):
    n0 = reseeding(converse)
    n0.say("n1", append(11, (1, 0), form(2, 3), entry(3, 9), commit=3))
    n0.member.tick()
    assert n0.engine.applied_index == 3
    n0.pass_time(5.0)
    for request in (RequestVote(12, 99, 11), RequestVote(12, 99, 11, transfer=True), PreVote(12, 99, 11)):
        n0.say("n2", request)
    heard = {type(envelope.message) for _, envelope in n0.taken()}
    assert not heard & {Vote, PreVoteGranted, PreVote, RequestVote}
    assert n0.member.outlook.trouble == "re-seeding: catching up with the leader"
    n0.say("n1", append(11, (3, 9), entry(4, 11), commit=4))  # an entry of a leader that was elected without us
    n0.member.tick()
    assert n0.member.journal.standing == Standing(bootstrap="b1", formed=True, voters=VOTERS)
    assert not n0.member.journal.dirty  # a crash does not undo it: others may rely on this node by now
    n0.pass_time(0.6)
    n0.say("n2", RequestVote(12, 99, 11))
    assert n0.heard(Vote) == [Vote(12)]


def test_re_seeding_goes_on_after_a_restart(converse):
    reseeding(converse)
    n0 = converse().open(permitted=False)
    assert n0.member.term == 10
    n0.pass_time(3.0)
    n0.say("n2", RequestVote(12, 99, 11))
    assert n0.heard(Vote) == []


# --- a full disk


def cramped(converse, tmp_path, *, error=None):
    n0 = converse()
    n0.member._disk.close()
    disk = Cramped(tmp_path / "raft")
    disk.error = error
    n0.member._disk = n0.member.journal._disk = n0.member.store._disk = disk
    n0.open(permitted=error is None)
    n0.taken()
    return n0, disk


def test_a_leader_with_a_full_disk_steps_down_says_so_and_recovers(converse, tmp_path):
    n0, disk = cramped(converse, tmp_path)
    term = n0.lead()
    disk.error = errno.ENOSPC
    outcomes: list[object] = []
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), outcomes.append)
    n0.member.tick()  # to the others
    n0.member.tick()  # to the disk
    assert isinstance(outcomes[0], StorageFull)
    assert not n0.member.is_leader
    assert "no room" in str(n0.member.outlook.trouble)
    n0.taken()
    n0.say("n1", NextIndex(4, reset=False, success=True), term=term)  # deaf
    n0.pass_time(3.0)
    assert n0.taken() == []  # and dumb: nothing that is not durable leaves
    assert n0.member.failure is None
    disk.error = None
    n0.pass_time(2.5)
    assert n0.member.full is None
    assert not n0.member.is_leader  # nobody answered for too long
    n0.say("n1", append(term + 1, (3, term), entry(4, term + 1)))
    assert n0.heard(NextIndex) == [NextIndex(5, reset=False, success=True)]


def test_a_follower_with_a_full_disk_acknowledges_nothing(converse, tmp_path):
    n0, disk = cramped(converse, tmp_path)
    disk.error = errno.EDQUOT
    n0.say("n1", append(3, (1, 0), entry(2, 3)))
    assert n0.taken() == []
    disk.error = None
    n0.pass_time(1.5)
    n0.say("n1", append(3, (1, 0), entry(2, 3)))
    assert n0.heard(NextIndex) == [NextIndex(3, reset=False, success=True)]


def test_a_node_that_starts_on_a_full_disk_says_so_and_waits_for_room(converse, tmp_path):
    n0 = converse().open()
    n0.say("n1", append(3, (1, 0), form(2, 3), entry(3, 3), commit=3))
    n0.member.tick()
    n0.member.store.serialize((None, n0.member.journal[1], n0.member.journal[0], set()), 1)
    n0, disk = cramped(converse, tmp_path, error=errno.ENOSPC)
    assert n0.log == [(1, 0), (2, 3), (3, 3)]
    n0.say("n1", append(4, (3, 3), entry(4, 4)))
    assert n0.taken() == []
    assert "no room" in str(n0.member.outlook.trouble)
    disk.error = None
    n0.pass_time(1.5)
    n0.say("n1", append(4, (3, 3), entry(4, 4)))
    assert n0.heard(NextIndex) == [NextIndex(5, reset=False, success=True)]


@pytest.mark.parametrize("when", ["error", "sync_error"])
def test_a_disk_that_fails_otherwise_stops_the_node(converse, tmp_path, when):
    """Also when it fails once, and only in fdatasync: the kernel takes the pages for written then."""
    n0, disk = cramped(converse, tmp_path)
    setattr(disk, when, errno.EIO)
    n0.say("n1", append(3, (1, 0), entry(2, 3)))
    setattr(disk, when, None)
    assert n0.taken() == []
    assert isinstance(n0.member.failure, StorageFailed)
    assert str(n0.member.failure) == str(n0.member.outlook.trouble)
    assert "journal" in str(n0.member.failure)
    assert n0.member.next_tick() == math.inf
    n0.say("n1", append(3, (1, 0), entry(2, 3)))
    n0.pass_time(3.0)
    assert n0.taken() == []


# --- failures


@pytest.mark.parametrize(("error", "kind"), [(ValueError("broken"), StorageDamaged), (MemoryError(), ConsensusError)])
def test_a_deserializer_that_fails_stops_the_node_though_pysyncobj_goes_on(converse, monkeypatch, error, kind):
    n0 = converse().open()
    n0.say("n1", append(5, (1, 0), form(2, 5), commit=2))
    n0.member.tick()

    def fail(state: bytes) -> None:
        raise error

    monkeypatch.setattr(n0.member.replica, "restore", fail)
    n0.member.store.serialize((None, entry(2, 5), entry(1, 0), set()), 1)
    assert n0.member.store.checkSerializing()[0] == SERIALIZER_STATE.SUCCESS
    n0.taken()
    n0.member._guarded(n0.engine.load_snapshot)
    assert isinstance(n0.member.failure, kind)
    n0.say("n1", append(5, (2, 5), entry(3, 5)))
    assert n0.taken() == []


def test_a_state_machine_that_raises_stops_the_node_instead_of_applying_for_ever(converse, monkeypatch):
    n0 = converse().open()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(machine, "apply_batch", fail)
    n0.say("n1", append(5, (1, 0), entry(2, 5), entry(3, 5), commit=3))
    n0.member.tick()
    assert isinstance(n0.member.failure, ConsensusError)
    assert "entry 2" in str(n0.member.failure)
    with pytest.raises(ConsensusError):
        n0.member.replica.capture()  # such a state never becomes a snapshot


def test_too_large_a_command_is_refused(converse):
    n0 = converse().open()
    n0.lead()
    outcomes: list[object] = []
    n0.member.propose(Proposal("c", bytes(MAX_COMMAND + 1)), outcomes.append)
    assert isinstance(outcomes[0], InvalidRequest)


def test_the_largest_command_goes_through(converse):
    n0 = converse().open()
    term = n0.lead()
    outcomes: list[object] = []
    n0.member.propose(Proposal("c", bytes(MAX_COMMAND)), outcomes.append)
    n0.member.tick()
    n0.say("n1", NextIndex(4, reset=False, success=True), term=term)
    n0.member.tick()
    assert isinstance(outcomes[0], Receipt)


def test_a_log_of_many_bytes_is_compacted_however_few_its_entries(converse):
    n0 = converse(limits=Limits(compact_bytes=1000)).open()
    term = n0.lead()
    for number in range(4):
        n0.member.propose(Proposal(f"c{number}", bytes(400)), lambda outcome: None)
        n0.member.tick()
        n0.say("n1", NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
        n0.pass_time(0.01)
    n0.pass_time(0.3)
    assert n0.member.store.exists
    assert n0.log[0][0] > 1


def test_a_large_state_is_not_stored_for_every_few_bytes(converse):
    n0 = converse(limits=Limits(compact_bytes=1000)).open()
    n0.member.store.size = 10_000
    term = n0.lead()
    for number in range(4):
        n0.member.propose(Proposal(f"c{number}", bytes(400)), lambda outcome: None)
        n0.member.tick()
        n0.say("n1", NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
        n0.pass_time(0.01)
    n0.pass_time(0.3)
    assert not n0.member.store.exists


# --- a leader's own copy


def test_new_entries_leave_before_they_are_stored_and_count_once_they_are(converse):
    n0 = converse().open()
    term = n0.lead()
    outcomes: list[object] = []
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), outcomes.append)
    n0.member.tick()
    index = n0.member.journal[-1].index
    assert [sent.entries[-1].index for sent in n0.heard(Append, "n1")] == [index]
    assert n0.member.journal.dirty
    n0.say("n1", NextIndex(index + 1, reset=False, success=True), term=term)
    n0.member.tick()
    assert not n0.member.journal.dirty
    assert len(outcomes) == 1


def test_an_append_waits_for_anything_but_new_entries(converse):
    n0 = converse().open()
    term = n0.lead()
    n0.member.journal.add(entry(4, term).command, n0.member.journal[-1].index + 1, term)
    assert n0.member.transport.transmit("n1", append(term, (1, 0)))
    assert n0.member.journal.dirty
    n0.member.journal.setCurrentTerm(term, "n0")
    assert n0.member.transport.transmit("n1", append(term, (1, 0)))
    assert not n0.member.journal.dirty


def test_a_leader_that_cannot_carry_out_an_entry_says_why_and_leaves_nobody_waiting(converse, monkeypatch):
    n0 = converse().open()
    term = n0.lead()
    outcomes: list[object] = []
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), outcomes.append)
    n0.member.tick()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(machine, "apply_batch", fail)
    n0.say("n1", NextIndex(n0.member.journal[-1].index + 1, reset=False, success=True), term=term)
    n0.member.tick()
    assert "a bug" in str(n0.member.failure)
    assert isinstance(outcomes[0], HyperMeshError)


def test_a_single_voter_with_a_full_disk_waits_for_room_instead_of_spinning(converse, tmp_path):
    n0 = converse(voters=("n0",))
    disk = Cramped(tmp_path / "alone")
    n0.member._disk.close()
    n0.member._disk = n0.member.journal._disk = n0.member.store._disk = disk
    n0.open(connected=())
    n0.pass_time(3.0)
    assert n0.member.is_leader
    outcomes: list[object] = []
    disk.error = errno.ENOSPC
    n0.member.propose(Proposal("c", machine.encode(machine.Noop())), outcomes.append)
    for _ in range(3):
        n0.member.tick()
    assert isinstance(n0.member.full, StorageFull)
    wakes: list[None] = []
    n0.member.wake = lambda: wakes.append(None)
    n0.pass_time(0.5)
    assert wakes == []
    disk.error = None
    n0.pass_time(3.0)
    assert n0.member.is_leader
    assert n0.member.full is None


# --- after a restart


def test_a_long_log_is_carried_out_over_several_ticks_and_the_voter_is_heard_in_between(converse, monkeypatch):
    monkeypatch.setattr(engine, "AT_ONCE", 0.0)
    n0 = converse().open()
    wakes: list[None] = []
    n0.member.wake = lambda: wakes.append(None)
    n0.say("n1", append(5, (1, 0), *(entry(index, 5) for index in range(2, 12)), commit=11))
    for applied in range(2, 12):
        wakes.clear()
        n0.member.tick()
        assert n0.engine.applied_index == applied
        assert n0.engine.commit_index == 11
        assert bool(wakes) is (applied < 11)
        n0.say("n1", append(5, (11, 5), commit=11))
        assert n0.heard(NextIndex) != []


def test_a_voter_that_starts_anew_is_well_once_it_has_carried_out_what_its_log_held(converse, monkeypatch):
    monkeypatch.setattr(engine, "AT_ONCE", 0.0)
    n0 = converse().open()
    n0.say("n1", append(5, (1, 0), *(entry(index, 5) for index in range(2, 5)), commit=4))
    n0 = converse().open()  # after a restart
    n0.say("n1", append(5, (4, 5), commit=4))
    for applied in (1, 2, 3):
        assert n0.member.outlook.trouble == f"has carried out {applied} of 4 log entries since it started"
        n0.member.tick()
    assert n0.member.outlook.trouble is None
    n0.say("n1", append(5, (4, 5), *(entry(index, 5) for index in range(5, 9)), commit=8))
    assert n0.member.outlook.trouble is None  # what comes later it is as far behind with as anybody


def test_it_owes_nothing_that_its_leader_takes_back(converse):
    n0 = converse().open()
    n0.say("n1", append(5, (1, 0), entry(2, 5), entry(3, 5), entry(4, 5), commit=1))
    n0 = converse().open()
    n0.say("n2", append(6, (1, 0), entry(2, 6), commit=2))
    n0.member.tick()
    assert (n0.log[-1], n0.member.outlook.trouble) == ((2, 6), None)


# --- idle cost


def test_a_follower_sleeps_from_heartbeat_to_heartbeat(converse):
    n0 = converse().open()
    n0.say("n1", append(3, (1, 0), entry(2, 3), commit=2))
    n0.pass_time(0.05)
    n0.taken()
    wakes: list[None] = []
    n0.member.wake = lambda: wakes.append(None)
    for _ in range(20):
        n0.now += 0.1
        n0.say("n1", append(3, (2, 3), commit=2))
        assert n0.member.next_tick() > n0.now + 0.3
    assert wakes == []
    assert len(n0.heard(NextIndex)) == 20


def test_a_leader_wakes_once_a_heartbeat(converse):
    n0 = converse().open()
    term = n0.lead()
    n0.say("n1", NextIndex(3, reset=False, success=True), term=term)
    n0.pass_time(0.2)
    ticks = 0
    end = n0.now + 2.0
    while n0.now < end:
        n0.now = max(n0.now, n0.member.next_tick() + 0.001)
        n0.member.tick()
        for peer in ("n1", "n2"):
            n0.say(peer, NextIndex(3, reset=False, success=True), term=term)
        ticks += 1
    assert ticks <= 21
