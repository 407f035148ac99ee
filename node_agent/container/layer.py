"""The container layer as a component: Docker on the event loop. It is degraded, not dead, while Docker is away.

Calls go through a small pool of threads, each with a timeout: however Docker hangs, only they wait, and the agent goes on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hmcore.apps.records import Machine
from hmcore.errors import LayerDown, LayerMissing
from node_agent.container import docker_unit
from node_agent.container.apart import apart
from node_agent.container.ends import Docker, Unit, by_docker
from node_agent.container.info import ContainerInfo
from node_agent.container.questions import Questions, quietly

if TYPE_CHECKING:
    from node_agent.container.engine import Engine, Events
    from node_agent.container.engine_images import DockerImages

T = TypeVar("T")

SETTLE = 0.05  # seconds in which a burst of events makes one question
DYING = 30.0  # seconds for which a container that has ended, but is listed as running, is asked for again

log = logging.getLogger(__name__)


class ContainerLayer:
    """See node_agent.platform.lifecycle.Component. `containers` are ours, as Docker told last; none while it does not answer."""

    name = "container"
    serving = True

    def __init__(
        self,
        socket: Path,
        cluster: str,
        *,
        timeout: float,
        on_change: Callable[[], None] = lambda: None,
        unit: Callable[[], Unit] = docker_unit.look,
    ) -> None:
        """`timeout` (seconds) bounds each question to Docker. `on_change` is called when `containers` says something else than before.
        `unit`: how Docker's is now; blocks."""
        self._containers: Mapping[str, ContainerInfo] | None = None
        self._on_change = on_change
        self._unit = unit
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

    async def ends(self, containers: Collection[str]) -> Mapping[str, float]:
        """Those of `containers`, which have ended, that did so because Docker, or the machine, went away: by id, since when there is one
        again, in seconds since 1970. Raises LayerDown, also while Docker goes or comes: until that is over nobody can tell."""
        engine = self._engine
        if engine is None:
            raise LayerDown(f"Docker does not answer on {self._socket}", fix="systemctl start docker")
        runs = {id: await self._ask(partial(engine.run, id)) for id in sorted(containers)}
        lives_on = await self._ask(engine.live_restore)
        unit = await self._look_at_unit()  # after what ended has: if Docker ended it, Docker was going by then
        if self._passing(unit):
            raise LayerDown(f"Docker on {self._socket} is being stopped or started")
        began = _modified(self._pid_file)
        if began is None:  # it writes none, or elsewhere: nobody knows which Docker this is
            return {}
        booted, offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME), time.time() - time.monotonic()
        left = None if unit.left is None or lives_on else unit.left + offset
        return by_docker({id: run for id, run in runs.items() if run is not None}, Docker(booted if lives_on else began, left))

    async def going(self) -> bool:
        """Whether Docker is being stopped or started, or is to be."""
        return self._passing(await self._look_at_unit())

    async def _look_at_unit(self) -> Unit:
        return await apart("docker's unit", self._unit)

    def _passing(self, unit: Unit) -> bool:
        return unit.passing or not self._socket.exists() or self._stopped

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
            lambda action, container: quietly(post, lambda: self._heard(action, container, changed)), lambda: quietly(post, ended.set)
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


def _connect(socket: Path, cluster: str, timeout: float) -> Engine:
    from node_agent.container.engine import Engine  # noqa: PLC0415 -- takes a while, hence here: in a thread, beside other phases

    return Engine(socket, cluster, timeout)


def _connect_images(socket: Path, timeout: float) -> DockerImages:
    from node_agent.container.engine_images import DockerImages  # noqa: PLC0415 -- as above

    return DockerImages(socket, timeout)


def _modified(path: Path) -> float | None:
    """In seconds since 1970; None: there is no such file."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
