"""Carry out a change of the voters, one at a time, each followed until it is so and the others are well again (docs/adr/0078).

Harmless to repeat: what was done already is found done. Whoever leads is asked, and the next one if it moves on meanwhile.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hmcore.api import ChangeReply
from hmcore.errors import ChangeUnfinished, HyperMeshError, NotLeader
from hmcore.voters import ConfigureRequest, RaftStatus
from hmctl.phases.agents import Agents
from hmctl.phases.electorate import TITLE, Shift
from hmctl.phases.healthy import PATIENCE, judge, wait_healthy
from hmctl.phases.runner import Progress, Timings

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

WAIT = 2.0  # seconds that the leader waits before it tells how far it is
CALL = 5.0  # seconds for its answer beyond that
PAUSE = 0.2  # seconds between two attempts


@dataclass(slots=True)
class Revote:
    """`hosts`: all of the inventory, by name. `patience`: how long a change may take without being seen to go on, and the cluster to be
    healthy after it, in seconds. `may` raises when nothing may be changed any more."""

    hosts: Mapping[str, Host]
    change: Shift
    agents: Agents
    progress: Progress
    timings: Timings
    patience: float
    may: Callable[[], None] = lambda: None
    guarded: set[str] = field(default_factory=set)  # who was well, and must be again after each change

    async def begin(self) -> None:
        """Look who is well."""
        hosts = [host for name, host in self.hosts.items() if name in self.change.before]
        before = judge([host.name for host in hosts], await self.agents.reports(hosts, timeout=PATIENCE))
        self.guarded = {host.name for host in hosts if host.name not in before.waiting}

    async def join(self, name: str) -> None:
        """`name`, whose agent runs as a control node, votes when this returns. Raises HyperMeshError."""
        await self._carry_out(name, add=True)
        self.guarded.add(name)
        await self._settle(name)

    async def leave(self, name: str) -> None:
        """`name` has no vote any more when this returns. Raises HyperMeshError."""
        await self._carry_out(name, add=False)
        self.guarded.discard(name)
        await self._settle(name)

    async def _carry_out(self, name: str, *, add: bool) -> None:
        loop = asyncio.get_running_loop()
        began, held = loop.time(), -1
        wish = ConfigureRequest(id=uuid.uuid4().hex, add=name if add else "", remove="" if add else name, wait=min(WAIT, self.patience))
        doing = "catching up, to vote" if add else "handing its vote back"
        trouble = HyperMeshError("nobody leads who could change the voters", fix="hmctl status")
        with self.timings.span(TITLE, name):
            while True:
                self.may()
                self.progress.update(name, doing)
                leader = await self._leader()
                if leader is not None:
                    if (holds := _match(leader, name)) > held:
                        held, began = holds, loop.time()  # it goes on
                        self.progress.update(name, doing, detail=f"holds {max(0, holds)} of {leader.last_index} log entries")
                    answer = await self.agents.configure(self.hosts[leader.name], wish, timeout=wish.wait + CALL)
                    if isinstance(answer, ChangeReply):
                        self.progress.finish(name, "votes" if add else "is no voter any more")
                        return
                    trouble = trouble if isinstance(answer, NotLeader) else answer
                if loop.time() - began >= self.patience:
                    raise _given_up(name, trouble)
                await asyncio.sleep(min(PAUSE, self.patience))

    async def _leader(self) -> RaftStatus | None:
        asked = [host for name, host in self.hosts.items() if name in {*self.change.before, *self.change.joining}]
        said = await self.agents.raft(asked, timeout=PATIENCE)
        leads = [status for status in said.values() if isinstance(status, RaftStatus) and status.role == "leader"]
        return max(leads, key=lambda status: status.term, default=None)

    async def _settle(self, name: str) -> None:
        guarded = [self.hosts[each] for each in sorted(self.guarded)]
        verdict = await wait_healthy(guarded, self.agents, timeout=self.patience, grace=0.0)
        if verdict.waiting:
            why = "; ".join(f"{each}: {reason}" for each, reason in verdict.waiting.items())
            raise HyperMeshError(
                f"the voters are not changed further: after {name}, the cluster is not healthy ({why})", fix="hmctl status"
            )


def _match(leader: RaftStatus, name: str) -> int:
    return next((follower.match for follower in leader.followers if follower.name == name), -1)


def _given_up(name: str, trouble: HyperMeshError) -> HyperMeshError:
    going_on = "; it goes on by itself" if isinstance(trouble, ChangeUnfinished) else ""
    return HyperMeshError(
        f"the voters are not changed as planned: {trouble.message}{going_on}", host=name, fix=trouble.fix or "hmctl raft ls"
    )
