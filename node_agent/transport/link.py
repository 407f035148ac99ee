"""What a node knows of one other: where it is, the connection to it if there is one, and whether it is worth waiting for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hmcore.records import PeerReport
from hmcore.stoq.endpoint import Connection, MessageStream
from hmcore.stoq.pulse import Pulse
from node_agent.transport.circuit import Circuit


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a node is. `dial`: connecting is our business, not its. `fallback`: ours, too, if it does not do so in time."""

    host: str
    port: int
    dial: bool
    fallback: bool = False


@dataclass(slots=True)
class Link:
    """To one peer. `changed` beats when it is connected, disconnected, wanted, or when dialling has failed."""

    name: str
    circuit: Circuit
    address: PeerAddress | None = None
    connection: Connection | None = None
    dialled: bool = False  # by us
    since: float = 0.0
    streams: dict[str, MessageStream] = field(default_factory=dict)  # ours, by kind
    incoming: set[str] = field(default_factory=set)
    attempts: int = 0
    error: str | None = None
    changed: Pulse = field(default_factory=Pulse)
    keeper: asyncio.Task[None] | None = None

    def connected(self, connection: Connection, *, dialled: bool, now: float) -> None:
        self.connection = connection
        self.dialled = dialled
        self.since = now
        self.error = None
        self.circuit = self.circuit.succeeded()

    def disconnected(self, reason: str, *, now: float, steady: float) -> None:
        """One that held for longer than `steady` seconds was a success: the pauses between attempts begin with the shortest again."""
        self.connection = None
        self.streams.clear()
        self.incoming.clear()
        self.error = reason
        if now - self.since > steady:
            self.attempts = 0
        self.attempts = max(1, self.attempts)

    def failed(self, error: str, now: float) -> None:
        self.error = error
        self.circuit = self.circuit.failed(now)

    def report(self, now: float) -> PeerReport:
        return PeerReport(
            name=self.name,
            address=f"{self.address.host}:{self.address.port}" if self.address else "",
            state="connected" if self.connection else "broken" if self.circuit.is_open(now) else "connecting",
            rtt_ms=round(self.connection.rtt * 1000, 3) if self.connection and self.connection.rtt is not None else None,
            error=None if self.connection else self.error,
        )
