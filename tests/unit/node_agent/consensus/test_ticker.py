"""A member ticks when it is woken, and when the pause that it asked for is over."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from node_agent.consensus.ticker import Ticker


class Ticks:
    """At which second each tick came. `pauses` are what they ask for, in turn; the last one ends it."""

    def __init__(self, *pauses: float | None) -> None:
        self._pauses = list(pauses)
        self.at: list[float] = []
        self.ticker = Ticker(self._tick)

    def _tick(self) -> float | None:
        self.at.append(round(asyncio.get_running_loop().time(), 3))
        return self._pauses.pop(0)


def test_the_next_tick_comes_when_the_pause_is_over(virtual):
    async def scenario() -> None:
        ticks = Ticks(1.0, 0.25, None)
        began = asyncio.get_running_loop().time()
        await ticks.ticker.run()
        assert [at - began for at in ticks.at] == pytest.approx([0.0, 1.0, 1.25])

    virtual(scenario())


def test_who_is_woken_ticks_at_once_and_once_however_often(virtual):
    async def scenario() -> None:
        ticks = Ticks(10.0, 5.0, None)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            loop.call_at(began + 1.0, ticks.ticker.wake)
        await ticks.ticker.run()
        assert [at - began for at in ticks.at] == pytest.approx([0.0, 1.0, 6.0])  # the earlier deadline, not the one of the first tick

    virtual(scenario())


def test_a_deadline_that_moved_away_does_not_tick(virtual):
    async def scenario() -> None:
        ticks = Ticks(2.0, 10.0, None)
        loop = asyncio.get_running_loop()
        began = loop.time()
        loop.call_at(began + 1.0, ticks.ticker.wake)
        await ticks.ticker.run()
        assert [at - began for at in ticks.at] == pytest.approx([0.0, 1.0, 11.0])

    virtual(scenario())


def test_what_was_to_be_done_before_a_wake_is_done_before_the_tick(virtual):
    async def scenario() -> None:
        done: list[str] = []
        loop = asyncio.get_running_loop()

        def tick() -> float | None:
            if not done:
                loop.call_soon(done.append, "sent")
                ticker.wake()
                return 10.0
            done.append("tick")
            return None

        ticker = Ticker(tick)
        await ticker.run()
        assert done == ["sent", "tick"]

    virtual(scenario())


def test_it_ends_when_told_and_raises_what_a_tick_raised(virtual):
    async def scenario() -> None:
        ticks = Ticks(10.0, 10.0)
        asyncio.get_running_loop().call_later(1.0, ticks.ticker.end)
        await ticks.ticker.run()
        assert len(ticks.at) == 1
        ticks.ticker.wake()  # in vain
        await asyncio.sleep(20.0)
        assert len(ticks.at) == 1

        def fails() -> float | None:
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            await Ticker(fails).run()

    virtual(scenario())


def test_a_timer_that_goes_off_a_hair_too_soon_does_not_make_the_loop_spin():
    """uvloop rounds to milliseconds."""

    async def scenario() -> float:
        ticks = Ticks(*[0.0104] * 40, None)
        loop = asyncio.get_running_loop()
        rung = 0
        again = ticks.ticker._rung

        def counted() -> None:
            nonlocal rung
            rung += 1
            again()

        ticks.ticker._rung = counted  # type: ignore[method-assign]
        began = loop.time()
        await ticks.ticker.run()
        assert loop.time() - began >= 40 * 0.0104 - 0.001
        return rung / 40

    assert uvloop.run(scenario()) <= 2
