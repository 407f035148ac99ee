"""A cluster that answers without a network: what the commands print and how they exit is looked at here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from hmcore.api import REPORT, Method, ReportRequest, StateReply
from hmcore.errors import HyperMeshError
from hmcore.records import ComponentReport, ComponentState, Node, NodeReport, PeerReport, PhaseReport, RaftReport, Role
from hmcore.stoq.faults import error_of, fault_of
from hmctl.actions.checks import judge
from hmctl.actions.status import Answer, Expected, Silence
from hmctl.actions.survey import Survey
from hmctl.client import Via

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NAMES = ("node1", "node2", "node3")


def node_report(name: str, **more: Any) -> NodeReport:
    values: dict[str, Any] = {
        "cluster": "hm-abc123defg",
        "name": name,
        "address": "10.0.0.1",
        "role": Role.CONTROL,
        "release": "r1",
        "uptime_seconds": 65.0,
        "health_score": 1.0,
        "reasons": [],
        "containers": 0,
        "components": {"transport": ComponentReport(state=ComponentState.RUNNING, init_seconds=0.12)},
        "raft": RaftReport(
            role="leader" if name == "node1" else "follower",
            leader="node1",
            term=3,
            voters=list(NAMES),
            reachable_voters=list(NAMES) if name == "node1" else [],
        ),
        "formed": True,
        "members": [Node(name=each, address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1") for each in NAMES],
        "peers": [PeerReport(name="node9", address="10.0.0.9:7443", state="broken", error="no answer")],
        "phases": [
            PhaseReport(name="identity", began_seconds=0.0, seconds=0.1, outcome="ok"),
            PhaseReport(name="container", began_seconds=0.1, seconds=0.9, outcome="degraded", error="Docker does not answer"),
        ],
    }
    return NodeReport(**{**values, **more})


@dataclass
class Door:
    """The agent `name` as hmctl is connected to it. `told`: what it says of the cluster's state; `answer`: how it answers a call."""

    name: str
    told: Callable[[], StateReply]
    answer: Callable[[str, Method[Any, Any], Any], Awaitable[Any]]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        pass

    async def state(self) -> StateReply:
        return self.told()

    async def report(self, *, members: bool = True) -> NodeReport:
        found: NodeReport = await self.call(REPORT, ReportRequest(members=members))
        return found

    async def call(self, method: Method[Any, Any], request: Any, *, timeout: float | None = None) -> Any:
        return await self.answer(self.name, method, request)


@contextmanager
def as_its_client_hears(name: str) -> Iterator[None]:
    """What the agent raises, after its way through the wire."""
    try:
        yield
    except HyperMeshError as error:
        raise error_of(fault_of(error), host=name) from None


@dataclass
class Cluster:
    """What the nodes say; tests change it. `asked` counts the surveys and how they were made."""

    answers: dict[str, Answer | Silence]
    asked: list[tuple[Via, float | None]] = field(default_factory=list)
    before_answering: Callable[[], None] = lambda: None
    sure: StateReply | HyperMeshError | None = None

    async def survey(
        self, inventory: Any, store: Any, *, via: Via, timeout: float | None, closely: Sequence[str] = (), consistent: bool = False
    ) -> Survey:
        self.asked.append((via, timeout))
        self.before_answering()
        expected = [Expected(host.name, host.address, host.role) for host in inventory.hosts]
        ends = NOW + timedelta(days=300)
        return Survey(
            judge(
                cluster=inventory.name,
                expected=expected,
                answers=self.answers,
                certificate_ends=ends,
                now=NOW,
                sure=self.sure if consistent else None,
            ),
            self.answers,
            via,
        )

    def silence(self, names: Sequence[str], reason: str = "no answer within 2 s") -> None:
        self.answers.update({name: Silence(reason) for name in names})
