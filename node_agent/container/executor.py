"""Carries out what reconcile says, in Docker, and decides nothing. A few actions at once, one for an allocation; none holds the agent up.

Docker's calls block, so each runs in a thread of its own; there are as many as Engine has hands. Each ends by itself: its timeout is its
connection's. Until it has, its allocation's turn goes on, for nobody knows what Docker will still do; what came of it is seen at the
next look. An agent that stops does not wait for them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Protocol, TypeVar

from hmcore.errors import ContainerRefused, HyperMeshError, LayerDown, NoLease
from node_agent.container.actions import Action, Cancel, Kill, Pull, Remove, Run, Start, Stop
from node_agent.container.creation import Body
from node_agent.container.fencing.chain import Permit
from node_agent.container.info import ContainerInfo

T = TypeVar("T")

HANDS = 8  # actions at once, pulls apart; Engine has a connection for each
PULLS = 3  # beside them: they wait for the network, not for Docker
FILES_TIMEOUT = 30.0  # seconds

Outcome = str | HyperMeshError | None  # see memory.settled

log = logging.getLogger(__name__)


class Hands(Protocol):
    """What Engine does to a container. Every call blocks, and raises LayerDown or ContainerRefused."""

    def create(self, name: str, body: Body) -> str: ...
    def start(self, container: str) -> None: ...
    def signal_stop(self, container: str) -> None: ...
    def kill(self, container: str) -> None: ...
    def remove(self, container: str) -> None: ...
    def require_volume(self, name: str) -> None: ...


class Images(Protocol):
    """Where images come from. `image`: an id, or a name."""

    def present(self, image: str) -> bool:
        """Whether it is on this node, as far as is known without asking anybody."""

    async def ensure(self, image: str) -> str:
        """Have it on this node; its id. Raises HyperMeshError, also when nothing comes any more: nobody else counts the time. May be
        cancelled at any moment, and be asked for the same image several times at once."""


class Files(Protocol):
    """What is laid ready for containers to mount: secrets, configs (creation.file_path), resolv.conf (creation.resolvconf_path)."""

    async def lay_ready(self, allocation: str) -> None:
        """Before a container of it is started. Raises HyperMeshError: then it is not."""

    async def take_away(self, allocation: str) -> None:
        """A container of it was removed. Raises HyperMeshError."""


class AllFiles:
    """Several as one. See Files."""

    def __init__(self, *parts: Files) -> None:
        self._parts = parts

    async def lay_ready(self, allocation: str) -> None:
        for part in self._parts:
            await part.lay_ready(allocation)

    async def take_away(self, allocation: str) -> None:
        for part in self._parts:
            await part.take_away(allocation)


class Fencing(Protocol):
    """The gates of exclusive containers (fencing/keeper.py). Blocks for no longer than a file takes, and raises NoLease."""

    def open(self, allocation: str, lease: int) -> None: ...
    def enter(self, allocation: str, container: str, lease: int) -> None: ...
    def leave(self, allocation: str, container: str) -> None: ...


class NoFence:
    """Of an agent that keeps no lease: it starts nothing that is exclusive."""

    def permit(self) -> Permit:
        return Permit("this agent keeps no lease", "this agent keeps no lease")

    def need(self, exclusive: bool, *, forsaken: bool = False) -> None:
        return

    def cover(self, containers: Mapping[str, ContainerInfo]) -> None:
        return

    def poke(self) -> None:
        return

    def state_changed(self) -> None:
        return

    def open(self, allocation: str, lease: int) -> None:
        raise NoLease("this agent keeps no lease")

    def enter(self, allocation: str, container: str, lease: int) -> None:
        raise NoLease("this agent keeps no lease")

    def leave(self, allocation: str, container: str) -> None:
        return


class Executor:
    """`hands`: None while Docker is away. `on_settled` is told of each action that was taken on, once it is over.

    Ends with the task group `tasks` that its actions belong to. What Docker is carrying out then is left to Docker.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        hands: Callable[[], Hands | None],
        images: Images,
        files: Files,
        on_settled: Callable[[Action, Outcome], None],
        fencing: Fencing | None = None,
        before_removal: Callable[[str], Awaitable[None]] | None = None,
        going: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`before_removal` is told of a container (its id) that is about to be removed, and must end in time. `going`: whether Docker is
        being stopped or started; what it refuses then says nothing of what it refused."""
        self._going = going
        self._tasks = tasks
        self._hands = hands
        self._images = images
        self._files = files
        self._on_settled = on_settled
        self._fencing = fencing or NoFence()
        self._before_removal = before_removal
        self._under_way: dict[str, tuple[Action, asyncio.Task[Outcome]]] = {}

    def offer(self, actions: Iterable[Action]) -> list[Action]:
        """Take on as many as there is room for, in their order; those are given back. The others are for the next round: by then something
        else may be right."""
        taken: list[Action] = []
        for action in actions:
            if isinstance(action, Cancel):
                self._cancel(action.allocation)
            elif action.allocation not in self._under_way and self._has_room(action):
                task = self._tasks.create_task(self._outcome(action), name=f"{type(action).__name__.lower()} {action.allocation}")
                self._under_way[action.allocation] = action, task
                task.add_done_callback(lambda task, action=action: self._over(action, task))  # type: ignore[misc]
                taken.append(action)
        return taken

    def _has_room(self, action: Action) -> bool:
        pulls = sum(isinstance(other, Pull) for other, _ in self._under_way.values())
        return pulls < PULLS if isinstance(action, Pull) else len(self._under_way) - pulls < HANDS

    def _cancel(self, allocation: str) -> None:
        action, task = self._under_way.get(allocation, (None, None))
        if isinstance(action, Pull) and task is not None:
            task.cancel()

    def _over(self, action: Action, task: asyncio.Task[Outcome]) -> None:
        del self._under_way[action.allocation]
        if task.cancelled():
            self._on_settled(action, None)
        elif task.exception() is None:  # else the task group ends with it
            self._on_settled(action, task.result())

    async def _outcome(self, action: Action) -> Outcome:
        try:
            return await self._result(action)
        except HyperMeshError as error:
            log.info("%s of %s: %s", type(action).__name__.lower(), action.allocation, error)
            return error

    async def _result(self, action: Action) -> str:
        match action:
            case Pull(_, image):
                return await self._images.ensure(image)
            case Run(allocation):
                await _in_time(self._files.lay_ready(allocation))
                return await self._with_hands(lambda hands: _run(hands, self._fencing, action))
            case Start(allocation):
                await _in_time(self._files.lay_ready(allocation))
                await self._with_hands(lambda hands: _start(hands, self._fencing, action))
            case Stop(_, container):
                await self._with_hands(lambda hands: hands.signal_stop(container))
            case Kill(_, container):
                await self._with_hands(lambda hands: hands.kill(container))
            case Remove(allocation, container):
                if self._before_removal is not None:
                    await self._before_removal(container)
                await self._with_hands(lambda hands: hands.remove(container))
                self._fencing.leave(allocation, container)
                await _in_time(self._files.take_away(allocation))
            case Cancel():
                return ""
        return action.container

    async def _with_hands(self, deed: Callable[[Hands], T]) -> T:
        hands = self._hands()
        if hands is None:
            raise LayerDown("Docker does not answer", fix="systemctl start docker")
        try:
            return await in_thread(lambda: deed(hands))
        except ContainerRefused as error:
            if self._going is not None and await self._going():
                raise LayerDown(f"Docker is being stopped or started: {error.message}") from error
            raise


async def in_thread(call: Callable[[], T]) -> T:
    """Not in a pool's: the interpreter waits for these when it ends, however Docker hangs."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 -- it rises where it is waited for
            future.set_exception(error)

    threading.Thread(target=work, name="docker hand", daemon=True).start()
    return await asyncio.wrap_future(future)


async def _in_time(laying: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(FILES_TIMEOUT):
            await laying
    except TimeoutError as error:
        raise HyperMeshError(f"its files took longer than {FILES_TIMEOUT:g} s") from error


def _run(hands: Hands, fencing: Fencing, run: Run) -> str:
    """Create and start. Where it is created and cannot be started, it stays: the next look finds it."""
    for volume in run.needs:
        hands.require_volume(volume)
    if run.lease:
        fencing.open(run.allocation, run.lease)
    container = hands.create(run.name, run.body)
    if run.lease:
        fencing.enter(run.allocation, container, run.lease)
    hands.start(container)
    return container


def _start(hands: Hands, fencing: Fencing, start: Start) -> None:
    if start.lease:
        fencing.open(start.allocation, start.lease)
        fencing.enter(start.allocation, start.container, start.lease)
    hands.start(start.container)
