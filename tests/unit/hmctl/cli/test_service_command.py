"""hmctl service, as typed: a node and one of its instances in maintenance at once; addresses that only their node reaches."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from answering import Cluster
from msgspec.structs import replace

from hmcore import api
from hmcore.records import Instance, InstanceHealth, Maintenance
from hmctl import client
from hmctl.actions import change as changes
from hmctl.actions import service
from hmctl.actions.service import Seen
from hmctl.cli import main
from hmctl.client import Access

INSTANCES = [
    Instance(id=f"{node}/{name}", service=f"shop/{name}", node=node, address=f"172.17.0.{place}", port=80, health=InstanceHealth.HEALTHY)
    for node in ("node1", "node2")
    for place, name in enumerate("abc", start=2)
]


@pytest.fixture
def maintained(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[Maintenance]:
    made: list[Maintenance] = []

    async def look(*given: Any, **more: Any) -> Seen:
        return Seen(told_by="node1", leader=True, reply=api.RegistryReply(index=1, instances=INSTANCES, maintenance=made))

    async def change(*given: Any, **more: Any) -> api.ChangeReply:
        return api.ChangeReply(index=7, changed=True)

    monkeypatch.setattr(service, "look", look)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    monkeypatch.setattr(changes, "change", change)
    return made


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return " ".join(f"{out} {err}".split())


def test_an_instance_that_is_out_because_of_its_node(maintained: list[Maintenance], capsys: pytest.CaptureFixture[str]) -> None:
    maintained.append(Maintenance(target="node2/"))
    assert main.run(["service", "maintain", "node2/a", "--off", "--yes"]) == 0
    words = said(capsys)
    assert "in traffic already" not in words
    assert "node2/a is not in maintenance by itself; nothing was changed" in words
    assert "stays out of traffic because of node2/" in words
    assert "hmctl service maintain node2/ --off" in words
    maintained.append(Maintenance(target="node2/a"))
    assert main.run(["service", "maintain", "node2/a", "--off", "--yes"]) == 0
    words = said(capsys)
    assert "node2/a is no longer in maintenance by itself" in words
    assert "will get traffic" not in words


def test_a_node_of_which_one_stays_out(maintained: list[Maintenance], capsys: pytest.CaptureFixture[str]) -> None:
    maintained += [Maintenance(target="node2/"), Maintenance(target="node2/b")]
    assert main.run(["service", "maintain", "node2/", "--off", "--yes"]) == 0
    words = said(capsys)
    assert "node2/: 2 instances will get traffic again" in words
    assert "node2/b stays out of traffic" in words
    assert "hmctl service maintain node2/b --off" in words
    assert main.run(["service", "maintain", "node2/", "--off", "--yes", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["instances"] == ["node2/a", "node2/c"]


def test_a_containers_address_is_said_to_be_its_nodes_affair(maintained: list[Maintenance], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["service", "resolve", "shop/a", "--node", "node2"]) == 0
    assert "node2/a 172.17.0.2:80, on node2 only" in said(capsys)
    assert main.run(["service", "ls", "shop/a"]) == 0
    assert "reachable on its node only" in said(capsys)


def test_what_the_kernel_does_not_see_and_what_has_no_address_is_said(
    maintained: list[Maintenance], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = [
        replace(INSTANCES[0], attributes={"unwatched": "outside hypermesh.slice (--cgroup-parent)"}),
        replace(INSTANCES[3], address="", health=InstanceHealth.UNHEALTHY, reason="it is exited"),
    ]
    monkeypatch.setattr(sys.modules[__name__], "INSTANCES", strange)
    assert main.run(["service", "ls", "shop/a"]) == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert lines["node1/a"].endswith("172.17.0.2:80 - 100 0 not watched: outside hypermesh.slice (--cgroup-parent)")
    assert lines["node2/a"] == "node2/a unhealthy - - 100 0 it is exited"
    assert main.run(["service", "resolve", "shop/a"]) == 0
    words = said(capsys)
    assert "healthy shares the traffic; not watched: outside hypermesh.slice (--cgroup-parent)" in words
    assert main.run(["service", "ls", "shop/a", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["instances"]
    assert [(each["address"], each["port"]) for each in found] == [("172.17.0.2", 80), ("", 80)]


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (["node1/a", "--on"], "Take node1/a out of traffic?"),
        (["node1", "--on"], "Take node1/ (3 instances) out of traffic?"),
        (["node2/a", "--off"], "Give node2/a back to traffic?"),
        (["node3/a", "--off"], "Give node3/a back to traffic?"),
    ],
)
def test_a_question_says_what_it_is_about(
    words: list[str], question: str, maintained: list[Maintenance], capsys: pytest.CaptureFixture[str]
) -> None:
    maintained += [Maintenance(target="node2/a"), Maintenance(target="node3/a")]
    assert main.run(["service", "maintain", *words]) == 2
    assert f"nobody can answer, for stdin is no terminal: {question}" in said(capsys)


def test_the_end_of_a_maintenance_that_frees_nothing_is_called_so(
    maintained: list[Maintenance], capsys: pytest.CaptureFixture[str]
) -> None:
    maintained += [Maintenance(target="node2/"), Maintenance(target="node2/a")]
    assert main.run(["service", "maintain", "node2/a", "--off"]) == 2
    assert "End the maintenance of node2/a?" in said(capsys)


@pytest.mark.parametrize("quiet", [False, True])
def test_what_a_change_waits_for_is_said_but_not_with_quiet(
    quiet: bool, maintained: list[Maintenance], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def change(*given: Any, say: Callable[[str], None], **more: Any) -> api.ChangeReply:
        say("no leader; waiting up to 15 s for one")
        return api.ChangeReply(index=7, changed=True)

    monkeypatch.setattr(changes, "change", change)
    for command in (["service", "maintain", "node1/a", "--on", "--yes"], ["health", "mute", "disk", "--reason", "known"]):
        assert main.run([*(["-q"] if quiet else []), *command]) == 0
        assert ("no leader; waiting up to 15 s for one" in capsys.readouterr().err) is not quiet
