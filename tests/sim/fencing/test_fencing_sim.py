"""Never two of an exclusive replica, whatever befalls nodes, agents, leaders, clocks and Docker; and each protection is needed for that."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from fencing_world import LEADERS, Node, Two, World
from hypothesis import given, settings
from hypothesis import strategies as st

STEPS = ["cut", "cut from leader", "mute", "sleep", "crash", "return", "return", "wake", "wake", "elect", "elect", "heal"]
PAUSES = [0.05, 0.3, 0.7, 1.2, 2.0, 3.0, 4.5]

steps = st.tuples(st.sampled_from(STEPS), st.integers(0, 30), st.sampled_from(PAUSES))


def perform(world: World, what: str, which: int) -> None:
    node = world.nodes[f"n{which % len(world.nodes)}"]
    match what:
        case "cut":
            node.cut |= set(LEADERS)
        case "cut from leader":
            node.cut.add(LEADERS[which % 3])
        case "mute":
            node.muted = not node.muted
        case "sleep":
            node.asleep = True
        case "wake":
            for each in world.nodes.values():
                each.asleep = False
        case "crash":
            world.crash(node.name)
        case "return":
            for each in world.nodes.values():
                each.up = True
                each.cut.clear()
        case "elect":
            world.elect(LEADERS[which % 3])
        case "heal":
            heal(world)


def heal(world: World) -> None:
    for node in world.nodes.values():
        node.up, node.asleep, node.muted = True, False, False
        node.cut.clear()


def life(seed: int, without: str = "", length: int = 25) -> World:
    """A random one."""
    world, chance = World(seed, without), random.Random(seed + 1)
    world.run(3.0)
    for _ in range(length):
        # what runs is what is worth hurting
        busy = [int(node.name[1:]) for node in world.nodes.values() if node.running or node.starts or node.entering]
        which = chance.choice(busy) if busy and chance.random() < 0.7 else chance.randint(0, 30)
        perform(world, chance.choice(STEPS), which)
        world.run(chance.choice(PAUSES))
    return world


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), script=st.lists(steps, max_size=15))
def test_there_are_never_two_and_in_the_end_there_is_one(seed, script):
    world = World(seed)
    world.run(3.0)
    for what, which, pause in script:
        perform(world, what, which)
        world.run(pause)
    heal(world)
    for _ in range(40):
        world.run(1.0)
        if any(node.running for node in world.nodes.values()):
            return
    raise AssertionError("nothing runs, though all is well again")


@pytest.mark.long
def test_much_happens_in_such_a_life_and_never_are_there_two():
    worlds = [life(seed) for seed in range(60)]
    assert min(sum(getattr(world, what) for world in worlds) for what in ("placed", "killed", "admitted", "refused")) > 60


# -- what is sure to go wrong without a protection


def runs(world: World) -> Node:
    for _ in range(400):
        world.tick()
        for node in world.nodes.values():
            if node.running:
                return node
    raise AssertionError("nothing was started")


def silent(world: World) -> None:
    runs(world).cut |= set(LEADERS)
    world.run(9.0)


def late_docker(world: World) -> None:
    for _ in range(300):
        world.tick()
        for node in world.nodes.values():
            if any(start.steps[0] > world.now + 4.0 for start in node.starts):
                node.cut |= set(LEADERS)
                world.run(9.0)
                return


def paused_before_its_gate(world: World) -> None:
    for _ in range(300):
        world.tick()
        for node in world.nodes.values():
            if any(opened > world.now for opened, _, _ in node.entering.values()):
                node.asleep = True
                world.run(7.0)
                node.asleep = False
                world.run(1.5)
                return


def returns_blind(world: World) -> None:
    node = runs(world)
    node.cut, node.blind = set(LEADERS), True
    world.run(7.0)
    node.cut = set()
    world.run(3.0)


def returns_as_it_is_given_up(world: World) -> None:
    node = runs(world)
    world.run(1.0)
    node.cut, world.dither = set(LEADERS), 1.2
    for _ in range(100):
        world.tick()
        if any(proposal.starts for proposal in world.log):
            break
    node.cut = set()
    world.run(0.3 + world.random.random())
    node.cut = set(LEADERS)
    world.run(4.0)


def slow_answers(world: World) -> None:
    node = runs(world)
    world.lag = 1.9
    world.run(1.0)
    node.cut = set(LEADERS)
    world.run(8.0)


def heard_by_the_old_leader_alone(world: World) -> None:
    node = runs(world)
    node.cut = {"L1", "L2"}
    world.run(6.0)
    world.elect("L1")
    world.run(8.0)


def mute(world: World) -> None:
    node = runs(world)
    node.muted = node.blind = True
    world.run(9.0)


NEEDED = [
    ("waiting", silent, 1.5),
    ("gates", late_docker, 1.5),
    ("looking again", paused_before_its_gate, 1.5),
    ("index", returns_blind, 1.5),
    ("admission", returns_as_it_is_given_up, 4.0),
    ("sending", slow_answers, 1.5),
    ("its beginning", heard_by_the_old_leader_alone, 1.5),
    ("majority", heard_by_the_old_leader_alone, 1.5),
    ("noting", mute, 1.5),
]


@pytest.mark.long
@pytest.mark.parametrize(("protection", "befall", "down"), NEEDED)
def test_each_protection_is_needed(protection, befall, down):
    for seed in range(20):
        befall(World(seed, down=down))
    assert any(_two(World(seed, protection, down=down), befall) for seed in range(200))


def _two(world: World, befall: Callable[[World], None]) -> bool:
    try:
        befall(world)
    except Two:
        return True
    return False
