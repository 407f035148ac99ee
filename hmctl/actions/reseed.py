"""raft reseed: give one voter its memory anew, from its peers. Also what a damaged journal or snapshot asks for.

ask the control nodes       may it be done? (hmctl/phases/reseed.py)
plan, consent, lock         as deploy does
set aside, start            over SSH
wait                        until it votes again and holds what the others held
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from hmcore.errors import HyperMeshError
from hmcore.records import Role
from hmctl.actions.hosts import Hosts
from hmctl.output import Output
from hmctl.phases import hostlock, runner
from hmctl.phases.agents import Agents
from hmctl.phases.base import Found, Step
from hmctl.phases.connect import Reached, reach
from hmctl.phases.healthy import PATIENCE, POLL
from hmctl.phases.reseed import SetAside, Survey, lacking, refusal, survey, waits_for
from hmctl.phases.runner import Progress, Timings
from hmctl.remote.base import Remote
from hmctl.text import listed

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.state import OperatorStore


class Reseeded(msgspec.Struct, frozen=True, kw_only=True):
    """What `raft reseed` did. `kept`: where the old directory is now; null if there was none. `index`: the log index that the node had to
    reach. `seconds`: from the stop of its agent until it voted again."""

    node: str
    kept: str | None
    leader: str | None
    index: int
    seconds: float


@dataclass(slots=True)
class Reseed:
    """One run. `timeout`: how long the node may take until it votes again, in seconds."""

    inventory: Inventory
    store: OperatorStore
    hosts: Hosts
    agents: Callable[[OperatorStore, Mapping[str, Remote]], Agents]
    output: Output
    node: str
    timeout: float
    yes: bool = False
    show_plan: Callable[[Sequence[Step]], None] = lambda steps: None
    timings: Timings = field(default_factory=Timings)

    async def run(self) -> Reseeded:
        """Raises HyperMeshError when it may not be done, failed, or the node does not vote again in time; UsageError, Interrupted."""
        host = self.inventory.host(self.node)
        control = [other for other in self.inventory.hosts if other.role is Role.CONTROL]
        reached = Reached()
        with self.output.progress() as progress:
            await reach([host], self.hosts.connect, reached, progress, self.timings, at_once=1)
            if host.name in reached.lost:
                raise reached.lost[host.name]
            progress.finish(host.name, "reached")
        agents = self.agents(self.store, reached.remotes)
        try:
            found = await self._permitted(control, agents)
            phase = SetAside(self.inventory.settings.initialization_timeout)
            target = Found(host, reached.facts[host.name])
            self.show_plan(runner.plan((phase,), [target]))
            if missing := waits_for(self.node, found):
                self.output.warn(f"{self.node} will not vote again before {listed(missing)} can be asked, too")
            self.output.confirm(f"Re-seed {self.node} from {listed(list(found.well))}?", yes=self.yes)
            with self.output.progress() as progress:
                return await self._carry_out(phase, target, control, agents, reached, progress)
        finally:
            await agents.close()

    async def _permitted(self, control: Sequence[Host], agents: Agents) -> Survey:
        found = survey(self.node, await agents.reports(control, timeout=PATIENCE))
        if why := refusal(self.node, found, [host.name for host in control]):
            raise why
        return found

    async def _carry_out(
        self, phase: SetAside, target: Found, control: Sequence[Host], agents: Agents, reached: Reached, progress: Progress
    ) -> Reseeded:
        async with hostlock.held([target], reached.remotes, "raft reseed") as refused:
            if refused:
                raise refused[target.name]
            found = await self._permitted(control, agents)  # somebody thought it over for a while
            began = time.monotonic()
            outcomes = await runner.run((phase,), [target], reached.remotes, progress, self.timings, at_once=1, done="started")
            if (error := outcomes[target.name].error) is not None:
                raise error
            await self._wait(target.host, found.index, control, agents, phase, progress)
        after = survey("", await agents.reports(control, timeout=PATIENCE))
        seconds = round(time.monotonic() - began, 3)
        return Reseeded(node=self.node, kept=phase.moved, leader=after.leader, index=found.index, seconds=seconds)

    async def _wait(self, host: Host, index: int, control: Sequence[Host], agents: Agents, phase: SetAside, progress: Progress) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        while (why := lacking(host.name, await agents.reports([host], timeout=PATIENCE), index)) is not None:
            if loop.time() > deadline:
                message = f"it does not vote again within {self.timeout:g} s: {why}"
                kept = f"; what it held is in {phase.moved}" if phase.moved else ""
                raise HyperMeshError(message + kept, host=host.name, fix=f"hmctl status; hmctl logs {host.name}")
            progress.update(host.name, "getting the state from its peers", detail=why)
            await asyncio.sleep(POLL)
        progress.finish(host.name, "votes again")
