"""Every call of the agent's API, by name and type. node_agent/platform/api.py says who may call what; hmctl/client.py calls.

The same calls are served over STOQ between machines and on the agent's unix socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from hmcore.records import Event, Flow, Instance, Maintenance, Mute, Node, NodeEvent, NodeReport, Registration, Role

Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass(frozen=True, slots=True)
class Method(Generic[Req, Res]):
    """A call: its name on the wire, what is asked and what is answered."""

    name: str
    request: type[Req]
    response: type[Res]


MOST_REPORTS = 64  # of other nodes, in one answer
LONGEST_REPORT = 5.0  # seconds that another node is waited for


class Empty(msgspec.Struct, frozen=True):
    pass


class PingReply(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    unix_time: float


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`members`: whether to say whom it knows as members, too. Whoever asks many nodes needs that of a few only: it grows with the
    cluster."""

    members: bool = True


class ReportsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`nodes`: whose reports are wanted, at most MOST_REPORTS. Each has `timeout` seconds (at most
    LONGEST_REPORT) to answer the node that we ask."""

    nodes: list[str]
    timeout: float = 1.0


class ForwardedReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node's own report, asked by another. `rtt_ms`: between those two. By the asking node's clock the report's `unix_time` was read
    between `ahead_least` and `ahead_most` seconds ahead of it."""

    report: NodeReport
    ahead_least: float
    ahead_most: float
    rtt_ms: float | None = None


class ReportsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Of those who answered; the others are to be asked by whoever wants to know. Members are left out of all reports."""

    reports: list[ForwardedReport]


class Formation(msgspec.Struct, frozen=True, kw_only=True):
    """How far a node is in forming its cluster. `bootstrap` is the id that its configuration carries; `empty`: its journal holds nothing.

    `permitted`: it was told to form. `formed`: it holds, or knows of, a committed formation. `voters`: whose votes count for it; a worker
    names none.
    """

    bootstrap: str
    voters: list[str]
    empty: bool
    permitted: bool
    formed: bool
    term: int = 0
    level: int = 0  # the feature level in force; 0 where none is known


class FormRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`voters`: all that are to form. A node with another list of them refuses."""

    bootstrap: str
    voters: list[str]


class StateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`since`: a log index whose state the caller has already; if nothing was applied after it, the answer is `unchanged` and short.

    `partial`: of the registrations, those that were made after `since` are enough. `wait`: a node that has the latest is answered when
    there is something newer, or after so many seconds (at most 5): it follows at once, and costs nothing while nothing happens.
    `consistent`: every write acknowledged before the call is in the answer, whichever node is asked; NoQuorum where that cannot be said.
    """

    since: int = -1
    partial: bool = False
    wait: float = 0.0
    consistent: bool = False


class StateReply(msgspec.Struct, frozen=True, kw_only=True):
    """The members and latest events at log index `index`. Nodes also get the registry; `unchanged`: all lists are left out.

    `partial`: the registrations of other members are as they were at the request's `since`. `waited`: seconds for which the answer was
    held back; none where too many wait already, or by an earlier release. `no_quorum`: why nobody leads, once the node is sure that it is
    for want of voters; empty otherwise. `consistent`: that was asked for, and it is; never so by an earlier release, which does not know.
    """

    index: int
    leader: str | None
    term: int
    nodes: list[Node]
    events: list[Event] = []
    unchanged: bool = False
    partial: bool = False
    waited: float = 0.0
    registrations: dict[str, Registration] = {}
    maintenance: list[Maintenance] = []
    mutes: list[Mute] = []
    no_quorum: str = ""
    consistent: bool = False


class BarrierReply(msgspec.Struct, frozen=True, kw_only=True):
    """A state at log index `index`, or a later one, holds every write that was acknowledged before the call. Only the leader knows."""

    index: int


class TransferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Of the leader: another is to lead. `to`: which voter; empty: the one that is furthest ahead."""

    to: str = ""


class TransferReply(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads now, in which term, and how many seconds it took. `index`: the log index up to which this node knows it."""

    leader: str
    term: int
    seconds: float
    index: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Sent one way, every `membership.heartbeat` seconds, to every control node. The sender's name is its certificate's."""

    address: str
    port: int
    role: Role
    release: str
    incarnation: int  # wall-clock microseconds of the agent's start: larger is later
    health_score: float
    reasons: list[str] = []
    labels: dict[str, str] = {}
    leaving: bool = False  # a planned stop: no need to wait for silence
    level: int = 1  # the highest feature level that the sender's release knows
    hashes: tuple[tuple[int, str], ...] = ()  # of the sender's state, by log index: its latest, and its latest checkpoint
    reseeding: bool = False  # it is taking the state from the others
    registry: int | None = None  # renews the node's instances: their revision. Sent every `registry.refresh`, and when it has changed


class InstancesReply(msgspec.Struct, frozen=True, kw_only=True):
    """A node's own instances as they are now, for the leader to replicate."""

    revision: int
    incarnation: int
    instances: list[Instance]


class RegistryReply(msgspec.Struct, frozen=True, kw_only=True):
    """All instances as this node sees them at log index `index`: health already tells of silent nodes and expiry."""

    index: int
    instances: list[Instance]
    maintenance: list[Maintenance] = []
    latency_ms: dict[str, float] = {}  # by instance id: moving averages of this node's own calls
    failures: dict[str, int] = {}  # by instance id: this node's own calls that failed in a row


class MaintainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Take `target` (an instance's id, or `NODE/`) out of traffic, or (`on` false) give it back."""

    id: str  # of the request: a retry is harmless
    target: str
    on: bool
    reason: str = ""


class MuteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Mute a health check by name on `node` (empty: everywhere), or (`on` false) let it speak again."""

    id: str
    check: str
    node: str = ""
    on: bool = True
    reason: str = ""


class ChangeReply(msgspec.Struct, frozen=True, kw_only=True):
    """A change is in the log at `index`. `changed` is false when everything was as wanted already. `revision`: of the key that was put or
    deleted; 0 for any other change."""

    index: int
    changed: bool
    revision: int = 0


class RaiseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Raise the feature level to the highest that all members know."""

    id: str  # of the request: a retry is harmless


class RaiseReply(msgspec.Struct, frozen=True, kw_only=True):
    """The feature level in force at log index `index`; `changed` is false when it was in force already."""

    index: int
    level: int
    changed: bool


class FlowsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the node started. `unix_time`: the node's wall clock when it read them. `names`: of the node's own addresses,
    and of its containers', which may mean others on another node."""

    flows: list[Flow]
    unix_time: float
    names: dict[str, str] = {}


class EventsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Events of this node after `after` (a sequence; -1: the latest `limit`), at most `limit`. Waits up to `wait` seconds (at most 20)
    for the first, so that following costs nothing while nothing happens. `journal`: whose sequence `after` is; when the agent keeps
    another one by now (it was restarted), the answer begins with the first event of that."""

    after: int = -1
    limit: int = 1000
    wait: float = 0.0
    container: str = ""
    kinds: list[str] = []  # only these; all when it is empty
    journal: int = 0


class EventsReply(msgspec.Struct, frozen=True, kw_only=True):
    """`last` is the sequence to go on from, in `journal`. `lost`: events after `after` that are not kept any more."""

    events: list[NodeEvent]
    last: int
    lost: int = 0
    journal: int = 0


PING: Method[Empty, PingReply] = Method("node.ping", Empty, PingReply)
REPORT: Method[ReportRequest, NodeReport] = Method("node.report", ReportRequest, NodeReport)
REPORTS: Method[ReportsRequest, ReportsReply] = Method("cluster.reports", ReportsRequest, ReportsReply)
FORMATION: Method[Empty, Formation] = Method("cluster.formation", Empty, Formation)
FORM: Method[FormRequest, Formation] = Method("cluster.form", FormRequest, Formation)
STATE: Method[StateRequest, StateReply] = Method("cluster.state", StateRequest, StateReply)
BARRIER: Method[Empty, BarrierReply] = Method("cluster.barrier", Empty, BarrierReply)
TRANSFER: Method[TransferRequest, TransferReply] = Method("cluster.transfer", TransferRequest, TransferReply)
INSTANCES: Method[Empty, InstancesReply] = Method("registry.instances", Empty, InstancesReply)
REGISTRY: Method[Empty, RegistryReply] = Method("registry.list", Empty, RegistryReply)
MAINTAIN: Method[MaintainRequest, ChangeReply] = Method("registry.maintain", MaintainRequest, ChangeReply)
RAISE: Method[RaiseRequest, RaiseReply] = Method("cluster.raise", RaiseRequest, RaiseReply)
MUTE: Method[MuteRequest, ChangeReply] = Method("health.mute", MuteRequest, ChangeReply)
FLOWS: Method[Empty, FlowsReply] = Method("security.flows", Empty, FlowsReply)
EVENTS: Method[EventsRequest, EventsReply] = Method("node.events", EventsRequest, EventsReply)
