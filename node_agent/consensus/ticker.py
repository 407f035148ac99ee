"""When a member ticks: soon after something happened, or when the pause that its last tick asked for is over. Never by a fixed beat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

RESOLUTION = 0.001  # seconds: of uvloop's timers. One that goes off a hair too soon, and is set again for that hair, makes the loop spin


class Ticker:
    """Calls `tick`, which returns how many seconds the next one may wait, or None when there is to be no other."""

    def __init__(self, tick: Callable[[], float | None]) -> None:
        self._tick = tick
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] | None = None  # of `run`
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.Handle | None = None
        self._rings = 0.0  # when `_later` does; uvloop's cannot tell: for less than half a millisecond it makes no timer
        self._due = 0.0  # by the loop's clock; the timer may go off sooner, and then goes to sleep again

    async def run(self) -> None:
        """Until `tick` returns None, or `end`. Raises what `tick` raised."""
        self._over = self._loop.create_future()
        self.wake()
        try:
            await self._over
        finally:
            self._over = None
            for handle in (self._soon, self._later):
                if handle is not None:
                    handle.cancel()
            self._soon = self._later = None

    def wake(self) -> None:
        """Tick behind what the loop has to do already: what one tick sent leaves before the next one waits for the disk."""
        if self._soon is None and self._over is not None:
            self._soon = self._loop.call_soon(self._turn)

    def end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _turn(self) -> None:
        self._soon = None
        if self._over is None or self._over.done():
            return
        try:
            pause = self._tick()
        except Exception as error:  # noqa: BLE001  # whatever it was, `run` is where it goes
            self._over.set_exception(error)
            return
        if pause is None:
            self.end()
            return
        self._due = self._loop.time() + pause
        if self._later is not None and self._rings > self._due:
            self._later.cancel()
            self._later = None
        if self._later is None:
            self._sleep()

    def _rung(self) -> None:
        self._later = None
        if self._loop.time() < self._due:
            self._sleep(RESOLUTION)
        else:
            self._turn()

    def _sleep(self, least: float = 0.0) -> None:
        self._rings = max(self._due, self._loop.time() + least)
        self._later = self._loop.call_at(self._rings, self._rung)
