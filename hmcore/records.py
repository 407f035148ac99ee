"""What the replicated state holds and the wire carries: frozen msgspec Structs, encoded as msgpack maps (unknown fields are ignored,
missing ones take their default, so that neighbouring releases understand each other)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

STOPPED = "stopped"  # Node.state_reason of one whose agent said good-bye
FEATURE_LEVEL = (
    3  # the highest that this release knows (docs/adr/0068; node_agent/consensus/statemachine/levels.py says what belongs to it)
)


class Role(StrEnum):
    """`control` nodes vote in Raft; `worker` nodes follow."""

    CONTROL = "control"
    WORKER = "worker"


class NodeState(StrEnum):
    """A node as the leader sees it (design section 7). `unreachable` is the CLI's own word for a node that did not answer it."""

    READY = "ready"
    DEGRADED = "degraded"
    SUSPECT = "suspect"
    DOWN = "down"
    DRAINING = "draining"
    DRAINED = "drained"
    UNREACHABLE = "unreachable"


class ComponentState(StrEnum):
    """The life of a component of the agent; node_agent/platform/lifecycle.py has the transition table."""

    UNINITIALIZED = "uninitialized"
    INITIALIZING = "initializing"
    READY = "ready"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"


class InstanceHealth(StrEnum):
    """How fit an instance is for traffic. `unknown`: nobody has vouched for it within the registry's TTL, or it is still starting."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A member of the cluster, as replicated. `address` is an IP address; `incarnation` counts the agent's starts that we heard of."""

    name: str
    address: str
    port: int
    role: Role
    release: str
    labels: dict[str, str] = {}
    state: NodeState = NodeState.READY
    state_reason: str = ""
    incarnation: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, kept in a bounded list in the replicated state. `index` is the log index that brought it."""

    index: int
    kind: str  # e.g. "node.down"
    subject: str  # e.g. the node's name
    message: str
    author: str = ""
    unix_time: float = 0.0  # the proposer's wall clock: for people, nothing is decided by it


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster knows about itself since it was formed."""

    id: str
    bootstrap: str
    feature_level: int = 1


class Configuration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose votes count, and which `learners` are being caught up. `index`: of the log entry that made it so; 0 as it was formed."""

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    index: int = 0


class KeyValue(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept under a key, and the revisions that created it and changed it last. Every change of any key is a revision of its own,
    larger than all before."""

    value: bytes
    created: int
    changed: int


class Lock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Held by `holder` (whoever may renew and release it) until it is released, or not renewed for `ttl` seconds.

    `token` is larger than that of every lock taken before: whatever is guarded by the lock refuses a smaller one (fencing). `note` says
    what it is held for. `index`: the log index that made it so.
    """

    name: str
    holder: str
    token: int
    ttl: float
    note: str = ""
    author: str = ""
    index: int = 0
    unix_time: float = 0.0  # the proposer's wall clock when it was taken: for people


UNWATCHED = "unwatched"  # the attribute of an instance that the kernel's programs do not see: why not
ALLOCATION = "allocation"  # the attribute of an instance that is a replica of an app's service: hmcore.apps.records.Allocation.id
GENERATION = "generation"  # and the generation of the app that it is made of


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """Something that answers under a service's name: a component of a node's agent, or a container of ours.

    `id` is unique in the cluster and begins with its node: `node1/consensus`, `node1/web-1`. Components' services are named
    `hypermesh/<component>`. `address` empty: it has none. `port` 0: it does not listen. `weight`: its share of the traffic
    among its equals, 0 gets none. Of all priorities, the lowest with a fit instance takes the traffic.
    """

    id: str
    service: str
    node: str
    address: str
    port: int = 0
    version: str = ""
    weight: int = 100
    priority: int = 0
    tags: list[str] = []
    attributes: dict[str, str] = {}
    health: InstanceHealth = InstanceHealth.UNKNOWN
    reason: str = ""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """All instances of one node, as replicated. `revision` is a digest of them: a heartbeat that carries it renews them all.

    `expired` says why they count as unknown: nobody renewed them within the TTL. `index`: the log index that made it what it is.
    """

    revision: int
    incarnation: int
    instances: tuple[Instance, ...] = ()
    expired: str = ""
    index: int = 0


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """Taken out of traffic on purpose. `target` is an instance's id, or a node's name followed by `/` for all that it runs."""

    target: str
    reason: str = ""
    author: str = ""
    index: int = 0


class Mute(msgspec.Struct, frozen=True, kw_only=True):
    """A health check that counts for nothing and warns nobody, on one node or (`node` empty) everywhere."""

    check: str
    node: str = ""
    reason: str = ""
    author: str = ""
    index: int = 0

    @property
    def key(self) -> str:
        """`check`, or `check@node` for one node only."""
        return f"{self.check}@{self.node}" if self.node else self.check


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """A named health check. `worth` is 1 when all is well and 0 when it is gone; a muted one does not count."""

    name: str
    weight: float
    worth: float
    reason: str | None = None
    fix: str | None = None
    muted: bool = False


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What one container and one peer exchanged since the node started, seen from the container. `peer` is an IP address.

    `connections_in` were opened by the peer. `container` is a name, or an id when its container is gone already.
    """

    node: str
    container: str
    container_id: str
    service: str
    peer: str
    protocol: str  # tcp | udp | icmp | ... or the number that IANA gave it
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    connections_in: int = 0
    connections_out: int = 0


class NodeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened on one node, kept in its agent's memory only. `sequence` grows by one; a gap means that some were lost.

    kind: `exec` (a program began in a container) or `tcp` (a connection of a container changed its state).
    """

    sequence: int
    unix_time: float
    kind: str
    node: str
    container: str
    container_id: str
    message: str
    attributes: dict[str, str] = {}


class SecurityReport(msgspec.Struct, frozen=True, kw_only=True):
    """The eBPF layer. `mode` is off | audit | enforce; `programs` are attached, each exactly once. `events_lost` were dropped by the
    kernel: because there were more than it may tell, or (`events_overrun`) because the agent did not keep up."""

    mode: str
    programs: int = 0
    loaded: str = ""  # digest of the sources that run in the kernel
    cgroup: str = ""  # the common parent of our containers
    flows: int = 0
    events: int = 0
    events_lost: int = 0
    events_overrun: int = 0


class ComponentReport(msgspec.Struct, frozen=True, kw_only=True):
    state: ComponentState
    init_seconds: float = 0.0
    error: str | None = None
    restarts: int = 0
    fix: str | None = None  # the command that mends the error, to be run on the node


class PhaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """One initialization phase: when it began (seconds after the agent's start) and how long it took."""

    name: str
    began_seconds: float
    seconds: float
    outcome: str  # ok | degraded | failed
    error: str | None = None


class PeerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A connection to another node: `state` is connected | connecting | broken (its circuit is open)."""

    name: str
    address: str
    state: str
    rtt_ms: float | None = None
    error: str | None = None


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """At log index `index` the state of `node` has another `hash` than that of `others`, a majority, has (`agreed`). `waits`: why the node
    does not take theirs by itself, in words; only it knows.

    `node` empty: no majority agrees; `waits` then says who holds what.
    """

    node: str
    index: int
    hash: str
    agreed: str
    others: list[str]
    waits: str = ""


class RaftReport(msgspec.Struct, frozen=True, kw_only=True):
    """`role` is leader | follower | candidate | learner | outsider (no voter, by the log) | observer (a worker) | unformed | reseeding |
    damaged (what is on its disk).

    `level`: the feature level in force; 0 where none is known. `knows`: the highest that the node's release knows.
    """

    role: str
    leader: str | None = None
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    voters: list[str] = []
    reachable_voters: list[str] = []
    learners: list[str] = []
    level: int = 0
    knows: int = 1
    divergences: list[Divergence] = []


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself, and the members as it sees them."""

    cluster: str  # the cluster's id
    name: str
    address: str
    role: Role
    release: str
    uptime_seconds: float
    health_score: float  # 0..1
    reasons: list[str]
    containers: int | None  # ours, running; None when the engine does not answer
    components: dict[str, ComponentReport]
    raft: RaftReport
    formed: bool
    members: list[Node]
    peers: list[PeerReport] = []
    phases: list[PhaseReport] = []
    unix_time: float = 0.0  # the node's wall clock, for skew
    checks: list[CheckReport] = []
    security: SecurityReport | None = None
    mutes: list[Mute] = []  # as this node knows them
    maintenance: list[Maintenance] = []  # likewise
    index: int = 0  # the log index of what it knows of the cluster: members, mutes, maintenance
    apps: bool = True  # replicas may run there, by its configuration
    unpublished: list[str] = []  # ports that apps publish and it does not answer on, as hmcore.apps.ports.port_words has them
