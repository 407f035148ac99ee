"""The leader's part of the registry: copies what nodes say of their own instances into the log, and expires what nobody renews.

A loop of its own: however long nodes take to tell their instances, who is alive is decided elsewhere and does not wait. It is driven by
what is true (renewals.py compares), never by what has happened: whatever got lost is found missing in the next round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hmcore.api import InstancesReply
from hmcore.errors import HyperMeshError, InvalidRequest
from node_agent.consensus.statemachine.commands import Command, PutInstances, Refused, decode_result, encode
from node_agent.orchestration.cluster import Proposer
from node_agent.registry.renewals import Renewals
from node_agent.waiting import woken

AT_ONCE = 16  # nodes asked for their instances at the same time
CHRONIC = 3  # failures in a row before it is the leader's trouble, too
_SHORTEST = 0.01  # seconds: a deadline that rounding has put a hair ahead must not make the loop spin

log = logging.getLogger(__name__)


class Replication:
    """On every control node; it acts while that leads."""

    def __init__(
        self,
        *,
        cluster: Proposer,
        ttl: float,
        pull: Callable[[str], Awaitable[InstancesReply]],
        propose_timeout: float,
        request_prefix: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        """`pull` asks a node for its instances, within a time of its own. `clock` stands still while this agent does."""
        self._cluster = cluster
        self._pull = pull
        self._timeout = propose_timeout
        self._prefix = request_prefix
        self._clock = clock
        self._renewals = Renewals(ttl)
        self._news = asyncio.Event()
        self._leading = False
        self._requests = 0
        self._busy: set[str] = set()  # nodes that something is being done about
        self._troubles: dict[str, tuple[str, int]] = {}  # by node: what fails, and how often in a row

    @property
    def trouble(self) -> str | None:
        """What has failed for so long that people should know."""
        if not self._leading:
            return None
        chronic = sorted(name for name, (_, failures) in self._troubles.items() if failures >= CHRONIC and name in self._cluster.nodes)
        return f"the instances of {', '.join(chronic)} cannot be copied: {self._troubles[chronic[0]][0]}" if chronic else None

    def heard(self, name: str, incarnation: int, revision: int) -> None:
        """A node's heartbeat renews its instances."""
        known = self._cluster.registrations.get(name)
        if self._renewals.heard(name, incarnation, revision, self._clock()) or known is None or known.expired:
            self._news.set()

    def poke(self) -> None:
        """The cluster has another leader, or other members."""
        self._news.set()

    async def run(self) -> None:
        self._busy.clear()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                pause: float | None = None
                leads = self._cluster.is_leader and self._cluster.cluster is not None
                if leads and not self._leading:
                    self._renewals.lead(self._clock())
                    self._troubles.clear()
                self._leading = leads
                if leads:
                    pause = self._round(tasks)
                await woken(self._news, pause)

    def _round(self, tasks: asyncio.TaskGroup) -> float | None:
        """Begin all that is to be done now. Returns how long to sleep if nothing is heard."""
        now = self._clock()
        plan = self._renewals.plan(self._cluster.nodes, self._cluster.registrations, now)
        for name in self._troubles.keys() - plan.wanting - self._busy:  # it told its instances itself meanwhile
            del self._troubles[name]
        for command in plan.commands:
            self._begin(tasks, command.node, self._propose(command))
        for name in plan.pull:
            if len(self._busy) >= AT_ONCE:
                break  # whoever is done sets off the next round
            self._begin(tasks, name, self._copy(name))
        return None if plan.next is None else max(plan.next - now, _SHORTEST)

    def _begin(self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> None:
        if name in self._busy:
            work.close()
            return
        self._busy.add(name)
        tasks.create_task(self._attempt(name, work), name=f"registry {name}")

    async def _attempt(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        failure: HyperMeshError | None = None
        try:
            await work
        except HyperMeshError as error:
            failure = error
        self._busy.discard(name)
        self._renewals.attempted(name, self._clock(), failed=failure is not None)
        if failure is None:
            self._troubles.pop(name, None)
        else:
            before, failures = self._troubles.get(name, ("", 0))
            if before != failure.message:
                log.warning("the instances of %s cannot be recorded: %s", name, failure)
            self._troubles[name] = (failure.message, failures + 1)
        self._news.set()

    async def _copy(self, name: str) -> None:
        told = await self._pull(name)
        self._renewals.heard(name, told.incarnation, told.revision, self._clock())
        known = self._cluster.registrations.get(name)
        if known is not None and known.revision == told.revision:
            return
        await self._propose(put_instances(name, told))

    async def _propose(self, command: Command) -> None:
        self._requests += 1
        request = f"{self._prefix()}-registry-{self._requests}"
        _, result = await self._cluster.propose(encode(command), request_id=request, timeout=self._timeout)
        match decode_result(result):
            case Refused(reason=reason):
                raise InvalidRequest(reason)


def put_instances(name: str, told: InstancesReply) -> PutInstances:
    """What a node told of itself, as a command. Raises InvalidRequest if it tells of others."""
    for instance in told.instances:
        if instance.node != name or not instance.id.startswith(f"{name}/"):
            raise InvalidRequest(f"it tells {instance.id[:100]!r} of {instance.node[:100]!r}, which is not its own", host=name)
    return PutInstances(node=name, incarnation=told.incarnation, revision=told.revision, instances=tuple(told.instances))
