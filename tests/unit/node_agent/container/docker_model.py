"""A model of Docker, small enough to be obviously right: containers, names and images; what fails, fails as it is told to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import structs

from hmcore.apps.records import Allocation
from hmcore.apps.spec import AppSpec, ContainerSpec, Restart, ServiceSpec
from hmcore.errors import ContainerRefused, HyperMeshError, ImageGone, LayerDown, NameTaken
from node_agent.container import ends, info
from node_agent.container.actions import Action, Cancel, Kill, Pull, Remove, Run, Start, Stop
from node_agent.container.creation import NodeFacts, Wanted
from node_agent.container.info import ContainerInfo

CLUSTER = "hm-abc123defg"
NODE = NodeFacts(cluster=CLUSTER, dns="10.1.0.1", cgroup_parent="/hypermesh")
IMAGE = "sha256:" + "1" * 64


def allocation(id: str, *, revision: str = "r1", stop: bool = False) -> Allocation:
    app, _, rest = id.partition("/")
    service, slot, _ = rest.rsplit(".", 2)
    return Allocation(id=id, app=app, service=service, slot=int(slot), node="node1", generation=1, revision=revision, stop=stop)


def wanted(id: str, *, restart: Restart | None = None, waiting: str = "", stop: bool = False, **container: Any) -> Wanted:
    """With one service, as `container` says."""
    made = allocation(id, stop=stop)
    spec = ContainerSpec(**({"image": "web:1", "image_id": IMAGE} | container))
    service = ServiceSpec(container=spec, restart=restart or Restart(delay=1.0))
    return Wanted(made, AppSpec(services={made.service: service}), waiting)


def labels_of(id: str, revision: str = "r1") -> dict[str, str]:
    return {info.CLUSTER: CLUSTER, info.ALLOCATION: id, info.REVISION: revision, info.GRACE: "10.000"}


@dataclass
class Made:
    """A container. `deaf`: SIGTERM does not end it. `starts`: how often it was. `serves`: see ContainerInfo. `started`, `finished`: by the
    clock that Docker stamps them with."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str = "created"
    exit_code: int | None = None
    deaf: bool = False
    starts: int = 0
    serves: bool = True
    started: float = 0.0
    finished: float = 0.0

    def info(self, number: int) -> ContainerInfo:
        return ContainerInfo(
            id=self.id,
            name=self.name,
            service=self.name,
            state=self.state,
            labels=self.labels,
            exit_code=self.exit_code,
            started=float(number),
            address="10.1.0.9" if self.state == "running" else "",
            serves=self.serves,
        )


@dataclass
class Docker:
    """`containers` by id. `broken`: what every start is refused with, `lacking` every pull. `calls`: what was carried out, in words."""

    images: set[str] = field(default_factory=set)
    called: dict[str, str] = field(default_factory=dict)  # images that Docker knows by another id
    containers: dict[str, Made] = field(default_factory=dict)
    broken: HyperMeshError | None = None
    lacking: HyperMeshError | None = None
    calls: list[str] = field(default_factory=list)
    made: int = 0
    clock: float = 1.0
    since: float = 1.0  # when it was started itself

    def put(
        self, name: str, labels: Mapping[str, str], state: str = "running", *, exit_code: int | None = None, deaf: bool = False
    ) -> Made:
        self.made += 1
        container = Made(f"c{self.made}", name, labels, state, exit_code, deaf, starts=int(state != "created"), started=self._tick())
        self.containers[container.id] = container
        return container

    def look(self) -> dict[str, ContainerInfo]:
        return {id: container.info(int(id[1:])) for id, container in self.containers.items()}

    def end(self, id: str, exit_code: int) -> None:
        container = self.containers[id]
        container.state, container.exit_code, container.finished = "exited", exit_code, self._tick()

    def restart(self, exit_code: int = 137, *, crashed: bool = False) -> None:
        """dockerd itself: all that ran has ended. `crashed`: what ran then is ended by the new one."""
        alive = [id for id, container in self.containers.items() if container.state == "running"]
        if crashed:
            self.since = self._tick()
        for id in alive:
            self.end(id, exit_code)
        if not crashed:
            self.since = self._tick()

    def by_docker(self, containers: Collection[str]) -> dict[str, float]:
        """What the layer tells of their ends."""
        runs = {id: ends.Run(made.started, made.finished) for id in containers if (made := self.containers.get(id)) is not None}
        return ends.by_docker(runs, ends.Docker(self.since))

    def _tick(self) -> float:
        self.clock += 1
        return self.clock

    def perform(self, action: Action, fault: str = "") -> str | HyperMeshError | None:
        """Its outcome. `fault`: `before` (Docker does nothing), `after` (it does, nobody hears of it), `half` (created, not started)."""
        if fault == "before":
            return LayerDown("Docker does not answer")
        try:
            value = self._do(action, fault)
        except HyperMeshError as error:
            return error
        return LayerDown("Docker does not answer within 60 s") if fault else value

    def _do(self, action: Action, fault: str) -> str:
        self.calls.append(type(action).__name__)
        match action:
            case Pull(_, image):
                if self.lacking is not None:
                    raise self.lacking
                self.images.add(self.called.get(image, image))
                return self.called.get(image, image)
            case Run(_, name, body):
                return self._run(name, body, fault)
            case Start(_, id):
                return self._start(id)
            case Stop(_, id) | Kill(_, id):
                found = self.containers.get(id)
                if found is not None and found.state == "running" and not (found.deaf and isinstance(action, Stop)):
                    self.end(id, 137 if isinstance(action, Kill) else 143)
                return id
            case Remove(_, id):
                if id in self.containers and self.containers[id].state == "running":
                    raise ContainerRefused("You cannot remove a running container")
                self.containers.pop(id, None)
                return id
            case Cancel():
                raise AssertionError("only the executor cancels")

    def _run(self, name: str, body: Mapping[str, Any], fault: str) -> str:
        made = self.create(name, body)
        return made if fault == "half" else self._start(made)

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        if any(container.name == name for container in self.containers.values()):
            raise NameTaken(f'The container name "/{name}" is already in use')
        if body["Image"] not in self.images:
            raise ImageGone(f"No such image: {body['Image']}")
        return self.put(name, body["Labels"], "created").id

    def _start(self, id: str) -> str:
        if self.broken is not None:
            raise self.broken
        if id not in self.containers:
            raise ContainerRefused(f"No such container: {id}")
        container = self.containers[id]
        if container.state == "dead":
            raise ContainerRefused("container is marked for removal and cannot be started")
        if container.state != "running":
            container.state, container.exit_code = "running", None
            container.starts += 1
            container.started = self._tick()
        return id


def stopped(want: Wanted) -> Wanted:
    return replace(want, allocation=allocation(want.allocation.id, stop=True))


def done(want: Wanted) -> Wanted:
    return replace(want, allocation=structs.replace(want.allocation, done=True))
