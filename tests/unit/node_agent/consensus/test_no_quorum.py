"""When a node is sure that nothing can be decided, and how many voters it counts; what waits while the leadership is handed over."""

from __future__ import annotations

from raft_conversation import Conversation, append, entry

from hmcore.errors import NoQuorum
from node_agent.consensus.protocol.messages import NextIndex
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.levels import LATEST
from node_agent.consensus.statemachine.machine import Proposal
from node_agent.consensus.voters.reconfiguration import Add, Propose, Remove, Wait


def lasting(n0: Conversation) -> str | None:
    error = n0.member.outlook.lasting_no_quorum()
    return None if error is None else error.message


def test_a_node_is_sure_only_when_an_election_could_have_ended_it(converse):
    n0 = converse().open()
    n0.say("n1", append(3, (1, 0), entry(2, 3)))
    n0.member.peer_down("n1")
    n0.member.peer_down("n2")
    assert lasting(n0) is None
    n0.pass_time(0.9)
    assert lasting(n0) is None  # the leader may have been heard by the others since
    n0.pass_time(0.3)
    assert lasting(n0) == "no quorum: 1 of 3 voters reachable"
    n0.member.peer_up("n2")
    assert lasting(n0) is None  # these two may elect one of them
    n0.member.peer_down("n2")
    n0.member.peer_up("n1")
    n0.say("n1", append(3, (2, 3), entry(3, 3)))
    n0.member.peer_down("n1")
    assert lasting(n0) is None


def test_a_node_that_has_just_started_is_not_sure_of_anything(converse):
    n0 = converse().open(connected=())
    assert lasting(n0) is None
    n0.pass_time(1.1)
    assert lasting(n0) == "no quorum: 1 of 3 voters reachable"


def test_a_leader_that_nobody_answers_says_so_though_its_connections_seem_to_live(converse):
    n0 = converse().open()
    n0.lead()
    outcomes: list[object] = []
    n0.member.propose(Proposal("w", machine.encode(machine.Noop())), outcomes.append)
    n0.pass_time(1.5)
    assert not n0.member.is_leader
    assert isinstance(outcomes[0], NoQuorum)
    assert outcomes[0].message == "no quorum: 1 of 3 voters reachable"
    assert n0.member.transport.connected == {"n1", "n2"}


# --- the voters do not change while the leadership does


def leading(converse) -> tuple[Conversation, int]:
    n0 = converse().open()
    term = n0.lead()
    form = machine.FormCluster(id="hm-a", bootstrap="b1", level=LATEST)
    n0.member.propose(Proposal("form", machine.encode(form)), lambda outcome: None)
    agree(n0, term)
    return n0, term


def agree(n0: Conversation, term: int, *peers: str) -> None:
    n0.member.tick()
    for peer in peers or ("n1", "n2"):
        n0.say(peer, NextIndex(n0.log[-1][0] + 1, reset=False, success=True), term=term)
    n0.member.tick()
    n0.member.tick()


def test_a_change_of_the_voters_waits_until_the_leadership_is_handed_over(converse):
    n0, _ = leading(converse)
    n0.member.transfer("n2", lambda outcome: None, timeout=5.0)
    last = n0.log[-1]
    assert n0.member.change_voters(Remove("n1"), request_id="w") == Wait("the leadership is being handed over")
    assert n0.log[-1] == last


def test_a_learner_that_has_caught_up_is_not_promoted_meanwhile(converse):
    n0, term = leading(converse)
    n0.member.peer_up("n3")
    assert isinstance(n0.member.change_voters(Add("n3"), request_id="w"), Propose)
    agree(n0, term)
    n0.member.transfer("n2", lambda outcome: None, timeout=5.0)
    last = n0.log[-1]
    agree(n0, term, "n1", "n2", "n3")
    assert n0.log[-1] == last
    for _ in range(12):  # nobody takes over
        n0.pass_time(0.1)
        agree(n0, term, "n1", "n2", "n3")
    assert n0.member.is_leader
    assert "n3" in n0.member.journal.configuration.voters
