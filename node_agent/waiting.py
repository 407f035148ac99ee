"""How the agent's loops rest: until there is something to do, or it is time anyway."""

from __future__ import annotations

import asyncio


async def woken(event: asyncio.Event, seconds: float | None) -> bool:
    """Waits for `event`, so many seconds at most; None: however long it takes. Whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
