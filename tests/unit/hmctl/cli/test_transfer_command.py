"""hmctl raft transfer, as typed: who leads, who will, and what is said when it does not come to that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answering import NAMES, Cluster, node_report
from msgspec.structs import replace

from hmcore import api
from hmcore.errors import CallTimeout, HyperMeshError, NotLeader, TransferFailed
from hmcore.records import RaftReport
from hmctl import client
from hmctl.actions import agents
from hmctl.cli import main
from hmctl.client import Access


class Fleet:
    """The control nodes: what each reports, and what the leader does when it is asked to hand over."""

    def __init__(self) -> None:
        self.reports = {name: node_report(name) for name in NAMES}
        self.outcome: api.TransferReply | HyperMeshError = api.TransferReply(leader="node2", term=4, seconds=0.0512, index=12)
        self.asked: list[tuple[str, str]] = []

    async def connect(self, host: Any, access: Any, **given: Any) -> Agent:
        return Agent(self, host.name)


class Agent:
    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name

    async def report(self, *, members: bool = True) -> Any:
        return self.fleet.reports[self.name]

    async def call(self, method: Any, request: api.TransferRequest, *, timeout: float) -> api.TransferReply:
        assert method is api.TRANSFER
        self.fleet.asked.append((self.name, request.to))
        if isinstance(self.fleet.outcome, HyperMeshError):
            raise self.fleet.outcome
        return self.fleet.outcome

    async def close(self) -> None:
        return None


@pytest.fixture
def fleet(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet()
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    return made


def test_it_is_shown_asked_for_and_reported(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["raft", "transfer"]) == 2  # stdin is no terminal: nobody can answer
    assert fleet.asked == []
    assert "node1 leads, in term 3; node2 or node3, whichever holds most of the log will" in " ".join(capsys.readouterr().err.split())
    assert main.run(["raft", "transfer", "--yes"]) == 0
    assert fleet.asked == [("node1", "")]
    assert capsys.readouterr().out.strip() == "node2 leads  in term 4, after 0.05 s"
    assert main.run(["raft", "transfer", "node3", "--yes", "-o", "json"]) == 0
    assert fleet.asked[1:] == [("node1", "node3")]
    told = json.loads(capsys.readouterr().out)
    assert told == {"before": "node1", "leader": "node2", "term": 4, "changed": True, "seconds": 0.051, "index": 12}


def test_whoever_leads_already_is_left_to_it(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["raft", "transfer", "node1"]) == 0
    assert capsys.readouterr().out.strip() == "node1 leads already; nothing was changed"
    assert fleet.asked == []


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (TransferFailed("node2 did not take over within 2.0 s; node1 goes on leading", host="node1"), "node1 goes on leading"),
        (NotLeader("node1 does not lead", leader="node3"), "the leadership has just changed: node3 leads"),
        (NotLeader("node1 does not lead"), "the leadership has just changed: nobody is known to lead"),
        (CallTimeout("no answer within 15 s"), "whether it was handed over is not known: no answer within 15 s"),
    ],
)
def test_what_came_of_it_is_said(fleet: Fleet, outcome: HyperMeshError, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.outcome = outcome
    assert main.run(["raft", "transfer", "--yes"]) == 1
    assert words in " ".join(capsys.readouterr().err.split())
    assert len(fleet.asked) == 1  # another try could take the leadership from the next one


def test_who_cannot_lead_is_refused_before_anybody_is_asked(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["raft", "transfer", "node9", "--yes"]) == 2
    assert "node9 is no voter: it cannot lead" in capsys.readouterr().err
    alone = RaftReport(role="leader", leader="node1", term=3, voters=["node1"], reachable_voters=["node1"])
    fleet.reports = {name: replace(report, raft=alone) for name, report in fleet.reports.items()}
    assert main.run(["raft", "transfer", "--yes"]) == 2
    assert "node1 is the only voter" in capsys.readouterr().err
    nobody = replace(alone, role="candidate", leader=None)
    fleet.reports = {name: replace(report, raft=nobody) for name, report in fleet.reports.items()}
    assert main.run(["raft", "transfer", "--yes"]) == 1
    assert "nobody leads at present" in capsys.readouterr().err
    assert fleet.asked == []
