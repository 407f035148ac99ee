"""Blocking questions to Docker on the event loop: however Docker hangs, only a few threads wait, and the agent goes on (docs/adr/0031)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from hmcore.errors import LayerDown

T = TypeVar("T")

THREADS = 4


class Questions:
    """Blocking questions to Docker, in a few threads: a bounded number at once, each with a timeout."""

    def __init__(self, socket: Path, timeout: float) -> None:
        self._socket = socket
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._unanswered = 0

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises what `question` raises, and LayerDown when it takes too long or too many are still unanswered."""
        fix = "systemctl restart docker"
        if self._unanswered >= THREADS:
            raise LayerDown(f"Docker does not answer on {self._socket}", fix=fix)
        loop = asyncio.get_running_loop()

        def counted() -> T:
            try:
                return question()
            finally:
                quietly(loop.call_soon_threadsafe, self._answered)

        self._unanswered += 1
        try:
            async with asyncio.timeout(self._timeout):
                return await loop.run_in_executor(self._threads, counted)
        except TimeoutError as error:
            raise LayerDown(f"Docker does not answer on {self._socket} within {self._timeout:g} s", fix=fix) from error

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answered(self) -> None:
        self._unanswered -= 1


def quietly(post: Callable[[Callable[[], None]], object], what: Callable[[], None]) -> None:
    """Tell the event loop from a thread. Once it is closed, nobody wants to know."""
    try:
        post(what)
    except RuntimeError:
        return
