"""A component's life, in virtual time: every state is reached the way the table says, and failure is survived."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import CommittedConflict, HyperMeshError, LayerDown, StorageFailed, StorageFull
from hmcore.records import ComponentState as S
from node_agent.platform.lifecycle import STOP_TIMEOUT, TRANSITIONS, Backoff, Managed


class Scripted:
    """A component that does what the test says."""

    name = "scripted"

    def __init__(self) -> None:
        self.serving = True
        self.reason: str | None = None
        self.initialize_raises: list[BaseException | None] = []
        self.fail_now = asyncio.Event()
        self.error: BaseException = StorageFull("no room")
        self.check_hangs = False
        self.stop_hangs = False
        self.stops = 0
        self.checks = 0

    async def initialize(self) -> None:
        if self.initialize_raises and (error := self.initialize_raises.pop(0)):
            raise error

    async def run(self) -> None:
        await self.fail_now.wait()
        self.fail_now.clear()
        raise self.error

    async def check(self) -> str | None:
        self.checks += 1
        if self.check_hangs:
            await asyncio.Event().wait()
        return self.reason

    async def stop(self) -> None:
        self.stops += 1
        if self.stop_hangs:
            await asyncio.Event().wait()


class Bench:
    """A scripted component under supervision, and every state it went through."""

    def __init__(self) -> None:
        self.component = Scripted()
        self.seen: list[S] = []
        self.fatal: list[HyperMeshError] = []
        self.managed = Managed(
            self.component,
            check_interval=10,
            check_timeout=5,
            backoff=Backoff(first=1, ceiling=8, forget=60),
            chance=lambda: 1.0,
            on_change=self._note,
        )

    def _note(self) -> None:
        if not self.seen or self.seen[-1] is not self.managed.state:
            self.seen.append(self.managed.state)

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """From its initialization to its stop."""
        async with asyncio.TaskGroup() as tasks:
            await self.managed.initialize()
            self.managed.start(tasks, self.fatal.append)
            yield
            await self.managed.stop()

    async def until(self, condition: Callable[[], bool], seconds: float = 100) -> float:
        """Virtual seconds until `condition` holds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not condition():
            assert loop.time() - began < seconds, f"never: {self.seen} {self.managed.error}"
            await asyncio.sleep(0.01)
        return loop.time() - began


def test_an_illegal_transition_raises():
    managed = Bench().managed
    with pytest.raises(RuntimeError, match="uninitialized may not become running"):
        managed._move(S.RUNNING)
    assert managed.state is S.UNINITIALIZED


def test_every_state_can_be_reached_and_can_end():
    reachable = {S.UNINITIALIZED}
    while more := {to for state in reachable for to in TRANSITIONS[state]} - reachable:
        reachable |= more
    assert reachable == set(S)
    for state in S:
        assert S.STOPPING in TRANSITIONS[state] or TRANSITIONS[state] & {S.STOPPED, S.INITIALIZING}


def test_comes_up_runs_and_stops(virtual):
    async def scenario() -> None:
        bench = Bench()
        async with bench.alive():
            await bench.until(lambda: bench.managed.state is S.RUNNING)
        assert bench.seen == [S.INITIALIZING, S.READY, S.RUNNING, S.STOPPING, S.STOPPED]
        assert bench.component.stops == 1

    virtual(scenario())


def test_a_component_without_work_is_ready_not_running(virtual):
    async def scenario() -> None:
        bench = Bench()
        bench.component.serving = False
        async with bench.alive():
            await bench.until(lambda: bench.component.checks == 2)
            assert bench.managed.state is S.READY
            bench.component.serving = True
            bench.managed.poke()
            assert await bench.until(lambda: bench.managed.state is S.RUNNING) < 0.1

    virtual(scenario())


def test_health_is_checked_at_its_interval_and_when_poked(virtual):
    async def scenario() -> None:
        bench = Bench()
        async with bench.alive():
            await bench.until(lambda: bench.managed.state is S.RUNNING)
            bench.component.reason = "the moon is full"
            assert 9.9 < await bench.until(lambda: bench.managed.state is S.DEGRADED) < 10.1
            assert bench.managed.error == "the moon is full"
            bench.component.reason = None
            bench.managed.poke()
            assert await bench.until(lambda: bench.managed.state is S.RUNNING) < 0.1
            assert bench.managed.error is None

    virtual(scenario())


def test_a_check_that_hangs_degrades_instead_of_hanging_us(virtual):
    async def scenario() -> None:
        bench = Bench()
        bench.component.check_hangs = True
        async with bench.alive():
            assert 4.9 < await bench.until(lambda: bench.managed.state is S.DEGRADED) < 5.1
            assert "did not answer its health check within 5 s" in (bench.managed.error or "")

    virtual(scenario())


def test_a_failure_is_followed_by_longer_and_longer_pauses(virtual):
    async def scenario() -> None:
        bench = Bench()
        async with bench.alive():
            pauses = []
            for _ in range(5):
                await bench.until(lambda: bench.managed.state is S.RUNNING)
                bench.component.fail_now.set()
                await bench.until(lambda: bench.managed.state is S.ERROR)
                assert bench.managed.error == "no room"
                pauses.append(round(await bench.until(lambda: bench.managed.state is S.RUNNING)))
            assert pauses == [1, 2, 4, 8, 8]
            assert bench.managed.restarts == 5
            await asyncio.sleep(61)  # long enough to be forgiven
            bench.component.fail_now.set()
            await bench.until(lambda: bench.managed.state is S.ERROR)
            assert round(await bench.until(lambda: bench.managed.state is S.RUNNING)) == 1

    virtual(scenario())


def test_a_restart_that_fails_is_tried_again(virtual):
    async def scenario() -> None:
        bench = Bench()
        async with bench.alive():
            await bench.until(lambda: bench.managed.state is S.RUNNING)
            bench.component.initialize_raises = [StorageFull("still no room"), StorageFull("still no room")]
            bench.component.fail_now.set()
            await bench.until(lambda: bench.managed.restarts == 3)
            await bench.until(lambda: bench.managed.state is S.RUNNING)
        failing = [S.ERROR, S.INITIALIZING]
        assert bench.seen == [S.INITIALIZING, S.READY, S.RUNNING, *failing * 3, S.READY, S.RUNNING, S.STOPPING, S.STOPPED]

    virtual(scenario())


def test_a_layer_that_is_down_stays_degraded_until_it_comes(virtual):
    async def scenario() -> None:
        bench = Bench()
        bench.component.initialize_raises = [LayerDown("Docker does not answer")] * 3
        with pytest.raises(LayerDown):
            await bench.managed.initialize()
        async with asyncio.TaskGroup() as tasks:
            bench.managed.start(tasks, bench.fatal.append)
            await bench.until(lambda: bench.managed.state is S.RUNNING)
            await bench.managed.stop()
        assert bench.seen == [S.INITIALIZING, S.DEGRADED, S.READY, S.RUNNING, S.STOPPING, S.STOPPED]
        assert bench.managed.restarts == 0

    virtual(scenario())


def test_a_layer_that_goes_away_is_degraded_until_it_is_back(virtual):
    async def scenario() -> None:
        bench = Bench()
        async with bench.alive():
            await bench.until(lambda: bench.managed.state is S.RUNNING)
            bench.component.error = LayerDown("Docker does not answer")
            bench.component.initialize_raises = [LayerDown("Docker is not running")]
            bench.component.fail_now.set()
            await bench.until(lambda: bench.managed.state is S.DEGRADED)
            await bench.until(lambda: bench.managed.state is S.RUNNING)
        assert bench.seen == [S.INITIALIZING, S.READY, S.RUNNING, S.DEGRADED, S.READY, S.RUNNING, S.STOPPING, S.STOPPED]
        assert bench.managed.restarts == 0

    virtual(scenario())


@pytest.mark.parametrize("error", [CommittedConflict("entry 7 differs"), StorageFailed("the disk fails")])
def test_what_must_not_be_survived_is_not(virtual, error):
    async def scenario() -> None:
        bench = Bench()
        bench.component.error = error

        async with asyncio.TaskGroup() as tasks:
            await bench.managed.initialize()
            bench.managed.start(tasks, bench.fatal.append)
            await bench.until(lambda: bench.managed.state is S.RUNNING)
            bench.component.fail_now.set()
            await asyncio.sleep(100)
        assert bench.fatal == [bench.component.error]
        assert bench.managed.state is S.ERROR

    virtual(scenario())


def test_an_unexpected_error_leaves_one_traceback_and_an_expected_one_none(virtual, caplog):
    async def scenario(error: Exception) -> None:
        bench = Bench()
        bench.component.error = error
        async with bench.alive():
            await bench.until(lambda: bench.managed.state is S.RUNNING)
            bench.component.fail_now.set()
            await bench.until(lambda: bench.managed.restarts == 1)

    caplog.set_level(logging.INFO)
    virtual(scenario(StorageFull("no room")))
    assert [record.exc_info for record in caplog.records if record.levelno >= logging.ERROR] == [None]
    caplog.clear()
    virtual(scenario(KeyError("x")))
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_stopping_never_hangs(virtual):
    async def scenario() -> None:
        bench = Bench()
        bench.component.stop_hangs = True
        async with asyncio.TaskGroup() as tasks:
            await bench.managed.initialize()
            bench.managed.start(tasks, bench.fatal.append)
            await bench.until(lambda: bench.managed.state is S.RUNNING)
            began = asyncio.get_running_loop().time()
            await bench.managed.stop()
            assert asyncio.get_running_loop().time() - began <= 2 * STOP_TIMEOUT
        assert bench.managed.state is S.ERROR

    virtual(scenario())


def test_stopping_what_never_came_up_is_quiet(virtual):
    async def scenario() -> None:
        bench = Bench()
        await bench.managed.stop()
        await bench.managed.stop()
        assert bench.seen == [S.STOPPED]
        assert bench.component.stops == 0

    virtual(scenario())


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_pauses_are_bounded_and_spread(failures: int, chance: float):
    backoff = Backoff(first=0.5, ceiling=30)
    assert 0.25 <= backoff.pause(failures, chance) <= 30
    assert backoff.pause(failures, 0) <= backoff.pause(failures, chance) <= backoff.pause(failures, 1) == 2 * backoff.pause(failures, 0)
