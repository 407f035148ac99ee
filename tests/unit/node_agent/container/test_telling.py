"""How replicas fare is told at once, again until it is recorded, and never lost; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from virtual_loop import run_virtually

from hmcore.api import InstancesReply
from hmcore.apps.calls import TellRequest
from hmcore.apps.records import AllocationStatus, Machine, Phase
from hmcore.errors import LevelTooLow, NotLeader
from node_agent.container.telling import LEAST, LONGEST, NO_APPS, PATIENCE, Telling


def statuses(*phases: Phase) -> tuple[AllocationStatus, ...]:
    return tuple(AllocationStatus(id=f"shop/web.{number}.{number}", phase=phase) for number, phase in enumerate(phases, 1))


def instances(revision: int) -> InstancesReply:
    return InstancesReply(revision=revision, incarnation=1, instances=[])


RUNS, STARTS = statuses(Phase.RUNNING), statuses(Phase.STARTING)
MACHINE = Machine(node="node1", cpus=4000)


class Leader:
    """`knows`: what the cluster would have if all that was told were put together. `fails`: it cannot record anything now; `deaf`: it
    records, but the answer is lost; `low`: its feature level is too low. `delay`: seconds that it takes."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, TellRequest]] = []
        self.fails = self.deaf = self.low = False
        self.delay = 0.0
        self.incarnation = 7
        self.allocations: tuple[AllocationStatus, ...] | None = None
        self.machine: Machine | None = None
        self.instances: InstancesReply | None = None
        self.opened = 0
        self.telling = Telling(self._tell, incarnation=lambda: self.incarnation, on_open=self._opens)

    def _opens(self) -> None:
        assert self.telling.is_open
        self.opened += 1

    async def _tell(self, request: TellRequest) -> None:
        self.heard.append((asyncio.get_running_loop().time(), request))
        await asyncio.sleep(self.delay)
        if self.low:
            raise LevelTooLow("apps need feature level 3")
        if self.fails:
            raise NotLeader("nobody leads", leader=None)
        self.allocations = request.allocations
        self.machine = request.machine or self.machine
        self.instances = request.instances or self.instances
        if self.deaf:
            raise NotLeader("it led until now", leader=None)

    @property
    def times(self) -> list[float]:
        return [round(when, 3) for when, _ in self.heard]

    @property
    def last(self) -> TellRequest:
        return self.heard[-1][1]

    def forget(self) -> None:
        """Another leads, who knows nothing."""
        self.allocations = self.machine = self.instances = None
        self.telling.anew()


@pytest.fixture
def play() -> Callable[[Callable[[Leader], Awaitable[None]]], None]:
    def run(scenario: Callable[[Leader], Awaitable[None]]) -> None:
        run_virtually(whole(scenario))

    return run


async def whole(scenario: Callable[[Leader], Awaitable[None]]) -> None:
    leader = Leader()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(leader.telling.run())
        await scenario(leader)
        running.cancel()


def test_at_once_and_once(play):
    async def scenario(leader: Leader) -> None:
        await asyncio.sleep(10.0)
        assert leader.heard == [], "before it is known what is here, nothing is told"
        leader.telling.machine(MACHINE)
        await asyncio.sleep(10.0)
        assert leader.heard == []
        leader.telling.statuses(RUNS)
        await asyncio.sleep(60.0)
        assert leader.times == [20.0]
        assert leader.last == TellRequest(incarnation=7, allocations=RUNS, machine=MACHINE)
        leader.telling.statuses(RUNS)
        leader.telling.machine(MACHINE)
        await asyncio.sleep(60.0)
        assert len(leader.heard) == 1, "nothing has changed"

    play(scenario)


def test_that_there_is_nothing_here_is_told_too(play):
    async def scenario(leader: Leader) -> None:
        leader.telling.statuses(())
        await asyncio.sleep(1.0)
        assert leader.last == TellRequest(incarnation=7, allocations=())

    play(scenario)


def test_what_is_large_is_told_only_if_it_has_changed(play):
    async def scenario(leader: Leader) -> None:
        leader.telling.machine(MACHINE)
        leader.telling.instances(instances(1))
        leader.telling.statuses(STARTS)
        await asyncio.sleep(1.0)
        leader.telling.statuses(RUNS)
        await asyncio.sleep(1.0)
        assert leader.last == TellRequest(incarnation=7, allocations=RUNS)
        leader.telling.instances(instances(2))
        await asyncio.sleep(1.0)
        assert leader.last == TellRequest(incarnation=7, allocations=RUNS, instances=instances(2))

    play(scenario)


def test_a_burst_is_told_in_few_words_and_ends_with_the_latest(play):
    async def scenario(leader: Leader) -> None:
        for number in range(100):
            leader.telling.statuses(RUNS if number % 2 else STARTS)
            await asyncio.sleep(LEAST / 50)
        await asyncio.sleep(1.0)
        assert len(leader.heard) <= 4
        assert leader.allocations == RUNS
        assert all(later - sooner >= LEAST - 1e-3 for sooner, later in zip(leader.times, leader.times[1:], strict=False))

    play(scenario)


def test_what_could_not_be_recorded_is_told_again_less_and_less_often_and_then_at_once(play):
    async def scenario(leader: Leader) -> None:
        leader.fails = True
        leader.telling.statuses(RUNS)
        await asyncio.sleep(30.0)
        gaps = [round(later - sooner, 3) for sooner, later in zip(leader.times, leader.times[1:], strict=False)]
        assert gaps[:5] == [PATIENCE, 2 * PATIENCE, 4 * PATIENCE, LONGEST, LONGEST]
        assert leader.telling.trouble == "how the replicas here fare cannot be told: nobody leads"
        leader.fails = False
        told = len(leader.heard)
        leader.telling.anew()  # somebody leads
        await asyncio.sleep(0.001)
        assert len(leader.heard) == told + 1
        assert (leader.allocations, leader.telling.trouble) == (RUNS, None)

    play(scenario)


def test_who_has_no_replicas_misses_nothing_when_nobody_takes_what_it_tells(play):
    """As a leader of an earlier release, or a cluster whose feature level knows no apps."""

    async def scenario(leader: Leader) -> None:
        leader.fails = True
        leader.telling.statuses(())
        await asyncio.sleep(3.0)
        assert not leader.telling.is_open, "it may be an election"
        await asyncio.sleep(60.0)
        assert (leader.telling.trouble, leader.telling.is_open) == (None, True)
        leader.fails = False
        await asyncio.sleep(LONGEST)
        assert leader.allocations == ()

    play(scenario)


def test_an_election_is_no_trouble(play):
    async def scenario(leader: Leader) -> None:
        leader.fails = True
        leader.telling.statuses(RUNS)
        await asyncio.sleep(3.0)
        assert leader.telling.trouble is None
        leader.fails = False
        await asyncio.sleep(LONGEST)
        assert leader.allocations == RUNS

    play(scenario)


def test_a_cluster_that_can_have_no_apps_yet_is_asked_seldom_and_is_no_trouble(play):
    """Its oldest release keeps the level low; whoever raises it makes everybody tell anew."""

    async def scenario(leader: Leader) -> None:
        leader.low = True
        leader.telling.statuses(())
        await asyncio.sleep(10 * NO_APPS)
        assert 9 <= len(leader.heard) <= 11
        assert (leader.telling.trouble, leader.telling.is_open) == (None, True)
        leader.low = False
        leader.telling.anew()
        await asyncio.sleep(0.1)
        assert leader.allocations == ()

    play(scenario)


def test_a_node_is_open_once_the_cluster_knows_that_its_docker_answers(play):
    async def scenario(leader: Leader) -> None:
        leader.telling.statuses(())
        leader.telling.machine(structs.replace(MACHINE, engine=False))
        await asyncio.sleep(1.0)
        assert (leader.machine is not None, leader.telling.is_open, leader.opened) == (True, False, 0)
        leader.delay = 1.0
        leader.telling.machine(structs.replace(MACHINE, engine=True))
        await asyncio.sleep(0.9)
        assert not leader.telling.is_open, "it is on its way"
        await asyncio.sleep(0.2)
        assert (leader.telling.is_open, leader.opened) == (True, 1)
        leader.telling.statuses(RUNS)
        leader.forget()
        await asyncio.sleep(2.0)
        assert (leader.telling.is_open, leader.opened) == (True, 1), "what the leader is told once more, the cluster knows already"
        leader.telling.machine(structs.replace(MACHINE, engine=False))
        await asyncio.sleep(2.0)
        assert not leader.telling.is_open

    play(scenario)


def test_another_leader_is_told_all_of_it(play):
    async def scenario(leader: Leader) -> None:
        leader.telling.machine(MACHINE)
        leader.telling.statuses(RUNS)
        await asyncio.sleep(1.0)
        leader.forget()
        await asyncio.sleep(1.0)
        assert (len(leader.heard), leader.last.machine) == (2, MACHINE)

    play(scenario)


def test_what_was_under_way_to_a_leader_that_is_none_any_more_counts_for_nothing(play):
    async def scenario(leader: Leader) -> None:
        leader.telling.machine(MACHINE)
        leader.delay = 1.0
        leader.telling.statuses(RUNS)
        await asyncio.sleep(0.5)
        leader.telling.anew()
        leader.delay = 0.0
        await asyncio.sleep(2.0)
        assert (len(leader.heard), leader.last.machine) == (2, MACHINE)

    play(scenario)


def test_an_agent_that_is_another_start_of_itself_tells_all(play):
    async def scenario(leader: Leader) -> None:
        leader.telling.machine(MACHINE)
        leader.telling.statuses(RUNS)
        await asyncio.sleep(1.0)
        leader.incarnation = 8
        leader.telling.statuses(STARTS)
        await asyncio.sleep(1.0)
        assert leader.last == TellRequest(incarnation=8, allocations=STARTS, machine=MACHINE)

    play(scenario)


acts = st.one_of(
    st.tuples(st.just("statuses"), st.sampled_from([(), RUNS, STARTS, statuses(Phase.RUNNING, Phase.BACKOFF)])),
    st.tuples(st.just("machine"), st.sampled_from([MACHINE, Machine(node="node1")])),
    st.tuples(st.just("instances"), st.integers(1, 3).map(instances)),
    st.tuples(st.just("fails"), st.booleans()),
    st.tuples(st.just("deaf"), st.booleans()),
    st.tuples(st.just("forget"), st.none()),
    st.tuples(st.just("delay"), st.sampled_from([0.0, 0.2])),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.01, 0.3, 5.0])),
)


@settings(deadline=None)
@given(st.lists(acts, max_size=25))
def test_whatever_happens_the_cluster_comes_to_know_what_is(happening):
    async def scenario(leader: Leader) -> None:
        said: dict[str, object] = {}
        for what, value in happening:
            match what:
                case "statuses" | "machine" | "instances":
                    getattr(leader.telling, what)(value)
                    said[what] = value
                case "forget":
                    leader.forget()
                case "time":
                    await asyncio.sleep(value)
                case _:
                    setattr(leader, what, value)
        leader.fails = leader.deaf = False
        await asyncio.sleep(3 * LONGEST)
        if "statuses" in said:
            found = leader.allocations, leader.machine, leader.instances
            assert found == (said["statuses"], said.get("machine"), said.get("instances"))
        told = len(leader.heard)
        await asyncio.sleep(60.0)
        assert len(leader.heard) == told

    run_virtually(whole(scenario))
