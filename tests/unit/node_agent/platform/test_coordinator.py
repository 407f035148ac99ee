"""Start-up in virtual time: order, concurrency, deadline, rollback."""

from __future__ import annotations

import asyncio
from graphlib import CycleError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.errors import InitializationFailed, LayerDown, LayerMissing, StorageDamaged
from node_agent.platform.coordinator import Coordinator, Phase


class Journal:
    """Phases that take a while and write down what they do."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(
        self,
        name: str,
        *needs: str,
        seconds: float = 1.0,
        optional: bool = False,
        error: Exception | None = None,
    ) -> Phase:
        async def start() -> None:
            self.lines.append(f"+{name}")
            await asyncio.sleep(seconds)
            if error is not None:
                raise error
            self.lines.append(f"={name}")

        async def undo() -> None:
            self.lines.append(f"-{name}")

        return Phase(name, start, undo, needs, optional)


def agent(journal: Journal, **replaced: Phase) -> list[Phase]:
    phases = {
        "identity": journal.phase("identity"),
        "transport": journal.phase("transport", "identity"),
        "container": journal.phase("container", "identity", seconds=5, optional=True),
        "consensus": journal.phase("consensus", "transport"),
        "orchestration": journal.phase("orchestration", "consensus"),
        "api": journal.phase("api", "transport"),
    }
    return list((phases | replaced).values())


def test_independent_phases_run_side_by_side_and_ready_does_not_wait_for_the_optional(virtual):
    async def scenario() -> None:
        journal = Journal()
        loop = asyncio.get_running_loop()
        ready: list[float] = []
        coordinator = Coordinator(agent(journal), timeout=60, on_ready=lambda: ready.append(loop.time()), age=0.5)
        await coordinator.bring_up()
        assert ready == [4.0]  # identity, transport, consensus, orchestration
        assert loop.time() == 6.0  # identity, container
        timeline = {phase.name: phase for phase in coordinator.timeline}
        assert timeline["api"].began_seconds == 2.5
        assert timeline["container"].seconds == 5.0
        assert {phase.outcome for phase in coordinator.timeline} == {"ok"}
        await coordinator.take_down()
        began = [line[1:] for line in journal.lines if line[0] == "+"]
        undone = [line[1:] for line in journal.lines if line[0] == "-"]
        assert undone == began[::-1]

    virtual(scenario())


def test_a_required_phase_that_fails_undoes_the_started_ones_in_reverse(virtual):
    async def scenario() -> None:
        journal = Journal()
        damaged = StorageDamaged("bad checksum", path="/var/lib/hypermesh/raft/journal", offset=42, fix="hmctl node reseed node1")
        coordinator = Coordinator(agent(journal, consensus=journal.phase("consensus", "transport", error=damaged)), timeout=60)
        with pytest.raises(InitializationFailed, match=r"consensus did not come up: .* is damaged at byte 42: bad checksum") as caught:
            await coordinator.bring_up()
        assert caught.value.fix == "hmctl node reseed node1"
        assert caught.value.__cause__ is damaged
        assert "+orchestration" not in journal.lines
        undone = [line for line in journal.lines if line[0] == "-"]
        assert undone.index("-consensus") < undone.index("-transport") < undone.index("-identity")
        assert "-container" in undone  # interrupted halfway, undone all the same
        assert next(phase for phase in coordinator.timeline if phase.name == "consensus").outcome == "failed"

    virtual(scenario())


@pytest.mark.parametrize(
    ("error", "refuse", "comes_up"),
    [
        (LayerMissing("Docker is not installed"), False, True),
        (LayerMissing("Docker is not installed"), True, False),
        (LayerDown("Docker does not answer"), False, True),
        (LayerDown("Docker does not answer"), True, True),
        (ValueError("a bug"), True, True),
    ],
)
def test_an_optional_phase_degrades_unless_it_is_missing_and_that_is_refused(virtual, error, refuse, comes_up):
    async def scenario() -> None:
        journal = Journal()
        failing = journal.phase("container", "identity", optional=True, error=error)
        coordinator = Coordinator(agent(journal, container=failing), timeout=60, refuse_missing=refuse)
        if comes_up:
            await coordinator.bring_up()
            outcome = next(phase for phase in coordinator.timeline if phase.name == "container")
            assert (outcome.outcome, str(error) in (outcome.error or "")) == ("degraded", True)
        else:
            with pytest.raises(InitializationFailed, match="container did not come up: Docker is not installed"):
                await coordinator.bring_up()
            assert journal.lines[-1] == "-identity"

    virtual(scenario())


def test_all_phases_share_one_deadline(virtual):
    async def scenario() -> None:
        journal = Journal()
        coordinator = Coordinator(agent(journal, api=journal.phase("api", "transport", seconds=1000)), timeout=10)
        with pytest.raises(InitializationFailed, match="api did not come up: it was not done within 10 s"):
            await coordinator.bring_up()
        assert asyncio.get_running_loop().time() == 10.0

    virtual(scenario())


def test_interrupted_start_up_can_be_taken_down(virtual):
    async def scenario() -> None:
        journal = Journal()
        coordinator = Coordinator(agent(journal), timeout=60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await coordinator.bring_up()
        await coordinator.take_down()
        began = [line[1:] for line in journal.lines if line[0] == "+"]
        assert [line[1:] for line in journal.lines if line[0] == "-"] == began[::-1]

    virtual(scenario())


def test_phases_that_cannot_be_ordered_are_refused():
    journal = Journal()
    with pytest.raises(ValueError, match="needs b, which is no phase"):
        Coordinator([journal.phase("a", "b")], timeout=1)
    with pytest.raises(CycleError):
        Coordinator([journal.phase("a", "b"), journal.phase("b", "a")], timeout=1)


@settings(deadline=None)
@given(st.data())
def test_whatever_fails_nothing_begun_is_left_and_no_phase_begins_before_its_needs(virtual, data):
    names = [f"p{number}" for number in range(data.draw(st.integers(1, 6)))]
    journal = Journal()
    phases = []
    for position, name in enumerate(names):
        needs = data.draw(st.lists(st.sampled_from(names[:position]), unique=True)) if position else []
        error = data.draw(st.sampled_from([None, None, LayerMissing("gone"), StorageDamaged("x", path="p", offset=0)]))
        seconds = data.draw(st.sampled_from([0.0, 1.0, 2.0]))
        phases.append(journal.phase(name, *needs, seconds=seconds, optional=data.draw(st.booleans()), error=error))
    coordinator = Coordinator(phases, timeout=30, refuse_missing=data.draw(st.booleans()))

    async def scenario() -> bool:
        try:
            await coordinator.bring_up()
        except InitializationFailed:
            return False
        return True

    came_up = virtual(scenario())
    began = [line[1:] for line in journal.lines if line[0] == "+"]
    undone = [line[1:] for line in journal.lines if line[0] == "-"]
    assert undone == ([] if came_up else began[::-1])
    for phase in phases:
        if phase.name in began:
            assert all(began.index(need) < began.index(phase.name) for need in phase.needs)
