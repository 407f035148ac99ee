"""The voters changed at an operator's word: where the leader is, of nodes that can vote; and how the log stands, on every node."""

from __future__ import annotations

import pytest

from hmcore.api import ChangeReply
from hmcore.errors import InvalidRequest, NoQuorum, NotLeader
from hmcore.pki import Identity, Kind
from hmcore.records import Node, RaftReport, Role
from hmcore.voters import LONGEST_WAIT, ConfigureRequest, RaftStatus, may_fail
from node_agent.platform.voting import Voting

OPERATOR = Identity("hm-a", Kind.OPERATOR, "ann")
REPORT = RaftReport(role="leader", leader="node1", term=3, voters=["node1", "node2"], learners=["node5"], level=2, knows=2)


def node(name: str, role: Role) -> Node:
    return Node(name=name, address="10.0.0.1", port=7443, role=role, release="r1")


class View:
    index = 7
    nodes = {name: node(name, Role.WORKER if name == "node4" else Role.CONTROL) for name in ("node1", "node2", "node3", "node4")}  # noqa: RUF012

    def __init__(self, leader: str | None = "node1") -> None:
        self.leader = leader
        self.no_quorum: NoQuorum | None = None

    def report(self) -> RaftReport:
        return REPORT


class Voice:
    def __init__(self, *, leads: bool = True, status: RaftStatus | None = None) -> None:
        self.is_leader = leads
        self.said = status
        self.asked: list[object] = []

    async def change_voters(self, *, add: str, remove: str, request_id: str, timeout: float, author: str) -> int:
        self.asked.append((add, remove, request_id, timeout, author))
        return 9

    def status(self) -> RaftStatus | None:
        return self.said


def voting(voice: Voice | None, view: View | None = None) -> Voting:
    return Voting("node1", view or View(), voice)  # type: ignore[arg-type]


async def test_the_leader_carries_it_out_in_the_operators_name():
    voice = Voice()
    assert await voting(voice).configure(ConfigureRequest(id="request-1", add="node3", wait=4.0), OPERATOR) == ChangeReply(
        index=9, changed=True
    )
    assert await voting(voice).configure(ConfigureRequest(id="request-2", remove="node2", wait=1e9), OPERATOR) == ChangeReply(
        index=9, changed=True
    )
    assert voice.asked == [
        ("node3", "", "operator/ann/request-1", 4.0, "ann"),
        ("", "node2", "operator/ann/request-2", LONGEST_WAIT, "ann"),
    ]


@pytest.mark.parametrize("request_", [{"add": "node2"}, {"remove": "node3"}])
async def test_what_was_so_before_is_no_change(request_):
    assert not (await voting(Voice()).configure(ConfigureRequest(id="request-1", **request_), OPERATOR)).changed


async def test_a_learner_is_not_yet_a_voter_and_may_be_given_up():
    assert (await voting(Voice()).configure(ConfigureRequest(id="request-1", remove="node5"), OPERATOR)).changed


async def test_whoever_does_not_lead_says_who_does():
    for voice in (None, Voice(leads=False)):
        with pytest.raises(NotLeader) as caught:
            await voting(voice, View("node2")).configure(ConfigureRequest(id="request-1", add="node3"), OPERATOR)
        assert caught.value.leader == "node2"
    view = View(None)
    view.no_quorum = NoQuorum("no quorum: 1 of 3 voters reachable")
    with pytest.raises(NoQuorum):
        await voting(Voice(leads=False), view).configure(ConfigureRequest(id="request-1", add="node3"), OPERATOR)


@pytest.mark.parametrize(
    ("name", "why"),
    [("node4", "node4 is a worker: it keeps no log, and cannot vote"), ("node33", "no node is called 'node33'; did you mean node3")],
)
async def test_who_would_be_a_learner_for_ever_is_refused(name, why):
    voice = Voice()
    with pytest.raises(InvalidRequest, match=why):
        await voting(voice).configure(ConfigureRequest(id="request-1", add=name), OPERATOR)
    with pytest.raises(InvalidRequest, match="a request's id"):
        await voting(voice).configure(ConfigureRequest(id="?", add="node3"), OPERATOR)
    assert voice.asked == []


async def test_every_node_tells_how_its_log_stands():
    own = RaftStatus(name="node1", role="leader", index=7, term=3, leader="node1", level=2, knows=2, voters=["node1"], learners=[])
    assert voting(Voice(status=own)).status() == own
    for voice in (None, Voice()):  # a worker, and one whose log is not open
        said = voting(voice).status()
        assert (said.name, said.index, said.term, said.voters, said.learners) == ("node1", 7, 3, ["node1", "node2"], ["node5"])


def test_how_many_may_fail():
    assert [may_fail(voters) for voters in range(7)] == [0, 0, 0, 1, 1, 2, 2]
