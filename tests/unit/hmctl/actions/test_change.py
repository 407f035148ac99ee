"""A change finds the leader: through a stale word, an election and a lost answer, and gives up with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hmcore import api
from hmcore.config.inventory import Inventory, load_inventory
from hmcore.errors import ConnectionLost, HyperMeshError, InvalidRequest, NoQuorum, NotLeader, PeerUnreachable, Undecided
from hmcore.records import Mute
from hmctl.actions import agents
from hmctl.actions import change as module
from hmctl.actions.change import change, is_sure_who_leads, known_mutes, newest_leader
from hmctl.client import Via

ROOT = Path(__file__).parents[4]


class Cluster:
    """The control nodes as hmctl meets them. `says`: whom each calls leader; `leads`: who carries changes out."""

    def __init__(self) -> None:
        self.says: dict[str, str | None] = {"node1": "node2", "node2": "node2", "node3": "node2"}
        self.leads: str | None = "node2"
        self.term = 3
        self.dead: set[str] = set()
        self.loses = 0  # so many answers
        self.asked: list[tuple[str, str]] = []
        self.elected_after: int | None = None
        self.said: list[str] = []
        self.spoken = asyncio.Event()
        self.mutes: dict[str, tuple[int, list[Mute]]] = {}
        self.no_quorum: dict[str, str] = {}

    def say(self, words: str) -> None:
        self.said.append(words)
        self.spoken.set()

    async def connect(self, host: Any, access: Any, **given: Any) -> Client:
        if host.name in self.dead:
            raise PeerUnreachable("nobody answers", host=host.name)
        return Client(self, host.name)


class Client:
    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def close(self) -> None:
        return None

    async def state(self) -> api.StateReply:
        index, mutes = self.cluster.mutes.get(self.name, (1, []))
        said = self.cluster.says[self.name]
        lacks = self.cluster.no_quorum.get(self.name, "")
        return api.StateReply(index=index, leader=said, term=self.cluster.term, nodes=[], mutes=mutes, no_quorum=lacks)

    async def call(self, method: Any, request: api.MaintainRequest, *, timeout: float) -> api.ChangeReply:
        self.cluster.asked.append((self.name, request.id))
        if self.cluster.elected_after is not None and len(self.cluster.asked) >= self.cluster.elected_after:
            self.cluster.leads = "node3"
            self.cluster.says = dict.fromkeys(self.cluster.says, "node3")
        if self.name != self.cluster.leads:
            raise NotLeader(f"{self.name} does not lead", leader=self.cluster.leads)
        if self.cluster.loses:
            self.cluster.loses -= 1
            raise ConnectionLost("the connection ended", host=self.name)
        return api.ChangeReply(index=9, changed=True)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(module, "connect", cluster.connect)
    monkeypatch.setattr(agents, "connect", cluster.connect)
    monkeypatch.setattr(module, "PAUSE", 0.001)
    monkeypatch.setattr(module.Access, "of", lambda store, via: None)
    return cluster


@pytest.fixture
def ask(cluster: Cluster) -> Callable[..., api.ChangeReply]:
    inventory: Inventory = load_inventory(ROOT / "inventories/three-nodes.yaml", {"HOME": "/root"})[0]
    names = [host.name for host in inventory.hosts]
    assert names == ["node1", "node2", "node3"]
    request = api.MaintainRequest(id="request-1", target="node1/", on=True)

    def run(timeout: float = 5.0, leader: str | None = None) -> api.ChangeReply:
        doing = change(
            inventory,
            None,  # type: ignore[arg-type]
            api.MAINTAIN,
            request,
            via=Via.QUIC,
            timeout=timeout,
            say=cluster.say,
            leader=leader,
        )
        return asyncio.run(doing)

    return run


def test_the_leader_is_asked_and_nobody_else(cluster, ask):
    assert ask().index == 9
    assert cluster.asked == [("node2", "request-1")]


def test_who_led_a_moment_ago_is_asked_without_asking_who_leads(cluster, ask):
    cluster.says = dict.fromkeys(cluster.says)  # or it would be waited for
    assert ask(leader="node2").changed
    assert cluster.asked == [("node2", "request-1")]


@pytest.mark.parametrize("leader", ["node1", "node3", "node9"])
def test_who_leads_no_more_costs_a_question_and_no_more(cluster, ask, leader):
    cluster.dead = {"node1"}
    assert ask(leader=leader).changed
    assert cluster.asked[-1] == ("node2", "request-1")


def test_a_dead_follower_does_not_matter(cluster, ask):
    cluster.dead = {"node1"}
    assert ask().changed


def test_who_does_not_lead_any_more_names_who_does(cluster, ask):
    cluster.leads = "node3"
    assert ask().changed
    assert [name for name, _ in cluster.asked] == ["node2", "node3"]


def test_an_answer_that_was_lost_is_asked_for_under_the_same_id(cluster, ask):
    cluster.loses = 2
    assert ask().changed
    assert cluster.asked == [("node2", "request-1")] * 3


def test_an_election_is_waited_for(cluster, ask):
    cluster.leads, cluster.elected_after = None, 4
    assert ask().changed
    assert cluster.asked[-1][0] == "node3"


def test_without_a_leader_it_gives_up_in_time(cluster, ask):
    cluster.says = dict.fromkeys(cluster.says, None)
    with pytest.raises(HyperMeshError, match="the cluster has no leader"):
        ask(timeout=0.05)
    assert cluster.asked == []


def test_a_wait_for_a_leader_is_said_once_it_lasts(cluster, ask, monkeypatch):
    assert ask().changed
    assert cluster.said == []
    monkeypatch.setattr(module, "SILENCE", 0.01)
    cluster.says = dict.fromkeys(cluster.says, None)
    with pytest.raises(HyperMeshError, match="the cluster has no leader"):
        ask(timeout=0.3)
    assert cluster.said == ["no leader; waiting for one, 0.3 s at most; less if it gets clear before that nobody can decide"]


def test_a_leader_that_takes_its_time_is_named(cluster, ask, monkeypatch):
    monkeypatch.setattr(module, "SILENCE", 0.01)
    answer = Client.call

    async def slowly(self: Client, method: Any, request: Any, *, timeout: float) -> api.ChangeReply:
        async with asyncio.timeout(5):
            await cluster.spoken.wait()
        return await answer(self, method, request, timeout=timeout)

    monkeypatch.setattr(Client, "call", slowly)
    assert ask().changed
    assert cluster.said == ["node2 leads; waiting for its answer, 5 s at most; less if it gets clear before that nobody can decide"]


def test_what_is_muted_is_told_by_who_knows_most(cluster):
    inventory: Inventory = load_inventory(ROOT / "inventories/three-nodes.yaml", {"HOME": "/root"})[0]
    cluster.mutes = {"node1": (7, [Mute(check="disk", reason="new")]), "node2": (6, [Mute(check="disk", reason="old")])}
    assert asyncio.run(known_mutes(inventory, None, via=Via.QUIC))["disk"].reason == "new"  # type: ignore[arg-type]
    cluster.dead = set(cluster.says)
    with pytest.raises(PeerUnreachable, match="no control node answers"):
        asyncio.run(known_mutes(inventory, None, via=Via.QUIC))  # type: ignore[arg-type]


def test_when_nobody_answers_it_says_so(cluster, ask):
    cluster.dead = set(cluster.says)
    with pytest.raises(PeerUnreachable, match="no control node answers: node1: nobody answers"):
        ask()


def test_a_refusal_is_told_at_once(cluster, ask, monkeypatch):
    async def refuse(self: Client, method: Any, request: Any, *, timeout: float) -> api.ChangeReply:
        raise InvalidRequest("nothing is called node9/")

    monkeypatch.setattr(Client, "call", refuse)
    with pytest.raises(InvalidRequest, match="node9"):
        ask()


def test_a_leader_that_the_inventory_does_not_list_is_named(cluster, ask):
    cluster.says = dict.fromkeys(cluster.says, "node7")
    with pytest.raises(HyperMeshError, match="the leader is node7, which is no control node of this inventory"):
        ask()


def test_the_newest_term_names_the_leader():
    def said(leader: str | None, term: int) -> api.StateReply:
        return api.StateReply(index=1, leader=leader, term=term, nodes=[])

    assert newest_leader({"a": said("old", 2), "b": said("new", 3), "c": said(None, 9)}) == "new"
    assert newest_leader({"a": said(None, 2)}) is None


def test_when_all_that_answer_are_sure_that_there_is_no_quorum_it_fails_at_once(cluster, ask):
    cluster.says, cluster.dead = {"node1": None, "node2": "node2", "node3": None}, {"node2"}
    cluster.no_quorum = dict.fromkeys(("node1", "node3"), "no quorum: 1 of 3 voters reachable")
    with pytest.raises(NoQuorum, match="no quorum: 1 of 3 voters reachable") as caught:
        asyncio.run(asyncio.wait_for(asyncio.to_thread(ask, 60.0), 5.0))
    assert (caught.value.host, caught.value.fix) == ("node1", "hmctl status says who is missing")
    assert caught.value.message.endswith("nothing was changed")  # nobody was asked for it
    assert cluster.asked == []


@pytest.mark.parametrize("one", [{"says": "node3"}, {"says": None}])
def test_the_word_of_one_that_is_cut_off_does_not_count_against_the_others(cluster, ask, one):
    cluster.says = {"node1": None, "node2": one["says"], "node3": one["says"]}
    cluster.no_quorum = {"node1": "no quorum: 1 of 3 voters reachable"}
    if one["says"]:
        cluster.leads = "node3"
        assert ask().changed
    else:  # the other two may elect a leader in a moment
        with pytest.raises(HyperMeshError, match=r"the cluster has no leader, for 0\.05 s"):
            ask(timeout=0.05)


def test_a_leader_that_loses_its_quorum_under_the_change_is_looked_past(cluster, ask, monkeypatch):
    answer, lost = Client.call, iter([NoQuorum("no leader at the moment: 3 of 3 voters reachable")])

    async def lose(self: Client, method: Any, request: Any, *, timeout: float) -> api.ChangeReply:
        if (error := next(lost, None)) is not None:
            cluster.says, cluster.leads = dict.fromkeys(cluster.says, "node3"), "node3"
            raise error
        return await answer(self, method, request, timeout=timeout)

    monkeypatch.setattr(Client, "call", lose)
    assert ask().changed
    assert cluster.asked == [("node3", "request-1")]


def test_that_there_is_no_quorum_is_what_is_told_when_the_time_is_up(cluster, ask, monkeypatch):
    async def refuse(self: Client, method: Any, request: Any, *, timeout: float) -> api.ChangeReply:
        raise NoQuorum("no quorum: 1 of 3 voters reachable")

    monkeypatch.setattr(Client, "call", refuse)
    with pytest.raises(Undecided, match="1 of 3") as caught:
        ask(timeout=0.05)
    assert "undecided" in caught.value.message  # it was sent: it may be in somebody's log
    assert caught.value.fix == "hmctl status"


def test_what_was_sent_before_the_quorum_was_lost_is_undecided(cluster, ask, monkeypatch):
    async def lose(self: Client, method: Any, request: Any, *, timeout: float) -> api.ChangeReply:
        cluster.says, cluster.dead = {"node1": None, "node2": None, "node3": None}, {"node2"}
        cluster.no_quorum = dict.fromkeys(("node1", "node3"), "no quorum: 1 of 3 voters reachable")
        raise ConnectionLost("the connection ended", host=self.name)

    monkeypatch.setattr(Client, "call", lose)
    with pytest.raises(Undecided, match="no quorum: 1 of 3 voters reachable"):
        ask()


def test_a_dead_node_is_not_waited_for_once_the_leader_is_known(cluster, ask, monkeypatch):
    connect = cluster.connect

    async def hang(host: Any, access: Any, **given: Any) -> Client:
        if host.name == "node1":
            await asyncio.Event().wait()
        return await connect(host, access, **given)

    monkeypatch.setattr(module, "connect", hang)
    monkeypatch.setattr(module, "ASKING", 60.0)
    monkeypatch.setattr(module, "PATIENCE", 8.0)
    assert asyncio.run(asyncio.wait_for(asyncio.to_thread(ask), 5.0)).changed


def test_who_leads_is_sure_by_most_words_and_its_own():
    def said(leader: str | None, term: int) -> api.StateReply:
        return api.StateReply(index=1, leader=leader, term=term, nodes=[])

    dead = PeerUnreachable("nobody answers")
    assert is_sure_who_leads({"a": said("a", 2), "b": said("a", 2)}, 3)
    assert not is_sure_who_leads({"a": said("a", 2)}, 3)  # it may be one that was cut off
    assert not is_sure_who_leads({"a": said("a", 2), "b": dead}, 3)
    assert not is_sure_who_leads({"a": said("c", 2), "b": said("c", 2)}, 3)  # which may be dead
    assert not is_sure_who_leads({"a": said("a", 2), "b": said("c", 3)}, 3)
    assert not is_sure_who_leads({"a": said(None, 2), "b": said(None, 2)}, 3)


def test_a_consistent_state_is_asked_of_the_leader(cluster, monkeypatch):
    from hmctl.actions.consistent import consistent_state

    inventory: Inventory = load_inventory(ROOT / "inventories/three-nodes.yaml", {"HOME": "/root"})[0]
    said = api.StateReply(index=7, leader="node2", term=3, nodes=[], consistent=True)

    async def answer(self: Client, method: Any, request: Any, *, timeout: float) -> api.StateReply:
        assert (self.name, method, request) == ("node2", api.STATE, api.StateRequest(consistent=True))
        return said

    monkeypatch.setattr(Client, "call", answer)
    assert asyncio.run(consistent_state(inventory, None, via=Via.QUIC)) == said  # type: ignore[arg-type]
    said = api.StateReply(index=7, leader="node2", term=3, nodes=[])
    old = asyncio.run(consistent_state(inventory, None, via=Via.QUIC))  # type: ignore[arg-type]
    assert isinstance(old, HyperMeshError)
    assert "earlier release" in old.message
    cluster.no_quorum, cluster.says = dict.fromkeys(cluster.says, "no quorum: 1 of 3 voters reachable"), dict.fromkeys(cluster.says, None)
    assert isinstance(asyncio.run(consistent_state(inventory, None, via=Via.QUIC)), NoQuorum)  # type: ignore[arg-type]
