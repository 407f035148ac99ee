"""Handing over the leadership: the decisions, then one leader in conversation, then three nodes on a loop."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from raft_cluster import running, until

from hmcore.errors import HyperMeshError, InvalidRequest, NoQuorum, NotLeader, TransferFailed
from node_agent.consensus.leading.handover import Follower, Handed, Handover, Invite, Moment, Over, choose
from node_agent.consensus.protocol.messages import Append, NextIndex, RequestVote, TimeoutNow, Vote
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal, Receipt

A = Follower("a", 9, answers=True)
B = Follower("b", 12, answers=True)
C = Follower("c", 15, answers=False)


def test_the_one_that_is_furthest_ahead_and_answers_is_chosen():
    assert choose("n0", [A, B, C], None) == "b"
    assert choose("n0", [A, dataclasses.replace(B, match=9)], None) == "a"
    assert choose("n0", [A, B, C], "a") == "a"


@pytest.mark.parametrize(
    ("followers", "to", "error", "words"),
    [
        ([], None, InvalidRequest, "n0 is the only voter"),
        ([], "a", InvalidRequest, "n0 is the only voter"),
        ([C], None, NoQuorum, "no other voter answers"),
        ([A, C], "c", NoQuorum, "c does not answer n0"),
        ([A, C], "x", InvalidRequest, "x is no other voter; a, c could lead"),
    ],
)
def test_who_cannot_lead_is_refused(followers, to, error, words):
    with pytest.raises(error, match=words):
        choose("n0", followers, to)


def handover() -> Handover:
    return Handover("n0", "n1", term=4, now=0.0, until=1.0, patience=0.25)


LEADING = Moment(now=0.0, term=4, leads=True, leader="n0", settled=True, caught_up=True)


def at(seconds: float, **changes: object) -> Moment:
    return dataclasses.replace(LEADING, now=seconds, **changes)


def test_it_is_invited_once_all_is_settled_and_again_if_it_may_not_have_heard():
    one = handover()
    assert one.next(at(0.0, settled=False)) is None
    assert one.next(at(0.0, caught_up=False)) is None
    assert one.wake() == 1.0
    assert one.next(at(0.1)) == Invite()
    assert one.next(at(0.2)) is None
    assert one.wake() == pytest.approx(0.35)
    assert one.next(at(0.35)) == Invite()
    assert one.next(at(0.4, leads=False, leader=None, settled=False)) is None
    assert one.wake() == 1.0  # never in the past: that would keep the loop busy


def test_it_is_over_when_another_leads_in_a_later_term():
    one = handover()
    one.next(at(0.0))
    assert one.next(at(0.1, term=5, leads=False, leader=None, settled=False)) is None
    assert one.next(at(0.2, term=5, leads=False, leader="n1", settled=False)) == Over(Handed("n1", 5, 0.2))


@pytest.mark.parametrize(
    ("invited", "moment", "words"),
    [
        (False, at(1.0, caught_up=False), "n1 did not catch up within 1.0 s; n0 goes on leading"),
        (True, at(1.0), "n1 did not take over within 1.0 s; n0 goes on leading"),
        (True, at(1.0, term=5, leads=False, leader=None), "n0 leads no more, and n1 did not take over within 1.0 s"),
        (True, at(0.5, term=6), "n0 was elected again, in term 6"),
    ],
)
def test_it_does_not_go_on_for_ever(invited, moment, words):
    one = handover()
    if invited:
        assert one.next(at(0.0)) == Invite()
    step = one.next(moment)
    assert isinstance(step, Over)
    assert isinstance(step.outcome, TransferFailed)
    assert step.outcome.message == words


# --- one leader in conversation


def leading(converse):
    """n0 leads, and its first entry is committed. n1 and n2 answer."""
    n0 = converse().open()
    term = n0.lead()
    for peer in ("n1", "n2"):
        n0.say(peer, NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
    n0.member.tick()
    n0.taken()
    return n0, term


def propose(n0, request: str, outcomes: list[object]) -> None:
    n0.member.propose(Proposal(request, machine.encode(machine.Noop())), outcomes.append)
    n0.member.tick()
    n0.member.tick()


def test_the_last_entry_comes_first_then_the_invitation_and_new_proposals_wait(converse):
    n0, term = leading(converse)
    early: list[object] = []
    late: list[object] = []
    told: list[object] = []
    propose(n0, "early", early)
    n0.member.transfer("n2", told.append, timeout=5.0)
    propose(n0, "late", late)
    assert n0.heard(TimeoutNow) == []
    last = n0.log[-1][0]
    n0.say("n1", NextIndex(last + 1, reset=False, success=True), term=term)
    n0.member.tick()
    assert isinstance(early[0], Receipt)  # committed by n1's word: n2 still lacks it
    assert n0.heard(TimeoutNow) == []
    n0.say("n2", NextIndex(last + 1, reset=False, success=True), term=term)
    assert n0.heard(TimeoutNow, "n2") == [TimeoutNow(term)]
    assert n0.log[-1][0] == last
    n0.say("n2", RequestVote(term + 1, last, term, transfer=True), term=term + 1)
    assert n0.heard(Vote) == [Vote(term + 1)]
    assert (told, late) == ([], [])
    propose(n0, "later", late)  # who comes in between waits, too
    assert late == []
    n0.say("n2", Append(term + 1, last, last, term, ()), term=term + 1)
    assert [type(outcome) for outcome in late] == [NotLeader, NotLeader]
    assert {outcome.leader for outcome in late} == {"n2"}
    assert isinstance(told[0], Handed)
    assert (told[0].leader, told[0].term) == ("n2", term + 1)


def test_a_target_that_does_not_stand_is_invited_again_and_given_up(converse):
    n0, term = leading(converse)
    late: list[object] = []
    told: list[object] = []
    n0.member.transfer("n2", told.append, timeout=5.0)
    propose(n0, "late", late)
    for _ in range(12):
        n0.pass_time(0.1)
        for peer in ("n1", "n2"):
            n0.say(peer, NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
    n0.member.tick()
    assert isinstance(told[0], TransferFailed)
    assert "n2 did not take over" in told[0].message
    assert len(n0.heard(TimeoutNow, "n2")) > 3
    assert n0.member.is_leader
    n0.say("n1", NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
    n0.member.tick()
    assert isinstance(late[0], Receipt)  # what waited goes on here


def test_one_transfer_at_a_time_and_none_by_a_follower(converse):
    n0, _ = leading(converse)
    told: list[object] = []
    n0.member.transfer(None, lambda outcome: None, timeout=5.0)
    n0.member.transfer(None, told.append, timeout=5.0)
    assert isinstance(told[0], TransferFailed)
    assert "is being handed to n1 already" in told[0].message
    n0 = converse().open()
    n0.member.transfer(None, told.append, timeout=5.0)
    assert isinstance(told[1], NoQuorum)


def test_stopping_in_the_middle_answers_everybody(converse):
    n0, _ = leading(converse)
    told: list[object] = []
    late: list[object] = []
    n0.member.transfer("n2", told.append, timeout=5.0)
    propose(n0, "late", late)
    n0.member.close()
    assert [type(outcome) for outcome in (*told, *late)] == [NoQuorum, NoQuorum]


# --- three nodes on a loop


async def test_a_healthy_cluster_hands_over_and_takes_the_next_write_at_once(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", machine.FormCluster(id="hm-a", bootstrap="b1"))
        loop = asyncio.get_running_loop()
        for number in range(4):
            old = await cluster.elected()
            await until(lambda old=old: len(old.report().reachable_voters) == 3)
            held: list[asyncio.Task[tuple[int, bytes]]] = []
            began = loop.time()
            async with asyncio.TaskGroup() as tasks:
                handed = tasks.create_task(old.transfer(), name="transfer")
                await asyncio.sleep(0)
                held.append(tasks.create_task(caught(old, f"held-{number}"), name="held"))
            outcome = handed.result()
            new = cluster.nodes[outcome.leader]
            assert new is not old
            error = held[0].result()
            assert isinstance(error, NotLeader)
            assert error.leader == outcome.leader
            await new.propose(machine.encode(machine.Noop()), request_id=f"held-{number}")
            assert loop.time() - began < 1.0


async def caught(node, request: str) -> HyperMeshError | None:
    try:
        await node.propose(machine.encode(machine.Noop()), request_id=request)
    except HyperMeshError as error:
        return error
    return None


async def test_the_named_voter_takes_over(tmp_path):
    async with running(tmp_path) as cluster:
        old = await cluster.elected()
        await cluster.write("w")
        await until(lambda: len(old.report().reachable_voters) == 3)
        target = max(name for name in cluster.nodes if name != old.leader)
        assert (await old.transfer(target)).leader == target
        await until(lambda: cluster.nodes[target].is_leader)
        with pytest.raises(NotLeader):
            await old.transfer()
