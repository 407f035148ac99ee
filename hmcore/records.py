"""What the replicated state holds and the wire carries: frozen msgspec Structs, encoded as msgpack maps (unknown fields are ignored,
missing ones take their default, so that neighbouring releases understand each other)."""

from __future__ import annotations

from enum import StrEnum

import msgspec


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


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster knows about itself since it was formed."""

    id: str
    bootstrap: str
    feature_level: int = 1


class ComponentReport(msgspec.Struct, frozen=True, kw_only=True):
    state: ComponentState
    init_seconds: float = 0.0
    error: str | None = None
    restarts: int = 0


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


class RaftReport(msgspec.Struct, frozen=True, kw_only=True):
    """`role` is leader | follower | candidate | observer (a worker) | unformed | reseeding."""

    role: str
    leader: str | None = None
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    voters: list[str] = []
    reachable_voters: list[str] = []


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
