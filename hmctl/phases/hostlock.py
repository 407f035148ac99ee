"""One hmctl at a time on a host, from whichever machine. The lock lives as long as our SSH channel: however we die, it is free again."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from hmcore.errors import HyperMeshError
from hmctl import layout
from hmctl.facts.agent import FINGERPRINT
from hmctl.phases.base import Known
from hmctl.remote.base import Process, Remote, Script

_TIMEOUT = 30.0  # seconds

LOCK = Script(
    "hm-lock",
    'exec 9>>"$1"; if ! flock -n 9; then cat -- "$1" >&2; exit 75; fi; '
    f'printf "%s\\n" "$2" > "$1"; echo "locked $({FINGERPRINT})"; exec cat >/dev/null',
)


@asynccontextmanager
async def held(targets: Sequence[Known], remotes: Mapping[str, Remote], doing: str) -> AsyncIterator[dict[str, HyperMeshError]]:
    """Holds the hosts of `targets` while the block runs. Gives those that could not be had, and why: another hmctl holds them, or has
    changed them since the plan was made."""
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
            elif said[1:] != [target.facts.agent.fingerprint]:
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
