"""hmctl flows, as typed: who talks to whom, by name, and how it ends."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from answering import Cluster
from memory_fleet import NAMES, Fleet, flow

from hmctl import client
from hmctl.actions import agents
from hmctl.cli import main
from hmctl.client import Access, Via


@pytest.fixture
def fleet(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet()
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    made.flows["node1"] = [
        flow("node1", "client", "10.0.0.2", bytes_in=903_500, bytes_out=2_900, packets_in=600, packets_out=40, connections_out=3),
        flow("node1", "client", "203.0.113.7", bytes_in=10, connections_out=9),
    ]
    made.flows["node2"] = [
        flow("node2", "web-1", "172.17.0.3", service="shop/web", bytes_in=2_900, bytes_out=903_500, connections_in=3, connections_out=1),
    ]
    made.names["node2"] = {"172.17.0.3": "db-1"}
    made.names["node1"] = {"172.17.0.3": "somebody-else"}
    return made


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()[1:]]


def test_the_largest_comes_first_and_peers_have_names_where_somebody_knows_them(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["flows"]) == 0
    out, err = capsys.readouterr()
    header, *lines = out.splitlines()
    assert header.split() == ["CONTAINER", "SERVICE", "PEER", "PROTO", "IN", "OUT", "PACKETS", "CONNECTIONS"]
    assert [" ".join(line.split()) for line in lines] == [
        "node1/client client node2 tcp 903.5 kB 2.9 kB 640 3 out",
        "node2/web-1 shop/web node2/db-1 tcp 2.9 kB 903.5 kB 0 3 in 1 out",
        "node1/client client 203.0.113.7 tcp 10 B 0 B 0 9 out",
    ]
    assert err == ""


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--sort", "connections"], ["203.0.113.7", "node2/db-1", "node2"]),
        (["--container", "web-1"], ["node2/db-1"]),
        (["--container", "node1/*"], ["node2", "203.0.113.7"]),
        (["--container", "node2/client"], []),
        (["--service", "shop/*"], ["node2/db-1"]),
        (["--node", "node2"], ["node2/db-1"]),
        (["--limit", "1"], ["node2"]),
        (["--limit", "0"], ["node2", "node2/db-1", "203.0.113.7"]),
    ],
)
def test_what_is_asked_for_is_shown(words: list[str], shown: list[str], fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["flows", *words]) == 0
    assert [row[2] for row in rows(capsys)] == shown


def test_only_the_nodes_that_are_named_are_asked(fleet: Fleet) -> None:
    main.run(["flows", "--node", "node2"])
    assert fleet.connected == [("node2", Via.QUIC)]
    assert main.run(["flows", "--node", "nod2"]) == 2


def test_a_node_that_cannot_be_reached_is_named_and_the_others_are_shown(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.down.add("node2")
    fleet.refusing.add("node3")
    assert main.run(["flows", "-o", "json"]) == 3
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert len(document["flows"]) == 2
    assert document["problems"] == [
        {"node": "node2", "error": "no answer within 2 s", "fix": None},
        {"node": "node3", "error": "bcc is not installed", "fix": "apt-get install python3-bpfcc"},
    ]
    assert "warning: node2: no answer within 2 s" in err
    assert "fix: apt-get install python3-bpfcc" in err


def test_when_nobody_answers_ssh_is_tried_and_then_it_is_4(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.down.update(NAMES)
    assert main.run(["flows"]) == 4
    assert {via for _, via in fleet.connected} == {Via.QUIC, Via.SSH}
    assert "no flows" not in capsys.readouterr().err  # nobody knows that
    fleet.down.clear()
    assert main.run(["flows", "--container", "nobody"]) == 0
    assert "no flows" in capsys.readouterr().err


def test_following_shows_what_moved_in_rates_until_ctrl_c(
    fleet: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0

    async def connect(*args: Any, **more: Any) -> Any:
        agent = await fleet.connect(*args, **more)
        if agent.name == "node1":
            monkeypatch.setattr(agent, "call", counting(agent.call))
        return agent

    def counting(call: Any) -> Any:
        async def counted(*args: Any, **more: Any) -> Any:
            nonlocal rounds
            rounds += 1
            if rounds == 2:
                fleet.flows["node1"] = [flow("node1", "client", "10.0.0.2", bytes_in=1_003_500, bytes_out=2_900, connections_out=4)]
                fleet.down.add("node3")
            if rounds == 3:
                fleet.down.clear()
            if rounds == 4:
                signal.raise_signal(signal.SIGINT)
            return await call(*args, **more)

        return counted

    monkeypatch.setattr(agents, "connect", connect)
    assert main.run(["flows", "-f", "--interval", "0.2", "-o", "json"]) == 0
    out, err = capsys.readouterr()
    (moved,) = [json.loads(line) for line in out.splitlines()]
    assert (moved["node"], moved["container"], moved["peer_name"]) == ("node1", "client", "node2")
    assert moved["bytes_in_per_second"] == pytest.approx(1_003_500 / moved["seconds"], rel=0.01)  # packets went back: counted anew
    assert "warning: node3: nothing listens there any more" in err
    assert "node3 answers again" in err
