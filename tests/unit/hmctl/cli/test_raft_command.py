"""hmctl raft ls, add and rm, as typed: what is shown, asked, refused, and followed until it is so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answering import NAMES, Cluster

from hmcore import api
from hmcore.errors import ChangeUnfinished, HyperMeshError, NoQuorum, NotLeader, PeerUnreachable
from hmcore.voters import CONFIGURE, RAFT, ConfigureRequest, FollowerStatus, RaftStatus
from hmctl import client
from hmctl.actions import agents, configure
from hmctl.actions.voters import VoterView, works
from hmctl.cli import main
from hmctl.client import Access


class Fleet:
    """Control nodes whose leader carries changes out, each call one step further: learner, voter."""

    def __init__(self, *voters: str) -> None:
        self.voters = list(voters)
        self.learners: list[str] = []
        self.leader: str | None = voters[0]
        self.level = 2
        self.down: set[str] = set()
        self.removed: set[str] = set()
        self.damaged: set[str] = set()
        self.asked: list[tuple[str, str, str]] = []
        self.refusal: HyperMeshError | None = None
        self.stuck = False

    async def connect(self, host: Any, access: Any, **given: Any) -> Agent:
        if host.name in self.down:
            raise PeerUnreachable("no answer within 2 s", host=host.name)
        return Agent(self, host.name)

    def status(self, name: str) -> RaftStatus:
        leads, silent = name == self.leader, self.down | self.damaged
        others = sorted({*self.voters, *self.learners} - {name})
        follows = "learner" if name in self.learners else "follower" if name in self.voters else "outsider"
        if name in self.damaged:
            trouble = f"checksum at offset 8; to mend it: hmctl raft reseed {name}"
            lost: Any = {"index": 0, "term": 0, "leader": None, "level": 0, "voters": self.voters, "learners": []}
            return RaftStatus(name=name, role="damaged", knows=2, trouble=trouble, **lost)
        return RaftStatus(
            name=name,
            role="leader" if leads else follows,
            index=38,
            term=3,
            leader=self.leader,
            level=self.level,
            knows=2,
            voters=self.voters,
            learners=self.learners,
            configured=17,
            last_index=40,
            hash="cafe",
            removed=name in self.removed,
            trouble=f"{name} was removed from the voters" if name in self.removed else "",
            followers=[
                FollowerStatus(
                    name=each, match=0 if each in silent else 39, answered=None if each in silent else 0.04, connected=each not in silent
                )
                for each in (others if leads else ())
            ],
        )

    def configure(self, name: str, request: ConfigureRequest) -> api.ChangeReply:
        self.asked.append((name, request.add, request.remove))
        if self.refusal is not None:
            raise self.refusal
        if name != self.leader:
            raise NotLeader(f"{name} does not lead", leader=self.leader)
        if request.add and request.add not in self.learners:
            self.learners = [request.add]
            raise ChangeUnfinished(f"{request.add} is not a voter after 2 s: {request.add} is a learner, and holds 1 of 40 log entries")
        if request.add:
            if self.stuck:
                raise ChangeUnfinished(f"{request.add} is not a voter after 2 s: {request.add} is a learner, and does not answer")
            self.learners = []
            self.voters = sorted([*self.voters, request.add])
        elif request.remove == self.leader:
            self.leader = next(voter for voter in self.voters if voter != self.leader)
            raise NotLeader(f"{request.remove} has handed the leadership over to {self.leader}", leader=self.leader)
        else:
            self.voters.remove(request.remove)
        return api.ChangeReply(index=41, changed=True)

    def state(self) -> api.StateReply:
        return api.StateReply(index=40, leader=self.leader, term=3, nodes=[])


class Agent:
    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name

    async def state(self) -> api.StateReply:
        return self.fleet.state()

    async def call(self, method: Any, request: Any, *, timeout: float | None = None) -> Any:
        if method is RAFT:
            return self.fleet.status(self.name)
        assert method is CONFIGURE
        return self.fleet.configure(self.name, request)

    async def close(self) -> None:
        return None


@pytest.fixture
def fleet(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet(*NAMES)
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    return made


def words(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    return " ".join((said.out + said.err).split())


def test_ls_shows_who_votes_and_how_far_each_is(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.voters, fleet.learners = ["node1", "gone9"], ["node2"]
    fleet.removed, fleet.down = {"node3"}, {"gone9"}
    assert main.run(["raft", "ls"]) == 0
    said = words(capsys)
    assert "node1 voter leader 40 0 -" in said
    assert "node2 learner learner 39 1 0.0 s ago" in said
    assert "node3 removed outsider 40 - - node3 was removed from the voters" in said
    assert "gone9 voter no answer - - -" in said
    assert "2 voters, of which 1 can be counted on: too few to decide anything; term 3" in said
    assert main.run(["raft", "ls", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["leader"], found["voters"], found["learners"], found["may_fail"]) == ("node1", ["node1", "gone9"], ["node2"], 0)
    assert {node["name"]: node["role"] for node in found["nodes"]} == {
        "gone9": "voter",
        "node1": "voter",
        "node2": "learner",
        "node3": "removed",
    }


def test_ls_without_a_leader_says_whose_word_it_is(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.leader, fleet.down = None, {"node1", "node2"}
    assert main.run(["raft", "ls"]) == 0
    said = words(capsys)
    assert "this is what node3 knew last" in said
    assert "node1 voter no answer - - - no answer within 2 s" in said


def test_add_says_what_it_means_and_follows_it_until_the_node_votes(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.voters = ["node1", "node2"]
    assert main.run(["raft", "add", "node3"]) == 2  # stdin is no terminal: nobody can answer
    assert fleet.asked == []
    assert "now 2 voters: none may fail; then 3 voters: 1 may fail" in words(capsys)
    assert main.run(["raft", "add", "node3", "--yes", "-o", "json"]) == 0
    said = capsys.readouterr()
    assert fleet.asked == [("node1", "node3", "")] * 2
    assert "node3: catching up as a learner" in said.err
    done = json.loads(said.out)
    assert done.pop("seconds") >= 0
    assert done == {
        "node": "node3",
        "action": "add",
        "changed": True,
        "before": ["node1", "node2"],
        "voters": ["node1", "node2", "node3"],
        "may_fail": 1,
        "leader": "node1",
        "index": 41,
    }
    assert main.run(["raft", "add", "node3"]) == 0
    assert "node3 votes already; nothing was changed" in words(capsys)
    assert len(fleet.asked) == 2


def test_add_that_does_not_end_in_time_says_why_and_that_it_goes_on(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.voters, fleet.stuck = ["node1", "node2"], True
    assert main.run(["raft", "add", "node3", "--yes", "--timeout", "0.1"]) == 1
    said = words(capsys)
    assert "node3 is a learner, and does not answer; it goes on" in said
    assert "after 0.1 s" in said


def test_rm_of_the_leader_hands_over_first_and_goes_on_at_the_next(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["raft", "rm", "node1", "--yes"]) == 0
    said = words(capsys)
    assert "node1 leads: it hands over to another voter first" in said
    assert "now 3 voters: 1 may fail; then 2 voters: none may fail" in said
    assert "2 voters tolerate no more failures than 1" in said
    assert "node1 is no voter any more" in said
    assert "give node1 the role worker" in said
    assert fleet.asked == [("node1", "", "node1"), ("node2", "", "node1")]
    assert fleet.voters == ["node2", "node3"]
    assert main.run(["raft", "rm", "node1"]) == 0
    assert "node1 is no voter; nothing was changed" in words(capsys)


def test_rm_takes_the_vote_of_a_machine_that_is_in_no_inventory_any_more(fleet: Fleet) -> None:
    fleet.voters.append("gone9")
    assert main.run(["raft", "rm", "gone9", "--yes"]) == 0
    assert fleet.voters == list(NAMES)


@pytest.mark.parametrize(
    ("arguments", "change", "status", "why"),
    [
        (["add", "node9"], {}, 2, "no host of the inventory is called node9"),
        (["add", "node3"], {"voters": ["node1", "node2"], "down": {"node3"}}, 1, "it does not answer, and could not catch up"),
        (["add", "node3"], {"voters": ["node1", "node2"], "level": 1}, 1, "from feature level 2 on; the cluster is at 1"),
        (["add", "node3"], {"leader": None}, 1, "nobody leads at present"),
        (["rm", "node9"], {}, 2, "node9 is none of the voters (node1, node2 and node3)"),
        (["rm", "node1"], {"voters": ["node1"]}, 2, "node1 is the last voter"),
        (["rm", "node2"], {"down": {"node3"}}, 1, "without node2, 2 of 2 voters would be needed, and node3 does not answer"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(
    fleet: Fleet, arguments: list[str], change: dict[str, Any], status: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in change.items():
        setattr(fleet, name, value)
    assert main.run(["raft", *arguments, "--yes"]) == status
    assert why in words(capsys)
    assert fleet.asked == []


def test_who_is_silent_but_not_needed_may_be_removed(fleet: Fleet) -> None:
    fleet.down = {"node3"}
    assert main.run(["raft", "rm", "node3", "--yes"]) == 0
    assert fleet.voters == ["node1", "node2"]


def test_what_the_leader_refuses_is_said(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(configure, "CALL", 0.1)
    fleet.refusal = NoQuorum("without node2, 2 of 2 voters would be needed; 1 answer (node3: no answer)")
    assert main.run(["raft", "rm", "node2", "--yes", "--timeout", "0.1"]) == 1
    assert "1 answer (node3: no answer)" in words(capsys)


def test_a_worker_is_told_how_it_becomes_a_voter(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import os
    from pathlib import Path

    path = Path(os.environ["HMCTL_INVENTORY"])
    path.write_text(path.read_text() + "  - {name: node4, address: 10.0.0.4, role: worker}\n")
    assert main.run(["raft", "add", "node4", "--yes"]) == 2
    assert "give it the role control in the inventory, then: hmctl deploy" in words(capsys)
    assert fleet.asked == []


def test_a_damaged_voter_is_named_with_what_mends_it_and_counts_as_failed(fleet, capsys):
    fleet.damaged = {"node3"}
    assert main.run(["raft", "ls", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["working"], found["may_fail"], found["may_fail_now"], found["index"]) == (["node1", "node2"], 1, 0, 38)
    seen = next(node for node in found["nodes"] if node["name"] == "node3")
    assert "hmctl raft reseed node3" in seen["trouble"]
    assert main.run(["raft", "ls"]) == 0
    assert "3 voters, 2 of them work: none more may fail" in words(capsys)


@pytest.mark.parametrize(
    ("state", "answered", "counts"), [("follower", 4.0, True), (None, 0.4, True), (None, 1.1, False), ("follower", 6.0, False)]
)
def test_one_that_does_not_answer_us_must_have_been_heard_just_now(state, answered, counts):
    told: Any = {"last_index": 9, "lag": 0, "hash": None, "index": None, "trouble": None}
    assert works(VoterView(name="node1", role="voter", leader=False, state=state, answered=answered, **told), led=True) is counts


def test_a_leader_that_never_heard_a_voter_does_not_say_how_far_it_is(fleet, capsys):
    fleet.down = {"node3"}
    assert main.run(["raft", "ls", "-o", "json"]) == 0
    seen = next(node for node in json.loads(capsys.readouterr().out)["nodes"] if node["name"] == "node3")
    assert (seen["last_index"], seen["lag"]) == (None, None)


def test_a_vote_is_not_taken_where_a_damaged_voter_would_be_needed(fleet, capsys):
    fleet.damaged = {"node3"}
    assert main.run(["raft", "rm", "node1", "--yes"]) == 1
    said = words(capsys)
    assert "without node1, 2 of 2 voters would be needed, and node3 is damaged" in said
    assert "hmctl raft reseed node3" in said
    assert fleet.asked == []
    assert main.run(["raft", "rm", "node3", "--yes"]) == 0
