"""From any state whatever, drawn and not come to by a script: all becomes as wanted in a bounded number of steps, and no bound is broken
on the way. Also a state that no script was thought of for, as a restored backup or another release's leader may leave one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_states import good, states
from rollout_verdict import as_wanted, cramped
from rollout_world import World, service

from hmcore.apps.records import Stage
from hmcore.apps.spec import AppSpec, Update

STEPS = 8  # commands for each replica that there is, or shall be, of each generation that comes up on the way


@pytest.mark.long
@settings(max_examples=120, deadline=None)
@given(world=states(), before=st.sampled_from([0.0, 1.0, 5.0]))
def test_from_any_state_all_becomes_as_wanted(world: World, before: float) -> None:
    world.run(before)  # as it is, with nodes that are away
    world.heal()
    world.elect("L0")
    settle(world)
    as_wanted(world)
    world.deploy(good(world.target))
    settle(world)
    as_wanted(world)
    if not any(cramped(world, name) for name in world.target.services):
        assert world.app.healthy == world.app.generation, "what runs and fits comes through"
    world.remove()
    settle(world)
    assert world.removed
    assert not any(machine.containers for machine in world.machines.values())


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    replicas=st.integers(1, 4),
    action=st.sampled_from(["pause", "rollback", "continue"]),
    everywhere=st.booleans(),
    update=st.booleans(),
    elections=st.lists(st.sampled_from([0.5, 2.0, 6.0]), max_size=3),
)
def test_what_fails_at_first_and_comes_right_is_done(seed, replicas, action, everywhere, update, elections) -> None:
    """As a first deployment, or as an update of all replicas at once; whoever leads meanwhile."""
    how = Update(parallelism=0, failure_action="pause" if update and action == "rollback" else action, monitor=1.0)
    mode = "global" if everywhere else "replicated"

    def app(image: str) -> AppSpec:
        return AppSpec(services={"web": service(image, replicas, update=how, rollback=how, mode=mode)})

    world = World(seed, 3, app("good" if update else "late"))
    if update:
        world.quiet(calm=6.0)
        world.deploy(app("late"))
    for number, pause in enumerate(elections):
        world.run(pause)
        world.elect(f"L{number % 3}")
    world.quiet()
    state = world.app.rollouts["web"]
    assert (state.stage, state.failed, world.app.healthy) == (Stage.STEADY, (), world.app.generation)
    assert world.app.generation == 1 + update
    if not elections:
        assert "replica.failed" in [event.kind for event in world.events]


def settle(world: World) -> None:
    """Until it is quiet; and no sooner than it need take."""
    there, applied = len(world.allocations), world.applied
    first = max(world.generations)
    world.quiet()
    wanted = sum(
        service.replicas if service.mode == "replicated" else len(world.machines)
        for number in range(first, max(world.generations) + 1)
        for service in world.generations[number].spec.services.values()
    )
    assert world.applied - applied <= 10 + STEPS * (there + wanted)
