"""deploy: from hosts that SSH reaches to one healthy cluster, and back to it whenever something has changed.

    preflight                                  who is there, and can it carry a node? nothing has been changed yet
    build the release, plan, ask               what would change, in words
    change the voters                          where roles have changed: who is to vote joins first, who is not leaves
    Targeting.phases                           host by host, side by side (targeting.py)
    restart, form, wait until healthy          the cluster as a whole

Run again, it plans nothing. Interrupted anywhere, running it again finishes the job: every phase compares what is with what shall be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError, LeaseLost, LevelTooLow
from hmcore.records import FEATURE_LEVEL
from hmctl.actions.claim import Claim
from hmctl.actions.draft import Draft
from hmctl.actions.hosts import Hosts, Options, select
from hmctl.actions.preflight import Preflight
from hmctl.actions.report import Report
from hmctl.actions.revoting import NotChanged, Revoting, keep_voters
from hmctl.actions.targeting import Releases, Targeting
from hmctl.live import Progress
from hmctl.output import Output
from hmctl.phases import electorate, formed, hostlock, level, ownership, retire, rolling, runner
from hmctl.phases.agents import Agents
from hmctl.phases.base import Step, Target
from hmctl.phases.connect import Reached
from hmctl.phases.electorate import Shift
from hmctl.phases.form import form
from hmctl.phases.healthy import Verdict, wait_healthy
from hmctl.phases.runner import Outcome, Timings
from hmctl.phases.upload import UploadRelease
from hmctl.remote.base import Remote
from hmctl.render import Renderer
from hmctl.state import Place
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.state import OperatorStore


@dataclass(slots=True)
class Deploy:
    """One run of deploy. The collaborators are handed in, so that tests can run it on hosts in memory."""

    inventory: Inventory
    store: OperatorStore
    hosts: Hosts
    releases: Releases
    agents: Callable[[OperatorStore, Mapping[str, Remote]], Agents]
    output: Output
    options: Options
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    show_plan: Callable[[Sequence[Step]], None] = lambda steps: None
    timings: Timings = field(default_factory=Timings)
    renderer: Renderer = field(default_factory=Renderer)
    claim: Claim = field(default_factory=Claim)
    change: Shift = field(default_factory=Shift)  # of the voters
    begun: bool = False  # whether anything may have been changed: after an interruption, the operator wants to know

    @property
    def targeting(self) -> Targeting:
        return Targeting(self.inventory, self.store, self.releases, self.renderer, self.output, self.options, self.timings, self.now)

    async def run(self) -> Report:
        """Raises UsageError, Interrupted and LockHeld; everything that befalls a host, or the cluster, is in the report."""
        began = time.monotonic()
        chosen = select(self.inventory.hosts, self.options.limit)
        if self.claim.wait and self.store.formed_at is not None and not self.options.dry_run:
            await self.claim.take()  # before looking: what is seen while another is at work would not be true any more
        preflight = Preflight(self.inventory, self.store, self.hosts, self.agents, self.output, self.options, self.timings, self.now)
        reached, checks = await preflight.look(chosen)
        report = Draft(self.inventory.name, self.options.dry_run, self.timings, chosen, reached, checks, began)
        if ownership.failed(checks):
            return report.finished(
                error=f"{plural(sum(check.status == 'error' for check in checks), 'problem')} found; nothing was changed"
            )
        if not reached.facts.keys() & {host.name for host in chosen}:
            return report.finished(error="no host could be reached; nothing was changed")
        known = await preflight.formation(chosen, reached)
        if known.formed and (unfit := await preflight.unsafe(chosen, reached)):
            report.checks = [*checks, *unfit]
            if refused := [check.name for check in unfit if check.status == "error"]:
                return report.finished(error=f"{listed(refused)} cannot be changed so while agents run; nothing was changed")
        if self.options.limit is not None:
            voters = [host.name for host in self.inventory.control_hosts]
            if short := formed.short(voters, [host.name for host in chosen], known, self.options.limit):
                return report.finished(error=short.error, fix=short.fix)
        now = await preflight.electorate(reached) if known.formed else None
        if now is not None:
            self.change = electorate.shift(now, [host.name for host in self.inventory.control_hosts], _able(chosen, reached))
        if known.formed and (unfit := preflight.voters(now, self.change, reached)):
            report.checks = [*report.checks, *unfit]
            return report.finished(error="the control nodes cannot be changed so; nothing was changed")
        report.problems = tuple(f"{name} keeps its vote {until}" for name, until in self.change.keeping.items())
        targets = await self.targeting.targets(chosen, reached, also=self.change.keeping)
        whole = len(targets) == len(self.inventory.hosts)  # the release of who is left out may be any
        steps = self._plan(targets, known) + level.plan(await preflight.level(chosen, reached) if known.formed and whole else None)
        report.steps = steps
        if self.options.dry_run:
            return report.finished()
        if steps:
            self.show_plan(steps)
            self.output.confirm(consent(steps), yes=self.options.yes)
            targets = self.targeting.with_authority(targets, chosen, reached)
            for release in {target.desired.release for target in targets if UploadRelease().plan(target)}:
                await asyncio.to_thread(release.verify)
        if now is not None and not self.change.due:
            keep_voters(self.store, self.inventory, now.members)
        return await self._apply(targets, reached, report)

    def _plan(self, targets: Sequence[Target], known: formed.Known) -> list[Step]:
        steps = electorate.steps(self.change) + runner.plan(self.targeting.phases(), targets) + rolling.plan(_running_on(targets))
        if not known.formed:
            voters = listed([host.name for host in self.inventory.control_hosts])
            steps.append(Step(None, "Form cluster", f"form the cluster {self.inventory.name} ({self.inventory.id}) with {voters}"))
        return steps

    async def _apply(self, targets: list[Target], reached: Reached, report: Draft) -> Report:
        """Carries the plan out; with an empty one, only looks whether the cluster is healthy."""
        if report.steps and self.store.formed_at is not None:
            await self.claim.take()
        self.begun = bool(report.steps)
        busy = {step.host for step in report.steps}
        changing = [target for target in targets if target.name in busy]
        agents = self.agents(self.store, reached.remotes)
        try:
            with self.output.progress(hosts=len(targets)) as progress:
                hosts, may = [target.host for target in targets], self.claim.check
                locks = hostlock.Locks(reached.remotes, "deploy", self.options.at_once, hosts, may)
                async with locks.held(changing) as refused:
                    free = [target for target in changing if target.name not in refused]
                    for name, error in refused.items():
                        progress.finish(name, error.message, outcome="failed")
                        report.outcomes[name] = Outcome(error=error)
                    at_once = self.options.at_once
                    if self.change.due:
                        revoting = Revoting(
                            self.change, self.targeting, self.store, self.claim, self.patience(), reached, agents, progress, report, locks
                        )
                        targets = await revoting.run(targets)
                        free = [target for target in targets if target.name in busy and target.name not in refused]
                    done = await runner.run(
                        self.targeting.phases(), free, reached.remotes, progress, self.timings, at_once=at_once, turn=locks.turn, may=may
                    )
                    report.add(done)
                    sound = [target for target in targets if target.name not in report.outcomes or not report.outcomes[target.name].error]
                    await self._restart(sound, reached, agents, progress, report, locks)
                self.claim.check()
                return await self._cluster([target for target in sound if not report.failed(target.name)], agents, progress, report)
        except LeaseLost as error:
            return report.finished(
                error=error.message, fix="see who is at work (hmctl lock status), then run again: it finishes what was begun"
            )
        except NotChanged as stopped:
            return report.finished(error=str(stopped.error), fix=stopped.error.fix)
        finally:
            await agents.close()

    async def _restart(
        self, targets: Sequence[Target], reached: Reached, agents: Agents, progress: Progress, report: Draft, locks: hostlock.Locks
    ) -> None:
        targets = _running_on(targets)
        if not rolling.plan(targets):
            return
        settings = self.inventory.settings
        for target in targets:
            report.outcomes.setdefault(target.name, Outcome())
        workers = settings.upgrade.workers_at_once(len(self.inventory.worker_hosts))
        rolled = rolling.RollingRestart(
            settings.initialization_timeout,
            self.patience(),
            settings.upgrade.soak,
            at_once=self.options.at_once,
            turn=lambda target: locks.turn(target, planned=False),
        )
        await rolled.run(targets, reached.remotes, agents, progress, report.outcomes, self.timings, workers)

    async def _cluster(self, targets: Sequence[Target], agents: Agents, progress: Progress, report: Draft) -> Report:
        """Forms the cluster if it never was, and waits until it is healthy."""
        if not targets:
            return report.finished(error="no host could be brought to what it should be; the reasons stand above")
        store = self.store
        if store.formed_at is None:
            try:
                with self.timings.span("Form cluster"):
                    voters = self.inventory.control_hosts
                    places = [Place(host.name, host.address, host.port) for host in voters]
                    how = await form(
                        voters,
                        store.bootstrap(),
                        agents,
                        begin=lambda: store.begin_formation(places),
                        mark=lambda: store.mark_formed(self.now()),
                    )
            except HyperMeshError as error:
                return report.finished(error=error.message, fix=error.fix)
            report.cluster_changes = (f"formed the cluster {self.inventory.name}: {how}",)
        report.verdict = verdict = await self._settle(targets, agents, progress, report)
        if verdict.leader is None:
            return report.finished(error=f"the cluster has no leader after {self.patience():g} s", fix="hmctl status")
        if report.cluster_changes or any(step.phase == level.TITLE for step in report.steps):
            await self._raise_level(verdict, targets, agents, report)
        return report.finished()

    async def _raise_level(self, verdict: Verdict, targets: Sequence[Target], agents: Agents, report: Draft) -> None:
        """Raises the feature level, if that was planned, or the cluster was formed without one of its nodes."""
        if verdict.level >= FEATURE_LEVEL:
            return
        try:
            if len(targets) < len(self.inventory.hosts):
                raise LevelTooLow("the feature level stays as it is until all hosts are as they should be", fix="hmctl deploy")
            with self.timings.span(level.TITLE):
                done = await level.raise_level([target.host for target in targets], verdict, agents)
        except HyperMeshError as error:
            report.problems += (error.message,)
            return
        if done.changed:
            report.cluster_changes += (f"raised the feature level to {done.level}",)

    async def _settle(self, targets: Sequence[Target], agents: Agents, progress: Progress, report: Draft) -> Verdict:
        """Waits until the cluster is healthy. A host that is so already, and where nothing was done, is not worth a line."""
        worth = {step.host for step in report.steps}

        def heard(verdict: Verdict) -> None:
            if verdict.formed and self.store.formed_at is None:
                self.store.mark_formed(self.now())
            for target in targets:
                if reason := verdict.waiting.get(target.name):
                    worth.add(target.name)
                    progress.update(target.name, "waiting until it is healthy", detail=reason)

        with self.timings.span("Wait until healthy"):
            verdict = await wait_healthy([target.host for target in targets], agents, timeout=self.patience(), heard=heard)
        for target in targets:
            if reason := verdict.waiting.get(target.name) or verdict.degraded.get(target.name):
                progress.finish(target.name, reason, outcome="warning")
            elif target.name in worth:
                progress.finish(target.name, "healthy")
        return verdict

    def patience(self) -> float:
        """Seconds that the cluster has to be healthy again."""
        return self.inventory.settings.initialization_timeout if self.options.timeout is None else self.options.timeout


def _able(chosen: Sequence[Host], reached: Reached) -> set[str]:
    """The hosts that can be worked on."""
    return {host.name for host in chosen if host.name in reached.facts}


def _running_on(targets: Sequence[Target]) -> list[Target]:
    """Without those whose agent is started anew anyway."""
    return [target for target in targets if not retire.due(target)]


def consent(steps: Sequence[Step]) -> str:
    """The question before anything is changed."""
    hosts = len({step.host for step in steps if step.host is not None})
    where = f" on {plural(hosts, 'host')}" if hosts else ""
    return f"Make {'this change' if len(steps) == 1 else f'these {len(steps)} changes'}{where}?"
