"""hmctl service maintain, as typed, where a node and one of its instances are in maintenance at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answering import Cluster

from hmcore import api
from hmcore.records import Instance, Maintenance
from hmctl import client
from hmctl.actions import change as changes
from hmctl.actions import service
from hmctl.actions.service import Seen
from hmctl.cli import main
from hmctl.client import Access

INSTANCES = [
    Instance(id=f"{node}/{name}", service=f"shop/{name}", node=node, address="") for node in ("node1", "node2") for name in ("a", "b", "c")
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
