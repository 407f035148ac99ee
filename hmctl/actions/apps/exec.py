"""A command in a replica: which one it is, and joining the operator's terminal with it (hmctl/terminal.py)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hmcore.apps.records import Allocation, Phase
from hmcore.apps.streams import (
    EXEC,
    STDIN_WINDOW,
    Began,
    ExecRequest,
    ExecSaid,
    ExecUp,
    Exited,
    Input,
    InputEnd,
    Output,
    Resize,
    Signal,
    Taken,
)
from hmcore.errors import ConnectionLost, HyperMeshError, Interrupted
from hmcore.stoq.dialogue import Talk
from hmcore.stoq.pulse import Pulse
from hmctl.actions.apps.target import Target, absent, meant
from hmctl.actions.apps.view import Seen
from hmctl.terminal import heeded

if TYPE_CHECKING:
    from hmctl.client import AgentClient

Conversation = Talk[ExecRequest, ExecUp, ExecSaid]


def chosen(seen: Seen, wanted: Target) -> Allocation:
    """The replica that is meant: it runs, rather one that shall stay, the lowest number first. Raises HyperMeshError."""
    found = meant(seen, wanted)
    if not found:
        raise absent(seen, wanted)
    running = [each for each in found if (status := seen.status(each)) is not None and status.phase is Phase.RUNNING]
    if not running:
        raise HyperMeshError(f"no replica of {wanted} runs", fix=f"hmctl app ps {wanted.app}/{wanted.service}")
    return min(running, key=lambda each: (each.stop, each.slot, each.node, -each.serial))


class Console(Protocol):
    """The operator's end."""

    async def read(self) -> bytes:
        """The next piece of input, far less than STDIN_WINDOW; empty at its end."""

    async def write(self, data: bytes, *, error: bool) -> None:
        """Raises OSError when nobody takes it any more."""

    def size(self) -> tuple[int, int]:
        """Rows and columns; 0, 0 where there is no terminal."""


@dataclass(slots=True)
class _Session:
    talk: Conversation
    console: Console
    request: ExecRequest
    held: int = 0  # bytes of input that were not taken yet
    taken: Pulse = field(default_factory=Pulse)
    interrupts: int = 0

    async def run(self) -> int:
        """The command's exit status. Raises HyperMeshError, OSError."""
        news: asyncio.Queue[ExecUp | None] = asyncio.Queue()
        with ExitStack() as stack:
            if self.request.tty:
                stack.enter_context(heeded(signal.SIGWINCH, lambda: news.put_nowait(self._window())))
            else:
                stack.enter_context(heeded(signal.SIGINT, lambda: news.put_nowait(self._interrupt())))
            async with _beside(self._type, lambda: self._tell(news)):
                return await self._listen()

    def _window(self) -> Resize:
        return Resize(*self.console.size())

    def _interrupt(self) -> Signal | None:
        """The first is the command's; who insists means us."""
        self.interrupts += 1
        return Signal("INT") if self.interrupts == 1 else None

    async def _listen(self) -> int:
        heard = False
        while (said := await self.talk.receive()) is not None:
            heard = True
            match said:
                case Output(data, error):
                    await self.console.write(data, error=error)
                case Taken(size):
                    self.held -= size
                    self.taken.beat()
                case Exited(status):
                    return status
                case Began():
                    pass
        if not heard:
            raise HyperMeshError("its agent runs no commands: it is of an earlier release, or just stopping", fix="hmctl deploy")
        raise ConnectionLost("its agent stopped, and nobody knows how the command ended")

    async def _type(self) -> None:
        if not self.request.stdin:
            return
        while data := await self.console.read():
            while self.held + len(data) > STDIN_WINDOW:
                await self.taken.wait()
            self.held += len(data)
            await self.talk.send(Input(data))
        await self.talk.send(InputEnd())

    async def _tell(self, news: asyncio.Queue[ExecUp | None]) -> None:
        while (said := await news.get()) is not None:
            await self.talk.send(said)
        raise Interrupted("interrupted; the command was hung up on")


@asynccontextmanager
async def _beside(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run these while the block runs, and no longer. What one raises ends the block with it."""
    from hmcore.stoq.tasks import cause

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        await work()

    try:
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(run(work), name="beside a command") for work in works]
            yield
            for helper in helpers:
                helper.cancel()
    except BaseExceptionGroup as failures:
        raise cause(failures) from failures


async def run(agent: AgentClient, request: ExecRequest, console: Console) -> int:
    """Run the command and give its exit status. Raises HyperMeshError, OSError."""
    async with await agent.open(EXEC, request) as talk:
        return await _Session(talk, console, request).run()
