"""The part of deploy that changes who votes: sets up who is to join, has it added, has who is to leave removed (docs/adr/0078)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError, LeaseLost
from hmctl.actions.draft import Draft
from hmctl.live import Progress
from hmctl.phases import hostlock, rolling, runner
from hmctl.phases.agents import Agents
from hmctl.phases.base import Target
from hmctl.phases.connect import Reached, gather_facts
from hmctl.phases.revote import Revote
from hmctl.phases.runner import Outcome
from hmctl.phases.start import restart

if TYPE_CHECKING:
    from hmctl.actions.deploy import Deploy


class NotChanged(Exception):
    """The voters are not as planned: nothing that builds on it may be done."""

    def __init__(self, error: HyperMeshError) -> None:
        super().__init__(error.message)
        self.error = error


async def change_voters(
    deploy: Deploy, targets: list[Target], reached: Reached, agents: Agents, progress: Progress, report: Draft, locks: hostlock.Locks
) -> list[Target]:
    """Carries out the change, and then looks again what each host shall look like. Raises NotChanged: then no host's file has been changed
    but of those that were to join, and running again goes on from there."""
    change, hosts = deploy.change, {host.name: host for host in deploy.inventory.hosts}
    deploy.keep_voters({*change.before, *change.joining})
    revote = Revote(hosts, change, agents, progress, deploy.timings, deploy.patience(), deploy.claim.check)
    try:
        for name in change.leaving:
            report.check(name)
        await revote.begin()
        for name in change.joining:
            await _set_up(deploy, name, reached, progress, report, locks)
            await revote.join(name)
            report.cluster_changes += (f"{name} votes",)
        for name in change.leaving:
            await revote.leave(name)
            report.cluster_changes += (f"{name} is no voter any more",)
    except LeaseLost:
        raise
    except HyperMeshError as error:
        raise NotChanged(error) from error
    deploy.keep_voters(change.after)
    joined = [hosts[name] for name in change.joining]
    await gather_facts(joined, reached, progress, deploy.timings, at_once=deploy.options.at_once)
    return await deploy.targets([target.host for target in targets], reached)


async def _set_up(deploy: Deploy, name: str, reached: Reached, progress: Progress, report: Draft, locks: hostlock.Locks) -> None:
    """Has the agent of a host that is to vote run as a control node. Its file names all who vote now, or it would not find the cluster."""
    report.check(name)
    (target,) = await deploy.targets([deploy.inventory.host(name)], reached, also=deploy.change.before)
    may = deploy.claim.check
    report.add(
        await runner.run(deploy.host_phases(), [target], reached.remotes, progress, deploy.timings, at_once=1, turn=locks.turn, may=may)
    )
    report.check(name)
    if again := rolling.plan([target]):
        async with locks.turn(target, planned=False):
            progress.update(name, "restarting the agent")
            await restart(target, reached.remotes[name], deploy.inventory.settings.initialization_timeout)
        report.add({name: Outcome(changes=tuple(step.change for step in again))})
