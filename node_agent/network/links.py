"""What the kernel has of links, routes and neighbours, and what is to become of it: asked of a process of its own (netlink.py).

That process is begun when it is needed and ends when nobody has asked for a while: what it loads takes as much memory as an eighth of the
agent, for what changes when nodes come and go (docs/adr/0102).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hmcore.errors import LayerDown
from node_agent.network.actions import Action
from node_agent.network.facts import Seen
from node_agent.network.netlink_messages import LENGTH, Answer, Question, framed, named

TIMEOUT = 10.0  # seconds, the start of the process included
IDLE = 5.0  # seconds without a question after which it ends: it is as large as half an agent
PROGRAM = (sys.executable, "-P", "-m", "node_agent.network.netlink")

_answers = msgspec.msgpack.Decoder(Answer)


class Links:
    """Of this network namespace. `sysctls`: where they lie as files; `program`: what speaks to the kernel."""

    def __init__(
        self, *, timeout: float = TIMEOUT, idle: float = IDLE, sysctls: Path = Path("/proc/sys"), program: Sequence[str] = PROGRAM
    ) -> None:
        self._timeout = timeout
        self._idle = idle
        self._sysctls = str(sysctls)
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._leaving: set[asyncio.Task[int]] = set()

    async def observe(self) -> Seen:
        """Raises LayerDown."""
        seen = (await self._ask(Question(self._sysctls))).seen
        if seen is None:
            raise LayerDown("the kernel's answer about the network cannot be understood")
        return seen

    async def carry_out(self, planned: Sequence[Action]) -> None:
        """In this order, until one fails. Raises LayerDown: what was done stays, and the next difference goes on from there."""
        await self._ask(Question(self._sysctls, [named(action) for action in planned]))

    async def close(self) -> None:
        """Once what is under way has ended."""
        self._end()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=self._timeout)

    async def _ask(self, question: Question) -> Answer:
        async with self._turn:
            if self._ending is not None:
                self._ending.cancel()
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await self._answer(question)
            except TimeoutError as error:
                self._kill()
                raise LayerDown(f"the kernel does not answer questions about the network within {self._timeout:g} s") from error
            except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError) as error:
                self._kill()
                raise LayerDown(f"the network cannot be set up: what asks the kernel has ended ({error})") from error
            except asyncio.CancelledError:
                self._kill()  # its answer would be taken for the next one's
                raise
            self._ending = asyncio.get_running_loop().call_later(self._idle, self._end)
        if answer.refused:
            fix = "run the agent as root, with CAP_NET_ADMIN" if answer.errno == errno.EPERM else None
            raise LayerDown(f"the network cannot be set up: {answer.refused}", fix=fix)
        return answer

    async def _answer(self, question: Question) -> Answer:
        process = self._process
        if process is None or process.returncode is not None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            process = self._process = await asyncio.create_subprocess_exec(
                *self._program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(framed(question))
        await process.stdin.drain()
        length = int.from_bytes(await process.stdout.readexactly(LENGTH), "big")
        return _answers.decode(await process.stdout.readexactly(length))

    def _end(self) -> None:
        """Nobody asks any more: it ends by itself when its input does."""
        if (process := self._let_go()) is not None and process.stdin is not None:
            process.stdin.close()

    def _kill(self) -> None:
        if (process := self._let_go()) is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _let_go(self) -> asyncio.subprocess.Process | None:
        process, self._process = self._process, None
        if process is not None:
            leaving = asyncio.get_running_loop().create_task(process.wait(), name="netlink ends")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        if self._ending is not None:
            self._ending.cancel()
        return process
