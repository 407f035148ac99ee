"""Never more connections than the limit, whoever wants which when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmctl.remote.pool import Pool


@dataclass
class Link:
    open: bool = True

    def is_closed(self) -> bool:
        return not self.open


@dataclass
class Hosts:
    links: list[tuple[str, Link]] = field(default_factory=list)
    peak: int = 0
    closing: float = 0.0

    async def connect(self, name: str) -> Link:
        link = Link()
        self.links.append((name, link))
        self.peak = max(self.peak, len(self.there()))
        await asyncio.sleep(0)
        return link

    async def close(self, link: Link) -> None:
        await asyncio.sleep(0)
        link.open = False

    def there(self) -> list[str]:
        return [name for name, link in self.links if link.open]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 4)), max_size=30), st.integers(1, 4))
def test_whoever_wants_a_connection_gets_one_and_never_are_there_more_than_the_limit(uses: list[tuple[str, int]], limit: int) -> None:
    hosts = Hosts()

    async def scenario() -> None:
        pool = Pool(limit, hosts.close)

        async def use(name: str, turns: int) -> None:
            link = await pool.take(name, lambda: hosts.connect(name))
            for _ in range(turns):
                await asyncio.sleep(0)
                assert link.open
            pool.give_back(name, link)

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            for name, turns in uses:
                group.create_task(use(name, turns))

    asyncio.run(scenario())
    assert hosts.peak <= limit
    assert len(hosts.there()) == len(set(hosts.there()))


async def test_without_a_limit_or_below_it_everybody_keeps_his_connection() -> None:
    for limit in (None, 3):
        hosts = Hosts()
        pool = Pool(limit, hosts.close)
        for _ in range(2):
            for name in "abc":
                pool.give_back(name, await pool.take(name, lambda name=name, hosts=hosts: hosts.connect(name)))
        assert [name for name, _ in hosts.links] == ["a", "b", "c"]


async def test_the_one_that_was_idle_the_longest_goes() -> None:
    hosts = Hosts()
    pool = Pool(2, hosts.close)
    for name in "abac":
        pool.give_back(name, await pool.take(name, lambda name=name: hosts.connect(name)))
    assert hosts.there() == ["a", "c"]


async def test_what_cannot_be_opened_takes_no_room() -> None:
    hosts = Hosts()
    pool = Pool(1, hosts.close)

    async def refused() -> Link:
        raise ConnectionError

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await pool.take("a", refused)
    async with asyncio.timeout(1):
        await pool.take("b", lambda: hosts.connect("b"))


async def test_a_connection_that_ended_while_nobody_used_it_is_opened_again() -> None:
    hosts = Hosts()
    pool = Pool(2, hosts.close)
    link = await pool.take("a", lambda: hosts.connect("a"))
    pool.give_back("a", link)
    link.open = False
    assert (await pool.take("a", lambda: hosts.connect("a"))).open


async def test_a_connection_that_ended_while_it_was_used_is_opened_again_though_somebody_still_holds_it() -> None:
    """The lock on a host is held for as long as we work; whoever dials a lost host once more must not be given what was lost."""
    hosts = Hosts()
    pool = Pool(2, hosts.close)
    held = await pool.take("a", lambda: hosts.connect("a"))
    held.open = False
    link = await pool.take("a", lambda: hosts.connect("a"))
    assert link.open
    pool.give_back("a", held)
    pool.give_back("a", link)
    pool.give_back("b", await pool.take("b", lambda: hosts.connect("b")))
    pool.give_back("c", await pool.take("c", lambda: hosts.connect("c")))
    assert hosts.there() == ["b", "c"], "what was given back frees its room once"


@pytest.mark.parametrize("limit", [1, 2])
async def test_what_is_found_lost_makes_room_for_whoever_waits_for_it(limit: int) -> None:
    """Its holder gives back what nobody counts any more, and wakes nobody by that."""
    hosts = Hosts()
    pool = Pool(limit, hosts.close)
    held = {name: await pool.take(name, partial(hosts.connect, name)) for name in "abc"[:limit]}
    done: list[str] = []

    async def use(name: str) -> None:
        pool.give_back(name, await pool.take(name, lambda: hosts.connect(name)))
        done.append(name)

    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        group.create_task(use("z"), name="z")
        await asyncio.sleep(0)
        held["a"].open = False
        group.create_task(use("a"), name="a")
        await asyncio.sleep(0)
        pool.give_back("a", held["a"])
    assert done == ["z", "a"]
    assert hosts.peak == limit


async def test_while_one_is_being_closed_nobody_takes_its_place_and_one_given_up_meanwhile_keeps_none() -> None:
    hosts, closing, may = Hosts(), asyncio.Event(), asyncio.Event()

    async def slowly(link: Link) -> None:
        closing.set()
        try:
            await may.wait()
        finally:
            link.open = False

    pool = Pool(2, slowly)
    for name in "ab":
        pool.give_back(name, await pool.take(name, lambda name=name: hosts.connect(name)))
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        first, *others = [group.create_task(pool.take(name, partial(hosts.connect, name)), name=name) for name in "cdef"]
        reserving = group.create_task(pool.reserve(), name="reserve")
        await closing.wait()
        assert hosts.there() == ["a", "b"]
        first.cancel()
        await asyncio.wait([first])
        may.set()
        for name, task in zip("def", others, strict=True):
            pool.give_back(name, await task)
        await reserving
    assert hosts.peak == 2
    assert hosts.there() == ["f"]


async def test_what_stays_open_for_good_takes_room_but_never_the_last() -> None:
    hosts = Hosts()
    pool = Pool(2, hosts.close)
    for name in "ab":
        pool.give_back(name, await pool.take(name, lambda name=name: hosts.connect(name)))
    await pool.reserve()
    assert hosts.there() == ["b"]
    await pool.reserve()
    pool.give_back("c", await pool.take("c", lambda: hosts.connect("c")))
    assert hosts.there() == ["c"]
