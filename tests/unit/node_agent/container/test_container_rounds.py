"""The loop over a node's containers, with threads: it comes to what is wanted, whatever Docker does meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from docker_model import CLUSTER, NODE, labels_of, stopped, wanted
from fake_hands import FakeFiles, FakeHands, FakeImages

from hmcore.apps.records import AllocationStatus, Phase
from hmcore.apps.spec import Restart
from hmcore.records import InstanceHealth
from node_agent.container import rounds as rounds_module
from node_agent.container.actions import Action
from node_agent.container.creation import NodeFacts, Wanted
from node_agent.container.rounds import Rounds

WEB = "shop/web.1.1"
SOON = Restart(delay=0.01)


class Agent:
    def __init__(self, hands: FakeHands | None = None) -> None:
        self.hands = hands or FakeHands()
        self.docker = self.hands.docker
        self.images = FakeImages(self.docker)
        self.wanted: dict[str, Wanted] | None = {}
        self.facts: NodeFacts | None = NODE
        self.told: list[Mapping[str, AllocationStatus]] = []
        self.rounds = Rounds(
            wanted=lambda: self.wanted,
            facts=lambda: self.facts,
            observe=self.hands.look,
            ends=self.hands.ends,
            hands=lambda: None if self.hands.away else self.hands,
            images=self.images,
            files=FakeFiles(),
            on_statuses=self.told.append,
        )

    def want(self, *wants: Wanted) -> None:
        self.wanted = {want.allocation.id: want for want in wants}
        self.rounds.poke()

    @property
    def phases(self) -> dict[str, Phase]:
        return {id: status.phase for id, status in self.told[-1].items()} if self.told else {}

    async def looked(self, times: int) -> None:
        """Rounds have gone by."""
        looks = self.hands.looks
        await self.until(lambda: self.hands.looks >= looks + times)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 -- threads change it, too
                await asyncio.sleep(0.005)


@asynccontextmanager
async def at_work(agent: Agent, *, recalled: tuple[AllocationStatus, ...] | None = ()) -> AsyncIterator[Agent]:
    if recalled is not None:
        agent.rounds.recall(recalled)
    task = asyncio.create_task(agent.rounds.run())
    try:
        yield agent
    finally:
        agent.hands.gate.set()
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds_module, "AWAY", 0.02)
    monkeypatch.setattr(rounds_module, "ANYWAY", 0.2)
    monkeypatch.setattr("node_agent.container.restarts.TROUBLE", 0.01)
    monkeypatch.setattr("node_agent.container.restarts.FLOOR", 0.01)


async def test_what_is_wanted_comes_and_what_is_not_goes() -> None:
    async with at_work(Agent()) as agent:
        agent.want(*(wanted(f"shop/web.{n}.{n}") for n in range(30)))
        await agent.until(lambda: list(agent.phases.values()) == [Phase.RUNNING] * 30)
        assert all(made.starts == 1 for made in agent.docker.containers.values())
        agent.want(*(stopped(wanted(f"shop/web.{n}.{n}")) for n in range(20)))
        await agent.until(lambda: not agent.docker.containers)
        await agent.until(lambda: list(agent.phases.values()) == [Phase.DONE] * 20)


@pytest.mark.long
async def test_until_all_is_known_nothing_is_done() -> None:
    agent = Agent()
    agent.docker.put("shop-web-1-1", labels_of(WEB))
    agent.docker.put("other", labels_of("shop/gone.1.1"))
    agent.wanted = None
    async with at_work(agent, recalled=None):
        await agent.looked(3)
        agent.want()  # what was told before is not known
        await agent.looked(3)
        agent.facts = None
        agent.rounds.recall(())
        await agent.looked(3)
        agent.facts, agent.wanted = NODE, None
        await agent.looked(3)
        assert agent.docker.calls == []
        agent.want(wanted(WEB))
        await agent.until(lambda: set(agent.docker.containers) == {"c1"})
        assert agent.docker.containers["c1"].starts == 1


async def test_a_node_without_a_subnet_says_that_nothing_is_here_but_nothing_of_what_is_wanted() -> None:
    """The leader must know what a node has before its first app, which brings the subnet."""
    agent = Agent()
    agent.docker.put("orphan", labels_of("shop/gone.1.1"))
    agent.facts = None
    async with at_work(agent):
        await agent.until(lambda: agent.told == [{}])
        agent.want(wanted(WEB))
        await agent.looked(3)
        assert (agent.told, agent.docker.calls) == ([{}], [])


async def test_a_docker_that_goes_away_and_comes_back_costs_rounds_only() -> None:
    async with at_work(Agent()) as agent:
        agent.want(wanted(WEB, restart=SOON))
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
        agent.hands.away = True
        await agent.until(lambda: agent.told[-1][WEB].error == "Docker does not answer")
        assert agent.told[-1][WEB].health is InstanceHealth.UNKNOWN
        agent.docker.restart()
        agent.hands.away = False
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING} and not agent.told[-1][WEB].error)
        assert agent.told[-1][WEB].restarts == 0


@pytest.mark.parametrize("code", [0, 143, 137])
async def test_what_ends_while_docker_goes_is_not_judged_before_it_is_back(code: int) -> None:
    """It answers on, and tells of the ends that it makes."""
    async with at_work(Agent()) as agent:
        agent.want(wanted(WEB, restart=Restart(condition="on-failure", attempts=1, delay=0.01)))
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
        agent.hands.going = True
        agent.docker.restart(code)
        agent.rounds.poke()
        await agent.until(lambda: agent.told[-1][WEB].error == "Docker does not answer")
        await agent.looked(3)
        assert agent.phases == {WEB: Phase.RUNNING}
        agent.hands.going = False
        await agent.until(lambda: agent.told[-1][WEB].health is InstanceHealth.HEALTHY)
        assert {status.phase for told in agent.told for status in told.values()}.isdisjoint({Phase.DONE, Phase.FAILED, Phase.BACKOFF})
        assert {status.restarts for told in agent.told for status in told.values()} == {0}
        assert next(iter(agent.docker.containers.values())).starts == 2


async def test_an_agent_that_starts_without_docker_tells_what_was_told_before_and_that_nobody_knows() -> None:
    """Else the leader would go on believing it, also that Docker answers."""
    agent = Agent()
    agent.hands.away = True
    before = AllocationStatus(id=WEB, phase=Phase.RUNNING, health=InstanceHealth.HEALTHY)
    async with at_work(agent, recalled=None):
        agent.want(wanted(WEB))
        await agent.looked(3)
        assert agent.told == []
        agent.rounds.recall([before])
        await agent.until(lambda: bool(agent.told))
        told = agent.told[-1][WEB]
        assert (told.phase, told.health, told.error) == (Phase.RUNNING, InstanceHealth.UNKNOWN, "Docker does not answer")
        agent.hands.away = False
        await agent.until(lambda: agent.told[-1][WEB].health is InstanceHealth.HEALTHY)


async def test_a_docker_that_hangs_is_waited_for_and_asked_once() -> None:
    async with at_work(Agent()) as agent:
        agent.hands.gate.clear()
        agent.want(wanted(WEB))
        await agent.until(lambda: agent.phases == {WEB: Phase.STARTING})
        for _ in range(5):
            agent.rounds.poke()
            await asyncio.sleep(0.03)
        assert agent.hands.inside == 1
        agent.hands.gate.set()
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
        assert len(agent.docker.containers) == 1


async def test_what_docker_told_while_an_action_ended_says_nothing_of_it() -> None:
    async with at_work(Agent()) as agent:
        agent.hands.gate.clear()
        agent.want(wanted(WEB))
        await agent.until(lambda: agent.hands.inside == 1)
        agent.hands.told.clear()  # it has looked, and its answer is on its way
        await agent.looked(1)
        agent.hands.gate.set()
        await agent.until(lambda: agent.docker.calls == ["Create", "Start"] and not agent.hands.inside)
        await asyncio.sleep(0.05)
        agent.hands.told.set()
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
    assert [statuses[WEB].phase for statuses in agent.told] == [Phase.STARTING, Phase.RUNNING]


async def test_a_pull_stops_with_what_it_is_for() -> None:
    async with at_work(Agent()) as agent:
        agent.docker.images.clear()
        agent.images.gate.clear()
        agent.want(wanted(WEB))
        await agent.until(lambda: agent.phases == {WEB: Phase.PULLING})
        agent.want(stopped(wanted(WEB)))
        await agent.until(lambda: agent.phases == {WEB: Phase.DONE})
        assert agent.images.cancelled == 1


async def test_an_agent_that_starts_again_changes_nothing_that_runs() -> None:
    hands = FakeHands()
    wants = [wanted(f"shop/web.{n}.{n}", restart=SOON) for n in range(6)]
    for _ in range(4):
        agent = Agent(hands)
        async with at_work(agent):
            agent.want(*wants)
            await agent.until(lambda agent=agent: list(agent.phases.values()) == [Phase.RUNNING] * 6)  # type: ignore[misc]
    assert [made.starts for made in hands.docker.containers.values()] == [1] * 6


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
async def test_with_faults_between_any_two_calls_it_comes_to_what_is_wanted(seed: int) -> None:
    chance = random.Random(seed)
    faulty = True

    def fault(action: Action) -> str:
        return chance.choice(["", "", "before", "after", "half"]) if faulty else ""

    agent = Agent()
    agent.hands.fault = fault
    agent.docker.put("mine", {})
    agent.docker.put("by-hand", {"hypermesh.cluster": CLUSTER})
    agent.docker.put("orphan", labels_of("shop/old.1.1"))
    async with at_work(agent):
        for _ in range(8):
            agent.want(*(wanted(f"shop/web.{n}.{n}", restart=SOON) for n in range(8) if chance.random() < 0.6))
            await asyncio.sleep(0.03)
            for made in list(agent.docker.containers.values()):
                if made.state == "running" and "hypermesh.allocation" in made.labels and chance.random() < 0.2:
                    agent.docker.end(made.id, 1)
                    agent.rounds.poke()
        faulty = False
        agent.rounds.poke()
        wants = agent.wanted or {}
        await agent.until(lambda: agent.phases == dict.fromkeys(wants, Phase.RUNNING) and len(agent.docker.containers) == len(wants) + 2)
    assert {made.name for made in agent.docker.containers.values() if "hypermesh.allocation" not in made.labels} == {"mine", "by-hand"}


async def test_a_node_that_is_not_ready_says_that_nothing_is_here_and_of_replicas_nothing() -> None:
    agent = Agent()
    agent.facts = None
    async with at_work(agent):
        await agent.until(lambda: bool(agent.told))  # the scheduler learns of this node before the first app comes
        agent.want(wanted(WEB))
        await agent.looked(3)
        assert agent.told == [{}]
        assert agent.docker.calls == []
