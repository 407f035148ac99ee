"""hmctl app rebalance against the agents' own code: asked first, a few at a time, until nothing is left."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from app_world import NAMES, World, shop

from hmcore.apps.records import Machine
from hmcore.errors import NoQuorum
from hmcore.records import NodeState
from hmctl.actions.apps import rebalancing
from hmctl.cli import main
from node_agent.consensus.statemachine.appcommands import AdmitNode, PutStatuses
from node_agent.consensus.statemachine.commands import SetNodeState


@pytest.fixture
def crowded(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """node3 was away while all was deployed."""
    monkeypatch.setattr(rebalancing, "GAP", 0.0)
    for name in NAMES:
        world.do(PutStatuses(node=name, incarnation=0, allocations=(), machine=Machine(node=name, cpus=4000, memory=8 << 30, engine=True)))
    world.do(SetNodeState(name="node3", state=NodeState.SUSPECT))
    world.deploy("shop", shop(replicas=6))
    world.do(SetNodeState(name="node3", state=NodeState.READY))
    world.settle()
    assert set(web(world)) == {"node1", "node2"}
    return world


def web(world: World) -> Counter[str]:
    return Counter(each.node for each in world.state.allocations.values() if each.service == "web" and not each.stop)


def test_what_would_move_is_shown_and_nothing_is_moved(crowded: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = crowded.state.allocations
    assert main.run(["app", "rebalance", "--dry-run"]) == 0
    words = capsys.readouterr().out
    assert "REPLICA" in words
    replicas = [line.split()[0] for line in words.splitlines() if line.startswith("shop/web.")]
    assert replicas
    assert all(each.count(".") == 1 for each in replicas), "as app ps has them"
    assert main.run(["app", "rebalance", "shop", "--dry-run", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ending"], {move["target"] for move in document["moves"]}) == ("planned", {"node3"})
    assert crowded.state.allocations == before


def test_all_are_moved_a_few_at_a_time(crowded: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["app", "rebalance", "-y", "-o", "json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["ending"], document["left"]) == ("moved", [])
    assert len(document["moves"]) >= 2
    assert captured.err.count(" moves from ") == len(document["moves"])
    said = [line.split()[0].rstrip(":") for line in captured.err.splitlines() if line.startswith("shop/web.")]
    assert all(each.count(".") == 1 for each in said)
    assert len(said) >= len(document["moves"])
    assert web(crowded) == {"node1": 2, "node2": 2, "node3": 2}
    assert main.run(["app", "rebalance", "-y", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ending": "even", "moves": [], "left": [], "waits": {}, "absent": {}}


def test_a_node_that_is_away_is_told_for_it_has_no_share(crowded: World, capsys: pytest.CaptureFixture[str]) -> None:
    """So that nobody who asks a moment too soon believes that all is even."""
    crowded.do(SetNodeState(name="node3", state=NodeState.DOWN))
    assert main.run(["app", "rebalance", "-y"]) == 0
    said = capsys.readouterr().err
    assert "all is as even as it can be without node3; nothing to move\n" in said
    assert "warning: node3 is down, and gets nothing now\n  fix: run this again once hmctl status shows it ready\n" in said
    assert main.run(["app", "rebalance", "--dry-run", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ending"], document["absent"]) == ("even", {"node3": "down"})
    crowded.do(SetNodeState(name="node3", state=NodeState.READY))
    crowded.do(PutStatuses(node="node3", incarnation=0, allocations=(), machine=Machine(node="node3", cpus=4000, memory=8 << 30)))
    assert main.run(["app", "rebalance", "-y"]) == 0
    assert "warning: node3 is without Docker, and gets nothing now\n" in capsys.readouterr().err


def test_nobody_is_moved_whom_nobody_said_yes_to(crowded: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = crowded.state.allocations
    assert main.run(["app", "rebalance"]) != 0
    assert crowded.state.allocations == before
    assert "--yes" in capsys.readouterr().err


def test_what_has_to_wait_for_too_long_is_told(crowded: World, capsys: pytest.CaptureFixture[str]) -> None:
    told = crowded.state.statuses["node1/"]
    crowded.do(PutStatuses(node="node1", incarnation=0, allocations=told.allocations[:1]))
    crowded.step = lambda: None  # type: ignore[method-assign]  # nothing gets better
    assert main.run(["app", "rebalance", "shop", "-y", "--timeout", "0.3", "-o", "json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["ending"] == "timeout"
    assert "not all is moved after 0.3 s: shop/web: only " in captured.err


def test_an_app_that_is_not_there_is_said_so(crowded: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["app", "rebalance", "nothing", "-y"]) == 1
    assert "there is no app nothing" in capsys.readouterr().err


def test_a_plan_that_is_overtaken_is_put_off(crowded: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The leader's own plan of the app comes first."""
    propose, overtaken = crowded.propose, []

    async def overtaking(command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        if not overtaken:
            overtaken.append(True)
            crowded.do(AdmitNode(node="node1"))  # which makes all plans of its apps void
        return await propose(command, request_id=request_id, timeout=timeout, author=author)

    monkeypatch.setattr(crowded, "propose", overtaking)
    assert main.run(["app", "rebalance", "-y", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["ending"] == "moved"
    assert overtaken


@pytest.mark.long
def test_that_nothing_can_be_decided_is_told(crowded: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def nothing(*_: object, **__: object) -> tuple[int, bytes]:
        raise NoQuorum("no quorum: 1 of 3 voters reachable")

    monkeypatch.setattr(crowded, "propose", nothing)
    monkeypatch.setattr("hmctl.actions.change.DEADLINE", 0.3)
    assert main.run(["app", "rebalance", "-y"]) != 0
    assert "1 of 3 voters" in capsys.readouterr().err
