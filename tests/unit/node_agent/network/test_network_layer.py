"""The network layer beside parts that fail: each says so, is tried again, and keeps none of the others from its work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from hmcore.apps.records import GivenPort
from hmcore.config.settings import Network
from hmcore.errors import LayerDown, LayerMissing
from node_agent.network import layer as under_test
from node_agent.network.layer import NetworkLayer
from node_agent.network.plan import Place
from node_agent.network.ruleset import Endpoint, Published
from node_agent.network.upkeep import Outcome
from node_agent.network.wanted import Wanted

OWN = Place("node1", "192.0.2.1", "10.77.1.0/24")
NEAR = Place("node2", "192.0.2.2", "10.77.2.0/24")
PORT = Published("tcp", 80, (Endpoint("10.77.1.2", 80),))
WANTED = Wanted(OWN, (NEAR,), (PORT,))


class Filter:
    async def listing(self) -> object:
        return None

    def started(self, process: int) -> bool:
        return False


class Notices:
    """The machine's own network is none of our business."""

    def __init__(self, on_change: object, ours: object) -> None:
        self.opened = 0

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.opened = 0


class Parts:
    """Stand in for upkeep and bridge."""

    def __init__(self) -> None:
        self.rounds: list[object] = []
        self.made: list[Place] = []
        self.outcome = Outcome(bridged=True)
        self.rules_fail: Exception | None = None
        self.bridge_fails: Exception | None = None

    async def whole(self, own: Place, others: object, published: object) -> Outcome:
        if self.rules_fail is not None:
            raise self.rules_fail
        self.rounds.append(("whole", published))
        return self.outcome

    async def ports(self, published: object) -> Outcome:
        self.rounds.append(("ports", published))
        return replace(self.outcome, bridged=False)

    async def ensure(self, networks: object, own: Place) -> bool:
        if self.bridge_fails is not None:
            raise self.bridge_fails
        self.made.append(own)
        return False


class Bench:
    def __init__(self, mode: str = "on") -> None:
        self.parts = Parts()
        self.wanted: Wanted | None = WANTED
        self.docker: object | None = object()
        self.given: list[object] = []
        self.asked = 0  # how often it was asked what is wanted: once a round
        self.told: list[str] = []
        self.layer = NetworkLayer(
            Network(cidr="10.77.0.0/16", mode=mode),  # type: ignore[arg-type]
            "hm-1",
            wanted=self._want,
            networks=lambda: self.docker,  # type: ignore[arg-type,return-value]
            on_ports=lambda: self.given.append(self.layer.given),
            on_trouble=lambda: self.told.append(str(self.layer._troubles.get("ports", ""))),
            packets=Filter(),  # type: ignore[arg-type]
            port=0,
        )

    def _want(self) -> Wanted | None:
        self.asked += 1
        return self.wanted

    async def trouble(self) -> str:
        return str(await self.layer.check() or "")

    async def until(self, found: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not found():  # noqa: ASYNC110 -- nothing tells
                await asyncio.sleep(0.01)

    async def until_said(self, words: str) -> None:
        async with asyncio.timeout(5):
            while (said := await self.trouble()) != words and (not words or words not in said):  # noqa: ASYNC110 -- nothing tells
                await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("CALM", 0.02),
        ("SETTLE", 0.005),
        ("PAUSES", (0.02, 0.1)),
        ("PATIENCE", 0.02),
        ("LISTEN_AGAIN", 0.05),
        ("LOOK_AGAIN", 0.05),
    ):
        monkeypatch.setattr(under_test, name, seconds)
    monkeypatch.setattr(under_test, "Notices", Notices)


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    await bench.layer.initialize()
    bench.layer._upkeep = bench.layer._bridge = bench.parts  # type: ignore[assignment]
    assert bench.layer._notices.opened == bench.layer.managed  # type: ignore[attr-defined]
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.layer.run())
        try:
            yield bench
        finally:
            task.cancel()
    await bench.layer.stop()


async def test_what_is_wanted_is_brought_about_once():
    async with running(Bench()) as bench:
        await bench.until(lambda: bench.parts.rounds)
        bench.layer.poke()
        bench.layer.poke()
        await asyncio.sleep(0.1)
        assert bench.parts.rounds == [("whole", (PORT,))]
        assert bench.parts.made == [OWN]
        assert await bench.trouble() == ""


async def test_other_endpoints_cost_a_look_at_ports_and_another_node_one_at_everything():
    async with running(Bench()) as bench:
        await bench.until(lambda: bench.parts.rounds)
        bench.wanted = replace(WANTED, published=())
        bench.layer.poke()
        await bench.until(lambda: bench.parts.rounds[-1] == ("ports", ()))
        bench.wanted = replace(WANTED, published=(), others=())
        bench.layer.poke()
        await bench.until(lambda: bench.parts.rounds[-1] == ("whole", ()))
        bench.layer._changed()
        await bench.until(lambda: len(bench.parts.rounds) == 4)
        assert bench.parts.rounds[-1] == ("whole", ())


@pytest.mark.parametrize("nothing", [None, Wanted(None)])
async def test_before_it_knows_its_place_nothing_is_touched(nothing):
    bench = Bench()
    bench.wanted = nothing
    async with running(bench):
        await asyncio.sleep(0.1)
        assert (bench.parts.rounds, bench.parts.made, bench.layer.bridged) == ([], [], False)
        assert bench.asked == 1, "it rests until it is told something"
        bench.wanted = WANTED
        bench.layer.poke()
        await bench.until(lambda: bench.parts.rounds and bench.parts.made)


async def test_a_node_that_forgets_what_it_knew_leaves_everything_as_it_is():
    async with running(Bench()) as bench:
        await bench.until(lambda: bench.parts.rounds)
        bench.wanted = None
        bench.layer.poke()
        await asyncio.sleep(0.1)
        assert bench.parts.rounds == [("whole", (PORT,))]


async def test_while_docker_is_away_rules_and_routes_are_kept_and_the_bridge_comes_later():
    bench = Bench()
    bench.docker = None
    async with running(bench):
        await bench.until(lambda: bench.parts.rounds)
        assert (await bench.trouble(), bench.layer.bridged) == ("", False), "that Docker is away is the container layer's to say"
        bench.docker = object()
        bench.layer.poke()
        await bench.until(lambda: bench.parts.made)
        assert bench.layer.bridged


async def test_rules_that_cannot_be_loaded_are_told_and_tried_again():
    bench = Bench()
    bench.parts.rules_fail = LayerDown("nft: no", fix="mend it")
    async with running(bench):
        await bench.until(lambda: bench.parts.made)
        await bench.until_said("nft: no")
        told = await bench.layer.check()
        assert isinstance(told, LayerDown)
        assert told.fix == "mend it"
        bench.parts.rules_fail = None
        await bench.until(lambda: bench.parts.rounds)
        await bench.until_said("")


async def test_a_bridge_that_has_gone_is_asked_for_again():
    async with running(Bench()) as bench:
        await bench.until(lambda: bench.parts.rounds and bench.parts.made)
        bench.parts.outcome = Outcome(bridged=False)
        bench.layer._changed()
        await bench.until(lambda: len(bench.parts.made) > 1)
        bench.parts.outcome = Outcome(bridged=True)
        await bench.until_said("")


async def test_what_cannot_be_reached_or_published_or_had_is_told():
    bench = Bench()
    bench.parts.outcome = Outcome(1, {"node2": "no IPv4"}, {"tcp port 22": "a program of this node listens on it"}, bridged=True)
    async with running(bench):
        await bench.until_said("node2's containers cannot be reached: no IPv4")
        bench.parts.outcome = replace(bench.parts.outcome, unreachable={})
        bench.layer._changed()
        await bench.until_said("tcp port 22 is not published here: a program of this node listens on it")
        assert bench.layer.unpublished == ["tcp port 22"]
        fix = getattr(await bench.layer.check(), "fix", "")
        assert "stop it, or publish another port" in fix
        bench.parts.outcome = Outcome(bridged=True)
        bench.wanted = replace(WANTED, problems=("two want it",))
        bench.layer._changed()
        await bench.until_said("two want it")
        assert bench.layer.unpublished == []


async def test_ports_that_were_given_out_are_told_once_the_node_answers_on_them():
    one, two = GivenPort(target=80, published=30001), GivenPort(target=53, published=30002, protocol="udp")
    bench = Bench()
    bench.wanted = replace(WANTED, given={"shop/web.1.1": (one, two)})
    bench.parts.rules_fail = LayerDown("nft: no")
    async with running(bench):
        await bench.until_said("nft: no")
        assert (bench.layer.given, bench.given) == (None, [])
        bench.parts.outcome = Outcome(refused={"udp port 30002": "a program of this node listens on it"}, bridged=True)
        bench.parts.rules_fail = None
        await bench.until(lambda: bench.given == [{"shop/web.1.1": (one,)}])
        bench.parts.outcome = Outcome(bridged=True)
        bench.layer._changed()
        await bench.until(lambda: bench.given[1:] == [{"shop/web.1.1": (one, two)}])
        bench.layer._changed()
        await bench.until(lambda: len(bench.parts.rounds) == 3)
        assert len(bench.given) == 2
        bench.wanted = replace(WANTED, given={"shop/web.1.2": (one, two)})  # the same ports, of another
        bench.layer.poke()
        await bench.until(lambda: bench.given[2:] == [{"shop/web.1.2": (one, two)}])


async def test_a_port_that_a_program_listens_on_is_told_of_at_once_and_published_once_the_program_has_ended():
    """Nobody tells that it has."""
    bench = Bench()
    bench.parts.outcome = Outcome(refused={"tcp port 80": "a program of this node listens on it"}, bridged=True)
    async with running(bench):
        await bench.until(lambda: len(bench.parts.rounds) > 2)
        assert set(bench.parts.rounds[1:]) == {("ports", (PORT,))}
        assert bench.told == ["tcp port 80 is not published here: a program of this node listens on it"], "once"
        bench.parts.outcome = Outcome(bridged=True)
        await bench.until_said("")
        assert bench.told[1:] == [""]
        rounds = len(bench.parts.rounds)
        await asyncio.sleep(0.2)
        assert len(bench.parts.rounds) == rounds, "then there is nothing to look for"


async def test_with_the_mode_off_nothing_is_touched_nor_asked_for():
    bench = Bench("off")

    async def listing() -> object:
        raise AssertionError("nobody has to have nft")

    bench.layer._packets.listing = listing  # type: ignore[method-assign]
    async with running(bench):
        await asyncio.sleep(0.1)
        assert (bench.parts.rounds, bench.parts.made, bench.layer.bridged) == ([], [], True)
        assert await bench.trouble() == ""


async def test_without_a_packet_filter_it_does_not_come_up():
    bench = Bench()

    async def listing() -> object:
        raise LayerMissing("nft is not installed", fix="apt-get install nftables")

    bench.layer._packets.listing = listing  # type: ignore[method-assign]
    with pytest.raises(LayerMissing, match="nft is not installed"):
        await bench.layer.initialize()
    await bench.layer.stop()
