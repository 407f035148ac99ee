"""Who waits is woken, once; who comes later waits for the next beat."""

from __future__ import annotations

import asyncio

from hmcore.stoq.pulse import Pulse


async def test_a_beat_wakes_all_who_wait_and_nobody_who_comes_later() -> None:
    pulse, woken = Pulse(), list[str]()

    async def wait(name: str) -> None:
        await pulse.wait()
        woken.append(name)

    pulse.beat()  # before anybody waits: kept for nobody
    async with asyncio.TaskGroup() as group:
        for name in ("first", "second"):
            group.create_task(wait(name))
        await asyncio.sleep(0)
        assert pulse.awaited
        pulse.beat()
        late = group.create_task(wait("late"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sorted(woken) == ["first", "second"]
        assert not late.done()
        pulse.beat()
    assert woken[2:] == ["late"]
    assert not pulse.awaited


async def test_who_gives_up_leaves_nothing_behind() -> None:
    pulse = Pulse()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(pulse.wait())
        await asyncio.sleep(0)
        waiting.cancel()
    assert not pulse.awaited
    pulse.beat()
