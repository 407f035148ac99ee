"""Commands in an allocation's container: the answering end of hmcore.apps.streams.EXEC.

Docker's stream and the opener's are joined; of the output no more is held than was read at once, of the input STDIN_WINDOW at most. When
the opener has gone, the command's input ends and it is hung up on (signals.py): nothing of it stays here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Callable, Mapping

from hmcore.apps.streams import (
    MOST_COMMAND,
    MOST_WORDS,
    SIGNALS,
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
from hmcore.errors import HyperMeshError, InvalidRequest
from hmcore.stoq.dialogue import Answering
from hmcore.stoq.greeting import Peer
from hmcore.stoq.pulse import Pulse
from hmcore.stoq.tasks import cause
from node_agent.container.dockerapi import DockerStream
from node_agent.container.info import ContainerInfo
from node_agent.container.loglines import STDERR, Frames
from node_agent.container.logs import Api
from node_agent.container.signals import Command, send_signal

MOST_RUNNING = 32  # commands at once
ENDING = 10.0  # seconds for Docker to say how a command ended whose output has ended
LOOK = 0.02  # seconds between the first two looks for that; each is later than the one before
FAREWELL = 3.0  # seconds for what is done once the opener has gone
MOST_SIDE = 4096  # rows or columns

log = logging.getLogger(__name__)

Talk = Answering[ExecUp, ExecSaid]


class Execs:
    """`containers`: ours by id, as Docker told last (ContainerLayer.containers)."""

    def __init__(self, api: Api, containers: Callable[[], Mapping[str, ContainerInfo]]) -> None:
        self._api = api
        self._containers = containers
        self._running = 0

    @property
    def running(self) -> int:
        """Commands that run now."""
        return self._running

    async def answer(self, peer: Peer, request: ExecRequest, talk: Talk) -> None:
        """Raises InvalidRequest, ContainerRefused, LayerDown, ConnectionLost."""
        _check(request)
        container = self._container(request.allocation)
        if self._running >= MOST_RUNNING:
            raise InvalidRequest(f"{MOST_RUNNING} commands run here already")
        log.info("%s runs %s in %s", peer.identity, request.command[0], container.name)
        self._running += 1
        try:
            await self._run(request, container, talk)
        finally:
            self._running -= 1

    def _container(self, allocation: str) -> ContainerInfo:
        found = [each for each in self._containers().values() if each.allocation == allocation]
        running = [each for each in found if each.running]
        if not running:
            state = f"its container is {found[0].state}" if found else "there is no container of it here"
            raise InvalidRequest(f"{allocation} does not run: {state}", fix=f"hmctl app ps {allocation.partition('/')[0]}")
        return running[0]

    async def _run(self, request: ExecRequest, container: ContainerInfo, talk: Talk) -> None:
        created = await self._api.ask("POST", f"/containers/{container.id}/exec", _creation(request))
        command = Command(self._api, _id(created))
        stream = await self._api.open("POST", f"/exec/{command.id}/start", {"Detach": False, "Tty": request.tty}, upgrade=True)
        joined = _Joined(request, command, stream, talk)
        try:
            await talk.send(Began(container.name))
            await joined.run()
            await talk.send(Exited(await _status(command)))
        except BaseException:
            stream.close()  # which ends its input
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await send_signal(command, "HUP")
            raise
        finally:
            stream.close()


class _Joined:
    """Docker's stream and the opener's, joined until the command's output ends."""

    def __init__(self, request: ExecRequest, command: Command, stream: DockerStream, talk: Talk) -> None:
        self._request = request
        self._command = command
        self._stream = stream
        self._talk = talk
        self._input: deque[bytes | None] = deque()  # None: its end
        self._held = 0  # bytes of it
        self._news = Pulse()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._listen(), name="what is said to a command"),
                    tasks.create_task(self._feed(), name="a command's input"),
                ]
                await self._tell()
                for helper in helpers:
                    helper.cancel()
        except BaseExceptionGroup as failures:
            raise cause(failures) from failures

    async def _tell(self) -> None:
        frames = None if self._request.tty else Frames()
        while data := await self._stream.read():
            if frames is None:
                await self._talk.send(Output(data))
                continue
            for part in frames.feed(data):
                if part.data:
                    await self._talk.send(Output(part.data, part.stream >= STDERR))

    async def _listen(self) -> None:
        if self._request.tty and self._request.rows:
            await self._resize(self._request.rows, self._request.columns)
        while (said := await self._talk.receive()) is not None:
            match said:
                case Input(data):
                    self._held += len(data)
                    if self._held > STDIN_WINDOW or not self._request.stdin:
                        raise InvalidRequest(f"more input than there was room for: {STDIN_WINDOW} bytes at most")
                    self._input.append(data)
                    self._news.beat()
                case InputEnd():
                    self._input.append(None)
                    self._news.beat()
                case Resize(rows, columns):
                    await self._resize(rows, columns)
                case Signal(name):
                    if name not in SIGNALS:
                        raise InvalidRequest(f"no signal {name[:20]!r}: {', '.join(SIGNALS)}")
                    await send_signal(self._command, name)
        self._input.append(None)  # who says no more types no more
        self._news.beat()

    async def _feed(self) -> None:
        """Write what comes, as the command takes it. What a command that takes no more is told is thrown away: it is not at fault."""
        ended = not self._request.stdin
        while True:
            while not self._input:
                await self._news.wait()
            data = self._input.popleft()
            try:
                if data is None and not ended:
                    self._stream.end_input()
                elif data and not ended:
                    await self._stream.write(data)
            except HyperMeshError as error:
                log.debug("a command takes no more input: %s", error)
                ended = True
            if data is None:
                ended = True
            else:
                self._held -= len(data)
                await self._talk.send(Taken(len(data)))

    async def _resize(self, rows: int, columns: int) -> None:
        """A window that keeps its size is no reason to end a command."""
        if not (self._request.tty and 0 < rows <= MOST_SIDE and 0 < columns <= MOST_SIDE):
            return
        try:
            await self._command.resize(rows, columns)
        except HyperMeshError as error:
            log.debug("the window of a command keeps its size: %s", error)


async def _status(command: Command) -> int:
    """How it ended: its output has, and Docker knows a moment later. Raises HyperMeshError."""
    pause = LOOK
    deadline = asyncio.get_running_loop().time() + ENDING
    while (state := await command.look()).running:
        if asyncio.get_running_loop().time() >= deadline:
            raise HyperMeshError(f"its output has ended, and it has not, for {ENDING:g} s")
        await asyncio.sleep(pause)
        pause = min(1.0, 2 * pause)
    return state.status


def _creation(request: ExecRequest) -> dict[str, object]:
    """As Docker takes it (`POST /containers/ID/exec`, API 1.41)."""
    body: dict[str, object] = {
        "AttachStdin": request.stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": request.tty,
        "Cmd": request.command,
    }
    if request.user:
        body["User"] = request.user
    if request.tty and request.term:
        body["Env"] = [f"TERM={request.term}"]
    return body


def _id(created: object) -> str:
    id = created.get("Id") if isinstance(created, dict) else None
    if not isinstance(id, str) or re.fullmatch("[0-9a-zA-Z_-]{1,128}", id) is None:
        raise HyperMeshError("Docker gave the command no id", fix="journalctl -u docker")
    return id


def _check(request: ExecRequest) -> None:
    words = request.command
    if not words or not words[0]:
        raise InvalidRequest("no command is named")
    if len(words) > MOST_WORDS or sum(map(len, words)) > MOST_COMMAND:
        raise InvalidRequest(f"a command of over {MOST_WORDS} words or {MOST_COMMAND} characters")
    if len(request.user) > 256 or re.fullmatch("[a-zA-Z0-9._+-]{0,64}", request.term) is None:
        raise InvalidRequest("no user or kind of terminal that there could be")
