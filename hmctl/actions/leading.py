"""Calls to the leader, whoever that is by then, over connections that are kept: for what is asked more than once.

A single change goes through change.py, which needs nothing to be closed afterwards.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from hmcore import api
from hmcore.errors import CallTimeout, ConnectionLost, HyperMeshError, NoQuorum, NotLeader, PeerUnreachable
from hmcore.records import Role
from hmctl.actions.agents import Agents
from hmctl.actions.change import PAUSE, newest_leader, nobody_answers
from hmctl.client import AgentClient

Req = TypeVar("Req")
Res = TypeVar("Res")

EACH = 5.0  # seconds that one node has to answer: by then its own timeouts have passed, and another may lead


class LeaderCalls:
    """See hmcore.lease.Leader. What is called must be harmless to repeat."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._hosts = {host.name: host for host in agents.hosts if host.role is Role.CONTROL}
        self._leader: str | None = None  # as far as we know

    async def call(self, method: api.Method[Req, Res], request: Req, *, timeout: float) -> Res:
        """Asks until `timeout` seconds have passed: who leads, and then that one. Without a quorum, too: it may come back.

        Raises PeerUnreachable at once when not one control node answers, what the leader refuses, else what was in the way at last.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        trouble: HyperMeshError = HyperMeshError(f"the cluster has no leader, for {timeout:g} s", fix="hmctl status")
        while (left := deadline - clock()) > 0:
            named: str | None = None
            leader = self._leader or await self._find()
            if leader is not None:
                try:
                    found = await self._ask(leader, method, request, min(left, EACH))
                except NotLeader as error:
                    named = error.leader if error.leader != leader else None
                except (PeerUnreachable, ConnectionLost, CallTimeout, NoQuorum) as error:
                    trouble = error
                else:
                    self._leader = leader
                    return found
            self._leader = named
            if named is None:
                await asyncio.sleep(min(PAUSE, max(0.0, deadline - clock())))
        raise trouble

    async def _ask(self, name: str, method: api.Method[Req, Res], request: Req, seconds: float) -> Res:
        host = self._hosts.get(name)
        if host is None:
            message = f"the leader is {name}, which is no control node of this inventory"
            raise HyperMeshError(message, host=name, fix="use the inventory that lists it: hmctl -i FILE")

        async def question(agent: AgentClient) -> Res:
            return await agent.call(method, request, timeout=seconds)

        return await self._agents.ask(host, question, within=seconds)

    async def _find(self) -> str | None:
        answers = await self._agents.ask_all(lambda agent: agent.state(), list(self._hosts.values()))
        said = {name: answer for name, answer in answers.items() if isinstance(answer, api.StateReply)}
        if not said:
            raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
        return newest_leader(said)
