"""docker_model behind Executor's protocol: calls that block, hang and fail as they are told to, from many threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping

from docker_model import IMAGE, Docker

from hmcore.errors import HyperMeshError, LayerDown, PartGone
from node_agent.container.actions import Action, Kill, Remove, Run, Start, Stop
from node_agent.container.creation import Body
from node_agent.container.info import ContainerInfo


class FakeHands:
    """`fault` says how the next call fails (see Docker.perform); `gate`: while it is not set, every call hangs, `told`: every
    look. `most`: calls at once."""

    def __init__(self, docker: Docker | None = None) -> None:
        self.docker = docker or Docker(images={IMAGE})
        self.fault: Callable[[Action], str] = lambda action: ""
        self.gate = threading.Event()
        self.gate.set()
        self.away = False
        self.going = False  # its containers end, and it still answers
        self.looks = 0
        self.told = asyncio.Event()
        self.told.set()
        self.inside = self.most = 0
        self.volumes: set[str] = set()
        self._lock = threading.Lock()

    async def look(self) -> Mapping[str, ContainerInfo]:
        self.looks += 1
        if self.away:
            raise LayerDown("Docker does not answer")
        with self._lock:
            seen = self.docker.look()
        await self.told.wait()
        return seen

    async def ends(self, containers: Collection[str]) -> Mapping[str, float]:
        if self.going:
            raise LayerDown("Docker is being stopped or started")
        with self._lock:
            return self.docker.by_docker(containers)

    async def is_going(self) -> bool:
        return self.going

    def create(self, name: str, body: Body) -> str:
        return self._call(Run("", name, body))

    def start(self, container: str) -> None:
        self._call(Start("", container))

    def signal_stop(self, container: str) -> None:
        self._call(Stop("", container, 0))

    def kill(self, container: str) -> None:
        self._call(Kill("", container))

    def remove(self, container: str) -> None:
        self._call(Remove("", container))

    def require_volume(self, name: str) -> None:
        if name not in self.volumes:
            raise PartGone(f"its volume {name} is not on this node")

    def _call(self, action: Action) -> str:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            if not self.gate.wait(20):
                raise LayerDown("Docker does not answer within 20 s")
            with self._lock:
                return self._carry_out(action, self.fault(action))
        finally:
            with self._lock:
                self.inside -= 1

    def _carry_out(self, action: Action, fault: str) -> str:
        if isinstance(action, Run) and fault != "before":  # to create alone; to start it is another call
            container = self.docker.create(action.name, action.body)
            self.docker.calls.append("Create")
            if fault:
                raise LayerDown("Docker does not answer within 60 s")
            return container
        outcome = self.docker.perform(action, fault)
        if isinstance(outcome, HyperMeshError):
            raise outcome
        assert outcome is not None
        return outcome


class FakeImages:
    """Has what the model has; a pull goes through `gate`."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.cancelled = 0

    def present(self, image: str) -> bool:
        return image in self.docker.images

    async def ensure(self, image: str) -> str:
        self.asked.append(image)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.docker.images.add(image)
        return image


class FakeFiles:
    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.refuses: HyperMeshError | None = None

    async def lay_ready(self, allocation: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.ready.add(allocation)

    async def take_away(self, allocation: str) -> None:
        self.ready.discard(allocation)
