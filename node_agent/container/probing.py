"""Carries out the probes of containers that the agent looks after itself: a connection, or a request and the first line of its answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Mapping

from node_agent.container import checks
from node_agent.container.checks import Check
from node_agent.container.reconcile import Health, Target

AT_ONCE = 64  # probes: each is a socket
MOST_LINE = 4096  # bytes of an answer that are read

_PATH = re.compile(r"/[!-~]*")  # nothing that could end the request's first line
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\r|\n|$)")


class Prober:
    """One task for each container. `on_change` is told when `healths` says something else. Ends with the task group `tasks`."""

    def __init__(self, tasks: asyncio.TaskGroup, on_change: Callable[[], None]) -> None:
        self._tasks = tasks
        self._on_change = on_change
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._running: dict[str, tuple[Target, asyncio.Task[None]]] = {}
        self._checks: dict[str, Check] = {}

    def healths(self) -> Mapping[str, Health]:
        """By container's id."""
        return {id: (check.health, _why(check)) for id, check in self._checks.items()}

    def follow(self, targets: Mapping[str, Target]) -> None:
        """Probe these, by container's id, and no others. One with another target begins anew."""
        for id in [id for id, (target, _) in self._running.items() if targets.get(id) != target]:
            self._running.pop(id)[1].cancel()
            self._checks.pop(id, None)
        for id, target in targets.items():
            if id not in self._running:
                self._running[id] = target, self._tasks.create_task(self._probe(id, target), name=f"probe {id[:12]}")

    async def _probe(self, id: str, target: Target) -> None:
        clock = asyncio.get_running_loop().time
        self._checks[id] = check = checks.begin(target.probe, clock())
        while True:
            await asyncio.sleep(check.due - clock())
            async with self._at_once:
                failure = await probe(target, check.timeout)
            before, check = check, checks.after(check, failure, clock())
            self._checks[id] = check
            if (before.health, _why(before)) != (check.health, _why(check)):
                self._on_change()


def _why(check: Check) -> str:
    """Only what does not change with every probe: statuses are replicated."""
    return f"its health check fails: {check.reason}" if check.health.value == "unhealthy" else ""


async def probe(target: Target, timeout: float) -> str:
    """Why it failed, in words; empty: it did not. `timeout` in seconds, for all of it."""
    if not target.address or not 0 < target.port < 65_536:
        return f"no address or port is known for it (port {target.port})"
    if target.probe.kind == "http" and not _PATH.fullmatch(target.probe.path or "/"):
        return "its path is none"
    try:
        async with asyncio.timeout(timeout):
            return await (_http(target) if target.probe.kind == "http" else _tcp(target))
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else "it cannot be connected to"


async def _tcp(target: Target) -> str:
    _, writer = await asyncio.open_connection(target.address, target.port)
    writer.close()
    return ""


async def _http(target: Target) -> str:
    reader, writer = await asyncio.open_connection(target.address, target.port, limit=MOST_LINE)
    try:
        host = f"[{target.address}]" if ":" in target.address else target.address
        headers = f"Host: {host}:{target.port}\r\nUser-Agent: hypermesh\r\nConnection: close\r\n\r\n"
        writer.write(f"GET {target.probe.path or '/'} HTTP/1.1\r\n{headers}".encode())
        await writer.drain()
        return judged(await _first_line(reader))
    finally:
        with contextlib.suppress(OSError):
            writer.close()


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        return b""


def judged(line: bytes) -> str:
    """What the first line of an HTTP answer says: 2xx and 3xx are well. Total."""
    found = _STATUS.match(line)
    if found is None:
        return "what it answers is not HTTP"
    return "" if found[1][0:1] in (b"2", b"3") else f"it answers {found[1].decode()}"
