"""Calls by service: only to whom the registry calls fit, on to the next when one is out of reach, and never without an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hmcore.api import PING, Empty, PingReply
from hmcore.errors import CallTimeout, InvalidRequest, PeerUnreachable
from hmcore.records import Instance, InstanceHealth, Maintenance, Node, NodeState, Registration, Role
from hmcore.selection import Strategy
from node_agent.registry.directory import COOL_DOWN, STALE, Directory
from node_agent.registry.registry import Catalogue

H = InstanceHealth
SERVICE = "hypermesh/consensus"


class Bench:
    """node1's directory of four nodes. `fails`: what a call to a node raises."""

    def __init__(self) -> None:
        self.names = ["node2", "node3", "node4"]
        self.health = dict.fromkeys(self.names, H.HEALTHY)
        self.states = dict.fromkeys(self.names, NodeState.READY)
        self.expired: dict[str, str] = {}
        self.maintenance: dict[str, Maintenance] = {}
        self.connected = set(self.names)
        self.fails: dict[str, Exception] = {}
        self.takes: dict[str, float] = {}
        self.asked: list[str] = []
        self.fresh = True
        self.chance = 0.0
        self.directory = Directory(
            "node1",
            catalogue=self.catalogue,
            call=self._call,
            connected=lambda: frozenset(self.connected),
            fresh=lambda: self.fresh,
            chance=lambda: self.chance,
            clock=lambda: asyncio.get_running_loop().time(),
        )

    def catalogue(self) -> Catalogue:
        catalogue = Catalogue()
        nodes = {
            name: Node(name=name, address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1", state=self.states[name])
            for name in self.names
        }
        registrations = {
            name: Registration(
                revision=1,
                incarnation=1,
                expired=self.expired.get(name, ""),
                instances=(Instance(id=f"{name}/consensus", service=SERVICE, node=name, address="10.0.0.1", health=self.health[name]),),
            )
            for name in self.health
        }
        catalogue.update(nodes, registrations, self.maintenance)
        return catalogue

    async def _call(self, peer: str, method: Any, request: Any, *, timeout: float) -> Any:
        self.asked.append(peer)
        await asyncio.sleep(self.takes.get(peer, 0.001))
        if peer in self.fails:
            raise self.fails[peer]
        return PingReply(name=peer, unix_time=0.0)

    async def ask(self, **given: Any) -> str:
        return (await self.directory.call(SERVICE, PING, Empty(), timeout=1.0, **given)).name


@pytest.fixture
def play(virtual) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def whole() -> None:
            await scenario(Bench())

        virtual(whole())

    return run


def test_no_call_goes_to_an_unhealthy_instance(play):
    async def scenario(bench: Bench) -> None:
        bench.health["node2"] = H.UNHEALTHY
        bench.states["node3"] = NodeState.SUSPECT
        for strategy in Strategy:
            for number in range(20):
                bench.chance = number / 20
                assert await bench.ask(strategy=strategy, key=str(number)) == "node4"
        assert set(bench.asked) == {"node4"}
        bench.expired["node4"] = "not renewed for 60 s"
        with pytest.raises(PeerUnreachable, match="no fit instance of hypermesh/consensus"):
            await bench.ask()
        assert await bench.ask(allow_unknown=True) == "node4"
        bench.expired.clear()
        bench.maintenance["node4/"] = Maintenance(target="node4/")
        with pytest.raises(PeerUnreachable):
            await bench.ask()
        assert set(bench.asked) == {"node4"}

    play(scenario)


def test_one_out_of_reach_is_followed_by_the_next_and_rests(play):
    async def scenario(bench: Bench) -> None:
        bench.fails["node2"] = PeerUnreachable("no route", host="node2")
        assert await bench.ask() == "node3"
        assert bench.asked == ["node2", "node3"]
        assert bench.directory.failures() == {"node2/consensus": 1}
        assert await bench.ask() == "node3"
        assert bench.asked[2:] == ["node3"], "one that has just failed is asked last"
        await asyncio.sleep(COOL_DOWN)
        bench.fails.clear()
        assert await bench.ask() == "node2"
        assert bench.directory.failures() == {}

    play(scenario)


def test_when_all_fail_each_was_asked_once_and_the_last_reason_is_told(play):
    async def scenario(bench: Bench) -> None:
        for name in bench.names:
            bench.fails[name] = PeerUnreachable("no route", host=name)
        with pytest.raises(PeerUnreachable, match="no route"):
            await bench.ask()
        assert sorted(bench.asked) == bench.names

    play(scenario)


def test_what_may_have_been_carried_out_is_not_asked_elsewhere_unless_it_may_be(play):
    async def scenario(bench: Bench) -> None:
        bench.fails["node2"] = CallTimeout("no answer", host="node2")
        with pytest.raises(CallTimeout):
            await bench.ask()
        await asyncio.sleep(COOL_DOWN)
        assert await bench.ask(repeatable=True) == "node3"
        bench.fails = dict.fromkeys(bench.names, InvalidRequest("no"))  # type: ignore[assignment]
        with pytest.raises(InvalidRequest):
            await bench.ask()

    play(scenario)


def test_who_is_not_connected_is_not_waited_for(play):
    async def scenario(bench: Bench) -> None:
        bench.connected = {"node4"}
        assert await bench.ask() == "node4"
        bench.connected = set()
        with pytest.raises(PeerUnreachable):
            await bench.ask()
        assert bench.asked == ["node4"]

    play(scenario)


def test_nodes_of_the_configuration_are_asked_only_while_nobody_is_known_to_be_fit(play):
    async def scenario(bench: Bench) -> None:
        voters = ["node3", "node2"]
        bench.health["node2"] = H.UNHEALTHY
        assert await bench.ask(bootstrap=voters) == "node3"
        assert "node2" not in bench.asked
        bench.health.clear()  # nothing is registered
        bench.asked.clear()
        bench.fails["node3"] = PeerUnreachable("no route")
        assert await bench.ask(bootstrap=voters) == "node2"
        assert bench.asked == ["node3", "node2"]

    play(scenario)


def test_a_view_that_is_out_of_date_does_not_lock_us_out(play):
    """The only one that we know to be fit has gone meanwhile, and those that were down are back: they are connected, after all."""

    async def scenario(bench: Bench) -> None:
        bench.states |= {"node2": NodeState.DOWN, "node3": NodeState.DOWN}
        bench.connected = {"node2", "node3"}
        bench.fresh = False
        assert await bench.ask(bootstrap=["node4", "node3", "node2"]) == "node3"

    play(scenario)


def test_a_fresh_view_rules_out_whom_it_knows_to_be_unfit_unless_we_insist(play):
    async def scenario(bench: Bench) -> None:
        bench.states["node2"] = NodeState.DOWN
        bench.maintenance["node3/"] = Maintenance(target="node3/")
        bench.expired["node4"] = "not renewed for 60 s"
        voters = ["node2", "node3", "node4"]
        assert await bench.ask(bootstrap=voters) == "node4", "of it nothing bad is known"
        bench.connected.discard("node4")
        with pytest.raises(PeerUnreachable, match="no fit instance"):
            await bench.ask(bootstrap=voters)
        assert bench.asked == ["node4"]
        assert await bench.ask(bootstrap=["node3"], node="node3", insist=True) == "node3"
        bench.fresh = False
        assert await bench.ask(bootstrap=voters) == "node2"

    play(scenario)


def test_one_node_can_be_meant(play):
    async def scenario(bench: Bench) -> None:
        assert await bench.ask(node="node3") == "node3"
        bench.health["node3"] = H.UNHEALTHY
        with pytest.raises(PeerUnreachable):
            await bench.ask(node="node3")

    play(scenario)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_call_finds_one_of_ten_thousand_within_a_millisecond(strategy):
    """The whole of Directory.call but for the network: of one service with 10,000 instances, of which some have just failed."""
    names = [f"n{n}" for n in range(500)]
    catalogue, failing = Catalogue(), {"n1", "n2", "n3"}
    catalogue.update(
        {name: Node(name=name, address="10.0.0.1", port=7443, role=Role.WORKER, release="r1") for name in names},
        {
            name: Registration(
                revision=1,
                incarnation=1,
                instances=tuple(
                    Instance(id=f"{name}/c{n}", service=SERVICE, node=name, address="10.0.0.1", health=H.HEALTHY) for n in range(20)
                ),
            )
            for name in names
        },
        {},
    )

    async def answer(peer: str, method: Any, request: Any, *, timeout: float) -> Any:
        if peer in failing:
            raise PeerUnreachable("no route", host=peer)
        return PingReply(name=peer, unix_time=0.0)

    directory = Directory("me", catalogue=lambda: catalogue, call=answer, connected=lambda: frozenset(names), clock=lambda: clock[0])
    clock = [0.0]

    async def call(node: str = "") -> None:
        await directory.call(SERVICE, PING, Empty(), timeout=1.0, strategy=strategy, key="somebody", node=node)

    async def whole() -> float:
        for name in failing:
            with pytest.raises(PeerUnreachable):
                await call(name)
        failing.clear()
        await call()
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            for _ in range(50):
                await call()
            best = min(best, (time.process_time() - began) / 50)
        return best

    took = asyncio.run(whole())
    assert took < 0.001, f"{took * 1e3:.2f} ms"


def test_latency_is_a_moving_average_that_wears_off(play):
    async def scenario(bench: Bench) -> None:
        bench.takes = {"node2": 0.010, "node3": 0.002, "node4": 0.005}
        for _ in range(3):
            await bench.ask(strategy=Strategy.LEAST_LATENCY)
        assert sorted(bench.asked) == bench.names, "each must be tried"
        assert await bench.ask(strategy=Strategy.LEAST_LATENCY) == "node3"
        assert bench.directory.latency_ms() == pytest.approx({"node2/consensus": 10, "node3/consensus": 2, "node4/consensus": 5}, abs=0.01)
        bench.takes["node3"] = 0.1
        while await bench.ask(strategy=Strategy.LEAST_LATENCY) == "node3":
            pass
        assert 5 < bench.directory.latency_ms()["node3/consensus"] < 100
        await asyncio.sleep(STALE + 1)
        assert bench.directory.latency_ms() == {}

    play(scenario)
