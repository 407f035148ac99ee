"""The operator's own terminal, or what stands in its place, as the two ends of a command that runs elsewhere.

Reading and writing block, and a file cannot be polled: each has a thread, which the interpreter does not wait for at its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

CHUNK = 16 * 1024  # bytes read at a time


class Keyboard:
    """A file to read from, piece by piece: no more is read than was taken, but for one piece."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._loop = asyncio.get_running_loop()
        self._started = False

    async def read(self) -> bytes:
        """The next piece; empty at the end, which is also that there is nothing to read from."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._work, name="stdin", daemon=True).start()
        return await self._pieces.get()

    def _work(self) -> None:
        data = b"-"
        while data:
            try:
                data = os.read(self._file, CHUNK)
            except OSError:
                data = b""
            if not _told(self._loop, self._pieces, data):
                return


def _told(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[bytes], data: bytes) -> bool:
    """Whether it was; else nobody wants it any more."""
    putting = pieces.put(data)
    try:
        asyncio.run_coroutine_threadsafe(putting, loop).result()
    except RuntimeError:  # the loop is closed
        putting.close()
        return False
    except CancelledError:  # with the loop
        return False
    return True


async def write(file: int, data: bytes) -> None:
    """All of it, however slowly it is taken; the event loop goes on. Raises OSError."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 -- it rises where it is waited for
            future.set_exception(error)

    threading.Thread(target=work, name="output", daemon=True).start()
    await asyncio.wrap_future(future)


def size(file: int) -> tuple[int, int]:
    """Rows and columns; 0, 0 where there is no terminal."""
    try:
        found = os.get_terminal_size(file)
    except OSError:
        return 0, 0
    return found.lines, found.columns


@contextmanager
def raw(file: int) -> Iterator[None]:
    """Every key goes through as it is, Ctrl-C too; then as it was before."""
    before = termios.tcgetattr(file)
    try:
        tty.setraw(file)
        yield
    finally:
        with suppress(termios.error, OSError):  # it was closed
            termios.tcsetattr(file, termios.TCSADRAIN, before)


@contextmanager
def heeded(number: signal.Signals, heed: Callable[[], None]) -> Iterator[None]:
    """Call `heed` on the event loop when the signal comes; afterwards it means what it meant before. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, loop = signal.getsignal(number), asyncio.get_running_loop()
    loop.add_signal_handler(number, heed)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)
        signal.signal(number, before)
