"""What an app shall be: its compose files, resolved, as they are kept and sent. Frozen; nothing is left to look up.

The terms are those of the Compose Specification. What a container is made of (ContainerSpec) and how many of them run where and how they
are replaced (ServiceSpec) are apart: a change of the first makes new containers, a change of the second touches none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from hmcore.apps.templates import labels_in

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "ceph", "glusterfs", "9p")


class Port(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`published` on every node (`ingress`), or only on the nodes where a replica runs (`host`), there on IP address `address` if given.
    0: any free one, `host` only."""

    target: int
    published: int = 0
    protocol: Literal["tcp", "udp"] = "tcp"
    mode: Literal["ingress", "host"] = "ingress"
    address: str = ""


class Mount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`source`: of a volume its name in the app (empty: an anonymous one), of a bind a path on the node, of a tmpfs nothing. `size` in
    bytes, `mode` as in chmod: of a tmpfs; 0: Docker's own. `options`: of a tmpfs, as mount has them (`uid=1000`, `exec`)."""

    kind: Literal["volume", "bind", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False
    size: int = 0
    mode: int = 0
    no_copy: bool = False  # a new volume begins empty, not with what the image has there
    propagation: str = ""
    create_source: bool = True  # of a bind: its path, if the node has none
    options: tuple[str, ...] = ()


class Attachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A secret or a config as a file in the container. `source`: its name in the app. `mode` as in chmod."""

    kind: Literal["secret", "config"]
    source: str
    target: str  # an absolute path
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class Probe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it is found out whether a replica is fit. Times in seconds.

    `test`: as Docker takes it (CMD, CMD-SHELL or NONE first), run in the container; or `http` (a path) or `tcp` at `port`, by the agent.
    Empty: what the image says. `written`: the times that the file says although they are as usual; of a `docker` probe the image's own
    count otherwise, where it has any.
    """

    test: tuple[str, ...] = ()
    kind: Literal["docker", "http", "tcp"] = "docker"
    port: int = 0
    path: str = ""
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0
    written: tuple[str, ...] = ()


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`cpus` in thousandths of a processor, `memory` in bytes; 0: none."""

    cpus: int = 0
    memory: int = 0
    pids: int = 0


class Ulimit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    soft: int
    hard: int


class Logging(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    driver: str = ""
    options: dict[str, str] = {}


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a container is made of. None and empty: as the image, or Docker, has it. `image` is what was asked for; `image_id` what that was
    found to be (`sha256:...`, of the image's configuration), the same bytes on every node; empty until it is known."""

    image: str
    image_id: str = ""
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: dict[str, str] = {}
    user: str = ""
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_grace: float = 10.0  # seconds from the stop signal to SIGKILL
    probe: Probe | None = None
    mounts: tuple[Mount, ...] = ()
    files: tuple[Attachment, ...] = ()
    expose: tuple[int, ...] = ()  # TCP ports
    expose_udp: tuple[int, ...] = ()
    networks: dict[str, tuple[str, ...]] = {}  # by its name in the app: further names of the service there
    network_mode: Literal["", "host", "none"] = ""  # empty: the cluster's network
    extra_hosts: tuple[str, ...] = ()  # name:address
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    limits: Resources = Resources()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    privileged: bool = False
    read_only: bool = False
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    ipc: str = ""
    pid: str = ""
    shm_size: int = 0  # bytes
    oom_score_adj: int = 0
    ulimits: dict[str, Ulimit] = {}
    sysctls: dict[str, str] = {}
    logging: Logging = Logging()


class Placement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`constraints` as Swarm has them: `node.role==worker`, `node.hostname!=node1`, `node.labels.zone==a`, `node.platform.arch==x86_64`.
    `spread`: labels over whose values replicas are spread, the most important first (`node.labels.zone`). `max_per_node` 0: any number."""

    constraints: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    max_per_node: int = 0


class Restart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes of a container that ended. Times in seconds. `attempts` 0: without end. `window`: how long it must run for a restart to
    count as a success."""

    condition: Literal["none", "on-failure", "any"] = "any"
    delay: float = 5.0
    attempts: int = 0
    window: float = 0.0


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How replicas are replaced. Times in seconds. `parallelism` 0: all at once. `monitor`: how long a new replica is watched, once it is
    fit, before it counts as good. `max_failure_ratio`: the share of new replicas that may fail before `failure_action`."""

    parallelism: int = 1
    delay: float = 0.0
    order: Literal["stop-first", "start-first"] = "stop-first"
    failure_action: Literal["pause", "continue", "rollback"] = "pause"
    monitor: float = 5.0
    max_failure_ratio: float = 0.0


class Dependency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On another service of the app, before the first container of this one is started. Not `required`: unless it never comes to that."""

    condition: Literal["started", "healthy", "completed"] = "started"
    restart: bool = False
    required: bool = True


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`replicas` count only where the mode is `replicated`; a `global` service runs once on every node that fits.

    `exclusive`: never two at a time, wherever nodes are cut off (design section 7). `weight`, `priority`: see
    hmcore.records.Instance.
    """

    container: ContainerSpec
    mode: Literal["replicated", "global"] = "replicated"
    replicas: int = 1
    ports: tuple[Port, ...] = ()
    placement: Placement = Placement()
    reservations: Resources = Resources()
    restart: Restart = Restart()
    update: Update = Update()
    rollback: Update = Update()
    depends_on: dict[str, Dependency] = {}
    labels: dict[str, str] = {}  # of the service, not of its containers
    exclusive: bool = False
    weight: int = 100
    priority: int = 0


class Volume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`name`: Docker's, on the node. `external`: it must be there already, and is never removed."""

    name: str
    driver: str = ""
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    external: bool = False

    @property
    def local(self) -> bool:
        """Its data is on its node. A network's file system may be mounted anywhere, also by the local driver."""
        return self.driver in ("", "local") and not self.options.get("type", "").casefold().startswith(NETWORK_FILE_SYSTEMS)


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the content of a secret or a config is: the name under which the cluster keeps it, and the digest of what it was when the app
    was deployed: with other content it is another container."""

    name: str
    digest: str = ""


class AppSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of an app. `networks`: their names; services reach those that share one with them."""

    services: dict[str, ServiceSpec]
    volumes: dict[str, Volume] = {}
    networks: tuple[str, ...] = ()
    secrets: dict[str, Source] = {}
    configs: dict[str, Source] = {}


def plain(value: object) -> Any:
    """As plain values, without what is as usual, so that equal ones come to the same. (msgspec leaves a default out only if it is the
    very same object: `10.0` that was read is written, the default is not.) A field that is new in a release changes nothing by itself."""
    match value:
        case msgspec.Struct():
            usual = _defaults(type(value))
            parts = ((name, getattr(value, name)) for name in value.__struct_fields__)
            return {name: plain(part) for name, part in parts if name not in usual or part != usual[name]}
        case dict():
            return {key: plain(part) for key, part in value.items()}
        case list() | tuple():
            return [plain(part) for part in value]
        case _:
            return value


@cache
def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    found = {field.name: field.default for field in msgspec.structs.fields(kind) if field.default is not msgspec.NODEFAULT}
    made = {field.name: field.default_factory for field in msgspec.structs.fields(kind) if field.default_factory is not msgspec.NODEFAULT}
    return found | {name: make() for name, make in made.items()}


_deterministic = msgspec.msgpack.Encoder(order="deterministic")


def revision(app: AppSpec, service: str) -> str:
    """A digest of all that containers of `service` are made of: equal ones need no new containers. Hexadecimal."""
    spec = app.services[service]
    used = {mount.source for mount in spec.container.mounts if mount.kind == "volume"}
    parts = (
        spec.container,
        spec.ports if spec.container.network_mode else tuple(port for port in spec.ports if port.mode == "host"),
        {name: app.volumes[name] for name in sorted(used) if name in app.volumes},
        {file.source: _sources(app, file)[file.source] for file in spec.container.files if file.source in _sources(app, file)},
    )
    fenced = ("exclusive",) if spec.exclusive else ()  # such containers are made in a way that lets the fence end them
    labels = {name: spec.labels.get(name, "") for name in sorted(set(labels_in(templated(spec.container))))}
    return blake2b(_deterministic.encode(plain(parts + fenced + ((labels,) if labels else ()))), digest_size=8).hexdigest()


def templated(spec: ContainerSpec) -> Iterator[str]:
    """What may have templates of Swarm in it: hostname, environment, and paths on the node."""
    yield spec.hostname
    yield from spec.environment.values()
    yield from (mount.source for mount in spec.mounts if mount.kind == "bind")


def spec_digest(app: AppSpec) -> str:
    """Equal for equal specs. Hexadecimal."""
    return blake2b(_deterministic.encode(plain(app)), digest_size=16).hexdigest()


def _sources(app: AppSpec, file: Attachment) -> Mapping[str, Source]:
    return app.secrets if file.kind == "secret" else app.configs
