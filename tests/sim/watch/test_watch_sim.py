"""Whoever follows the state has at each log index what the cluster had there; everything is told once, or it is told that some is lost."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from watch_world import Violation, World, patiently, records

from hmcore.watch import Change, Position, TablesRequest, WatchRequest
from node_agent.consensus.following.follower import FOLLOWED, Follower

SEEDS = range(10)


async def follow_with_a_copy(world: World, done: asyncio.Event) -> Follower:
    """As a worker does: whoever answers is asked, and sometimes a second question is under way."""
    follower = Follower(world.anybody_watched, world.anybodys_tables, clock=world.clock)
    begun = 0
    held: object = None

    async def look() -> None:
        nonlocal begun, held
        least = follower.copy.index if follower.copy is not None else 0
        reach = least + world.rnd.randint(0, 5) if world.rnd.random() < 0.3 else 0
        await patiently(follower.look([], wait=world.rnd.choice((0.0, 0.3, 5.0)), reach=reach, leader="n0", least=least), world.seen)
        copy = follower.copy
        if copy is None:
            return
        if copy is not held:
            held, begun = copy, begun + 1
        if copy.index < least:
            raise Violation(f"time was turned back from {least} to {copy.index}")
        state = world.log.at(copy.index)
        if records(copy.tables) != {table: dict(getattr(state, table)) for table in FOLLOWED}:
            raise Violation(f"the copy is not what the state was at {copy.index}")

    async with asyncio.TaskGroup() as tasks:
        while not done.is_set() or follower.copy is None or follower.copy.index < world.log.last:
            if world.rnd.random() < 0.2:
                tasks.create_task(look(), name="another look")
            await look()
            await asyncio.sleep(world.rnd.choice((0.0, 0.01, 0.2, 3.0 if world.faulty else 0.0)))
    world.seen["copies begun"] += begun
    return follower


async def follow_every_change(world: World, done: asyncio.Event, tables: tuple[str, ...], prefix: str) -> None:
    """As `hmctl kv watch` does, at one node until that fails: what it is told must be all that changed, unless it is told of a loss."""

    def wanted(change: Change) -> bool:
        return change.table in tables and change.key.startswith(prefix)

    position, name = Position(0), "n0"
    while not done.is_set() or position.index < world.log.last:
        await asyncio.sleep(world.rnd.choice((0.0, 0.01, 0.01, 0.3, 2.0 if world.faulty else 0.0)))
        since = position.index
        request = WatchRequest(since=since, tables=tables, prefix=prefix, wait=world.rnd.choice((0.0, 1.0)))
        reply = await patiently(world.watch(name, request), world.seen)
        if reply is None or world.rnd.random() < 0.1:
            name = world.rnd.choice(list(world.nodes))
        if reply is None:
            continue
        step = position.take(since, reply)
        world.seen["behind"] += step.behind
        if step.oldest is not None:
            if since >= step.oldest:
                raise Violation(f"a loss is told, though {since} is not before {step.oldest}")
            world.seen["losses told"] += 1
            position.index = await begin_anew(world, name, tables, prefix, since)
            continue
        told = Counter((entry.index, change) for entry in step.entries for change in entry.changes)
        truth = Counter(
            (index, change)
            for index, changes in world.log.changes.items()
            if since < index <= position.index
            for change in changes
            if wanted(change)
        )
        if told != truth:
            raise Violation(f"behind {since}, up to {position.index}, was told {told}, true is {truth}")
        world.seen["told"] += len(told)


async def begin_anew(world: World, name: str, tables: tuple[str, ...], prefix: str, since: int) -> int:
    """All of one log index, in portions; it must be what the state was there."""
    found: list[Change] = []
    reply = await patiently(world.tables(name, TablesRequest(tables=tables, prefix=prefix)), world.seen)
    while reply is not None and reply.more:
        found += reply.records
        world.seen["portions"] += 1
        reply = await patiently(
            world.tables(name, TablesRequest(tables=tables, prefix=prefix, index=reply.index, offset=len(found))), world.seen
        )
    if reply is None or reply.gone or reply.index < since:
        return since
    found += reply.records
    state = world.log.at(reply.index)
    names = sorted((table, key) for table in tables for key in getattr(state, table) if key.startswith(prefix))
    if sorted((change.table, change.key) for change in found) != names:
        raise Violation(f"the tables of log index {reply.index} are not what they were")
    return int(reply.index)


async def run(seed: int) -> World:
    world, done = World(seed), asyncio.Event()

    async def live() -> None:
        await world.live()
        done.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(live(), name="log")
        tasks.create_task(follow_with_a_copy(world, done), name="worker")
        tasks.create_task(follow_every_change(world, done, ("keys",), "app/"), name="keys")
        tasks.create_task(follow_every_change(world, done, ("nodes", "registrations", "keys"), ""), name="many")
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_followers_of_random_nodes_with_tiny_histories_have_what_was_true(seed, virtual):
    world = virtual(run(seed))
    assert world.seen["told"] > 0


@pytest.mark.long
def test_all_that_may_go_wrong_has_gone_wrong(virtual):
    seen: Counter[str] = Counter()
    for seed in range(100, 105):
        seen += virtual(run(seed)).seen
    for what in ("behind", "losses told", "answer lost", "portions", "told"):
        assert seen[what] > 3, seen
    assert seen["copies begun"] > 10, seen
