"""Whatever nodes, leaders and operators do: no bound is ever broken, and once they stop, all becomes as wanted."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rollout_specs import specs
from rollout_verdict import as_wanted
from rollout_world import LIMITS, TICK, World, service

from hmcore.apps.records import Stage
from hmcore.apps.spec import AppSpec, Update

PAUSES = [0.0, 0.25, 0.5, 1.0, 2.5, 4.5, 9.0]

step = st.one_of(
    st.tuples(st.just("deploy"), specs()),
    st.tuples(
        st.sampled_from(
            [
                "crash",
                "cut",
                "deafen",
                "return",
                "slow",
                "fill",
                "drain",
                "close",
                "docker",
                "strike",
                "elect",
                "headless",
                "kill",
                "restart",
                "rollback",
            ]
        ),
        st.integers(0, 30),
    ),
)
scripts = st.lists(st.tuples(step, st.sampled_from(PAUSES)), max_size=12)


def perform(world: World, what: str, which: object) -> None:
    if what == "deploy":
        assert isinstance(which, AppSpec)
        world.deploy(which)
        return
    assert isinstance(which, int)
    name = list(world.machines)[which % len(world.machines)]
    machine = world.machines[name]
    match what:
        case "crash":
            world.crash(name)
        case "cut":
            machine.cut |= {"L0", "L1", "L2"}
        case "deafen":
            machine.cut.add(f"L{which % 3}")
        case "return":
            machine.up = True
            machine.cut.clear()
        case "slow":
            machine.slow = 6.0
        case "fill":
            machine.full = not machine.full
        case "drain":
            machine.draining = not machine.draining
        case "docker":
            machine.dockerless = not machine.dockerless
        case "close":
            machine.closed = not machine.closed
        case "strike":
            world.strike(name)
        case "elect":
            world.elect(f"L{which % 3}")
        case "headless":
            world.leader = None
        case "kill":
            world.kill(which)
        case "restart":
            world.restart(sorted(world.target.services)[which % len(world.target.services)])
        case "rollback":
            if world.app.healthy:
                world.deploy(world.generations[world.app.healthy].spec, origin=world.app.healthy)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1000), nodes=st.integers(1, 4), latency=st.integers(0, 4), spec=specs(), script=scripts, ends=st.booleans())
def test_bounds_hold_at_every_moment_and_all_is_as_wanted_in_the_end(seed, nodes, latency, spec, script, ends):
    world = World(seed, nodes, spec, latency)
    for (what, which), pause in script:
        perform(world, what, which)
        world.run(pause)
    world.heal()
    world.elect("L0")
    world.quiet()
    as_wanted(world)
    if ends:
        world.remove()
        world.quiet()
        assert world.removed
        assert not world.allocations
        assert not any(machine.containers for machine in world.machines.values())


@pytest.mark.long
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    replicas=st.integers(1, 6),
    parallelism=st.integers(1, 3),
    order=st.sampled_from(["stop-first", "start-first"]),
    monitor=st.sampled_from([0.0, 1.0]),
    delay=st.sampled_from([0.0, 1.0]),
    elections=st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.5, 3.0]), max_size=6),
    latency=st.integers(0, 4),
)
def test_a_healthy_update_never_has_fewer_fit_than_it_may(seed, replicas, parallelism, order, monitor, delay, elections, latency):
    how = Update(parallelism=parallelism, order=order, monitor=monitor, delay=delay)
    world = World(seed, 3, AppSpec(services={"web": service("good", replicas, update=how)}), latency)
    world.quiet(calm=6.0)
    world.deploy(AppSpec(services={"web": service("better", replicas, update=how)}))
    least = replicas if order == "start-first" else replicas - parallelism
    for number, pause in enumerate(elections):
        for _ in range(int(pause / 0.25)):
            world.tick()
            assert world.fit("web") >= least
        world.elect(f"L{number % 3}")
    while world.app.healthy != 2:
        world.tick()
        assert world.fit("web") >= least
        assert world.now < 300
    world.quiet(calm=6.0)
    assert {allocation.generation for allocation in world.live("web")} == {2}
    as_wanted(world)


@pytest.mark.long
@example(  # what was given up is tried again by an agent that has forgotten that
    seed=0,
    image="fail",
    order="start-first",
    back="stop-first",
    parallelism=0,
    script=[("elect", 0, 0.5), ("elect", 0, 1.0), ("crash", 0, 0.0)],
)
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    image=st.sampled_from(["crash", "sick", "fail", "lost"]),
    order=st.sampled_from(["stop-first", "start-first"]),
    back=st.sampled_from(["stop-first", "start-first"]),
    parallelism=st.integers(0, 2),
    script=st.lists(
        st.tuples(st.sampled_from(["elect", "crash", "return", "slow"]), st.integers(0, 5), st.sampled_from(PAUSES)), max_size=6
    ),
)
def test_an_automatic_rollback_restores_the_last_healthy_generation_everywhere(seed, image, order, back, parallelism, script):
    how = Update(parallelism=parallelism, order=order, failure_action="rollback", monitor=1.0)
    undo = Update(parallelism=parallelism, order=back, monitor=1.0, max_failure_ratio=1.0)  # a node that dies meanwhile stops nothing

    def app(web: str, api: str) -> AppSpec:
        services = {"web": service(web, 3, update=how, rollback=undo), "api": service(api, 2, update=how, rollback=undo)}
        return AppSpec(services=services)

    world = World(seed, 3, app("good", "good"))
    world.quiet(calm=6.0)
    assert world.app.healthy == 1
    world.deploy(app(image, "better"))
    for what, which, pause in script:
        perform(world, what, which)
        world.run(pause)
    world.heal()
    world.quiet()
    assert (world.app.generation, world.app.healthy) == (3, 3)
    assert world.generations[3].origin == 1
    assert world.target == world.generations[1].spec
    as_wanted(world)
    assert [event.kind for event in world.events].count("app.rollback") == 1


@pytest.mark.long
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    action=st.sampled_from(["pause", "rollback"]),
    order=st.sampled_from(["stop-first", "start-first"]),
    full=st.sets(st.sampled_from(["n0", "n1", "n2"]), min_size=1),
    elections=st.lists(st.sampled_from([0.5, 1.5, 4.0]), max_size=4),
)
def test_an_update_that_nodes_get_no_image_for_ends_and_costs_one_replica_at_most(seed, action, order, full, elections):
    how, back = Update(order=order, failure_action=action, monitor=1.0), Update(order=order, monitor=1.0)
    world = World(seed, 3, AppSpec(services={"web": service("good", 3, update=how, rollback=back)}))
    world.quiet(calm=6.0)
    for name in full:
        world.machines[name].full = True
    world.deploy(AppSpec(services={"web": service("better", 3, update=how, rollback=back)}))
    least = 3 if order == "start-first" else 2
    for number, pause in enumerate(elections):
        for _ in range(int(pause / TICK)):
            world.tick()
            assert world.fit("web") >= least
        world.elect(f"L{number % 3}")
    world.quiet()
    assert world.fit("web") >= least
    as_wanted(world)
    failed = [event.kind for event in world.events].count("replica.failed")
    assert failed or len(full) < 3, "nobody noticed"
    if not failed:
        assert (world.app.generation, world.app.healthy, world.fit("web")) == (2, 2, 3)
    elif action == "pause":
        assert (world.app.rollouts["web"].stage, world.app.generation, world.app.healthy) == (Stage.PAUSED, 2, 1)
    else:
        assert (world.app.generation, world.app.healthy, world.fit("web")) == (3, 3, 3)
        assert world.target == world.generations[1].spec


@pytest.mark.long
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    nodes=st.integers(1, 4),
    share=st.integers(1, 8),
    limits=st.tuples(st.sampled_from(sorted(LIMITS)), st.sampled_from(sorted(LIMITS))),
    everywhere=st.booleans(),
    parallelism=st.integers(1, 3),
    script=st.lists(
        st.tuples(st.sampled_from(["elect", "crash", "return", "slow"]), st.integers(0, 5), st.sampled_from(PAUSES)), max_size=4
    ),
)
def test_start_first_ends_where_nodes_take_no_second_one(seed, nodes, share, limits, everywhere, parallelism, script):
    """As many replicas as there is room for, from a generation with one limit to one with another."""
    how = Update(parallelism=parallelism, order="start-first", monitor=0.0, failure_action="continue")
    most = min(LIMITS[each] or 2 for each in limits)
    replicas = min(share, most * nodes)

    def spec(image: str, limits: str) -> AppSpec:
        mode = "global" if everywhere else "replicated"
        return AppSpec(services={"web": service(image, replicas, update=how, rollback=how, mode=mode, limits=limits)})

    world = World(seed, nodes, spec("good", limits[0]))
    world.quiet(calm=6.0)
    world.deploy(spec("better", limits[1]))
    least = world.fit("web") - parallelism
    if not script:
        while world.app.healthy != 2:
            world.tick()
            assert world.fit("web") >= least
            assert world.now < 300
    for what, which, pause in script:
        perform(world, what, which)
        world.run(pause)
    world.heal()
    world.elect("L0")
    world.quiet()
    as_wanted(world)
    assert (world.app.healthy, world.app.rollouts["web"].stage) == (2, Stage.STEADY)


@pytest.mark.parametrize(("image", "fault"), [("job", "crash"), ("job", "cut"), ("fail", "cut")])
def test_what_has_ended_on_a_node_that_does_not_hear_that_it_shall_stop_counts_no_more(image, fault):
    how = Update(parallelism=0, monitor=0.0)
    world = World(0, 1, AppSpec(services={"db": service(image, 1, update=how)}), 0)
    world.run(2.5)
    perform(world, fault, 0)
    world.deploy(AppSpec(services={"db": service("good", 0, update=how)}))
    world.run(0.5)
    world.heal()
    world.quiet()
    assert not world.allocations


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    nodes=st.integers(2, 4),
    latency=st.integers(0, 4),
    elections=st.lists(st.sampled_from([0.25, 2.5, 6.0, 9.0]), max_size=4),
    removed=st.booleans(),
)
def test_what_is_exclusive_on_a_node_without_docker_is_fenced_before_it_starts_elsewhere(seed, nodes, latency, elections, removed):
    """Its agent is heard all the time. The world checks at every tick that no two run."""
    world = World(seed, nodes, AppSpec(services={"db": service("good", 1, exclusive=True), "web": service("good", 3)}), latency)
    world.quiet(calm=6.0)
    (old,) = world.live("db")
    world.machines[old.node].dockerless = True
    if removed:
        world.remove()
    for number, pause in enumerate(elections, 1):
        world.run(pause)
        world.elect(f"L{number % 3}")
    world.quiet()
    if removed:
        assert world.removed
        assert not world.allocations
        return
    (new,) = world.live("db")
    assert new.node != old.node
    assert (world.fit("db"), {each.node for each in world.live("web")} & {old.node}) == (1, set())
    world.heal()
    world.quiet()
    assert world.live("db") == [new]
    as_wanted(world)
