"""What is measured of both sides in the same way: writers, the next write after the leader has gone, and a member that starts again."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from consensus_load import Load, load, resident
from consensus_sides import Line, Side

SIZE = 200  # bytes of a value
WARM_UP = 1.0  # seconds, not counted
ATTEMPT = 0.25  # seconds that one attempt may take while nobody leads
PAUSE = 0.01  # seconds after an attempt that was refused
GIVE_UP = 60.0  # seconds for anything that is waited for


def value(number: int) -> bytes:
    """No two alike: to write what is there already may cost less."""
    return b"%0*d" % (SIZE, number)


class Unacknowledged(Exception):
    """Writes failed though all three members were well: the measurement is void."""


@asynccontextmanager
async def lines(side: Side, count: int) -> AsyncIterator[list[Line]]:
    """Connections to the leader."""
    leader = await side.leader()
    made: list[Line] = []
    try:
        for _ in range(count):
            made.append(await side.open(leader))
        yield made
    finally:
        for line in made:
            await line.close()


async def writers(side: Side, *, callers: int, connections: int, seconds: float) -> Load:
    """Independent callers at the leader, each with a key of its own. Raises Unacknowledged when a single write fails."""
    async with lines(side, connections) as made:
        written = itertools.count()

        async def write(number: int) -> None:
            await made[number % connections].put(f"bench/{number}", value(next(written)))

        await load(write, callers=callers, seconds=WARM_UP, servers=())
        found = await load(write, callers=callers, seconds=seconds, servers=[side.pid(member) for member in side.members])
    if found.failed:
        raise Unacknowledged(f"{side.name}, {callers} callers: {found.failed.total()} writes failed: {found.failed.most_common(3)}")
    return found


async def after_crash(side: Side) -> float:
    """Seconds from the leader's SIGKILL until a survivor acknowledges a write that was begun afterwards."""
    leader = await side.leader()
    survivors = [member for member in side.members if member != leader]
    opened = [await side.open(member) for member in survivors]
    try:
        side.kill(leader)
        killed = time.perf_counter()
        async with asyncio.timeout(GIVE_UP):
            await _first(opened)
        took = time.perf_counter() - killed
    finally:
        for line in opened:
            await line.close()
    side.start(leader)
    await side.leader()
    return took


async def _first(opened: Sequence[Line]) -> None:
    """Until one of them acknowledges a write. Each tries for itself, and again when it is refused: until somebody leads, that is due."""
    accepted = asyncio.Event()
    written = itertools.count()

    async def attempt(line: Line) -> None:
        while not accepted.is_set():
            try:
                async with asyncio.timeout(ATTEMPT):
                    await line.put("bench/crash", value(next(written)))
            except Exception:  # no leader, or no answer: GIVE_UP bounds it
                await asyncio.sleep(PAUSE)
            else:
                accepted.set()

    async with asyncio.TaskGroup() as tasks:
        for number, line in enumerate(opened):
            tasks.create_task(attempt(line), name=f"attempts {number}")


async def after_transfer(side: Side) -> float:
    """Seconds from the order until the new leader acknowledges a write."""
    leader = await side.leader()
    to = next(member for member in side.members if member != leader)
    line = await side.open(to)
    try:
        began = time.perf_counter()
        await side.transfer(leader, to)
        await line.put("bench/transfer", value(time.monotonic_ns()))
        return time.perf_counter() - began
    finally:
        await line.close()


async def fill(side: Side, count: int, *, callers: int, connections: int) -> None:
    """Write so many keys. Raises what made a write fail."""
    async with lines(side, connections) as made:
        numbers = iter(range(count))

        async def write(caller: int) -> None:
            for number in numbers:
                await made[caller % connections].put(f"fill/{number}", value(number))

        async with asyncio.TaskGroup() as tasks:
            for caller in range(callers):
                tasks.create_task(write(caller), name=f"fill {caller}")


async def restarted(side: Side, last: str) -> float:
    """Seconds from the start of a killed follower until it answers with the key that was written last."""
    leader = await side.leader()
    member = next(member for member in side.members if member != leader)
    side.kill(member)
    began = time.perf_counter()
    side.start(member)
    async with asyncio.timeout(GIVE_UP):
        while True:
            if await _answers(side, member, last):
                break
            await asyncio.sleep(PAUSE)
    took = time.perf_counter() - began
    await side.leader()
    return took


async def _answers(side: Side, member: str, key: str) -> bool:
    try:
        line = await side.open(member)
    except Exception:  # it does not listen yet: the caller's deadline bounds it
        return False
    try:
        return await line.holds(key)
    except Exception:  # as above
        return False
    finally:
        await line.close()


def largest(side: Side) -> float:
    """Megabytes of the member that holds most."""
    return max(resident(side.pid(member)) for member in side.members)
