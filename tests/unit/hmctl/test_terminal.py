"""The operator's terminal: a real one, and what may stand in its place."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmctl import terminal

PATIENCE = 20.0


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """Who types, and the terminal."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


async def until(condition: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - conditions of foreign objects have no event
            await asyncio.sleep(0.002)


async def test_every_key_goes_through_while_it_is_raw_and_then_all_is_as_before(pair: tuple[int, int]) -> None:
    ours, theirs = pair
    before = termios.tcgetattr(theirs)
    keyboard = terminal.Keyboard(theirs)
    with terminal.raw(theirs):
        os.write(ours, b"\x03\x1a\x04q")
        typed = b""
        async with asyncio.timeout(PATIENCE):
            while len(typed) < 4:
                typed += await keyboard.read()
        assert typed == b"\x03\x1a\x04q"
        assert termios.tcgetattr(theirs) != before
    assert termios.tcgetattr(theirs) == before


async def test_it_is_as_before_after_a_failure_too(pair: tuple[int, int]) -> None:
    before = termios.tcgetattr(pair[1])
    with pytest.raises(OSError, match="lost"), terminal.raw(pair[1]):
        raise OSError("lost")
    assert termios.tcgetattr(pair[1]) == before


def test_sizes(pair: tuple[int, int], tmp_path: Path) -> None:
    fcntl.ioctl(pair[1], termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
    assert terminal.size(pair[1]) == (50, 132)
    with (tmp_path / "file").open("w") as file:
        assert terminal.size(file.fileno()) == (0, 0)


async def test_input_comes_in_pieces_from_pipes_and_files_until_it_ends(tmp_path: Path) -> None:
    data = os.urandom(3 * terminal.CHUNK + 7)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        keyboard = terminal.Keyboard(file.fileno())
        got = b""
        while piece := await keyboard.read():
            assert len(piece) <= terminal.CHUNK
            got += piece
    assert got == data
    reading, writing = os.pipe()
    keyboard = terminal.Keyboard(reading)
    os.write(writing, b"a")
    assert await keyboard.read() == b"a"
    os.close(writing)
    assert await keyboard.read() == b""
    os.close(reading)


async def test_nothing_to_read_from_is_an_end() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    assert await terminal.Keyboard(reading).read() == b""


async def test_no_more_is_read_than_was_taken_but_for_a_piece_or_two() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(writing, bytes(20 * terminal.CHUNK))
    keyboard = terminal.Keyboard(reading)
    await keyboard.read()
    await keyboard.read()
    for _ in range(100):  # turns of the loop and of threads, in which one that does not wait reads all
        await asyncio.to_thread(os.getpid)
    left = int.from_bytes(fcntl.ioctl(reading, termios.FIONREAD, bytes(4)), "little")
    assert left >= 16 * terminal.CHUNK
    os.close(writing)
    while await keyboard.read():
        pass
    os.close(reading)


def test_a_thread_that_waits_for_input_does_not_hold_up_the_end() -> None:
    reading, writing = os.pipe()

    async def main() -> None:
        keyboard = terminal.Keyboard(reading)
        async with asyncio.timeout(PATIENCE):
            reader = asyncio.ensure_future(keyboard.read())
            await asyncio.sleep(0)
            reader.cancel()

    asyncio.run(main())
    os.write(writing, b"late")  # wakes the thread, which finds its loop closed
    os.close(writing)


async def test_a_slow_reader_of_our_output_does_not_stop_the_loop() -> None:
    reading, writing = os.pipe()
    writer = asyncio.ensure_future(terminal.write(writing, bytes(300_000)))
    await asyncio.sleep(0)
    assert not writer.done()
    got = 0
    while got < 300_000:
        got += len(await asyncio.to_thread(os.read, reading, 65_536))
    await writer
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        await terminal.write(writing, b"x")
    os.close(writing)


async def test_signals_are_heeded_for_a_while() -> None:
    heard: list[str] = []
    shells = signal.signal(signal.SIGWINCH, lambda *_: heard.append("as before"))
    try:
        with terminal.heeded(signal.SIGWINCH, lambda: heard.append("resized")):
            os.kill(os.getpid(), signal.SIGWINCH)
            await until(lambda: heard)
        os.kill(os.getpid(), signal.SIGWINCH)
        await until(lambda: len(heard) == 2)
    finally:
        signal.signal(signal.SIGWINCH, shells)
    assert heard == ["resized", "as before"]
