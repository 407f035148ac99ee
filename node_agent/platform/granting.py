"""Leases for exclusive replicas, granted to nodes where the leader is (docs/adr/0083).

What makes them safe is an order. That the node has asked is noted before anything else, where the leader counts for how long a node was
silent. A renewal is answered once a majority has confirmed, after that, that we lead: whoever leads later begins to count later. A node
that has no lease any more may have been taken for fenced: a command of its own in the log makes void what was planned then.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from hmcore.apps.calls import LeaseReply, LeaseRequest
from hmcore.errors import InvalidRequest, NotLeader
from node_agent.consensus.statemachine.appcommands import AdmitNode
from node_agent.consensus.statemachine.commands import Refused, decode_result, encode


class Log(Protocol):
    """The replicated log, on a control node."""

    @property
    def nodes(self) -> Mapping[str, object]: ...
    @property
    def leader(self) -> str | None: ...
    @property
    def leads_in(self) -> int | None:
        """The term in which this node leads; None while it does not."""

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]: ...


class Granter:
    """On every control node; it grants while that leads. `asked`: when each node asked last, by `clock`."""

    def __init__(
        self,
        log: Log,
        *,
        barrier: Callable[[], Awaitable[int]],
        lease: float,
        timeout: float,
        request_prefix: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        """`barrier` returns a log index once a majority has confirmed, after it was called, that this node leads. `lease` in seconds.
        `clock`: the one by which AppKeeper counts."""
        self.asked: dict[str, float] = {}
        self._log = log
        self._barrier = barrier
        self._lease = lease
        self._timeout = timeout
        self._prefix = request_prefix
        self._clock = clock
        self._requests = 0

    async def grant(self, request: LeaseRequest, node: str) -> LeaseReply:
        """To node `node`, by its own question. Raises NotLeader, NoQuorum, LevelTooLow; InvalidRequest if it is no member."""
        term = self._log.leads_in
        if term is None:
            raise NotLeader("this node does not lead", leader=self._log.leader)
        if node not in self._log.nodes:
            raise InvalidRequest(f"there is no node {node}")
        self.asked[node] = self._clock()
        index = await self._admit(node) if request.anew else await self._barrier()
        if self._log.leads_in != term:
            raise NotLeader("the leadership changed", leader=self._log.leader)
        return LeaseReply(index=index, seconds=self._lease)

    async def _admit(self, node: str) -> int:
        self._requests += 1
        request = f"{self._prefix()}-admit-{node}:{self._requests}"
        index, result = await self._log.propose(encode(AdmitNode(node=node)), request_id=request, timeout=self._timeout)
        match decode_result(result):
            case Refused(reason=reason):
                raise InvalidRequest(reason)
        return index


def latest(heard: Mapping[str, float], asked: Mapping[str, float]) -> dict[str, float]:
    """When each node was heard of last, by heartbeat or by question."""
    return {name: max(times.get(name, -math.inf) for times in (heard, asked)) for name in {**heard, **asked}}
