"""The pure parts around the transport: order of messages, candidacy, the census of a re-seeded node, batches of proposals, the outlook."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import HyperMeshError, NoQuorum, NotLeader, StorageFull
from hmcore.records import Configuration
from node_agent.consensus.leading.proposals import Proposals
from node_agent.consensus.outlook import Outlook
from node_agent.consensus.protocol.election import Candidacy
from node_agent.consensus.protocol.messages import TellStanding
from node_agent.consensus.protocol.sequence import Incoming, Outgoing, Place
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal, Receipt
from node_agent.consensus.voters.census import Census, Reseed, Wait

# --- sequence


@given(st.lists(st.sampled_from(["send", "reconnect", "restart"]), max_size=30), st.randoms(use_true_random=False))
def test_whatever_the_network_does_only_newer_messages_are_accepted(events, rnd):
    process, outgoing = 1, Outgoing(1)
    sent: list[Place] = []
    for event in events:
        if event == "send":
            sent.append(outgoing.next())
        elif event == "reconnect":
            outgoing.reconnected()
        else:
            process += 1
            outgoing = Outgoing(process)
    arrived = [place for place in sent for _ in range(rnd.choice((0, 1, 1, 2)))]
    in_order, incoming = sorted(arrived), Incoming()
    assert [place for place in in_order if incoming.accept(place)] == sorted(set(arrived))
    rnd.shuffle(arrived)
    incoming = Incoming()
    accepted = [place for place in arrived if incoming.accept(place)]
    by_process = [[place for place in accepted if place.incarnation == number] for number in range(1, process + 1)]
    assert all(places == sorted(set(places)) for places in by_process)


def test_a_process_that_was_succeeded_is_never_heard_again():
    incoming = Incoming()
    assert incoming.accept(Place(7, 1, 1))
    assert incoming.accept(Place(3, 0, 1))
    assert not incoming.accept(Place(7, 1, 2))
    assert not incoming.accept(Place(7, 2, 1))
    assert incoming.accept(Place(3, 0, 2))


# --- candidacy


def candidacy() -> Candidacy:
    return Candidacy(election_min=1.0, election_max=2.0)


def test_nobody_asks_while_the_leader_lives():
    one = candidacy()
    one.heard_leader(10.0)
    assert one.leader_lives(10.9)
    assert not one.due(10.9)
    assert one.wake() == 11.0
    assert one.due(11.0)
    assert not one.leader_lives(11.0)


def test_a_majority_lets_us_stand_for_a_while():
    one = candidacy()
    one.ask(10.0, name="a", term=5, jitter=0.3)
    assert not one.grant(10.0, "a", term=5, current=4, voters=5)
    assert not one.grant(10.1, "b", term=5, current=4, voters=5)
    assert not one.grant(10.1, "b", term=5, current=4, voters=5)  # the same voter again
    assert not one.may_stand(10.1)
    assert one.grant(10.2, "c", term=5, current=4, voters=5)
    assert one.may_stand(12.1)
    assert not one.due(12.1)
    assert not one.may_stand(12.3)


def test_grants_for_another_term_do_not_count():
    one = candidacy()
    one.ask(10.0, name="a", term=5, jitter=0.0)
    assert not one.grant(10.0, "b", term=4, current=4, voters=3)
    assert not one.grant(10.0, "b", term=5, current=5, voters=3)  # the term has passed meanwhile
    assert not one.may_stand(10.0)


def test_asking_again_waits():
    one = candidacy()
    one.ask(10.0, name="a", term=5, jitter=0.5)
    assert not one.due(10.9)
    assert one.due(11.0)


# --- census


def test_a_census_of_three_needs_both_others():
    census = Census("a", ["a", "b", "c"])
    assert not census.cluster_exists
    census.hear("b", TellStanding(7, member=True, formed=True))
    assert census.cluster_exists
    assert census.verdict is None
    assert census.lacking == "c must say how far the cluster has come"
    census.hear("c", TellStanding(9, member=True, formed=False))
    assert census.verdict == Reseed(10)


def test_two_empty_disks_of_three_are_a_loss_that_nobody_may_paper_over():
    census = Census("a", ["a", "b", "c"])
    census.hear("b", TellStanding(7, member=True, formed=True))
    census.hear("c", TellStanding(0, member=False, formed=True))
    assert census.verdict is None
    assert "2 of the other voters" in census.lacking


def test_in_a_cluster_of_five_two_may_come_late():
    census = Census("a", list("abcde"))
    for name in "bcd":
        census.hear(name, TellStanding(3, member=True, formed=True))
    assert census.verdict is None  # whom it voted for may be e
    census.hear("e", TellStanding(0, member=False, formed=False))
    assert census.verdict == Reseed(4)


def test_a_node_that_nobody_knows_as_a_voter_needs_the_word_of_a_majority():
    census = Census("x", list("abcx"))
    census.hear("a", TellStanding(3, member=True, formed=True, voters=("a", "b", "c"), configured=9))
    assert census.verdict is None
    assert census.lacking == "b, c must say how far the cluster has come"
    census.hear("b", TellStanding(3, member=True, formed=True, voters=("a", "b", "c", "x"), configured=5))  # lags behind
    assert census.verdict == Wait(Configuration(voters=("a", "b", "c"), index=9))


def test_a_change_that_may_yet_be_committed_is_waited_for():
    census = Census("x", list("abx"))
    later = Configuration(voters=("a", "b"), index=12)
    census.hear("a", TellStanding(3, True, True, ("a", "b", "c"), (), 9, latest=later))
    census.hear("b", TellStanding(3, True, True, ("a", "b", "c"), (), 9))
    assert census.verdict is None
    assert census.lacking == "a change of the voters is on its way"
    census.hear("a", TellStanding(3, True, True, ("a", "b"), (), 12))
    assert census.verdict == Wait(later)


def test_a_vote_that_an_uncommitted_configuration_gave_us_is_a_vote():
    census = Census("x", list("abx"))
    later = Configuration(voters=("a", "b", "x"), index=12)
    census.hear("a", TellStanding(3, True, True, ("a", "b"), ("x",), 9, latest=later))
    assert census.verdict is None
    census.hear("b", TellStanding(5, True, True, ("a", "b"), ("x",), 9))
    assert census.verdict == Reseed(6)


def test_an_emptied_learner_needs_the_word_of_all():
    census = Census("x", list("abcx"))
    for name in "ab":
        census.hear(name, TellStanding(3, True, True, ("a", "b", "c"), ("x",), 9))
    assert census.verdict is None
    census.hear("c", TellStanding(3, True, True, ("a", "b", "c"), ("x",), 9))
    assert census.verdict == Wait(Configuration(voters=("a", "b", "c"), learners=("x",), index=9))


def test_a_cluster_that_is_only_being_formed_does_not_exist():
    census = Census("a", ["a", "b", "c"])
    census.hear("b", TellStanding(0, member=True, formed=False))
    assert not census.cluster_exists


# --- proposals


class Log:
    """Takes batches and settles them when told."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[Proposal], object]] = []
        self.outcomes: dict[str, Receipt | HyperMeshError] = {}

    def propose(self, batch, settled) -> None:
        self.batches.append((machine.decode_batch(batch), settled))

    def settle(self, position: int = 0) -> None:
        proposals, settled = self.batches.pop(position)
        settled([Receipt(9, proposal.command) for proposal in proposals])

    def offer(self, to: Proposals, *names: str, size: int = 1) -> None:
        for name in names:
            assert name not in self.outcomes
            to.offer(Proposal(name, b"x" * size), lambda outcome, name=name: self.outcomes.update({name: outcome}))


def test_what_comes_while_a_batch_is_in_flight_is_the_next_batch():
    log = Log()
    proposals = Proposals(log.propose, max_bytes=100)
    log.offer(proposals, "a", "b", "c")
    assert [[p.id for p in batch] for batch, _ in log.batches] == [["a"]]
    log.settle()
    assert [[p.id for p in batch] for batch, _ in log.batches] == [["b", "c"]]
    log.settle()
    assert log.outcomes == dict.fromkeys("abc", Receipt(9, b"x"))


def test_a_batch_has_a_limit_but_a_large_command_travels_alone():
    log = Log()
    proposals = Proposals(log.propose, max_bytes=10)
    log.offer(proposals, "first")
    log.offer(proposals, "b", "c", "d", size=4)
    log.offer(proposals, "large", size=50)
    sizes = []
    while log.batches:
        sizes.append([p.id for p in log.batches[0][0]])
        log.settle()
    assert sizes == [["first"], ["b", "c"], ["d"], ["large"]]


def test_an_abandoned_batch_is_answered_once():
    log = Log()
    proposals = Proposals(log.propose, max_bytes=100)
    log.offer(proposals, "a", "b")
    error = NotLeader("gone")
    proposals.abandon(error)
    assert log.outcomes == {"a": error, "b": error}
    log.settle()  # it was applied after all: too late
    assert log.outcomes == {"a": error, "b": error}
    log.offer(proposals, "c")
    log.settle()
    assert log.outcomes["c"] == Receipt(9, b"x")


# --- outlook


def outlook(**known: object) -> Outlook:
    usual: dict[str, object] = {
        "name": "a",
        "voters": ("a", "b", "c"),
        "reachable": ("a", "b"),
        "role": "follower",
        "leader": "b",
        "term": 4,
        "commit_index": 7,
        "applied_index": 7,
        "enrolment": None,
        "fault": None,
    }
    return Outlook(**{**usual, **known})  # type: ignore[arg-type]


def test_a_leader_takes_commands_and_a_follower_says_who_does():
    assert outlook(leader="a").refusal() is None
    refusal = outlook().refusal()
    assert isinstance(refusal, NotLeader)
    assert refusal.leader == "b"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"leader": None, "reachable": ("a",)}, "no quorum: 1 of 3 voters reachable"),
        ({"leader": None}, "no leader at the moment: 2 of 3 voters reachable"),
        ({"leader": None, "enrolment": "not yet part of a formed cluster"}, "not yet part of a formed cluster"),
    ],
)
def test_without_a_leader_it_says_why(known, message):
    refusal = outlook(**known).refusal()
    assert isinstance(refusal, NoQuorum)
    assert refusal.message == message
    assert outlook(**known).trouble == message


def test_a_fault_comes_before_everything():
    full = StorageFull("no room")
    assert outlook(leader="a", fault=full).refusal() is full
    assert outlook(leader="a", fault=full).trouble == "no room"
    assert outlook(warning="the journal keeps growing").trouble == "the journal keeps growing"
    assert outlook().trouble is None
