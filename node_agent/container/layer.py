"""The container layer as a component: Docker on the event loop. It is degraded, not dead, while Docker is away.

Calls go through a small pool of threads, each with a timeout: however Docker hangs, only they wait, and the agent goes on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hmcore.apps.records import Machine
from hmcore.errors import LayerDown, LayerMissing
from node_agent.container.info import ContainerInfo

if TYPE_CHECKING:
    from node_agent.container.engine import Engine, Events
    from node_agent.container.engine_images import DockerImages

T = TypeVar("T")

THREADS = 4
SETTLE = 0.05  # seconds in which a burst of events makes one question
DYING = 30.0  # seconds for which a container that has ended, but is listed as running, is asked for again

log = logging.getLogger(__name__)


class ContainerLayer:
    """See node_agent.platform.lifecycle.Component. `containers` are ours, as Docker told last; none while it does not answer."""

    name = "container"
    serving = True

    def __init__(self, socket: Path, cluster: str, *, timeout: float, on_change: Callable[[], None] = lambda: None) -> None:
        """`timeout` (seconds) bounds each question to Docker. `on_change` is called when `containers` says something else than before."""
        self._containers: Mapping[str, ContainerInfo] | None = None
        self._on_change = on_change
        self._socket = socket
        self._cluster = cluster
        self._timeout = timeout
        self._pid_file = socket.parent / "docker.pid"
        self._had_pid_file = False
        self._questions: Questions | None = None
        self._engine: Engine | None = None
        self._images: DockerImages | None = None
        self.cgroup_driver = ""  # Docker's, once it has answered
        self._events: Events | None = None
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._complaints: dict[str, str] = {}  # of those that are unhealthy, by a container's id
        self._dying: dict[str, float] = {}  # by a container's id, until when Docker's list is asked again whether it has ended

    def containers(self) -> Mapping[str, ContainerInfo]:
        """Our containers by id, also those that do not run; none while Docker does not answer."""
        return self._containers or {}

    @property
    def running(self) -> int | None:
        """How many of ours run; None while Docker does not answer."""
        return None if self._containers is None else sum(info.running for info in self._containers.values())

    def _set(self, containers: Mapping[str, ContainerInfo] | None) -> None:
        before, self._containers = self._containers, containers
        if before != containers:
            self._on_change()

    @property
    def engine(self) -> Engine | None:
        """What carries out; None while Docker does not answer."""
        return None if self._stopped else self._engine

    @property
    def images(self) -> DockerImages | None:
        """The same for images."""
        return None if self._stopped else self._images

    @property
    def _stopped(self) -> bool:
        """With socket activation, to knock is to start it. One that we saw go away was stopped by somebody who meant it."""
        return self._had_pid_file and not self._pid_file.exists()

    async def observe(self) -> Mapping[str, ContainerInfo]:
        """Our containers as they are now. Raises LayerDown."""
        engine = self._engine
        if engine is None:
            raise LayerDown(f"Docker does not answer on {self._socket}", fix="systemctl start docker")
        found = await self._list(engine)
        self._set(found)
        return found

    async def _list(self, engine: Engine) -> Mapping[str, ContainerInfo]:
        """With what ails the unhealthy ones: asked for once, as long as they are."""
        found = await self._ask(engine.containers)
        known, ailing = self._complaints, [id for id, info in found.items() if info.health == "unhealthy"]
        said = {id: known[id] if id in known else await self._ask(partial(engine.complaint, id)) for id in ailing}
        self._complaints = said
        return found | {id: replace(found[id], complaint=words) for id, words in said.items()}

    async def machine(self, node: str) -> Machine | None:
        """What this node has for containers; None while Docker does not tell."""
        engine = self._engine
        if engine is None:
            return None
        try:
            return await self._ask(lambda: engine.machine(node))
        except LayerDown as error:
            log.debug("%s", error)
            return None

    async def initialize(self) -> None:
        """Connect to Docker. Raises LayerMissing (not installed) or LayerDown."""
        self._look()
        self._questions = Questions(self._socket, self._timeout)
        self._engine = engine = await self._ask(lambda: _connect(self._socket, self._cluster, self._timeout))
        self.cgroup_driver = await self._ask(engine.cgroup_driver)
        self._images = await self._ask(lambda: _connect_images(self._socket, self._timeout))
        self._changed, self._ended = changed, ended = asyncio.Event(), asyncio.Event()
        post = asyncio.get_running_loop().call_soon_threadsafe
        self._dying = {}
        self._events = engine.watch(
            lambda action, container: _quietly(post, lambda: self._heard(action, container, changed)), lambda: _quietly(post, ended.set)
        )
        self._set(await self._list(engine))
        self._had_pid_file = self._pid_file.exists()

    async def run(self) -> None:
        """Follow our containers. Raises LayerDown when Docker has gone away."""
        assert self._engine is not None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(self._engine), name="follow containers")
            await self._ended.wait()
            self._set(None)
            raise LayerDown(f"Docker does not answer on {self._socket}", fix="systemctl start docker")

    async def check(self) -> str | LayerDown | None:
        assert self._engine is not None
        try:
            await self._ask(self._engine.ping)
        except LayerDown as error:
            self._set(None)
            return error
        if self._containers is None:
            self._changed.set()
        return None

    async def stop(self) -> None:
        self._set(None)
        events, self._events = self._events, None
        engine, self._engine = self._engine, None
        if events is not None:
            events.close()
        if engine is not None:
            engine.close()
        images, self._images = self._images, None
        if images is not None:
            images.close()
        questions, self._questions = self._questions, None
        if questions is not None:
            questions.close()

    def _heard(self, action: str, container: str, changed: asyncio.Event) -> None:
        if action == "die":
            self._dying[container] = asyncio.get_running_loop().time() + DYING
        elif action in ("start", "destroy"):
            self._dying.pop(container, None)
        changed.set()

    def _still_dying(self, containers: Mapping[str, ContainerInfo]) -> bool:
        """Docker (20.10) tells of an end before it takes down what the container had, and lists it as running until that is done."""
        now = asyncio.get_running_loop().time()
        listed = {id for id, info in containers.items() if info.running}
        self._dying = {id: until for id, until in self._dying.items() if id in listed and now < until}
        return bool(self._dying)

    async def _follow(self, engine: Engine) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(SETTLE)
            self._changed.clear()
            try:
                self._set(found := await self._list(engine))
                if self._still_dying(found):
                    self._changed.set()
            except LayerDown as error:
                self._set(None)
                log.debug("%s", error)  # the end of the stream or the next check will tell

    def _look(self) -> None:
        if not self._socket.exists():
            if shutil.which("dockerd") is None:
                raise LayerMissing(f"Docker is not installed: there is no {self._socket} and no dockerd", fix="apt-get install docker.io")
            raise LayerDown(f"Docker is not running: there is no {self._socket}", fix="systemctl start docker")
        if self._stopped:
            raise LayerDown(f"Docker is stopped: nobody serves {self._socket}", fix="systemctl start docker")

    async def _ask(self, question: Callable[[], T]) -> T:
        if self._questions is None or self._stopped:
            raise LayerDown(f"Docker does not answer on {self._socket}", fix="systemctl start docker")
        return await self._questions.ask(question)


class Questions:
    """Blocking questions to Docker, in a few threads: a bounded number at once, each with a timeout."""

    def __init__(self, socket: Path, timeout: float) -> None:
        self._socket = socket
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._unanswered = 0

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises what `question` raises, and LayerDown when it takes too long or too many are still unanswered."""
        fix = "systemctl restart docker"
        if self._unanswered >= THREADS:
            raise LayerDown(f"Docker does not answer on {self._socket}", fix=fix)
        loop = asyncio.get_running_loop()

        def counted() -> T:
            try:
                return question()
            finally:
                _quietly(loop.call_soon_threadsafe, self._answered)

        self._unanswered += 1
        try:
            async with asyncio.timeout(self._timeout):
                return await loop.run_in_executor(self._threads, counted)
        except TimeoutError as error:
            raise LayerDown(f"Docker does not answer on {self._socket} within {self._timeout:g} s", fix=fix) from error

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answered(self) -> None:
        self._unanswered -= 1


def _connect(socket: Path, cluster: str, timeout: float) -> Engine:
    from node_agent.container.engine import Engine  # noqa: PLC0415 -- takes a while, hence here: in a thread, beside other phases

    return Engine(socket, cluster, timeout)


def _connect_images(socket: Path, timeout: float) -> DockerImages:
    from node_agent.container.engine_images import DockerImages  # noqa: PLC0415 -- as above

    return DockerImages(socket, timeout)


def _quietly(post: Callable[[Callable[[], None]], object], what: Callable[[], None]) -> None:
    """Tell the event loop from a thread. Once it is closed, nobody wants to know."""
    try:
        post(what)
    except RuntimeError:
        return
