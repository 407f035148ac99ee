"""The part of deploy that changes who votes: sets up who is to join, has it added, has who is to leave removed (docs/adr/0078)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError, LeaseLost
from hmctl.actions.claim import Claim
from hmctl.actions.draft import Draft
from hmctl.actions.targeting import Targeting
from hmctl.live import Progress
from hmctl.phases import hostlock, rolling, runner
from hmctl.phases.agents import Agents
from hmctl.phases.base import Target
from hmctl.phases.connect import Reached, gather_facts
from hmctl.phases.electorate import Shift
from hmctl.phases.revote import Revote
from hmctl.phases.runner import Outcome
from hmctl.phases.start import restart
from hmctl.state import Place

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.state import OperatorStore


class NotChanged(Exception):
    """The voters are not as planned: nothing that builds on it may be done."""

    def __init__(self, error: HyperMeshError) -> None:
        super().__init__(error.message)
        self.error = error


def keep_voters(store: OperatorStore, inventory: Inventory, names: Collection[str]) -> None:
    """In the operator's record."""
    store.keep_voters(Place(host.name, host.address, host.port) for host in inventory.hosts if host.name in names)


@dataclass(frozen=True, slots=True)
class Revoting:
    """`patience`: seconds that the cluster has for each step."""

    change: Shift
    targeting: Targeting
    store: OperatorStore
    claim: Claim
    patience: float
    reached: Reached
    agents: Agents
    progress: Progress
    report: Draft
    locks: hostlock.Locks

    async def run(self, targets: list[Target]) -> list[Target]:
        """Carries out the change, and then looks again what each host shall look like. Raises NotChanged: then no host's file has been
        changed but of those that were to join, and running again goes on from there."""
        change, inventory, timings = self.change, self.targeting.inventory, self.targeting.timings
        hosts = {host.name: host for host in inventory.hosts}
        keep_voters(self.store, inventory, {*change.before, *change.joining})
        revote = Revote(hosts, change, self.agents, self.progress, timings, self.patience, self.claim.check)
        try:
            for name in change.leaving:
                self.report.check(name)
            await revote.begin()
            for name in change.joining:
                await self._set_up(name)
                await revote.join(name)
                self.report.cluster_changes += (f"{name} votes",)
            for name in change.leaving:
                await revote.leave(name)
                self.report.cluster_changes += (f"{name} is no voter any more",)
        except LeaseLost:
            raise
        except HyperMeshError as error:
            raise NotChanged(error) from error
        keep_voters(self.store, inventory, change.after)
        joined = [hosts[name] for name in change.joining]
        await gather_facts(joined, self.reached, self.progress, timings, at_once=self.targeting.options.at_once)
        return await self.targeting.targets([target.host for target in targets], self.reached, also=change.keeping)

    async def _set_up(self, name: str) -> None:
        """Has the agent of a host that is to vote run as a control node. Its file names all who vote now, or it would not find the
        cluster."""
        targeting, remotes = self.targeting, self.reached.remotes
        self.report.check(name)
        (target,) = await targeting.targets([targeting.inventory.host(name)], self.reached, also=self.change.before)
        turn, may = self.locks.turn, self.claim.check
        self.report.add(
            await runner.run(targeting.phases(), [target], remotes, self.progress, targeting.timings, at_once=1, turn=turn, may=may)
        )
        self.report.check(name)
        if again := rolling.plan([target]):
            async with self.locks.turn(target, planned=False):
                self.progress.update(name, "restarting the agent")
                await restart(target, remotes[name], targeting.inventory.settings.initialization_timeout)
            self.report.add({name: Outcome(changes=tuple(step.change for step in again))})
