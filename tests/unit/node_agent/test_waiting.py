"""How the agent's loops rest."""

import asyncio

from node_agent.waiting import woken


async def test_says_whether_the_event_came():
    event = asyncio.Event()
    assert not await woken(event, 0.0)
    event.set()
    assert await woken(event, 0.0)  # what was there already counts, however short the wait


async def test_without_a_limit_waits_for_the_event():
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await woken(event, None)
