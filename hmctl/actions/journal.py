"""The agents' journals, read over SSH and merged by time. Memory stays bounded however much there is: SSH stops a sender that nobody reads.

The decisions (what a line says, in which order lines are shown) are pure and come first; reading hosts comes after them.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from hmcore.errors import CommandFailed, HyperMeshError, Unreachable
from hmctl.times import LATEST

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmctl.remote.base import Process, Remote
    from hmctl.remote.ssh import Connector

UNIT = "hypermesh-agent.service"
JOURNALCTL = ("journalctl", "-u", UNIT, "-o", "json", "--output-fields=MESSAGE,PRIORITY", "--no-pager", "--quiet")
LONGEST = 1024 * 1024  # bytes of a line; a longer one is dropped rather than kept in memory
QUEUED = 1000  # entries of all hosts together that wait to be shown
HOLD = 0.3  # seconds that a followed entry waits for an older one of another host
RETRY = 2.0  # seconds between attempts to reach a host that was lost while it was followed
OPEN_TIMEOUT = 10.0
END_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A line of a node's journal. `time` is in microseconds since 1970; `priority` as in syslog: 3 is an error, 6 information."""

    time: int
    node: str
    priority: int
    message: str
    cursor: str


def parse(node: str, line: bytes) -> Entry | None:
    """An entry of `journalctl -o json`; None for what is none. Messages that are not UTF-8 come as lists of bytes."""
    try:
        said = json.loads(line)
        if not isinstance(said, dict):
            return None
        time, cursor = int(said["__REALTIME_TIMESTAMP"]), str(said["__CURSOR"])
        priority = int(said.get("PRIORITY", 6))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Entry(time, node, priority, _text(said.get("MESSAGE")), cursor)


def _text(message: object) -> str:
    match message:
        case str():
            return message
        case [int(), *_]:
            return bytes(byte for byte in message if isinstance(byte, int) and 0 <= byte < 256).decode(errors="replace")
        case [*parts]:  # the field occurs more than once
            return " ".join(part if isinstance(part, str) else _text(part) for part in parts)
        case _:
            return ""


def command(*, since: float | None, tail: int | None) -> list[str]:
    """The journalctl call for what is there already. `since`: seconds since 1970, so that no host's zone matters."""
    argv = [*JOURNALCTL]
    if since is not None:
        argv.append(f"--since=@{since:.6f}")
    if newest_first(since, tail):
        argv += [f"--until=@{LATEST:.0f}", "--reverse"]
    return [*argv, f"--lines={'all' if tail is None else tail}"]


def newest_first(since: float | None, tail: int | None) -> bool:
    """Whether entries come the newest first: with --since, journalctl takes the first lines, unless it goes backwards. That it begins at
    the end then, older ones do only with --until."""
    return since is not None and tail is not None


def follow_command(cursor: str | None) -> list[str]:
    """The journalctl call for what comes after `cursor`. Without one the journal was empty a moment ago: whatever came since is new."""
    return [*JOURNALCTL, "--since=-5s" if cursor is None else f"--after-cursor={cursor}", "--lines=all", "--follow"]


class Lines:
    """Cuts a stream of bytes into lines. One that is too long is dropped, and nothing of it kept."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        if whole and self._skipping:
            del whole[0]
            self._skipping = False
        if len(self._rest) > self._longest:
            self._rest, self._skipping = b"", True
        return [line for line in whole if len(line) <= self._longest]


class Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


E = TypeVar("E", bound=Ordered)


class Window(Generic[E]):
    """Puts entries of several hosts in the order of their time, as far as that is possible without waiting longer than `hold`."""

    def __init__(self, hold: float = HOLD, most: int = QUEUED) -> None:
        self._hold = hold
        self._most = most
        self._heap: list[E] = []
        self._arrived: deque[tuple[float, E]] = deque()
        self._ripe: E | None = None  # the newest that has waited long enough: nothing older than it needs to wait

    def add(self, entry: E, now: float) -> None:
        heapq.heappush(self._heap, entry)
        self._arrived.append((now, entry))

    def take(self, now: float) -> list[E]:
        """What may be shown now: entries that have waited, everything older than them, and what exceeds the bound."""
        while self._arrived and now - self._arrived[0][0] >= self._hold:
            _, waited = self._arrived.popleft()
            self._ripe = waited if self._ripe is None else max(self._ripe, waited)
        taken = []
        while self._heap and (len(self._heap) > self._most or (self._ripe is not None and not self._ripe < self._heap[0])):
            taken.append(heapq.heappop(self._heap))
        return taken

    def wait(self, now: float) -> float | None:
        """Seconds until `take` may have something; None while there is nothing."""
        return max(0.0, self._arrived[0][0] + self._hold - now) if self._arrived else None


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be read. `since`: seconds since 1970. `tail`: so many of the latest entries of each host; None: all since then."""

    since: float | None
    tail: int | None


Show = Callable[[Entry], None]
Lost = Callable[[HyperMeshError], None]


async def history(hosts: Sequence[Host], connector: Connector, request: Request, show: Show, lost: Lost, *, in_turns: bool = False) -> None:
    """Shows what the journals hold, oldest first. `lost` hears of hosts that cannot be read; the others go on.

    All are read side by side, however long they are. `in_turns`: a host after the other, as connections get free, and kept until all have
    been read; for requests with a tail. What comes the newest first is kept as well: its tail bounds it.
    """
    argv, backwards = command(since=request.since, tail=request.tail), newest_first(request.since, request.tail)
    if in_turns or backwards:
        for kept in await _latest(hosts, connector, argv, lost, backwards=backwards):
            show(kept)
        return
    async with AsyncExitStack() as stack:
        opened = await _open_all(hosts, connector, argv, lost)
        streams = [await stack.enter_async_context(aclosing(_entries(host.name, process))) for host, process in opened]

        async def following_of(number: int) -> Entry | None:
            try:
                return await anext(streams[number], None)
            except HyperMeshError as error:
                lost(error)
                return None

        heads = [(entry, number) for number in range(len(streams)) if (entry := await following_of(number)) is not None]
        heapq.heapify(heads)
        while heads:
            entry, number = heads[0]
            show(entry)
            following = await following_of(number)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (following, number))


async def follow(
    hosts: Sequence[Host], connector: Connector, cursors: dict[str, str], show: Show, lost: Lost, *, known: frozenset[str] = frozenset()
) -> None:
    """Shows what the journals get from now on, until cancelled. `cursors` says where each host's history ended. A host that is lost
    is tried again, and goes on where it stopped. `known`: hosts of which it was said already that they are lost."""
    queue: asyncio.Queue[Entry] = asyncio.Queue(QUEUED)
    window, clock = Window[Entry](), asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as group:
        for host in hosts:
            group.create_task(_follow_one(host, connector, cursors, queue, lost, host.name in known), name=f"follow {host.name}")
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(window.wait(clock())):
                    window.add(await queue.get(), clock())
            for entry in window.take(clock()):
                show(entry)


async def _follow_one(
    host: Host, connector: Connector, cursors: dict[str, str], queue: asyncio.Queue[Entry], lost: Lost, told: bool
) -> None:
    while True:
        try:
            process = await _open(await connector.connect(host), follow_command(cursors.get(host.name)))
            try:
                told = False
                async with aclosing(_entries(host.name, process)) as entries:
                    async for entry in entries:
                        cursors[host.name] = entry.cursor
                        await queue.put(entry)
                raise Unreachable("its journal ended; trying again", host=host.name)
            finally:
                process.kill()
        except HyperMeshError as error:
            if not told:
                lost(error)
                told = True
        await asyncio.sleep(RETRY)


async def _latest(hosts: Sequence[Host], connector: Connector, argv: list[str], lost: Lost, *, backwards: bool) -> list[Entry]:
    """By time; what a host wrote in the same microsecond in its own order."""
    found: list[Entry] = []

    async def read(host: Host) -> None:
        try:
            process = await _open(await connector.connect(host), argv)
            async with aclosing(_entries(host.name, process)) as entries:
                async for entry in entries:
                    found.append(entry)
        except HyperMeshError as error:
            lost(error)

    async with asyncio.TaskGroup() as group:
        for host in hosts:
            group.create_task(read(host), name=f"journal of {host.name}")
    return sorted(reversed(found) if backwards else found, key=lambda entry: entry.time)


async def _open_all(hosts: Sequence[Host], connector: Connector, argv: list[str], lost: Lost) -> list[tuple[Host, Process]]:
    opened: dict[str, Process] = {}

    async def one(host: Host) -> None:
        try:
            opened[host.name] = await _open(await connector.connect(host), argv)
        except HyperMeshError as error:
            lost(error)

    async with asyncio.TaskGroup() as group:
        for host in hosts:
            group.create_task(one(host), name=f"journal of {host.name}")
    return [(host, opened[host.name]) for host in hosts if host.name in opened]


async def _open(remote: Remote, argv: list[str]) -> Process:
    return await remote.open_process(argv, sudo=True, timeout=OPEN_TIMEOUT)


async def _entries(node: str, process: Process) -> AsyncGenerator[Entry, None]:
    """The entries as they come. Raises CommandFailed at their end if journalctl failed, Unreachable if the host was lost."""
    lines = Lines()
    try:
        while data := await process.stdout.read(65_536):
            for line in lines.feed(data):
                if entry := parse(node, line):
                    yield entry
        done = await process.wait(timeout=END_TIMEOUT)
        if done.status != 0:
            raise CommandFailed("journalctl", done.status, done.stderr, host=node)
    except OSError as error:
        raise Unreachable("the SSH connection was lost while its journal was read", host=node) from error
    finally:
        process.kill()
