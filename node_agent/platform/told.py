"""What nodes tell of their replicas, written down where the leader is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from hmcore.api import ChangeReply, InstancesReply
from hmcore.apps.calls import TellRequest
from hmcore.apps.records import Machine
from hmcore.errors import InvalidRequest, NotLeader
from node_agent.consensus.statemachine.appcommands import PutStatuses
from node_agent.consensus.statemachine.commands import Command, Refused, decode_result, encode
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.cluster import Proposer
from node_agent.registry.replication import put_instances


class Told:
    """On a control node; it writes while that leads. `request_prefix` makes request ids unique to this start of the agent."""

    def __init__(self, proposer: Proposer, state: Callable[[], State], *, timeout: float, request_prefix: Callable[[], str]) -> None:
        self._proposer = proposer
        self._state = state
        self._timeout = timeout
        self._prefix = request_prefix
        self._requests = 0

    async def tell(self, request: TellRequest, node: str) -> ChangeReply:
        """By node `node`, of itself. Raises NotLeader, NoQuorum, LevelTooLow; InvalidRequest if it is no member, or has started again."""
        if not self._proposer.is_leader:
            raise NotLeader("this node does not lead", leader=self._proposer.leader)
        if node not in self._state().nodes:
            raise InvalidRequest(f"there is no node {node}")
        machine = None if request.machine is None else self._as_known(node, request.machine)
        commands: list[Command] = [
            PutStatuses(node=node, incarnation=request.incarnation, allocations=request.allocations, machine=machine)
        ]
        if (instances := request.instances) is not None and self._differ(node, instances):
            commands.append(put_instances(node, instances))
        replies = await asyncio.gather(*(self._write(node, command) for command in commands))
        return ChangeReply(index=max(reply.index for reply in replies), changed=any(reply.changed for reply in replies))

    def _as_known(self, node: str, told: Machine) -> Machine:
        """While its Docker does not answer a node cannot tell what it has, and has it all the same: volumes have their home there."""
        known = self._state().machines.get(node)
        return told if told.engine or known is None else replace(known, engine=False, apps=told.apps)

    def _differ(self, node: str, told: InstancesReply) -> bool:
        known = self._state().registrations.get(node)
        return known is None or known.revision != told.revision

    async def _write(self, node: str, command: Command) -> ChangeReply:
        self._requests += 1
        index, result = await self._proposer.propose(
            encode(command), request_id=f"{self._prefix()}-{type(command).__name__}-{node}:{self._requests}", timeout=self._timeout
        )
        match decode_result(result):
            case Refused(reason=reason):
                raise InvalidRequest(reason)
            case applied:
                return ChangeReply(index=index, changed=applied.changed)
