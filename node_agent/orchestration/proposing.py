"""What the leader's loops write into the log: several commands at once, which travel as one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from hmcore.errors import HyperMeshError
from node_agent.consensus.statemachine.commands import Command, Refused, decode_result, encode


class Log(Protocol):
    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]: ...


class Pen:
    """Of one loop. `prefix` makes request ids unique to it and to this start of the agent; `timeout` in seconds."""

    def __init__(self, log: Log, *, prefix: Callable[[], str], timeout: float) -> None:
        self._log = log
        self._prefix = prefix
        self._timeout = timeout
        self._requests = 0

    async def write(self, commands: Sequence[Command]) -> str | None:
        """Returns what went wrong with the first that was not taken, once the fate of all is known."""
        failures: list[str] = []

        async def one(command: Command) -> None:
            self._requests += 1
            request = f"{self._prefix()}-{self._requests}"
            try:
                _, result = await self._log.propose(encode(command), request_id=request, timeout=self._timeout)
            except HyperMeshError as error:
                failures.append(error.message)
                return
            match decode_result(result):
                case Refused(reason=reason):
                    failures.append(reason)

        async with asyncio.TaskGroup() as tasks:
            for command in commands:
                tasks.create_task(one(command), name="propose")
        return failures[0] if failures else None
