"""The replicas of a node as a component: from what the cluster wants to what is told, with a Docker that is only a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from docker_model import NODE, allocation, labels_of, wanted
from fake_hands import FakeFiles, FakeHands, FakeImages
from msgspec import structs

from hmcore.apps.calls import TellRequest
from hmcore.apps.records import Allocation, AllocationStatus, Generation, GivenPort, Machine, NodeStatuses, Phase
from hmcore.errors import LayerDown, NotLeader
from hmcore.records import ALLOCATION, Cluster, Instance, InstanceHealth, Registration
from node_agent.container.creation import NodeFacts
from node_agent.container.draining import AT_ONCE, MOST
from node_agent.container.info import ContainerInfo
from node_agent.container.telling import Telling
from node_agent.container.workload import Workload

WEB, JOB = "shop/web.1.1", "shop/web.2.2"


@dataclass
class View:
    allocations: Mapping[str, Allocation] | None = None
    generations: Mapping[str, Generation] = field(default_factory=dict)
    statuses: NodeStatuses | None = None
    nodes: Mapping[str, object] = field(default_factory=lambda: {"node1": object()})
    registrations: Mapping[str, Registration] = field(default_factory=dict)
    leader: str | None = "node2"
    own_index: int = 1
    cluster: Cluster | None = None


class Layer:
    """Docker's, as far as Workload asks it."""

    def __init__(self, hands: FakeHands) -> None:
        self.engine = hands
        self.machines = 0
        self.is_busy = False

    @property
    def running(self) -> int | None:
        return None if self.engine.away else len(self.engine.docker.look())

    async def observe(self) -> Mapping[str, ContainerInfo]:
        return await self.engine.look()

    async def ends(self, containers: Collection[str]) -> Mapping[str, float]:
        return await self.engine.ends(containers)

    async def going(self) -> bool:
        return await self.engine.is_going()

    def containers(self) -> Mapping[str, ContainerInfo]:
        return self.engine.docker.look()

    async def machine(self, node: str) -> Machine | None:
        self.machines += 1
        return None if self.engine.away or self.is_busy else Machine(node=node, cpus=2000, engine=True)


class Images(FakeImages):
    async def look(self) -> None:
        raise LayerDown("Docker is busy")


class Agent:
    """`nobody`: nobody leads who could be told."""

    def __init__(self, *, apps: bool = True) -> None:
        self.hands = FakeHands()
        self.docker = self.hands.docker
        self.view = View()
        self.layer = Layer(self.hands)
        self.told: list[TellRequest] = []
        self.nobody = False
        self.changes = 0
        self.facts: NodeFacts | None = NODE
        self.ports: Mapping[str, tuple[GivenPort, ...]] | None = {}
        self.telling = Telling(self._tell, incarnation=lambda: 7)
        self.workload = Workload(
            "node1",
            view=self.view,
            layer=self.layer,  # type: ignore[arg-type]
            facts=lambda: self.facts,
            images=Images(self.docker),  # type: ignore[arg-type]
            files=FakeFiles(),
            telling=self.telling,
            on_change=self._changed,
            apps=apps,
            ports=lambda: self.ports,
        )

    async def _tell(self, request: TellRequest) -> None:
        if self.nobody:
            raise NotLeader("nobody leads", leader=None)
        self.told.append(request)

    def _changed(self) -> None:
        self.changes += 1

    def want(self, *ids: str, stopped: tuple[str, ...] = ()) -> None:
        app = wanted(WEB).app
        assert app is not None
        generation = Generation(app="shop", number=1, spec=app, digest="1")
        self.view.generations = {generation.key: generation}
        self.view.allocations = {id: allocation(id, stop=id in stopped) for id in (*ids, *stopped)}
        self.workload.state_changed()

    def register(self, *fit: str) -> None:
        """What the cluster knows of this node from now on."""
        made = [
            Instance(id=f"node1/{id}", service="shop/web", node="node1", address="10.1.0.9", attributes={ALLOCATION: id}, health=health)
            for id in (WEB, JOB)
            for health in [InstanceHealth.HEALTHY if id in fit else InstanceHealth.UNHEALTHY]
        ]
        self.view.registrations = {"node1": Registration(revision=1, incarnation=7, instances=tuple(made))}
        self.workload.state_changed()

    @property
    def phases(self) -> dict[str, Phase]:
        return {status.id: status.phase for status in self.told[-1].allocations} if self.told else {}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 -- threads change it, too
                await asyncio.sleep(0.005)

    async def looked(self, times: int) -> None:
        for _ in range(times):
            looks = self.hands.looks
            self.workload.poke()
            await self.until(lambda looks=looks: self.hands.looks > looks)  # type: ignore[misc]


@asynccontextmanager
async def at_work(*, apps: bool = True) -> AsyncIterator[Agent]:
    agent = Agent(apps=apps)
    await agent.workload.initialize()
    task = asyncio.create_task(agent.workload.run())
    try:
        yield agent
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_before_anybody_knows_what_shall_run_here_nothing_is_touched_or_told() -> None:
    async with at_work() as agent:
        agent.docker.put("old", labels_of("gone/x.1.1"))
        agent.workload.state_changed()
        await agent.looked(3)
        assert (agent.docker.calls, agent.told, agent.workload.wanted) == ([], [], None)
        agent.want()
        await agent.until(lambda: not agent.docker.containers)


async def test_what_is_wanted_runs_and_is_told() -> None:
    async with at_work() as agent:
        agent.want(WEB)
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
        await agent.until(lambda: agent.told[-1].machine is not None or any(each.machine for each in agent.told))
        (info,) = agent.workload.containers().values()
        assert (info.health, agent.told[-1].incarnation) == ("healthy", 7)
        assert await agent.workload.check() is None


async def test_a_node_tells_that_it_runs_no_apps_whether_docker_answers_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node_agent.container.workload.BETWEEN", 0.01)
    async with at_work(apps=False) as agent:
        agent.want()
        await agent.until(lambda: any(each.machine is not None and each.machine.engine for each in agent.told))
        agent.hands.away = True
        agent.workload.containers_changed()
        await agent.until(lambda: any(each.machine is not None and not each.machine.engine for each in agent.told))
        assert not any(each.machine.apps for each in agent.told if each.machine is not None)


async def test_a_docker_too_busy_to_say_what_it_has_is_asked_again_soon_and_not_told_to_be_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be without Docker costs a node its replicas after a while, and until then it gets none."""
    monkeypatch.setattr("node_agent.container.workload.BETWEEN", 0.01)
    async with at_work() as agent:
        agent.layer.is_busy = True
        agent.want()
        await agent.until(lambda: agent.layer.machines >= 5)
        assert not any(each.machine for each in agent.told)
        assert not agent.workload.serving
        agent.layer.is_busy = False
        await agent.until(lambda: agent.workload.serving)
        assert [each.machine.engine for each in agent.told if each.machine] == [True]
        agent.layer.is_busy, asked = True, agent.layer.machines
        agent.workload.containers_changed()
        await agent.until(lambda: agent.layer.machines >= asked + 5)
        assert [each.machine.engine for each in agent.told if each.machine] == [True]
        assert agent.workload.serving


async def test_a_node_whose_docker_begins_to_answer_serves_once_the_leader_knows() -> None:
    async with at_work() as agent:
        agent.hands.away = True
        agent.want()
        await agent.until(lambda: any(each.machine and not each.machine.engine for each in agent.told))
        assert agent.workload.serving, "it is Docker that is missing"
        agent.nobody, agent.hands.away = True, False
        assert not agent.workload.serving
        agent.workload.containers_changed()
        await agent.looked(3)
        assert not agent.workload.serving
        agent.nobody = False
        await agent.until(lambda: agent.workload.serving)


async def test_ports_that_were_given_out_are_told() -> None:
    port, other = GivenPort(target=80, published=30001), GivenPort(target=80, published=30002)
    async with at_work() as agent:
        agent.ports = None  # the network has not come so far: what was told before holds
        agent.workload.ports_changed()
        await agent.looked(3)
        assert not agent.told, "that nothing is here was never known"
        agent.view.statuses = NodeStatuses(incarnation=3, allocations=(AllocationStatus(id=WEB, phase=Phase.RUNNING, ports=(port,)),))
        agent.want(WEB)
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
        assert {status.ports for each in agent.told for status in each.allocations} == {(port,)}
        agent.ports = {WEB: (other,)}
        agent.workload.ports_changed()
        await agent.until(lambda: [status.ports for status in agent.told[-1].allocations] == [(other,)])
        agent.ports = {}
        agent.workload.ports_changed()
        await agent.until(lambda: [status.ports for status in agent.told[-1].allocations] == [()])


async def test_a_job_that_was_done_before_this_agent_started_is_not_done_again() -> None:
    async with at_work() as agent:
        done = AllocationStatus(id=JOB, phase=Phase.DONE, exit_code=0)
        agent.view.statuses = NodeStatuses(incarnation=3, allocations=(done,))
        agent.want(WEB, JOB)
        await agent.until(lambda: agent.phases.get(WEB) is Phase.RUNNING)
        assert agent.phases[JOB] is Phase.DONE
        assert len(agent.docker.containers) == 1


async def test_one_that_is_to_stop_is_unfit_at_once_and_stopped_once_the_cluster_knows() -> None:
    async with at_work() as agent:
        agent.want(WEB)
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
        agent.register(WEB)
        changes = agent.changes
        agent.want(stopped=(WEB,))
        assert [info.health for info in agent.workload.containers().values()] == ["unhealthy"], "before anything else is done"
        assert agent.changes > changes
        began = asyncio.get_running_loop().time()
        await agent.until(lambda: agent.phases == {WEB: Phase.STOPPING})
        await agent.looked(3)
        assert "Stop" not in agent.docker.calls
        agent.register()
        known = asyncio.get_running_loop().time()
        await agent.until(lambda: not agent.docker.containers)
        now = asyncio.get_running_loop().time()
        assert now - known >= NODE.margin - 0.01
        assert now - began < MOST or known - began > MOST - NODE.margin  # the second: this machine is very busy
        await agent.until(lambda: agent.phases == {WEB: Phase.DONE})


async def test_while_nobody_leads_what_is_to_stop_does_not_wait() -> None:
    async with at_work() as agent:
        agent.want(WEB)
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
        agent.register(WEB)
        agent.view.leader = None
        agent.want(stopped=(WEB,))
        memory = agent.workload._rounds
        await agent.until(lambda: "Stop" in agent.docker.calls)
        assert memory._memory is not None
        assert memory._memory.of(WEB).drain == AT_ONCE


@pytest.mark.parametrize("what", ["leader", "member", "level"])
async def test_whoever_may_have_forgotten_is_told_all_of_it_again(what: str) -> None:
    async with at_work() as agent:
        agent.want(WEB)
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING} and any(each.machine for each in agent.told))
        agent.told.clear()
        if what == "leader":
            agent.view.leader = "node3"
        elif what == "member":
            agent.view.nodes = {}
        else:
            agent.view.cluster = Cluster(id="hm-a", bootstrap="b1", feature_level=3)
        agent.workload.state_changed()
        await agent.until(lambda: bool(agent.told))
        assert agent.told[0].machine is not None
        assert agent.phases == {WEB: Phase.RUNNING}


@pytest.mark.long
async def test_a_node_without_its_subnet_or_its_docker_waits_and_says_what_it_has() -> None:
    async with at_work() as agent:
        agent.facts = None
        agent.want(WEB)
        await agent.looked(3)
        assert agent.docker.calls == []
        agent.facts = NODE
        agent.workload.poke()
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})
        agent.hands.away = True
        agent.workload.containers_changed()
        await agent.until(lambda: agent.told[-1].allocations[0].error == "Docker does not answer")
        await agent.until(lambda: any(each.machine is not None and not each.machine.engine for each in agent.told))


async def test_generations_that_come_later_than_allocations_are_taken_in() -> None:
    """A worker follows them apart."""
    async with at_work() as agent:
        agent.view.allocations = {WEB: allocation(WEB)}
        agent.workload.state_changed()
        await agent.until(lambda: agent.phases == {WEB: Phase.WAITING})
        assert "not known here yet" in agent.told[-1].allocations[0].error
        agent.want(WEB)
        await agent.until(lambda: agent.phases == {WEB: Phase.RUNNING})


async def test_what_cannot_be_told_for_long_is_this_component_s_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node_agent.container.telling.PATIENCE", 0.01)
    monkeypatch.setattr("node_agent.container.telling.LONGEST", 0.02)
    async with at_work() as agent:
        agent.nobody = True
        agent.want(WEB)
        async with asyncio.timeout(30):
            while not (said := await agent.workload.check()):  # noqa: ASYNC110 -- what it says changes with failures
                await asyncio.sleep(0.005)
        assert "nobody leads" in said


@pytest.mark.parametrize(("away", "stop", "forsaken"), [(True, True, True), (False, True, False), (True, False, False)])
async def test_the_lease_is_let_go_where_docker_cannot_end_what_is_to_end(away: bool, stop: bool, forsaken: bool) -> None:
    """While it may run it is kept: who knows that it does not?"""
    agent = Agent()
    said: list[tuple[bool, bool]] = []
    agent.workload._fencing.need = lambda exclusive, *, forsaken=False: said.append((exclusive, forsaken))  # type: ignore[method-assign]
    app = wanted(WEB).app
    assert app is not None
    services = {name: structs.replace(service, exclusive=True) for name, service in app.services.items()}
    generation = Generation(app="shop", number=1, spec=structs.replace(app, services=services), digest="1")
    agent.view.generations = {generation.key: generation}
    agent.view.allocations = {WEB: allocation(WEB, stop=stop)}
    agent.workload.state_changed()
    agent.hands.away = away
    agent.workload.containers_changed()
    assert said[-1] == (True, forsaken)
