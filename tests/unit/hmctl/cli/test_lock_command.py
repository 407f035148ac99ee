"""hmctl lock, as typed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answering import Cluster

from hmcore import api
from hmcore.locks import HeldLock
from hmcore.records import Lock
from hmctl import client
from hmctl.actions import change as changes
from hmctl.actions import locks
from hmctl.actions.locks import LockList, view
from hmctl.cli import main
from hmctl.client import Access

DEPLOY = Lock(name="deploy", holder="bob@desk-1", token=4, ttl=30.0, note="deploy", author="bob", index=9, unix_time=1_790_000_000.0)


class Asked:
    def __init__(self) -> None:
        self.held = [HeldLock(lock=DEPLOY, expires_in=21.5)]
        self.leader = True
        self.requests: list[Any] = []
        self.changed = True


@pytest.fixture
def asked(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()

    async def status(*given: Any, name: str = "", **more: Any) -> LockList:
        found = [view(held) for held in asked.held if name in ("", held.lock.name)]
        return LockList(told_by="node1", leader=asked.leader, index=11, locks=found)

    async def change(inventory: Any, store: Any, method: Any, request: Any, **more: Any) -> api.ChangeReply:
        asked.requests.append(request)
        return api.ChangeReply(index=12, changed=asked.changed)

    monkeypatch.setattr(locks, "status", status)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    monkeypatch.setattr(changes, "change", change)
    return asked


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return " ".join(f"{out} {err}".split())


def test_who_holds_what_for_how_long(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lock", "status"]) == 0
    words = said(capsys)
    assert "deploy bob@desk-1 4 2026-09-2" in words
    assert "22 s deploy" in words or "21.5 s deploy" in words
    asked.leader = False
    assert main.run(["lock", "status", "deploy"]) == 0
    assert "the cluster has no leader: this is what node1 knew last" in said(capsys)
    assert main.run(["lock", "status", "other"]) == 0
    assert "nobody holds other" in said(capsys)


def test_another_ones_lock_is_ended_after_a_plan_and_with_a_reason(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lock", "release", "--yes", "--reason", "his laptop burnt"]) == 0
    words = said(capsys)
    assert "deploy is taken from bob@desk-1, who has held it since 2026-09-2" in words
    assert "deploy is free; bob@desk-1 held it with token 4" in words
    (request,) = asked.requests
    assert (request.name, request.token, request.reason) == ("deploy", 4, "his laptop burnt")


def test_without_yes_nothing_is_ended_where_nobody_can_answer(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lock", "release"]) == 2
    assert asked.requests == []
    assert "--yes" in said(capsys)


def test_a_lock_that_is_free_or_another_ones_by_now_is_left_alone(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    asked.changed = False
    assert main.run(["lock", "release", "deploy", "--yes", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "deploy",
        "holder": "bob@desk-1",
        "token": 4,
        "changed": False,
        "index": 12,
    }
    asked.held = []
    assert main.run(["lock", "release", "--yes"]) == 0
    assert "nobody holds deploy; nothing was changed" in said(capsys)
