"""reset: the hosts as they were before deploy. Says what is lost, asks, removes, and looks whether it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError
from hmctl.actions.claim import Claim
from hmctl.actions.hosts import Hosts, Options, select
from hmctl.actions.report import Report, host_reports, phase_times
from hmctl.live import Progress
from hmctl.output import Output
from hmctl.phases import hostlock, ownership, runner
from hmctl.phases.base import Found, Step
from hmctl.phases.connect import Reached, gather_facts, reach
from hmctl.phases.remove import RemoveAll
from hmctl.phases.runner import Outcome, Timings
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.state import OperatorStore


@dataclass(slots=True)
class Reset:
    """One run of reset. `packages`: also remove what deploy installed with the package manager."""

    inventory: Inventory
    store: OperatorStore
    hosts: Hosts
    output: Output
    options: Options
    packages: bool = False
    show_plan: Callable[[Sequence[Step]], None] = lambda steps: None
    timings: Timings = field(default_factory=Timings)
    claim: Claim = field(default_factory=Claim)

    async def run(self) -> Report:
        """Raises UsageError, Interrupted and LockHeld; what befalls a host is in the report."""
        began = time.monotonic()
        chosen = select(self.inventory.hosts, self.options.limit)
        if self.claim.wait and self._begun and not self.options.dry_run:
            await self.claim.take()  # before looking, as deploy does
        reached = Reached()
        with self.output.progress(hosts=len(chosen)) as progress:
            await self._reach(self._asked(chosen), reached, progress)
        targets = [Found(host, reached.facts[host.name]) for host in chosen if host.name in reached.facts]
        phase = RemoveAll(self.packages)
        steps = runner.plan((phase,), targets)
        outcomes: dict[str, Outcome] = {}
        if elsewhere := self._elsewhere():
            fix = "list them in the inventory and reset them, too, before a cluster can be formed anew"
            self.output.warn(f"the cluster may live on at {listed(elsewhere)}: {fix}")
        if steps and not self.options.dry_run:
            self.show_plan(steps)
            for warning in self._warnings(chosen, reached):
                self.output.warn(warning)
            names = [target.name for target in targets if phase.plan(target)]
            self.output.confirm(f"Remove all of this from {listed(names)}? It cannot be undone.", yes=self.options.yes)
            if self._begun:
                await self.claim.take()
                if not self._outlived(names):
                    self.claim.abandon()
            with self.output.progress(hosts=len(targets)) as progress:
                outcomes = await self._remove(phase, [target for target in targets if target.name in names], reached, progress)
            for target in targets:
                if (left := target.facts.agent.packages) and not self.packages:
                    self.output.note(f"{target.name}: what deploy installed stays ({listed(left)}); --packages would have removed it")
        changes = () if self.options.dry_run else self._forget(chosen, reached, outcomes)
        hosts = host_reports([host.name for host in chosen], steps, outcomes, reached.lost, dry_run=self.options.dry_run)
        return Report(
            cluster=self.inventory.name,
            dry_run=self.options.dry_run,
            changed=any(host.changes for host in hosts) or bool(changes),
            healthy=None,
            leader=None,
            hosts=hosts,
            cluster_changes=changes,
            seconds=round(time.monotonic() - began, 3),
            timings=phase_times(self.timings),
        )

    def _asked(self, chosen: Sequence[Host]) -> list[Host]:
        """Beside the chosen hosts, the control nodes: once none of them holds state, the cluster is gone, and may be formed anew."""
        more = [host for host in self._voting() if host not in chosen] if self._begun else []
        return [*chosen, *more]

    @property
    def _begun(self) -> bool:
        """Whether there may be a cluster: control nodes were asked to form it."""
        return self.store.voters is not None or self.store.formed_at is not None

    def _voting(self) -> list[Host]:
        """The hosts of this inventory that were asked to form the cluster, whatever their role is by now."""
        places = self.store.voters
        if places is None:
            return list(self.inventory.control_hosts)
        return [host for host in self.inventory.hosts if any((host.name, host.address) == (place.name, place.address) for place in places)]

    def _elsewhere(self) -> list[str]:
        """Who was asked to form the cluster and is not in this inventory: nobody can say whether the cluster lives on there."""
        here = {host.name for host in self._voting()}
        return [str(place) for place in self.store.voters or () if place.name not in here]

    async def _reach(self, hosts: Sequence[Host], reached: Reached, progress: Progress) -> None:
        at_once = self.options.at_once
        await reach(hosts, self.hosts.connect, reached, progress, self.timings, at_once=at_once)
        for name, facts in reached.facts.items():
            progress.finish(name, "has an agent" if facts.agent.traces else "has nothing of ours")

    def _warnings(self, chosen: Sequence[Host], reached: Reached) -> list[str]:
        """What a person may not have thought of."""
        warnings = []
        for name, facts in reached.facts.items():
            cluster = ownership.cluster_of(facts)
            if cluster not in (None, self.inventory.id):
                warnings.append(f"{name} belongs to another cluster, {cluster}")
        control = [host.name for host in self._voting()]
        names = {host.name for host in chosen}
        going = [name for name in control if name in names and name in reached.facts and reached.facts[name].agent.journal]
        staying = [name for name in control if name not in going and name in reached.facts and reached.facts[name].agent.journal]
        if going and not staying and not self._elsewhere():
            warnings.append("the cluster ceases to exist: all of its state is deleted")
        elif going and len(staying) < len(control) // 2 + 1:
            warnings.append(f"the cluster loses its quorum: only {listed(staying)} of {plural(len(control), 'control node')} will be left")
        elif going:
            warnings.append(f"the rest of the cluster will call {listed(going)} down until it is deployed again")
        return warnings

    async def _remove(self, phase: RemoveAll, targets: Sequence[Found], reached: Reached, progress: Progress) -> dict[str, Outcome]:
        hosts = [target.host for target in targets]
        locks = hostlock.Locks(reached.remotes, "reset", self.options.at_once, hosts, self.claim.check)
        async with locks.held(targets) as refused:
            free = [target for target in targets if target.name not in refused]
            at_once = self.options.at_once
            outcomes = await runner.run(
                (phase,), free, reached.remotes, progress, self.timings, at_once=at_once, done="removed", turn=locks.turn
            )
        outcomes |= {name: Outcome(error=error) for name, error in refused.items()}
        removed = [target for target in free if outcomes[target.name].error is None]
        after = Reached(remotes=reached.remotes)
        await gather_facts([target.host for target in removed], after, progress, self.timings, at_once=self.options.at_once)
        for target in removed:
            name = target.name
            if name in after.lost:
                outcomes[name].error = after.lost[name]
            elif after.facts[name].agent.traces:
                left = ", ".join(after.facts[name].agent.present) or "its unit"
                outcomes[name].error = HyperMeshError(f"something is still there: {left}", host=name, fix="run hmctl reset again")
            else:
                reached.facts[name] = after.facts[name]
                progress.finish(name, "nothing of ours is left")
        return outcomes

    def _outlived(self, going: Sequence[str]) -> bool:
        """Whether enough control nodes stay to go on without these."""
        control = [host.name for host in self._voting()]
        return len(set(control) - set(going)) >= len(control) // 2 + 1

    def _forget(self, chosen: Sequence[Host], reached: Reached, outcomes: dict[str, Outcome]) -> tuple[str, ...]:
        """If no control node holds the cluster's state any more, our record of its formation goes too."""
        control = [host.name for host in self._voting()]
        gone = not self._elsewhere() and all(name in reached.facts and not reached.facts[name].agent.traces for name in control)
        failed = any(outcome.error for outcome in outcomes.values())
        if not self._begun or not gone or failed:
            return ()
        self.store.forget_formation()
        return (f"the cluster {self.inventory.name} is no more; the next deploy forms it anew",)
