"""hmctl events, as typed: what happened, merged, and followed across restarts and losses."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest
from answering import Cluster
from fleet import NAMES, Fleet, event, replicated

from hmctl import client
from hmctl.actions import agents, following
from hmctl.cli import main
from hmctl.client import Access


@pytest.fixture
def fleet(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet()
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    for name, seconds in (("HOLD", 0.01), ("EVERY", 0.01), ("RETRY", 0.01), ("SOON", 0.0)):
        monkeypatch.setattr(following, name, seconds)
    made.events["node1"] = [event("node1", 1, "/bin/sh", at=1), event("node1", 2, "a -> b established", at=3, kind="tcp")]
    made.events["node2"] = [event("node2", 1, "/bin/ls", at=2, container="db-1")]
    made.state = [replicated(7, "node.ready", "node3", at=2.5), replicated(8, "mute.set", "disk", "muted", at=2.6, author="alice")]
    return made


def words(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()[2:]) for line in capsys.readouterr().out.splitlines()]  # without date and time


def test_everything_by_time(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["events"]) == 0
    assert words(capsys) == [
        "node1/web-1 exec /bin/sh",
        "node2/db-1 exec /bin/ls",
        "node3 node.ready",
        "disk mute.set muted by alice",
        "node1/web-1 tcp a -> b established",
    ]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--kind", "exec"], ["node1/web-1 exec /bin/sh", "node2/db-1 exec /bin/ls"]),
        (["--kind", "node"], ["node3 node.ready"]),
        (["--node", "node2"], ["node2/db-1 exec /bin/ls"]),
        (["--limit", "1"], ["node1/web-1 tcp a -> b established"]),
        (["--since", "2026-11-18T11:06:42.6Z"], ["disk mute.set muted by alice", "node1/web-1 tcp a -> b established"]),
    ],
)
def test_what_is_asked_for_is_shown(options: list[str], shown: list[str], fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["events", *options]) == 0
    assert words(capsys) == shown


def test_json_is_one_document(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.down.add("node3")
    assert main.run(["events", "-o", "json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["events"][0] == {
        "time": "2026-11-18T11:06:41.000Z",
        "kind": "exec",
        "node": "node1",
        "container": "web-1",
        "subject": None,
        "author": None,
        "message": "exec /bin/sh",
        "attributes": {},
    }
    assert (document["events"][3]["subject"], document["events"][3]["author"]) == ("disk", "alice")
    assert [problem["node"] for problem in document["problems"]] == ["node3"]


def test_without_ebpf_the_clusters_events_are_still_told(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.refusing.update(NAMES)
    assert main.run(["events", "--kind", "exec"]) == 4
    capsys.readouterr()
    assert main.run(["events"]) == 3
    out, err = capsys.readouterr()
    assert "node3" in out
    assert err.count("bcc is not installed") == 3
    assert err.count("fix: apt-get install python3-bpfcc") == 3


def test_nobody_there_is_4(fleet: Fleet) -> None:
    fleet.down.update(NAMES)
    assert main.run(["events"]) == 4


def followed(fleet: Fleet, steps: list[Callable[[], None]], *options: str) -> int:
    """Each long poll of node1 takes the next step; when there is none left, it is Ctrl-C."""
    left = list(steps)

    def poll(name: str) -> None:
        if name != "node1":
            return
        if left:
            left.pop(0)()
        else:
            signal.raise_signal(signal.SIGINT)

    fleet.on_poll = poll
    return main.run(["events", "-f", *options])


def test_following_goes_on_where_the_history_ended_and_ctrl_c_is_its_end(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    def news() -> None:
        fleet.events["node1"].append(event("node1", 3, "/bin/new", at=9))
        fleet.state = [*fleet.state, replicated(11, "node.down", "node2", "silent", at=9.5)]
        fleet.index = 11

    wait = [lambda: None] * 3
    assert followed(fleet, [news, *wait], "-n", "1") == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()[2:]) for line in out.splitlines()]
    assert lines[0] == "node1/web-1 tcp a -> b established"
    assert sorted(lines[1:]) == ["node1/web-1 exec /bin/new", "node2 node.down silent"]
    assert "interrupted" not in err


def test_what_was_lost_is_said_in_its_place(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    def burst() -> None:
        fleet.events["node1"] = [event("node1", 15, "/bin/late", at=9)]
        fleet.lost["node1"] = 12

    followed(fleet, [burst, lambda: None, lambda: None], "-n", "0", "-o", "json")
    gap, late = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (gap["kind"], gap["message"], gap["node"], gap["attributes"]) == ("lost", "12 events lost", "node1", {"count": "12"})
    assert late["message"] == "exec /bin/late"


def test_an_agents_restart_is_said_and_its_new_events_come(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    def restart() -> None:
        fleet.journal["node1"] = 2
        fleet.events["node1"] = [event("node1", 1, "/bin/anew", at=9)]

    def die() -> None:  # the old agent's long poll ends with its connection
        fleet.down.add("node1")
        restart()

    steps: list[Callable[[], None]] = [die, lambda: None, lambda: None]

    def poll(name: str) -> None:
        if name == "node1" and steps:
            steps.pop(0)()
        elif name == "node1":
            signal.raise_signal(signal.SIGINT)
        elif [node for node, _ in fleet.connected].count("node1") > 1:  # it was tried again
            fleet.down.discard("node1")

    fleet.on_poll = poll
    assert main.run(["events", "-f", "-n", "0", "--kind", "exec"]) == 0
    out, err = capsys.readouterr()
    assert "/bin/anew" in out
    said = [line for line in err.splitlines() if "node1" in line]
    assert said == [
        "warning: node1: nothing listens there any more",
        "node1: answers again",
        "node1: its agent was restarted; what happened meanwhile may be missing",
    ]


def test_the_leader_is_asked_for_the_state_and_another_when_it_is_gone(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    def lose_the_leader() -> None:
        fleet.down.add("node3")
        fleet.state = [*fleet.state, replicated(12, "node.down", "node3", "silent", at=9)]
        fleet.index = 12

    fleet.leader = "node3"
    wait = [lambda: None] * 4
    followed(fleet, [lambda: None, lose_the_leader, *wait], "-n", "0", "--node", "node1", "--node", "node3")
    assert words(capsys) == ["node3 node.down silent"]


def test_an_unknown_node_or_time_is_a_usage_error(fleet: Fleet) -> None:
    assert main.run(["events", "--node", "nod1"]) == 2
    assert main.run(["events", "--since", "soon"]) == 2
    assert fleet.connected == []
