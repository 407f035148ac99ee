"""How a worker asks about the replicated state: a control node that is fit, each worker its own, and the next when that does not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hmcore.api import STATE, Method, StateReply, StateRequest
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
