"""Blocking work in a thread of its own that nobody waits for at the end: what Docker may take minutes for must not keep an agent from
stopping, as the threads of a pool would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def apart(name: str, work: Callable[[], T]) -> T:
    """What `work` gives, or raises. When this is cancelled `work` goes on, and what it gives is dropped."""
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            found = work()
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            future.set_exception(error)
        else:
            future.set_result(found)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(future)
