"""Operators and viewers who call agents: they keep connections, look for the leader, and try a change again under its id."""

from __future__ import annotations

import asyncio
import time
import uuid
from types import TracebackType
from typing import Self, TypeVar

from cluster import WAIT, ClusterOfProcesses

from hmcore.api import STATE, ChangeReply, Method, StateRequest
from hmcore.errors import CallTimeout, ConnectionLost, HyperMeshError, NoQuorum, NotLeader, PeerUnreachable, TransportError
from hmcore.pki import Kind
from hmcore.stoq.endpoint import Connection
from hmcore.stoq.rpc import invoke

Req = TypeVar("Req")
Res = TypeVar("Res")

TRANSIENT = (CallTimeout, ConnectionLost, NoQuorum, NotLeader, PeerUnreachable)  # what an election may cause, and nothing else
GRACE = 1.0  # seconds over its timeout that a call may take on a busy machine


def new_id() -> str:
    return uuid.uuid4().hex


class Operator:
    """One caller. `failures` are the errors that calls ended with."""

    def __init__(self, cluster: ClusterOfProcesses, name: str, kind: Kind = Kind.OPERATOR) -> None:
        self.cluster = cluster
        self.name = name
        self.kind = kind
        self.failures: list[HyperMeshError] = []
        self._connections: dict[str, Connection] = {}
        self._leader: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def ask(self, node: str, method: Method[Req, Res], request: Req, timeout: float = 2.0) -> Res:
        """The answer, or an error of our own tree, within `timeout` seconds each for the connection and for the call."""
        began = time.monotonic()
        try:
            if node not in self._connections:
                self._connections[node] = await self.cluster.open(node, self.kind, caller=self.name, timeout=timeout)
            return await invoke(self._connections[node], method, request, timeout=timeout)
        except HyperMeshError as error:
            self.failures.append(error)
            if isinstance(error, TransportError) and (broken := self._connections.pop(node, None)) is not None:
                await broken.close()
            raise
        finally:
            took = time.monotonic() - began
            assert took < 2 * timeout + GRACE, f"{method.name} at {node} took {took:.1f} s, with a timeout of {timeout} s"

    async def change(self, method: Method[Req, ChangeReply], request: Req, seconds: float = WAIT) -> ChangeReply:
        """Have the leader carry it out: the same request to whoever leads, until it is answered."""
        async with asyncio.timeout(seconds):
            while True:
                leader = self._leader or await self._find()
                try:
                    return await self.ask(leader, method, request)
                except NotLeader as error:
                    self._leader = error.leader
                except TRANSIENT:
                    self._leader = None
                if self._leader is None:
                    await asyncio.sleep(0.2)

    async def _find(self) -> str:
        """Whom some control node believes to be the leader."""
        while True:
            for name in self.cluster.voters:
                try:
                    found = (await self.ask(name, STATE, StateRequest(), timeout=0.5)).leader
                except TRANSIENT:
                    continue
                if found is not None:
                    self._leader = found
                    return found
            await asyncio.sleep(0.1)
