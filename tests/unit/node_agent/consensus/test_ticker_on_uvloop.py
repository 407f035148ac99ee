"""When a member ticks, on the event loop that agents run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from node_agent.consensus.ticker import Ticker


@pytest.mark.parametrize("pause", [0.0, 0.0001, 0.001])
def test_a_member_that_is_woken_during_a_pause_however_short_goes_on(pause: float) -> None:
    """uvloop's call_at returns what has no `when`, for times that are as good as now."""
    complaints: list[dict[str, Any]] = []
    ticks = 0

    async def main() -> None:
        def tick() -> float | None:
            nonlocal ticks
            ticks += 1
            ticker.wake()  # what a tick brings about may wake it
            return pause if ticks < 20 else None

        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        ticker = Ticker(tick)
        await ticker.run()

    uvloop.run(main())
    assert ticks == 20
    assert complaints == []
