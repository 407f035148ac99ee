"""The leader's loop over apps, in virtual time, on the real state machine: when it looks, what it records, and what becomes of refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace
from virtual_loop import run_virtually

from hmcore.apps.records import AllocationStatus, Machine, Phase
from hmcore.apps.spec import AppSpec, ContainerSpec, Resources, ServiceSpec, Update
from hmcore.config.settings import Network
from hmcore.errors import NoQuorum
from hmcore.records import InstanceHealth, Node, NodeState, Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import PlanApp, PutApp, PutStatuses, RestartApp
from node_agent.consensus.statemachine.commands import (
    Applied,
    Command,
    FormCluster,
    PutKey,
    PutNode,
    RemoveNode,
    SetNodeState,
    decode,
    decode_result,
    encode,
)
from node_agent.consensus.statemachine.machine import Proposal, apply_batch, encode_batch
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration import appkeeper
from node_agent.orchestration.appkeeper import RETRY, AppKeeper
from node_agent.orchestration.rollout import Terms

NAMES = ("node1", "node2", "node3")
QUICK = Update(monitor=0.0)


class Bench:
    """A log whose node leads, and nodes that do at once what they shall. `before`: done ahead of the next command, by somebody else;
    `fails`: nothing can be recorded. `proposed`: (when, command)."""

    def __init__(self, *, level: int = levels.LATEST, network: Network | None = None) -> None:
        self.state = State()
        self.leads_in: int | None = 1
        self.caught_up = True
        self.fails = False
        self.obedient = True
        self.before: list[Command] = []
        self.proposed: list[tuple[float, Command]] = []
        self.requests: list[str] = []
        self.looks = 0
        self.heard: dict[str, float] = {}
        self.keeper = AppKeeper(
            log=self,
            heard=self._heard,
            terms=Terms(fence_after=8.0, lost_after=4.0, back_within=15.0),
            propose_timeout=1.0,
            request_prefix=lambda: "node1-7",
            clock=lambda: asyncio.get_running_loop().time(),
            network=network or Network(),
        )
        self.do(FormCluster(id="hm-a", bootstrap="b1", level=level))
        for name in NAMES:
            self.do(PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=Role.CONTROL, release="r1")))
        if level >= levels.APPS:
            for name in NAMES:
                self.do(
                    PutStatuses(
                        node=name, incarnation=1, allocations=(), machine=Machine(node=name, cpus=4000, memory=8 << 30, engine=True)
                    )
                )

    def _heard(self) -> dict[str, float]:
        self.looks += 1
        return self.heard

    def do(self, command: Command) -> bytes:
        index = self.state.index + 1
        self.state, receipts, _ = apply_batch(self.state, encode_batch([Proposal(f"r{index}", encode(command))]), index)
        self.keeper.state_changed()
        return receipts[0].result

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        await asyncio.sleep(0.001)
        self.requests.append(request_id)
        self.proposed.append((asyncio.get_running_loop().time(), decode(command)))
        if self.fails:
            raise NoQuorum("no quorum: 1 of 3 voters reachable")
        while self.before:
            self.do(self.before.pop())
        result = self.do(decode(command))
        if self.obedient:
            self.obey()
        return self.state.index, result

    def obey(self) -> None:
        for name in NAMES:
            own = sorted(key for key in self.state.allocations if key.startswith(f"{name}/"))
            told = tuple(self._status(key) for key in own)
            if name in self.state.nodes and self.state.nodes[name].state is NodeState.READY:
                self.do(PutStatuses(node=name, incarnation=1, allocations=told))

    def _status(self, key: str) -> AllocationStatus:
        each = self.state.allocations[key]
        if each.stop:
            return AllocationStatus(id=each.id, phase=Phase.DONE)
        return AllocationStatus(id=each.id, phase=Phase.RUNNING, health=InstanceHealth.HEALTHY)

    @property
    def plans(self) -> list[PlanApp]:
        return [command for _, command in self.proposed if isinstance(command, PlanApp)]

    @property
    def live(self) -> list[str]:
        return sorted(each.node for each in self.state.allocations.values() if not each.stop)


def web(replicas: int = 3, *, image: str = "web:1", update: Update = QUICK, **more: object) -> AppSpec:
    return AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image=image), replicas=replicas, update=update, **more)})  # type: ignore[arg-type]


Scenario = Callable[[Bench], Awaitable[None]]


async def whole(bench: Bench, scenario: Scenario) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bench.keeper.run())
        await scenario(bench)
        running.cancel()


def play(scenario: Scenario, bench: Bench | None = None) -> None:
    run_virtually(whole(bench or Bench(), scenario))


def test_an_app_comes_to_what_it_shall_be_and_then_there_is_quiet() -> None:
    async def scenario(bench: Bench) -> None:
        bench.do(PutApp(name="shop", spec=web()))
        await asyncio.sleep(1.0)
        assert bench.live == list(NAMES)
        assert bench.state.apps["shop"].healthy == 1
        looks, proposed = bench.looks, len(bench.proposed)
        for number in range(50):
            bench.do(PutKey(key="k", value=b"%d" % number))
        await asyncio.sleep(600.0)
        assert (bench.looks, len(bench.proposed)) == (looks, proposed), "nothing of an app has changed"
        bench.do(PutApp(name="shop", spec=web(5)))
        await asyncio.sleep(1.0)
        assert len(bench.live) == 5
        assert len(set(bench.requests)) == len(bench.requests)

    play(scenario)


def test_only_the_leader_acts_and_only_once_it_knows_all() -> None:
    async def scenario(bench: Bench) -> None:
        bench.leads_in = None
        bench.do(PutApp(name="shop", spec=web()))
        await asyncio.sleep(60.0)
        assert bench.proposed == []
        bench.leads_in, bench.caught_up = 2, False
        bench.keeper.poke()
        await asyncio.sleep(60.0)
        assert bench.proposed == []
        bench.caught_up = True
        bench.keeper.poke()
        await asyncio.sleep(1.0)
        assert bench.live == list(NAMES)

    play(scenario)


def test_below_their_level_there_are_no_apps() -> None:
    async def scenario(bench: Bench) -> None:
        bench.state = replace(bench.state, apps={"shop": object()})
        bench.keeper.state_changed()
        await asyncio.sleep(60.0)
        assert (bench.proposed, bench.looks) == ([], 0)

    play(scenario, Bench(level=levels.TRUSTED))


def test_a_plan_that_was_overtaken_is_refused_and_decided_again() -> None:
    async def scenario(bench: Bench) -> None:
        bench.before = [PutApp(name="shop", spec=web(5, image="web:2"))]
        bench.do(PutApp(name="shop", spec=web(3)))
        await asyncio.sleep(2.0)
        assert {each.generation for each in bench.state.allocations.values()} == {2}
        assert (len(bench.live), bench.state.apps["shop"].healthy) == (5, 2)
        assert bench.keeper.trouble is None

    play(scenario)


def test_what_cannot_be_recorded_is_tried_again_and_is_a_trouble_until_it_is() -> None:
    async def scenario(bench: Bench) -> None:
        bench.fails = True
        bench.do(PutApp(name="shop", spec=web()))
        await asyncio.sleep(10.0)
        assert bench.keeper.trouble == "no quorum: 1 of 3 voters reachable"
        assert 10.0 / RETRY - 3 <= len(bench.plans) <= 10.0 / RETRY + 3
        bench.fails = False
        await asyncio.sleep(RETRY + 0.5)
        assert bench.live == list(NAMES)
        assert bench.keeper.trouble is None

    play(scenario)


def test_who_leads_no_more_has_no_trouble_and_knows_of_no_waits() -> None:
    async def scenario(bench: Bench) -> None:
        bench.do(PutApp(name="shop", spec=web(reservations=Resources(memory=9 << 30))))
        await asyncio.sleep(1.0)
        assert "memory" in bench.keeper.waits["shop/web"]
        bench.fails = True
        bench.do(PutApp(name="blog", spec=web()))
        await asyncio.sleep(1.0)
        assert bench.keeper.trouble
        bench.leads_in = None
        bench.keeper.poke()
        await asyncio.sleep(1.0)
        assert (bench.keeper.trouble, dict(bench.keeper.waits)) == (None, {})

    play(scenario)


def test_a_node_that_stays_away_is_given_up_though_nothing_happens() -> None:
    async def scenario(bench: Bench) -> None:
        bench.do(PutApp(name="shop", spec=web()))
        await asyncio.sleep(10.0)
        began = asyncio.get_running_loop().time()
        bench.heard = {"node3": began - 1.0}
        bench.do(SetNodeState(name="node3", state=NodeState.DOWN))
        await asyncio.sleep(2.9)
        assert bench.live == list(NAMES)
        await asyncio.sleep(0.2)  # 4 s after it was heard last
        assert "node3" not in bench.live
        assert len(bench.live) == 3

    play(scenario)


def test_another_term_begins_with_an_empty_memory() -> None:
    """What an earlier leadership of ours has seen is not what this one has."""

    async def scenario(bench: Bench) -> None:
        bench.do(PutApp(name="shop", spec=web(update=Update(monitor=5.0))))
        await asyncio.sleep(3.0)
        bench.leads_in = 4
        bench.keeper.poke()
        await asyncio.sleep(4.0)
        assert bench.state.apps["shop"].healthy == 0
        await asyncio.sleep(1.2)
        assert bench.state.apps["shop"].healthy == 1

    play(scenario)


def test_every_node_gets_a_subnet_once_there_are_apps() -> None:
    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(5.0)
        assert bench.state.subnets == {}
        bench.do(PutApp(name="shop", spec=web()))
        await asyncio.sleep(1.0)
        assert {name: subnet.cidr for name, subnet in bench.state.subnets.items()} == {
            name: f"10.77.{number}.0/24" for number, name in enumerate(NAMES)
        }
        bench.do(PutNode(node=Node(name="node4", address="198.18.0.9", port=7443, role=Role.WORKER, release="r1")))
        await asyncio.sleep(1.0)
        assert bench.state.subnets["node4"].cidr == "10.77.3.0/24"
        bench.do(RemoveNode(name="node2"))
        bench.do(PutNode(node=Node(name="node5", address="198.18.0.9", port=7443, role=Role.WORKER, release="r1")))
        await asyncio.sleep(1.0)
        assert bench.state.subnets["node5"].cidr == "10.77.1.0/24"

    play(scenario)


def test_that_there_are_too_few_subnets_is_said() -> None:
    async def scenario(bench: Bench) -> None:
        bench.do(PutApp(name="shop", spec=web()))
        await asyncio.sleep(1.0)
        assert len(bench.state.subnets) == 2
        assert bench.keeper.trouble == "1 nodes have no subnet for containers: all 2 subnets of 10.77.0.0/23 (/24 each) are taken"

    play(scenario, Bench(network=Network(cidr="10.77.0.0/23")))


async def test_a_look_at_many_is_made_beside_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats must go out meanwhile. In real time: virtual time knows nothing of threads."""
    beside: list[bool] = []
    steps = appkeeper.steps

    def noting(*args: object) -> object:
        beside.append(threading.current_thread() is not threading.main_thread())
        return steps(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(appkeeper, "steps", noting)
    monkeypatch.setattr(appkeeper, "MANY", 3)

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30.0):
            while not condition():  # noqa: ASYNC110 -- a thread changes it
                await asyncio.sleep(0.005)

    async def scenario(bench: Bench) -> None:
        bench.do(PutApp(name="shop", spec=web(3)))
        await until(lambda: len(bench.live) == 3)
        seen = len(beside)
        assert not beside[0], "a few are nothing that is worth a thread"
        bench.do(RestartApp(name="shop", services=()))
        await until(lambda: len(beside) >= seen + 2)
        assert all(beside[seen + 1 :])

    await whole(Bench(), scenario)


def test_the_plan_of_one_app_does_not_hold_up_another() -> None:
    async def scenario(bench: Bench) -> None:
        bench.before = [PutApp(name="shop", spec=web(1, image="web:2"))]
        bench.do(PutApp(name="blog", spec=web(2)))
        bench.do(PutApp(name="shop", spec=web(1)))
        await asyncio.sleep(0.1)
        assert len([each for each in bench.state.allocations.values() if each.app == "blog"]) == 2
        assert isinstance(decode_result(bench.do(PutKey(key="k", value=b"1"))), Applied)

    play(scenario)
