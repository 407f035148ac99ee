"""How this node asks others: about the replicated state a control node that is fit, each worker its own, and the next when that does not
answer; about itself the node that is meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hmcore.api import INSTANCES, REPORT, STATE, Empty, InstancesReply, Method, ReportRequest, StateReply, StateRequest
from hmcore.records import NodeReport
from hmcore.selection import Strategy
from hmcore.watch import TABLES, WATCH, TablesReply, TablesRequest, WatchReply, WatchRequest
from node_agent.consensus.following.observer import TIMEOUT
from node_agent.registry.directory import Directory
from node_agent.registry.own import PLATFORM

Req = TypeVar("Req")
Res = TypeVar("Res")


class Asking:
    def __init__(self, me: str, directory: Callable[[], Directory]) -> None:
        self._me = me
        self._directory = directory

    async def watch(self, request: WatchRequest, names: Sequence[str]) -> WatchReply:
        return await self._ask(WATCH, request, names, request.wait, lambda reply: reply.waited)

    async def tables(self, request: TablesRequest, names: Sequence[str]) -> TablesReply:
        return await self._ask(TABLES, request, names)

    async def state(self, request: StateRequest, names: Sequence[str]) -> StateReply:
        return await self._ask(STATE, request, names, request.wait, lambda reply: reply.waited)

    async def report(self, name: str, timeout: float) -> NodeReport:
        """How a node is, whether it is well or not."""
        return await self._ask_itself("orchestration", REPORT, ReportRequest(members=False), name, timeout)

    async def instances(self, name: str, timeout: float) -> InstancesReply:
        """What runs on a node that has just told of itself. How it is, and that it is well again, only it can tell."""
        return await self._ask_itself("registry", INSTANCES, Empty(), name, timeout)

    async def _ask_itself(self, service: str, method: Method[Req, Res], request: Req, name: str, timeout: float) -> Res:
        """Raises what Directory.call raises."""
        return await self._directory().call(
            f"{PLATFORM}{service}",
            method,
            request,
            timeout=timeout,
            node=name,
            allow_unknown=True,
            bootstrap=[name],
            insist=True,
        )

    async def _ask(
        self,
        method: Method[Req, Res],
        request: Req,
        names: Sequence[str],
        wait: float = 0.0,
        held: Callable[[Res], float] = lambda reply: 0.0,
    ) -> Res:
        """`names`: the control nodes to ask while none is known to be fit. Raises what Directory.call raises."""
        return await self._directory().call(
            f"{PLATFORM}consensus",
            method,
            request,
            timeout=TIMEOUT + wait,
            held=held,
            strategy=Strategy.CONSISTENT_HASH,  # hundreds of workers must not all ask one
            key=self._me,
            repeatable=True,
            bootstrap=names,
        )
