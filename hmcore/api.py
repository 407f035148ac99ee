"""Every call of the agent's API, by name and type. node_agent/platform/api.py says who may call what; hmctl/client.py calls.

The same calls are served over STOQ between machines and on the agent's unix socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from hmcore.records import Event, Node, NodeReport, Role

Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass(frozen=True, slots=True)
class Method(Generic[Req, Res]):
    """A call: its name on the wire, what is asked and what is answered."""

    name: str
    request: type[Req]
    response: type[Res]


class Empty(msgspec.Struct, frozen=True):
    pass


class PingReply(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    unix_time: float


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


class FormRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`voters`: all that are to form. A node with another list of them refuses."""

    bootstrap: str
    voters: list[str]


class ProposeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A command for the replicated state, encoded by node_agent/consensus/machine.py. `id` makes a retry harmless."""

    id: str
    command: bytes


class ProposeReply(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    result: bytes


class StateReply(msgspec.Struct, frozen=True, kw_only=True):
    """The members and latest events at log index `index`."""

    index: int
    leader: str | None
    term: int
    nodes: list[Node]
    events: list[Event] = []


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


PING: Method[Empty, PingReply] = Method("node.ping", Empty, PingReply)
REPORT: Method[Empty, NodeReport] = Method("node.report", Empty, NodeReport)
FORMATION: Method[Empty, Formation] = Method("cluster.formation", Empty, Formation)
FORM: Method[FormRequest, Formation] = Method("cluster.form", FormRequest, Formation)
PROPOSE: Method[ProposeRequest, ProposeReply] = Method("cluster.propose", ProposeRequest, ProposeReply)
STATE: Method[Empty, StateReply] = Method("cluster.state", Empty, StateReply)
