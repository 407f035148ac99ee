"""A command that Docker runs in a container: how it is, the size of its window, and signals to it, for which Docker has no call.

Docker tells its process's number on this machine. By the time a signal goes out another process may have that number; so it is held by a
pidfd, and Docker asked once more whether the command still runs before anything is sent.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from hmcore.errors import HyperMeshError

log = logging.getLogger(__name__)


class Asks(Protocol):
    """See DockerApi."""

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> object: ...


@dataclass(frozen=True, slots=True)
class State:
    """`status`: once it does not run. `process`: its number on this machine; 0: none yet, or none any more."""

    running: bool
    status: int
    process: int


@dataclass(frozen=True, slots=True)
class Command:
    api: Asks
    id: str

    async def look(self) -> State:
        """Raises LayerDown, ContainerRefused."""
        return state_of(await self.api.ask("GET", f"/exec/{self.id}/json"))

    async def resize(self, rows: int, columns: int) -> None:
        """Raises LayerDown, ContainerRefused."""
        await self.api.ask("POST", f"/exec/{self.id}/resize", h=str(rows), w=str(columns))


def state_of(answer: object) -> State:
    """Of Docker's answer about a command. Total: what it does not say is that it does not run, and ended with 255."""
    said = answer if isinstance(answer, dict) else {}
    status, process = said.get("ExitCode"), said.get("Pid")
    return State(
        said.get("Running") is True,
        status if isinstance(status, int) and 0 <= status <= 255 else 255,
        process if isinstance(process, int) and 1 < process < 1 << 22 else 0,
    )


async def send_signal(command: Command, name: str) -> bool:
    """Whether it was sent: `name` (such as INT) to the command's first process, if it still runs. What keeps it from that is logged."""
    try:
        state = await command.look()
        if not state.running or not state.process:
            return False
        with closing(_Process(state.process)) as process:
            if (await command.look()) != state:
                return False
            process.send(signal.Signals[f"SIG{name}"])
            return True
    except ProcessLookupError:
        return False
    except (HyperMeshError, OSError) as error:
        log.warning("SIG%s cannot be sent to a command in a container: %s", name, error)
        return False


class _Process:
    """Whatever becomes of its number: this one, and no other."""

    def __init__(self, number: int) -> None:
        self._handle = os.pidfd_open(number)

    def send(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._handle, number)

    def close(self) -> None:
        os.close(self._handle)
