"""hmctl events, as typed: what happened, merged, and followed across restarts and losses."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable

import pytest
from answering import Cluster
from memory_fleet import NAMES, Fleet, event, replicated

from hmcore.records import Instance
from hmctl import client
from hmctl.actions import agents, following
from hmctl.actions.events import FAMILIES, NODE_KINDS
from hmctl.cli import main
from hmctl.client import Access


@pytest.fixture
def fleet(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet()
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    for name, seconds in (("HOLD", 0.01), ("EVERY", 0.01), ("RETRY", 0.01), ("SOON", 0.0)):
        monkeypatch.setattr(following, name, seconds)
    made.events["node1"] = [
        event("node1", 1, "/bin/sh", at=1),
        event("node1", 2, "a -> b established", at=3, kind="tcp", new="established"),
    ]
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


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["-n", "2"], [239, 240]),
        (["-n", "2", "--kind", "exec"], [237, 239]),
        (["-n", "2", "--kind", "tcp"], [238, 240]),
        (["-n", "2", "--kind", "tcp,exec"], [239, 240]),
        (["-n", "2", "--since", "2026-11-18T11:06:40Z"], [239, 240]),
        (["-n", "2", "--since", "2026-11-18T11:08:20Z", "--kind", "exec"], [237, 239]),  # from 100 on
        (["-n", "30", "--since", "2026-11-18T11:10:35Z", "--kind", "exec"], [235, 237, 239]),
        (["--since", "2026-11-18T11:10:35Z"], [235, 236, 237, 239, 240]),
        (["-n", "3"], [237, 239, 240]),  # 238 is a step between a connection's beginning and its end
        (["-n", "0", "--kind", "exec"], list(range(1, 240, 2))),
        (["-n", "0", "--since", "2026-11-18T11:10:35Z", "--kind", "tcp"], [236, 238, 240]),
    ],
)
@pytest.mark.parametrize("page", [2, 7, 1000])
def test_the_latest_of_what_matches(
    options: list[str], numbers: list[int], page: int, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "PAGE", page)
    monkeypatch.setattr(following, "PAGES", 20 if page == 1000 else 240)
    fleet.state = []
    fleet.events = {name: [] for name in NAMES}
    states = {0: "closed", 2: "fin-wait-1"}  # of every other connection, only the step between
    fleet.events["node1"] = [
        event("node1", number, str(number), at=number)
        if number % 2
        else event("node1", number, str(number), at=number, kind="tcp", new=states[number % 4])
        for number in range(1, 241)
    ]
    assert main.run(["events", *options]) == 0
    assert [int(line.split()[-1]) for line in capsys.readouterr().out.splitlines()] == numbers


def test_of_connections_all_steps_are_told_on_demand_and_to_machines(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.events["node1"].append(event("node1", 3, "a -> b fin-wait-1", at=4, kind="tcp", new="fin-wait-1"))
    for options, told in (([], False), (["--kind", "tcp"], True), (["-v"], True), (["-o", "json"], True)):
        assert main.run(["events", *options]) == 0
        assert ("fin-wait-1" in capsys.readouterr().out) is told


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("exce", "did you mean exec"),
        ("foo", "kinds are exec, tcp, cluster, voters, state, node,"),
        ("exec,node.dwon", "did you mean node.down"),
        ("node.zzzzzzzzzz", "kinds are node.joined"),
        ("nod", "did you mean node"),
    ],
)
def test_a_kind_that_is_none_is_refused_with_those_near_it(kind: str, fix: str, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["events", "--kind", kind]) == 2
    assert fix in capsys.readouterr().err
    assert fleet.connected == []


@pytest.mark.parametrize("command", ["events", "flows"])
def test_an_unknown_container_is_said_with_those_near_it(command: str, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.instances = [
        Instance(id="node2/web-2", service="shop/web", node="node2", address=""),
        Instance(id="node1/consensus", service="hypermesh/consensus", node="node1", address=""),
    ]
    assert main.run([command, "--container", "wed-2"]) == 0
    said = capsys.readouterr().err
    assert "no container is known that is called wed-2" in said
    assert "did you mean web-2?" in said
    assert main.run([command, "--container", "consensus"]) == 0
    assert "no container is known that is called consensus" in capsys.readouterr().err
    assert main.run([command, "--container", "node2/web-2"]) == 0
    assert "no container is known" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["events", "flows"])
def test_nothing_at_all_does_not_sound_as_if_it_had_been_narrowed(command: str, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.events, fleet.state = {name: [] for name in NAMES}, []
    assert main.run([command]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "asked for" not in said
    assert "hypermesh.cluster" in said


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


def test_help_names_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["events", "--help"]) == 0
    words = set(re.findall(r"[a-z]+", capsys.readouterr().out))
    assert {*NODE_KINDS, *FAMILIES} <= words


def test_an_unknown_node_or_time_is_a_usage_error(fleet: Fleet) -> None:
    assert main.run(["events", "--node", "nod1"]) == 2
    assert main.run(["events", "--since", "soon"]) == 2
    assert fleet.connected == []
