"""The read barrier in conversations with one leader, and on three real nodes."""

from __future__ import annotations

import asyncio

import pytest
from raft_cluster import running, until
from raft_conversation import Conversation, append, entry

from hmcore.errors import HyperMeshError, NoQuorum, NotLeader
from node_agent.consensus.protocol.messages import Confirm, Confirmed, NextIndex, StaleTerm
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.levels import BASE, LATEST
from node_agent.consensus.statemachine.machine import Proposal


def acknowledge(n0: Conversation, term: int, *peers: str) -> None:
    """The peers hold all of n0's log."""
    for peer in peers:
        n0.say(peer, NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
    n0.member.tick()


def leading(converse, *, level: int = LATEST) -> tuple[Conversation, int]:
    n0 = converse().open()
    term = n0.lead()
    form = machine.FormCluster(id="hm-a", bootstrap="b1", level=level)
    n0.member.propose(Proposal("form", machine.encode(form)), lambda outcome: None)
    n0.member.tick()
    n0.member.tick()
    acknowledge(n0, term, "n1")
    n0.member.tick()
    assert n0.member.replica.state.level == level
    n0.taken()
    return n0, term


def read(n0: Conversation, timeout: float = 5.0) -> list[int | HyperMeshError]:
    outcomes: list[int | HyperMeshError] = []
    n0.member.barrier(outcomes.append, timeout=timeout)
    return outcomes


def test_nothing_is_written_and_one_other_voter_is_enough(converse):
    n0, term = leading(converse)
    last = n0.log[-1]
    outcomes = read(n0)
    assert n0.taken()[0][1].message == Confirm(term, 1)
    assert outcomes == []
    n0.say("n2", Confirmed(term, 1), term=term)
    assert outcomes == [n0.member.replica.state.index]
    assert n0.log[-1] == last


def test_what_was_said_before_the_read_came_or_in_another_term_does_not_count(converse):
    n0, term = leading(converse)
    first = read(n0)
    n0.say("n1", Confirmed(term, 1), term=term)
    assert len(first) == 1
    second = read(n0)
    n0.say("n2", Confirmed(term, 1), term=term)
    n0.say("n2", Confirmed(term - 1, 2), term=term - 1)
    assert second == []
    n0.say("n2", Confirmed(term, 2), term=term)
    assert len(second) == 1


def test_a_leader_that_has_committed_nothing_in_its_term_waits(converse):
    n0 = converse().open()
    n0.say("n1", append(3, (1, 0), form_entry(2, 3), entry(3, 3), commit=3))
    n0.member.tick()
    n0.pass_time(1.1)
    term = n0.lead()
    assert n0.member.replica.state.level == LATEST
    outcomes = read(n0)
    assert n0.heard(Confirm) == []
    assert outcomes == []
    acknowledge(n0, term, "n1")
    assert n0.heard(Confirm, "n1") == [Confirm(term, 1)]
    n0.say("n1", Confirmed(term, 1), term=term)
    assert outcomes == [3]


def test_a_leader_knows_no_sooner_what_was_decided_before_it_led(converse):
    n0 = converse().open()
    n0.say("n1", append(3, (1, 0), form_entry(2, 3), entry(3, 3), commit=1))
    n0.member.tick()
    n0.pass_time(1.1)
    term = n0.lead()
    assert (n0.member.is_leader, n0.member.caught_up, n0.member.replica.state.level) == (True, False, BASE)
    acknowledge(n0, term, "n1")
    assert (n0.member.caught_up, n0.member.replica.state.level) == (True, LATEST)
    n0.say("n1", StaleTerm(term + 1), term=term + 1)
    assert not n0.member.caught_up


def form_entry(index: int, term: int):
    from node_agent.consensus import codec
    from node_agent.consensus.log.entries import Entry

    form = machine.FormCluster(id="hm-a", bootstrap="b1", level=LATEST)
    batch = machine.encode_batch([Proposal("form", machine.encode(form))])
    return Entry(codec.REGULAR + codec.dumps((0, (batch,))), index, term)


def test_a_lost_question_is_asked_again(converse):
    n0, _ = leading(converse)
    read(n0)
    n0.taken()
    n0.pass_time(0.25)
    asked = n0.heard(Confirm, "n1")
    assert [confirm.number for confirm in asked] == [2, 3]


def test_a_read_that_nobody_confirms_says_how_many_are_reachable(converse):
    n0, _ = leading(converse)
    n0.member.peer_down("n1")
    n0.member.peer_down("n2")
    outcomes = read(n0, timeout=0.3)
    n0.pass_time(0.35)
    assert isinstance(outcomes[0], NoQuorum)
    assert outcomes[0].message == "no quorum: 1 of 3 voters reachable"


def test_losing_the_leadership_ends_reads(converse):
    n0, term = leading(converse)
    outcomes = read(n0)
    n0.say("n2", append(term + 1, n0.log[-1], entry(n0.log[-1][0] + 1, term + 1)), term=term + 1)
    assert isinstance(outcomes[0], NotLeader)
    assert outcomes[0].leader == "n2"
    late = read(n0)
    assert isinstance(late[0], NotLeader)


def test_stopping_ends_reads(converse):
    n0, _ = leading(converse)
    outcomes = read(n0)
    n0.member.close()
    assert isinstance(outcomes[0], NoQuorum)


def test_below_the_level_at_which_all_know_the_question_it_costs_a_write(converse):
    n0, term = leading(converse, level=BASE)
    last = n0.log[-1][0]
    outcomes = read(n0)
    n0.member.tick()
    n0.member.tick()
    assert n0.heard(Confirm) == []
    assert n0.log[-1][0] == last + 1
    acknowledge(n0, term, "n2")
    assert outcomes == [last + 1]


def test_a_single_voter_answers_without_asking_and_without_writing(converse):
    n0 = converse(voters=("n0",)).open(connected=())
    n0.pass_time(1.5)
    form = machine.FormCluster(id="hm-a", bootstrap="b1", level=LATEST)
    n0.member.propose(Proposal("form", machine.encode(form)), lambda outcome: None)
    n0.member.tick()
    n0.member.tick()
    last = n0.log[-1]
    assert read(n0) == [n0.member.replica.state.index]
    assert n0.log[-1] == last


def test_a_follower_answers_only_the_leader_of_its_own_term(converse):
    n0 = converse().open()
    n0.say("n1", append(3, (1, 0), entry(2, 3)))
    n0.taken()
    n0.say("n1", Confirm(3, 8), term=3)
    assert n0.taken()[0][1].message == Confirmed(3, 8)
    n0.say("n2", Confirm(2, 9), term=2)
    assert n0.taken()[0][1].message == StaleTerm(3)
    n0.say("n2", Confirm(4, 9), term=4)
    assert n0.taken() == []


# --- three nodes on a loop


async def test_reads_see_every_write_and_a_leader_that_was_replaced_tells_nothing_old(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", machine.FormCluster(id="hm-a", bootstrap="b1", level=LATEST))
        for number in range(5):
            index = await cluster.write(f"w{number}")
            leader = await cluster.elected()
            before = leader.report().commit_index
            assert await leader.barrier() >= index
            assert leader.report().commit_index == before
        old = await cluster.elected()
        name = str(old.leader)
        cluster.cut.add(name)  # its messages vanish; neither end has noticed yet, so it believes that it leads
        reading = asyncio.create_task(caught(old), name="read")
        await until(lambda: cluster.leader is not None)
        await cluster.write("since")
        assert isinstance(await reading, NoQuorum | NotLeader)


async def caught(node) -> HyperMeshError | int:
    try:
        return await node.barrier(2.0)
    except HyperMeshError as error:
        return error


async def test_a_follower_names_the_leader(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.write("form", machine.FormCluster(id="hm-a", bootstrap="b1", level=LATEST))
        leader = await cluster.elected()
        follower = next(node for node in cluster.nodes.values() if node is not leader)
        await until(lambda: follower.leader is not None)
        with pytest.raises(NotLeader) as told:
            await follower.barrier()
        assert told.value.leader == leader.leader


async def test_a_hundred_reads_at_once_share_few_questions(tmp_path, monkeypatch):
    async with running(tmp_path) as cluster:
        await cluster.write("form", machine.FormCluster(id="hm-a", bootstrap="b1", level=LATEST))
        leader = await cluster.elected()
        asked: list[int] = []
        member = leader._member
        transmit = member.transport.transmit

        def counting(peer, message) -> bool:
            if isinstance(message, Confirm):
                asked.append(message.number)
            return transmit(peer, message)

        monkeypatch.setattr(member.leadership._barrier, "_transmit", counting)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(leader.barrier(), name="read")
        assert len(set(asked)) <= 5
