"""Apps as the cluster keeps them: what is wanted, what was wanted before, where it shall run, and how it fares there."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from hmcore.apps.spec import AppSpec, revision
from hmcore.records import InstanceHealth


class Stage(StrEnum):
    """How far a service is from its app's generation.

    `rolling`: replicas are replaced, or wait for a place. `paused`: after a failed update, until the next generation. `steady`: all as
    wanted.
    """

    ROLLING = "rolling"
    PAUSED = "paused"
    STEADY = "steady"


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one service to its app's generation. `failed`: replicas of it that failed while they were watched. `message`: why it is paused.

    `generation` and `revision` say what it is a rollout to: once something else is wanted, it counts for nothing.
    """

    stage: Stage = Stage.ROLLING
    generation: int = 0
    revision: str = ""
    failed: tuple[str, ...] = ()  # ids of allocations
    message: str = ""


class App(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`generation` is what it shall be; `healthy` the last one that all services reached (0: none yet). `rollouts`: by service.
    `restarts`: by service, counts the times its operator wanted all its containers anew. `stopping`: it is to be removed."""

    name: str
    generation: int
    healthy: int = 0
    rollouts: dict[str, Rollout] = {}
    restarts: dict[str, int] = {}
    stopping: bool = False
    serial: int = 0  # of allocations, given out so far
    index: int = 0  # the log index that changed it last


class Generation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an app was to be, from some moment on. `origin`: the generation that it brings back; 0: a new one. `digest`: of `spec`.
    `reached`: all its services came to be like this once."""

    app: str
    number: int
    spec: AppSpec
    digest: str
    origin: int = 0
    author: str = ""
    note: str = ""
    unix_time: float = 0.0
    reached: bool = False
    index: int = 0

    @property
    def key(self) -> str:
        """In the table."""
        return f"{self.app}@{self.number}"


class Allocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A replica of a service on a node. It never moves, and never becomes another revision: it is stopped, and another takes its place.

    `id` is `app/service.slot.serial`; in a global service the slot is 0 everywhere. `generation` has the spec that it is made of;
    `revision` is wanted_revision of that. `stop`: it shall not run any more, and is forgotten once its node says that it does
    not, or is given up.
    `done`: it ended well and is not started again (a job), which holds wherever its node may be. `reason`: why it is here, or why it shall
    stop, in words.
    """

    id: str
    app: str
    service: str
    slot: int
    node: str
    generation: int
    revision: str
    stop: bool = False
    done: bool = False
    reason: str = ""
    index: int = 0

    @property
    def key(self) -> str:
        """In the table: its node first, so that a node can follow its own."""
        return f"{self.node}/{self.id}"

    @property
    def serial(self) -> int:
        return int(self.id.rpartition(".")[2])

    @property
    def replica(self) -> str:
        """For people, and as `hmctl app exec` and `logs` take it: web.1, or agent@node2 of a global service."""
        return f"{self.service}.{self.slot}" if self.slot else f"{self.service}@{self.node}"

    @property
    def located(self) -> str:
        """The same in words, with its node: that is said once."""
        return f"{self.replica} on {self.node}" if self.slot else self.replica


class Phase(StrEnum):
    """Of an allocation, on its node: in this order, but that it begins anew after a restart."""

    WAITING = "waiting"  # for what it depends on
    PULLING = "pulling"  # for its image
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"  # it ended, and will be started again
    STOPPING = "stopping"
    DONE = "done"  # it ended, and its restart policy leaves it at that
    FAILED = "failed"  # it ended, or cannot be started, and its restart policy gives it up


class GivenPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A port that an allocation's node gave out, where any would do: there `published` (on `address`, if given) leads to its `target`."""

    target: int
    published: int
    protocol: Literal["tcp", "udp"] = "tcp"
    address: str = ""


class AllocationStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an allocation's node says of it. `restarts`: since it was placed here. `exit_code`: of the last end; None: none yet. `error`:
    why it does not run, or is not fit, in words. `stuck`: that has kept it from its first start for long; it is tried on. `since`: seconds
    since 1970 of this phase, for people. `stopped`: it is to stop, and does not run; its container is yet to be removed, but another may
    take its place. `ports`: only those that its node gave out."""

    id: str
    phase: Phase
    health: InstanceHealth = InstanceHealth.UNKNOWN
    container: str = ""
    restarts: int = 0
    exit_code: int | None = None
    error: str = ""
    stuck: bool = False
    since: float = 0.0
    stopped: bool = False
    ports: tuple[GivenPort, ...] = ()


class NodeStatuses(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of all allocations that are on a node, by its own word. `incarnation`: the start of its agent that tells it."""

    incarnation: int
    allocations: tuple[AllocationStatus, ...] = ()
    index: int = 0


def statuses_key(node: str) -> str:
    """Of NodeStatuses in the table: as allocations begin, so that a node can follow both."""
    return f"{node}/"


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node has for containers, by its own word. `cpus` in thousandths of a processor, `memory` in bytes. `os`, `arch`: as Docker
    calls them. `engine`: its Docker answers. `images`: ids, and digests by which registries have them (`sha256:...`); `volumes`: Docker's
    names. `apps`: replicas may run there, by its configuration."""

    node: str
    cpus: int = 0
    memory: int = 0
    os: str = ""
    arch: str = ""
    engine: bool = False
    images: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    apps: bool = True
    index: int = 0


class Subnet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of a node's containers, in CIDR notation; routed to the node's address."""

    node: str
    cidr: str
    index: int = 0


class ImageLayer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`digest`: of the file that is sent, `size` bytes; `diff_id`: of the tar archive that it is, or that it holds compressed."""

    digest: str
    diff_id: str
    size: int


class Image(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an image's name means in this cluster. `name`: as names.familiar writes it; empty: it has none any more, but apps may come back
    to it. `id`: the digest of its configuration.

    `layers`, the lowest first: they and the configuration (`config_size` bytes) are kept by the nodes as blobs. `holders`: nodes that have
    all of them.
    """

    name: str
    id: str
    config_size: int = 0
    layers: tuple[ImageLayer, ...] = ()
    platform: str = ""  # linux/amd64
    holders: tuple[str, ...] = ()
    author: str = ""
    unix_time: float = 0.0
    index: int = 0

    @property
    def key(self) -> str:
        """In its table."""
        return self.name or self.id

    @property
    def blobs(self) -> dict[str, int]:
        """All that it is made of: sizes by digest."""
        return {self.id: self.config_size} | {layer.digest: layer.size for layer in self.layers}

    @property
    def size(self) -> int:
        return sum(self.blobs.values())


def allocation_id(app: str, service: str, slot: int, serial: int) -> str:
    return f"{app}/{service}.{slot}.{serial}"


def wanted_revision(app: App, spec: AppSpec, service: str) -> str:
    """What replicas of `service` shall be: its containers' revision, how often its operator wanted them anew, and the same of those that
    it depends on with `restart`. Other containers are needed exactly if it differs from an allocation's."""
    names = [service, *sorted(name for name, on in spec.services[service].depends_on.items() if on.restart and name in spec.services)]
    return "+".join(f"{revision(spec, name)}.{app.restarts[name]}" if app.restarts.get(name) else revision(spec, name) for name in names)
