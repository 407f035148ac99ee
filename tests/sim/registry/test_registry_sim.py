"""Leader, nodes and faults: in the end the registry says what is, it wrote no more than what changed, and nobody called the dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_world import BEAT, TTL, World, run_virtually

from node_agent.consensus.statemachine.commands import PutInstances
from node_agent.registry.renewals import PATIENCE

NAMES = ["n0", "n1", "n2", "n3"]
QUIET = TTL + PATIENCE + 86.0  # every term has ended, every pause between attempts is over, what flapped has been well for long enough

faults = st.lists(
    st.tuples(
        st.sampled_from(["crash", "start", "restart", "cut", "heal", "lossy", "clean", "elect", "nobody", "exit", "run", "add", "flap"]),
        st.sampled_from(NAMES),
        st.sampled_from([0.0, 0.01, 0.3, 0.7, 1.1, 2.3, 4.4, 9.0, 13.0]),
    ),
    max_size=14,
)


async def act(world: World, tasks: asyncio.TaskGroup, what: str, name: str) -> None:
    agent = world.agents[name]
    if world.leader == name and what in ("crash", "restart", "cut"):  # its voters are gone, and with them its office
        world.elect(None)
    match what:
        case "crash":
            agent.crash()
        case "start":
            agent.start(tasks)
        case "restart":
            agent.crash()
            agent.start(tasks)
        case "cut" | "heal":
            agent.cut = what == "cut"
            agent.quiet_since = world.now
        case "lossy" | "clean":
            world.loss = 0.5 if what == "lossy" else 0.0
        case "elect" if agent.well:
            world.elect(name)
        case "nobody":
            world.elect(None)
        case "exit" | "run":
            agent.set("web", "exited" if what == "exit" else "running")
        case "add":
            agent.set(f"more{len(agent.containers)}", "running")
        case "flap":
            for number in range(30):
                agent.set("web", "running" if number % 2 else "exited")
                await asyncio.sleep(0.1)


def play(scenario: Callable[[World, asyncio.TaskGroup], Awaitable[None]], seed: int = 0) -> None:
    async def whole() -> None:
        world = World(NAMES, seed)
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(world.membership()), tasks.create_task(world.watch())]
            for agent in world.agents.values():
                agent.start(tasks)
            await scenario(world, tasks)
            for agent in world.agents.values():
                agent.crash()
            for helper in helpers:
                helper.cancel()

    try:
        run_virtually(whole())
    except BaseExceptionGroup as group:  # the first reason is the one to read
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def settle(world: World) -> None:
    """A time without faults under some leader."""
    world.loss = 0.0
    for agent in world.agents.values():
        agent.cut = False
    living = [agent.name for agent in world.agents.values() if agent.layer is not None]
    if not living:
        return
    if world.leader not in living:
        world.elect(living[0])
    await asyncio.sleep(QUIET)
    world.settled()
    written = len(world.written)
    await asyncio.sleep(2 * TTL)
    assert len(world.written) == written, "an unchanging cluster writes nothing"


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), faults)
def test_in_the_end_the_registry_says_what_is(seed, script):
    async def scenario(world: World, tasks: asyncio.TaskGroup) -> None:
        await asyncio.sleep(1.0)
        for what, name, pause in script:
            await act(world, tasks, what, name)
            await asyncio.sleep(pause)
        await settle(world)

    play(scenario, seed)


def test_only_changes_are_written():
    async def scenario(world: World, tasks: asyncio.TaskGroup) -> None:
        await asyncio.sleep(2.0)
        assert len(world.written) == len(NAMES)
        for number in range(6):
            world.agents["n1"].set("web", "exited" if number % 2 else "running")
            await asyncio.sleep(40.0)
        await act(world, tasks, "restart", "n2")
        await asyncio.sleep(40.0)
        changed = 5  # the first of the six set what was so already, and a restart finds what ran before
        assert len(world.written) == len(NAMES) + changed
        await settle(world)

    play(scenario)


def test_one_that_flaps_is_written_a_few_times_and_then_not_any_more():
    async def scenario(world: World, tasks: asyncio.TaskGroup) -> None:
        await asyncio.sleep(2.0)
        before = len(world.written)
        for number in range(600):
            world.agents["n3"].set("web", "running" if number % 2 else "exited")
            await asyncio.sleep(0.1)
        assert len(world.written) - before <= 10
        await settle(world)

    play(scenario)


def test_a_new_leader_knows_at_once_and_expires_nobody_too_early():
    async def scenario(world: World, tasks: asyncio.TaskGroup) -> None:
        await asyncio.sleep(TTL * 2)
        world.agents["n0"].crash()
        world.elect(None)
        await asyncio.sleep(3.0)
        world.elect("n1")
        world.heard["n0"] = world.now - 10.0  # it is long silent
        puts = sum(isinstance(command, PutInstances) for command in world.written)
        await asyncio.sleep(TTL - 1.0)
        assert not any(registration.expired for registration in world.state.registrations.values())
        await asyncio.sleep(1.0 + 2 * BEAT)
        assert [name for name, registration in world.state.registrations.items() if registration.expired] == ["n0"]
        assert sum(isinstance(command, PutInstances) for command in world.written) == puts
        await settle(world)

    play(scenario)
