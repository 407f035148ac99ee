"""One hmctl at a time on a host, from whichever machine. The lock lives as long as our SSH channel: however we die, it is free again.

A lock takes a connection. Where there are not enough of them for every host, the control nodes are kept locked, so that two operators do
not both change the cluster, and each other host is locked while it is its turn (docs/adr/0061).
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError
from hmcore.records import Role
from hmctl import layout
from hmctl.facts.agent import FINGERPRINT
from hmctl.phases.base import Known
from hmctl.remote.base import Process, Remote, Script

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

_TIMEOUT = 30.0  # seconds

LOCK = Script(
    "hm-lock",
    'exec 9>>"$1"; if ! flock -n 9; then cat -- "$1" >&2; exit 75; fi; '
    f'printf "%s\\n" "$2" > "$1"; echo "locked $({FINGERPRINT})"; exec cat >/dev/null',
)


def room(hosts: Sequence[Host], at_once: int) -> int:
    """Connections that are left for `hosts`, of `at_once`: those to their bastions stay open."""
    return max(1, at_once - len({host.ssh.bastion for host in hosts if host.ssh.bastion}))


class Locks:
    """The locks of one run. `hosts`: all that it may connect to, with at most `at_once` connections."""

    def __init__(
        self,
        remotes: Mapping[str, Remote],
        doing: str,
        at_once: int,
        hosts: Sequence[Host],
        may: Callable[[], None] = lambda: None,
    ) -> None:
        """`may` raises, before each turn, when nothing may be changed any more: the cluster's own lock was lost."""
        self._remotes = remotes
        self._doing = doing
        self._may = may
        space = room(hosts, at_once)
        control = [host for host in hosts if host.role is Role.CONTROL]
        kept = hosts if len(hosts) <= space else control if len(control) < space else []
        self._kept = {host.name for host in kept}

    @asynccontextmanager
    async def held(self, targets: Sequence[Known]) -> AsyncIterator[dict[str, HyperMeshError]]:
        """Those that can be kept locked for the whole of the block. Gives those of them that could not be had, and why."""
        async with held([target for target in targets if target.name in self._kept], self._remotes, self._doing) as refused:
            yield refused

    @asynccontextmanager
    async def turn(self, target: Known, *, planned: bool = True) -> AsyncIterator[None]:
        """The same for one host, if it is not held already. `planned`: it must still be as it was when the plan was made."""
        self._may()
        if target.name in self._kept:
            yield
            return
        async with held([target], self._remotes, self._doing, planned=planned) as refused:
            if refused:
                raise refused[target.name]
            yield


@asynccontextmanager
async def held(
    targets: Sequence[Known], remotes: Mapping[str, Remote], doing: str, *, planned: bool = True
) -> AsyncIterator[dict[str, HyperMeshError]]:
    """Holds the hosts of `targets` while the block runs. Gives those that could not be had, and why: another hmctl holds them, or has
    changed them since the plan was made (`planned`)."""
    who = f"hmctl {doing} by {getpass.getuser()} on {socket.gethostname()} (process {os.getpid()})"
    processes: list[Process] = []
    refused: dict[str, HyperMeshError] = {}

    async def take(target: Known) -> None:
        try:
            process = await remotes[target.name].open_process(LOCK.argv(layout.LOCK, who), sudo=True, timeout=_TIMEOUT)
            processes.append(process)
            async with asyncio.timeout(_TIMEOUT):
                said = (await process.stdout.readline()).decode(errors="replace").split()
            if said[:1] != ["locked"]:
                done = await process.wait(timeout=_TIMEOUT)
                holder = done.stderr.strip() or f"the lock {layout.LOCK} cannot be taken (status {done.status})"
                message = f"{holder} is changing it" if done.status == 75 else holder
                refused[target.name] = HyperMeshError(message, host=target.name, fix="wait until it is done, then run again")
            elif planned and said[1:] != [target.facts.agent.fingerprint]:
                message = "it was changed by somebody else after this plan was made"
                refused[target.name] = HyperMeshError(message, host=target.name, fix="run again: hmctl looks at it anew")
        except HyperMeshError as error:
            refused[target.name] = error
        except TimeoutError:
            refused[target.name] = HyperMeshError("it does not answer", host=target.name)

    try:
        async with asyncio.TaskGroup() as group:
            for target in targets:
                group.create_task(take(target), name=f"lock {target.name}")
        yield refused
    finally:
        for process in processes:
            process.kill()
