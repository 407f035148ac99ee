"""The bounded list of events: every event once, in order, and what is lost is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.security.journal import LONGEST_WAIT, MOST, Journal, Waiters

steps = st.lists(st.tuples(st.sampled_from(["add", "skip"]), st.integers(0, 9)), max_size=30)


def filled(kept: int, taken: list[tuple[str, int]]) -> tuple[Journal[int], list[int]]:
    """A journal, and the numbers of all events that it was ever given; each event is its own number."""
    journal, given_to_it = Journal[int](kept), []
    for step, count in taken:
        if step == "add":
            numbers = list(range(journal.last + 1, journal.last + count + 1))
            journal.add(numbers)
            given_to_it += numbers
        else:
            journal.skip(count)
    return journal, given_to_it


@given(st.integers(1, 20), steps, st.integers(0, 300), st.integers(1, 12))
def test_a_follower_gets_each_kept_event_once_in_order_and_hears_how_many_it_missed(
    kept: int, taken: list[tuple[str, int]], after: int, limit: int
) -> None:
    journal, events = filled(kept, taken)
    assert len(journal) == min(kept, len(events))
    begin = after if after <= journal.last else 0
    expected = [number for number in events[-kept:] if number > begin]
    got, lost, here = [], 0, after
    for _ in range(200):
        page = journal.after(here, limit)
        assert len(page.events) <= limit
        assert all(number == event for number, event in page.events)
        got += [number for number, _ in page.events]
        lost += page.lost
        if page.last == here:
            break
        here = page.last
    assert got == expected
    assert here == journal.last
    assert lost == journal.last - begin - len(got)


@given(st.integers(1, 20), steps, st.integers(1, 30))
def test_the_latest_are_the_latest_and_nothing_is_lost_before_one_has_begun(kept: int, taken: list[tuple[str, int]], limit: int) -> None:
    journal, events = filled(kept, taken)
    page = journal.after(-1, limit)
    assert [number for number, _ in page.events] == events[-min(kept, limit) :]
    assert (page.last, page.lost) == (journal.last, 0)


@given(steps, st.integers(0, 100), st.integers(1, 5))
def test_events_that_are_not_wanted_are_passed_over_and_not_lost(taken: list[tuple[str, int]], after: int, limit: int) -> None:
    journal, events = filled(1000, taken)
    begin = after if after <= journal.last else 0
    got, lost, here = [], 0, after
    while True:
        page = journal.after(here, limit, lambda event: event % 3 == 0)
        got += [number for number, _ in page.events]
        lost += page.lost
        if page.last == here:
            break
        here = page.last
    assert got == [number for number in events if number > begin and number % 3 == 0]
    assert lost == sum(number not in events for number in range(begin + 1, journal.last + 1))


@pytest.mark.parametrize("limit", [-5, 0, 10**9])
def test_one_answer_is_bounded_whatever_is_asked(limit: int) -> None:
    journal = Journal[int]()
    journal.add(range(1, 3 * MOST))
    assert 1 <= len(journal.after(0, limit).events) <= MOST
    assert 1 <= len(journal.after(-1, limit).events) <= MOST


def test_a_waiter_is_woken_by_what_it_waits_for_and_not_by_other_news(virtual: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        journal, waiters = Journal[str](), Waiters()
        loop = asyncio.get_running_loop()

        def add(event: str) -> None:
            journal.add([event])
            waiters.wake()

        loop.call_later(1.0, add, "other")
        loop.call_later(2.0, add, "mine")
        assert await waiters.until(lambda: bool(journal.after(0, 1, lambda event: event == "mine").events), 10)
        assert loop.time() == pytest.approx(2.0)
        assert len(waiters) == 0

    virtual(scenario())


def test_waiting_ends_by_itself_and_there_is_room_for_only_so_many(virtual: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        waiters, loop = Waiters(most=2), asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            long = [group.create_task(waiters.until(lambda: False, 1e9), name=f"wait {number}") for number in range(2)]
            await asyncio.sleep(0)
            assert len(waiters) == 2
            assert not await waiters.until(lambda: False, 1e9)
            assert loop.time() == 0  # it was not kept waiting
        assert not any(task.result() for task in long)
        assert loop.time() == pytest.approx(LONGEST_WAIT)
        assert len(waiters) == 0

    virtual(scenario())
