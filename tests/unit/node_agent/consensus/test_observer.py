"""A worker's view of the cluster, as control nodes of an earlier release tell it: by whichever answers, never going back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from hmcore.api import StateReply, StateRequest
from hmcore.errors import CallTimeout, InvalidRequest
from hmcore.records import Node, Registration, Role
from node_agent.consensus.following.observer import FRESH, IMPATIENCE, INTERVAL, PAUSE, ObserverLayer

CONTROL = ["node1", "node2", "node3"]


def state(index: int, leader: str | None = "node1") -> StateReply:
    node = Node(name="node1", address="10.0.0.1", port=7443, role=Role.CONTROL, release=f"r{index}")
    return StateReply(index=index, leader=leader, term=1, nodes=[node] if index else [])


class Bench:
    def __init__(self) -> None:
        self.connected = frozenset(CONTROL)
        self.answers: dict[str, StateReply] = dict.fromkeys(CONTROL, state(5))
        self.asked: list[str] = []
        self.since: list[int] = []
        self.applied = 0
        self.holds = False
        self.layer = ObserverLayer(
            "worker1",
            "hm-abc123defg",
            "b1",
            control_nodes=lambda: CONTROL,
            connected=lambda: self.connected,
            watch=self._refuse,
            tables=self._refuse,
            ask=self._ask,
            on_applied=self._applied,
            clock=lambda: asyncio.get_running_loop().time(),
        )

    async def _refuse(self, request: object, names: Sequence[str]) -> Any:
        raise InvalidRequest("no method 'cluster.watch' here", host=names[0])

    async def _ask(self, request: StateRequest, names: Sequence[str]) -> StateReply:
        self.since.append(request.since)
        for name in names:
            self.asked.append(name)
            if name in self.answers:
                return await self._answer(name, request)
        raise CallTimeout("no answer within 3 s", host=names[-1])

    async def _answer(self, name: str, request: StateRequest) -> StateReply:
        """As a control node does; `holds`: one of this release."""
        waited = 0.0
        while self.holds and waited < request.wait and self.answers[name].index <= request.since:
            await asyncio.sleep(0.01)
            waited += 0.01
        answer = replace(self.answers[name], waited=waited)
        return replace(answer, unchanged=True, nodes=[]) if answer.index == request.since else answer

    def _applied(self) -> None:
        self.applied += 1


@pytest.fixture
def play(virtual) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def whole() -> None:
            bench = Bench()
            await bench.layer.initialize()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(bench.layer.run())
                await scenario(bench)
                running.cancel()

        virtual(whole())

    return run


def test_a_worker_knows_what_the_control_nodes_know(play):
    async def scenario(bench: Bench) -> None:
        assert not bench.layer.formation().formed
        await asyncio.sleep(0.1)
        layer = bench.layer
        assert (layer.index, layer.leader, list(layer.nodes), layer.serving, layer.is_leader) == (5, "node1", ["node1"], True, False)
        assert layer.formation().formed
        assert (layer.report().role, layer.report().term) == ("observer", 1)
        assert await layer.check() is None
        await asyncio.sleep(3 * INTERVAL)
        assert (bench.applied, len(bench.asked)) == (1, 4)

    play(scenario)


def test_a_worker_follows_at_once_and_asks_seldom(play):
    async def scenario(bench: Bench) -> None:
        bench.holds = True
        await asyncio.sleep(10 * INTERVAL)
        assert len(bench.asked) <= 11
        bench.answers = dict.fromkeys(CONTROL, state(6))
        await asyncio.sleep(0.02)
        assert bench.layer.index == 6
        asked = len(bench.asked)
        for index in range(7, 107):  # a busy log
            bench.answers = dict.fromkeys(CONTROL, state(index))
            await asyncio.sleep(0.02)
        assert len(bench.asked) - asked <= 2.0 / PAUSE + 1
        await asyncio.sleep(PAUSE)
        assert (bench.layer.index, await bench.layer.check()) == (106, None)

    play(scenario)


def test_one_that_does_not_answer_is_passed_over(play):
    async def scenario(bench: Bench) -> None:
        del bench.answers[next(iter(CONTROL))], bench.answers["node2"]
        await asyncio.sleep(0.1)
        assert bench.layer.index == 5
        assert await bench.layer.check() is None

    play(scenario)


def test_a_control_node_that_lags_behind_does_not_turn_time_back(play):
    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(0.1)
        bench.answers = dict.fromkeys(CONTROL, state(4))
        await asyncio.sleep(INTERVAL + 0.1)
        assert bench.layer.index == 5
        bench.answers = dict.fromkeys(CONTROL, state(6))
        bench.layer.connections_changed()
        await asyncio.sleep(0.1)
        assert (bench.layer.index, bench.applied) == (6, 2)

    play(scenario)


def test_trouble_is_named_and_asked_about_more_often(play):
    async def scenario(bench: Bench) -> None:
        bench.connected = frozenset()
        await asyncio.sleep(0.1)
        assert await bench.layer.check() == "no control node is reachable (node1, node2, node3)"
        assert not bench.layer.serving
        bench.connected = frozenset(CONTROL)
        bench.answers = dict.fromkeys(CONTROL, state(5, leader=None))
        await asyncio.sleep(IMPATIENCE)
        assert await bench.layer.check() == "the control nodes have no leader"
        assert bench.layer.leader is None
        bench.answers = {}
        await asyncio.sleep(IMPATIENCE)
        assert "no control node tells the state" in (await bench.layer.check() or "")
        bench.answers = dict.fromkeys(CONTROL, state(6))
        await asyncio.sleep(IMPATIENCE)
        assert await bench.layer.check() is None

    play(scenario)


def test_a_view_is_fresh_for_a_while_after_it_was_told(play):
    async def scenario(bench: Bench) -> None:
        assert not bench.layer.fresh
        await asyncio.sleep(0.1)
        bench.answers = {}
        await asyncio.sleep(FRESH - 0.2)
        assert bench.layer.fresh
        await asyncio.sleep(0.2)
        assert not bench.layer.fresh

    play(scenario)


def test_workers_spread_their_questions(virtual):
    async def first_asked(name: str) -> str:
        bench = Bench()
        bench.layer._me = name
        await bench.layer._look()
        return bench.asked[0]

    assert {virtual(first_asked(f"worker{number}")) for number in range(9)} == set(CONTROL)


def test_of_the_registry_only_what_has_changed_is_sent_and_those_who_left_are_forgotten(play):
    async def scenario(bench: Bench) -> None:
        def made(index: int) -> Registration:
            return Registration(revision=index, incarnation=1, index=index)

        two = [Node(name=name, address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1") for name in ("node1", "node2")]
        whole = replace(state(5), nodes=two, registrations={"node1": made(3), "node2": made(5)})
        bench.answers = dict.fromkeys(CONTROL, whole)
        await asyncio.sleep(0.1)
        bench.answers = dict.fromkeys(CONTROL, replace(whole, index=6, partial=True, registrations={"node2": made(6)}))
        await asyncio.sleep(INTERVAL)
        assert {name: each.index for name, each in bench.layer.registrations.items()} == {"node1": 3, "node2": 6}
        bench.answers = dict.fromkeys(CONTROL, replace(whole, index=7, nodes=two[1:], partial=True, registrations={}))
        await asyncio.sleep(INTERVAL)
        assert {name: each.index for name, each in bench.layer.registrations.items()} == {"node2": 6}
        bench.answers = dict.fromkeys(CONTROL, replace(whole, index=8))  # of a release that knows no parts
        await asyncio.sleep(INTERVAL)
        assert {name: each.index for name, each in bench.layer.registrations.items()} == {"node1": 3, "node2": 5}

    play(scenario)


def test_what_a_worker_has_already_is_not_sent_again(play):
    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(0.1)
        bench.answers = dict.fromkeys(CONTROL, StateReply(index=5, leader="node2", term=2, nodes=[], unchanged=True))
        await asyncio.sleep(INTERVAL)
        assert bench.since == [-1, 5]
        assert (bench.layer.leader, bench.layer.report().term, set(bench.layer.nodes)) == ("node2", 2, {"node1"})
        assert bench.applied == 1

    play(scenario)
