"""Who votes does not depend on what agent.yaml says after the formation, however often the agent starts (docs/adr/0045)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raft_conversation import append, entry

from hmcore.errors import ConsensusError, FormationFailed
from node_agent.consensus.protocol.messages import AskStanding, PreVote, RequestVote, TellStanding
from node_agent.consensus.voters.configured import check, disregarded

FIVE = ("n0", "n1", "n2", "n3", "n4")
names = st.sets(st.sampled_from(FIVE))


@pytest.mark.long
@given(names, names)
def test_a_recorded_list_is_the_one_in_use_or_nothing_is(configured, recorded):
    stranger = not recorded and "n0" not in configured
    if stranger or ("n0" in recorded and recorded - configured):  # or there would be a voter that nobody can reach
        with pytest.raises(ConsensusError) as caught:
            check("n0", configured, recorded)
        assert caught.value.fix
        return
    check("n0", configured, recorded)
    assert (disregarded(configured, recorded or configured) is None) == (configured <= (recorded or configured))


def test_more_voters_in_the_file_change_nothing_and_are_named(converse):
    converse().open()
    again = converse(voters=FIVE).open(permitted=False, connected=("n1", "n2", "n3", "n4"))
    again.lead()  # n3 and n4 are asked for nothing, though it would take their votes for a majority of five
    assert again.member.outlook.voters == ("n0", "n1", "n2")
    again.pass_time(2.0)
    assert {to for to, _ in again.taken()} <= {"n1", "n2"}
    assert "agent.yaml names other voters (n3, n4)" in (again.member.outlook.warning or "")
    again.say("n3", PreVote(99, 99, 99))
    assert [envelope.message for _, envelope in again.taken()] == [AskStanding()]  # what it is, and no more


def test_a_minority_of_the_voters_does_not_elect_itself_by_another_file(converse):
    """Two of three are struck out of the file: alone, n0 would be its own majority."""
    converse().open()
    with pytest.raises(ConsensusError, match="does not name n1, n2; the cluster was formed with the voters n0, n1, n2") as caught:
        converse(voters=("n0",)).open(permitted=False)
    assert "hmctl deploy" in (caught.value.fix or "")
    assert converse().open(permitted=False).member.formation().permitted


def test_the_list_outlives_the_formation_of_the_cluster(converse):
    first = converse().open()
    first.lead()
    whole = first.member.journal.standing
    assert whole.voters == ("n0", "n1", "n2")
    with pytest.raises(ConsensusError):
        converse(voters=("n0", "n3", "n4")).open(permitted=False)


def test_before_it_takes_part_the_file_counts(converse):
    converse(voters=("n0", "n1")).open(permitted=False)
    second = converse(voters=FIVE).open()
    assert second.member.outlook.voters == FIVE


def test_a_node_that_is_no_voter_does_not_open(converse):
    with pytest.raises(ConsensusError, match="n0 is none of the voters"):
        converse(voters=("n1", "n2")).open()


def test_an_emptied_disk_takes_the_list_from_those_who_vote(converse):
    """n0 lost its disk, and agent.yaml names two more: what n3 and n4 say, or do not say, is of no account."""
    node = converse(voters=FIVE).open(permitted=False, connected=("n1", "n2"))
    cluster = ("n0", "n1", "n2")
    node.say("n1", TellStanding(3, True, True, cluster))
    assert node.member.outlook.voters == cluster
    node.pass_time(1.1)
    assert {to for to, sent in node.taken() if isinstance(sent.message, AskStanding)} == {"n1", "n2"}
    for peer, term in (("n1", 3), ("n2", 5)):
        node.say(peer, TellStanding(term, True, True, cluster))
    assert node.member.journal.standing.floor == 6
    node.say("n1", append(6, (1, 0), entry(2, 6), commit=2), term=6)
    again = converse(voters=FIVE).open(permitted=False)
    assert again.member.journal.standing.voters == cluster


def test_an_emptied_disk_with_a_shorter_list_never_votes(converse):
    node = converse(voters=("n0", "n1")).open(permitted=False, connected=("n1",))
    node.say("n1", TellStanding(3, True, True, ("n0", "n1", "n2")))
    assert isinstance(node.member.failure, ConsensusError)
    assert node.heard(RequestVote) == []
    with pytest.raises(ConsensusError, match="does not name n2"):
        converse(voters=("n0", "n1")).open(permitted=False)


def test_a_node_that_the_cluster_does_not_count_as_a_voter_waits_outside(converse):
    node = converse().open(permitted=False)
    for peer in ("n1", "n2"):
        node.say(peer, TellStanding(3, True, True, ("n1", "n2")))
    assert node.member.outlook.trouble == "n0 is none of the voters, and waits to be added: hmctl raft add n0"
    assert node.member.outlook.role == "outsider"
    with pytest.raises(FormationFailed):
        node.member.permit("b1")
    node.pass_time(5.0)
    node.say("n1", RequestVote(9, 9, 3))
    assert {type(sent.message) for _, sent in node.taken()} == {AskStanding}
    assert not node.member.is_leader


def test_a_voter_tells_who_votes(converse):
    node = converse().open()
    node.taken()
    node.say("n1", AskStanding())
    assert [told.voters for told in node.heard(TellStanding, "n1")] == [("n0", "n1", "n2")]
