"""Runs nft and iptables: text in, text out. The only place that starts them; each call has a timeout and typed errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import Sequence
from typing import BinaryIO

from hmcore.errors import LayerDown, LayerMissing
from node_agent.network.ruleset import TABLE

TIMEOUT = 10.0  # seconds; a thousand published ports take a fraction of one
REMEMBERED = 16  # processes
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {"nft": "nftables", "iptables": "iptables", "iptables-restore": "iptables"}


class Filter:
    """Of this network namespace. `path`: where the programs are looked for."""

    def __init__(self, *, timeout: float = TIMEOUT, path: str = PATH) -> None:
        self._timeout = timeout
        self._environment = {"PATH": path, "LC_ALL": "C"}
        self._started: deque[int] = deque(maxlen=REMEMBERED)

    def started(self, process: int) -> bool:
        """Whether the process of this id was one of ours, a moment ago."""
        return process in self._started

    async def load(self, transaction: str) -> None:
        """All of it or nothing. Raises LayerMissing or LayerDown."""
        await self._run(("nft", "-f", "-"), transaction)

    async def listing(self) -> object:
        """Our table, as `nft -j` has it; None where there is none."""
        status, out, err = await self._ask(("nft", "-j", "list", "table", *TABLE.split()))
        if status != 0:
            if "No such file or directory" in err:
                return None
            raise _refused("nft", err)
        try:
            found: object = json.loads(out)
        except ValueError as error:
            raise LayerDown(f"what nft says is no JSON: {error}", fix="nft --version; apt-get install --only-upgrade nftables") from error
        return found

    async def remove(self) -> None:
        """Our table, if it is there."""
        await self.load(f"add table {TABLE}\ndelete table {TABLE}\n")

    async def iptables(self, *arguments: str) -> str:
        """Its output. Waits for others that change the rules. Raises LayerMissing or LayerDown."""
        return await self._run(("iptables", "-w", "5", *arguments))

    async def iptables_restore(self, text: str) -> None:
        """Leaves what `text` does not name as it is."""
        await self._run(("iptables-restore", "-w", "5", "--noflush"), text)

    async def _run(self, command: Sequence[str], text: str = "") -> str:
        status, out, err = await self._ask(command, text)
        if status != 0:
            raise _refused(command[0], err)
        return out

    async def _ask(self, command: Sequence[str], text: str = "") -> tuple[int, str, str]:
        try:
            # A file, not a pipe: a program that ends before it has read everything is no case of its own.
            with os.fdopen(os.memfd_create("rules"), "w+b") as given:
                given.write(text.encode())
                given.seek(0)
                process = await self._start(command, given)
        except FileNotFoundError as error:
            package = _PACKAGES.get(command[0], command[0])
            raise LayerMissing(f"{command[0]} is not installed", fix=f"apt-get install {package}") from error
        except OSError as error:
            raise LayerDown(f"{command[0]} cannot be started: {error.strerror}") from error
        self._started.append(process.pid)
        try:
            async with asyncio.timeout(self._timeout):
                out, err = await process.communicate()
        except TimeoutError as error:
            raise LayerDown(f"{command[0]} did not end within {self._timeout:g} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    async def _start(self, command: Sequence[str], given: BinaryIO) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command, stdin=given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=self._environment
        )


def _refused(program: str, err: str) -> LayerDown:
    """The first line says what; nft's others point at the place in a text that nobody sees."""
    said = next((line.strip() for line in err.splitlines() if line.strip()), "it gave no reason")
    fix = "run the agent as root, with CAP_NET_ADMIN" if "not permitted" in err else None
    return LayerDown(f"{program}: {said[:300]}", fix=fix)
