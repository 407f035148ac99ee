"""hmctl logs, as typed: who is read, what is shown, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from answering import Cluster

from hmcore.config.inventory import Host
from hmcore.errors import HyperMeshError, Unreachable
from hmctl.actions.journal import Entry, Lost, Request, Show
from hmctl.cli import logs, main

BEGIN = 1_795_000_000_000_000


@dataclass
class Journals:
    """Stands for the reading of hosts."""

    entries: list[Entry] = field(default_factory=list)
    failures: list[HyperMeshError] = field(default_factory=list)
    read: list[tuple[list[str], Request]] = field(default_factory=list)
    cursors: dict[str, str] | None = None
    known: frozenset[str] = frozenset()

    async def history(self, hosts: Sequence[Host], connector: object, request: Request, show: Show, lost: Lost, *, in_turns: bool) -> None:
        assert not in_turns
        self.read.append(([host.name for host in hosts], request))
        for failure in self.failures:
            lost(failure)
        for entry in self.entries:
            show(entry)

    async def follow(
        self, hosts: Sequence[Host], connector: object, cursors: dict[str, str], show: Show, lost: Lost, *, known: frozenset[str]
    ) -> None:
        self.cursors, self.known = dict(cursors), known
        raise KeyboardInterrupt


@pytest.fixture
def journals(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Journals:
    made = Journals([Entry(BEGIN, "node1", 6, "started", "c1"), Entry(BEGIN + 1000, "node2", 3, "failed\n  at x", "c2")])
    monkeypatch.setattr(logs, "history", made.history)
    monkeypatch.setattr(logs, "follow", made.follow)
    return made


def test_lines_bear_their_time_and_node(journals: Journals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main.run(["logs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:] for line in lines[:2]] == [["node1", "started"], ["node2", "failed"]]
    assert lines[2].endswith("  at x")
    assert lines[2].index("  at") == lines[1].index("failed")
    assert journals.read == [(["node1", "node2", "node3"], Request(None, 100))]


def test_json_is_a_document_a_line(journals: Journals, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["logs", "node2", "node1", "--since", "@1795000000", "-o", "json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert documents[0] == {"time": "2026-11-18T11:06:40.000000Z", "node": "node1", "priority": 6, "message": "started"}
    assert documents[1]["message"] == "failed\n  at x"
    assert journals.read == [(["node2", "node1"], Request(1_795_000_000.0, None))]


def test_following_begins_where_the_history_ended(journals: Journals) -> None:
    assert main.run(["logs", "-f", "--tail", "5"]) == 0
    assert journals.cursors == {"node1": "c1", "node2": "c2"}
    assert journals.read[0][1] == Request(None, 5)
    main.run(["logs", "-f"])
    assert journals.read[1][1] == Request(None, 10)


def test_a_host_that_was_lost_is_said_so_once(journals: Journals) -> None:
    journals.failures = [Unreachable("no route to it", host="node3")]
    main.run(["logs", "-f"])
    assert journals.known == {"node3"}


@pytest.mark.parametrize(("lost", "code"), [(["node3"], 3), (["node1", "node2", "node3"], 1)])
def test_hosts_that_cannot_be_read_are_named(lost: list[str], code: int, journals: Journals, capsys: pytest.CaptureFixture[str]) -> None:
    journals.failures = [Unreachable("no route to it", host=name) for name in lost]
    assert main.run(["logs"]) == code
    assert capsys.readouterr().err.splitlines() == [f"error: {name}: no route to it" for name in lost]


def test_an_unknown_node_is_a_usage_error(journals: Journals) -> None:
    assert main.run(["logs", "nod1"]) == 2
    assert journals.read == []


@pytest.mark.parametrize("words", [["logs"], ["events"]])
def test_what_is_no_time_is_a_usage_error_in_one_way(words: list[str], journals: Journals, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*words, "--since", "yesterdy"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "error: --since yesterdy: that is no time"
    assert journals.read == []
