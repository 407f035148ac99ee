"""How late our own event loop is: on a machine without CPU to spare, or while we compute handshakes, time passes in which nobody's answer
could have been heard. Such time is ours and must not be held against those who were asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK = 0.02  # seconds between looks at the clock: what a turn of the loop that was late still counts
NOISE = 0.005  # seconds: so late is any loop
MOST = 30.0  # seconds of lateness that are told in all: whoever asked wants an end, too


@contextmanager
def told(hear: Callable[[float], None]) -> Iterator[None]:
    """Within the block, `hear` gets by how many seconds the loop was late, at once and before any timeout that passed meanwhile strikes."""
    loop, left = asyncio.get_running_loop(), MOST
    next_look: asyncio.TimerHandle

    def look(due: float) -> None:
        nonlocal next_look, left
        late = min(loop.time() - due, left)
        if late > NOISE:
            left -= late
            hear(late)
        due = loop.time() + TICK
        next_look = loop.call_at(due, look, due)

    first = loop.time() + TICK
    next_look = loop.call_at(first, look, first)
    try:
        yield
    finally:
        next_look.cancel()
