"""Calls to the leader: found, followed when it moves, given up in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from hmcore import api
from hmcore.config.inventory import Host, SshTarget
from hmcore.errors import ConnectionLost, HyperMeshError, InvalidRequest, NoQuorum, NotLeader, PeerUnreachable
from hmcore.locks import RENEW, RenewReply, RenewRequest
from hmcore.records import Role
from hmctl.actions import leading
from hmctl.actions.leading import LeaderCalls

HOSTS = [Host(f"node{number}", SshTarget(f"198.18.0.{number}"), f"198.18.0.{number}", 7443, Role.CONTROL) for number in (1, 2, 3)]
REQUEST = RenewRequest(name="deploy", token=1)


class Node:
    """An agent, as the client sees it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    async def state(self) -> api.StateReply:
        return api.StateReply(index=1, leader=self.cluster.leader, term=self.cluster.term, nodes=[])

    async def call(self, method: Any, request: Any, *, timeout: float) -> RenewReply:
        self.cluster.asked.append(self.name)
        if self.cluster.happens:
            self.cluster.happens.pop(0)()
        if self.name != self.cluster.leader:
            raise NotLeader(f"{self.name} does not lead", leader=self.cluster.leader)
        return RenewReply(index=1)


class Cluster:
    """Stands in for Agents."""

    def __init__(self) -> None:
        self.hosts = HOSTS
        self.leader: str | None = "node1"
        self.term = 1
        self.dead: set[str] = set()
        self.asked: list[str] = []
        self.looked = 0
        self.happens: list[Callable[[], None]] = []

    async def ask(self, host: Host, question: Any, *, within: float) -> Any:
        if host.name in self.dead:
            raise PeerUnreachable("no answer", host=host.name)
        return await question(Node(self, host.name))

    async def ask_all(self, question: Any, hosts: list[Host]) -> dict[str, Any]:
        self.looked += 1
        answers: dict[str, Any] = {}
        for host in hosts:
            try:
                answers[host.name] = await self.ask(host, question, within=1.0)
            except HyperMeshError as error:
                answers[host.name] = error
        return answers


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(leading, "PAUSE", 0.01)


def calls(cluster: Cluster) -> LeaderCalls:
    return LeaderCalls(cluster)  # type: ignore[arg-type]


async def test_the_leader_is_looked_for_once():
    cluster = Cluster()
    leader = calls(cluster)
    for _ in range(3):
        await leader.call(RENEW, REQUEST, timeout=1.0)
    assert (cluster.looked, cluster.asked) == (1, ["node1"] * 3)


async def test_it_is_followed_where_the_former_leader_says_it_went():
    cluster = Cluster()
    leader = calls(cluster)
    await leader.call(RENEW, REQUEST, timeout=1.0)
    cluster.leader, cluster.term = "node3", 2
    await leader.call(RENEW, REQUEST, timeout=1.0)
    assert (cluster.looked, cluster.asked) == (1, ["node1", "node1", "node3"])


@pytest.mark.parametrize("error", [ConnectionLost("gone"), NoQuorum("no quorum: 1 of 3 voters reachable")])
async def test_when_it_dies_or_loses_its_quorum_the_next_one_is_found(error):
    cluster = Cluster()
    leader = calls(cluster)

    def dies() -> None:
        cluster.dead.add("node1")
        cluster.leader, cluster.term = "node2", 2
        raise error

    cluster.happens = [dies]
    await leader.call(RENEW, REQUEST, timeout=5.0)
    assert cluster.asked == ["node1", "node2"]
    assert cluster.looked == 2


async def test_without_a_leader_it_is_looked_for_until_the_time_has_passed():
    cluster = Cluster()
    cluster.leader = None
    began = time.monotonic()
    with pytest.raises(HyperMeshError, match=r"the cluster has no leader, for 0\.2 s"):
        await calls(cluster).call(RENEW, REQUEST, timeout=0.2)
    assert time.monotonic() - began >= 0.2
    assert cluster.looked > 2


async def test_when_nobody_answers_that_is_said_at_once():
    cluster = Cluster()
    cluster.dead = {"node1", "node2", "node3"}
    with pytest.raises(PeerUnreachable, match="no control node answers"):
        await calls(cluster).call(RENEW, REQUEST, timeout=60.0)
    assert cluster.looked == 1


async def test_what_the_leader_refuses_is_not_asked_again():
    cluster = Cluster()

    def refuses() -> None:
        raise InvalidRequest("no longer held")

    cluster.happens = [refuses]
    with pytest.raises(InvalidRequest):
        await calls(cluster).call(RENEW, REQUEST, timeout=1.0)
    assert cluster.asked == ["node1"]


async def test_a_leader_that_the_inventory_does_not_know_is_named():
    cluster = Cluster()
    cluster.leader = "node9"
    with pytest.raises(HyperMeshError, match="the leader is node9, which is no control node of this inventory"):
        await calls(cluster).call(RENEW, REQUEST, timeout=1.0)
