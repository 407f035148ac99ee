"""deploy: from hosts that SSH reaches to one healthy cluster, and back to it whenever something has changed.

    connect, gather facts                      who is there, and how is it?
    validate, probe the network                can it carry a node? nothing has been changed yet
    build the release, plan, ask               what would change, in words
    HOST_PHASES                                host by host, side by side
    restart, form, wait until healthy          the cluster as a whole

Run again, it plans nothing. Interrupted anywhere, running it again finishes the job: every phase compares what is with what shall be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from hmcore.errors import HyperMeshError, UsageError
from hmctl.actions import desired
from hmctl.actions.refusal import unsafe
from hmctl.actions.report import Report, host_reports, phase_times
from hmctl.bundle.build import Target as ReleaseTarget
from hmctl.bundle.store import Release
from hmctl.output import Output, Progress
from hmctl.phases import formed, hostlock, ownership, probe, rolling, runner
from hmctl.phases.activate import SwitchRelease
from hmctl.phases.agents import Agents
from hmctl.phases.base import Phase, Step, Target
from hmctl.phases.certificates import IssueCertificates
from hmctl.phases.configure import WriteConfiguration
from hmctl.phases.connect import Reached, reach
from hmctl.phases.form import form
from hmctl.phases.healthy import PATIENCE, Verdict, wait_healthy
from hmctl.phases.packages import InstallPackages
from hmctl.phases.runner import Outcome, Timings
from hmctl.phases.start import StartAgent
from hmctl.phases.units import InstallUnits
from hmctl.phases.upload import UploadRelease
from hmctl.phases.validate import Check, validate
from hmctl.remote.base import FirstContact, Remote
from hmctl.render import Renderer, edited
from hmctl.state import Place
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.state import OperatorStore


class Hosts(Protocol):
    """Opens connections (hmctl/remote/ssh.py). `trust` accepts a key that the operator has seen."""

    async def connect(self, host: Host) -> Remote: ...
    def trust(self, contact: FirstContact) -> None: ...


class Releases(Protocol):
    """Builds releases, or finds them built (hmctl/bundle/store.py). Blocking."""

    def cached(self, target: ReleaseTarget) -> Release | None: ...
    def get(self, target: ReleaseTarget) -> Release: ...


@dataclass(frozen=True, slots=True)
class Options:
    """`timeout`: how long the cluster may take to be healthy, in seconds; None: as the settings have it."""

    limit: str | None = None
    dry_run: bool = False
    yes: bool = False
    at_once: int = 32
    timeout: float | None = None


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
    begun: bool = False  # whether anything may have been changed: after an interruption, the operator wants to know

    def host_phases(self) -> tuple[Phase[Target], ...]:
        """What is done to a host, in order."""
        settings = self.inventory.settings
        return (
            InstallPackages(settings.optional_layers, bpf=settings.security.mode != "off"),
            UploadRelease(),
            IssueCertificates(self.inventory.id, self.store.authority, self.now),
            WriteConfiguration(),
            InstallUnits(),
            SwitchRelease(),
            StartAgent(settings.initialization_timeout),
        )

    async def run(self) -> Report:
        """Raises UsageError and Interrupted; everything that befalls a host, or the cluster, is in the report."""
        began = time.monotonic()
        chosen = select(self.inventory.hosts, self.options.limit)
        reached, checks = Reached(), list[Check]()
        with self.output.progress(hosts=len(chosen)) as progress:
            await self._reach(chosen, reached, progress)
            checks = await self._examine(chosen, reached, progress)
        report = _Draft(self, chosen, reached, checks, began)
        if ownership.failed(checks):
            return report.finished(
                error=f"{plural(sum(check.status == 'error' for check in checks), 'problem')} found; nothing was changed"
            )
        if not reached.facts.keys() & {host.name for host in chosen}:
            return report.finished(error="no host could be reached; nothing was changed")
        known = await self._formation(chosen, reached)
        if known.formed and (unfit := self._unsafe(reached)):
            report.checks = [*checks, *unfit]
            return report.finished(
                error=f"{listed([check.name for check in unfit])} cannot be changed so while agents run; nothing was changed"
            )
        if self.options.limit is not None:
            voters = [host.name for host in self.inventory.control_hosts]
            if short := formed.short(voters, [host.name for host in chosen], known, self.options.limit):
                return report.finished(error=short.error, fix=short.fix)
        targets = await self._targets(chosen, reached)
        steps = self._plan(targets, known)
        report.steps = steps
        if self.options.dry_run:
            return report.finished()
        if steps:
            self.show_plan(steps)
            self.output.confirm(consent(steps), yes=self.options.yes)
            targets = self._with_authority(targets, chosen, reached)
            for release in {target.desired.release for target in targets if UploadRelease().plan(target)}:
                await asyncio.to_thread(release.verify)
        return await self._apply(targets, reached, report)

    async def _reach(self, chosen: Sequence[Host], reached: Reached, progress: Progress) -> None:
        """Connects and gathers facts. Without a CA here, also from hosts that are not to be changed: the cluster may exist already."""
        wanted = list(chosen) if self.store.has_authority() else list(self.inventory.hosts)
        at_once = self.options.at_once
        await reach(wanted, self.hosts.connect, reached, progress, self.timings, at_once=at_once)
        strangers = {name: error for name, error in reached.lost.items() if isinstance(error, FirstContact)}
        if strangers:
            contacts = {contact.line: contact for contact in strangers.values()}
            for contact in contacts.values():
                self.output.warn(f"first contact with {contact.place}: its SSH host key is {contact.fingerprint}")
            question = f"Are these the keys of {plural(len(contacts), 'host')}, as far as you know?"
            fix = "compare them, then give --yes: " + ("for this run they are accepted" if self.options.dry_run else "they are pinned")
            self.output.confirm(question, yes=self.options.yes, fix=fix)
            for contact in contacts.values():
                self.hosts.trust(contact)
            again = [host for host in wanted if host.name in strangers]
            reached.lost = {name: error for name, error in reached.lost.items() if name not in strangers}
            await reach(again, self.hosts.connect, reached, progress, self.timings, at_once=at_once)

    async def _examine(self, chosen: Sequence[Host], reached: Reached, progress: Progress) -> list[Check]:
        """The preflight table: whose the hosts are, what they are, and whether they reach each other."""
        store = self.store
        ca = store.ca_certificate() if store.has_authority() else None
        owner = ownership.Owner(ca, store.bootstrap() if ca else None, store.formed_at is not None, store.voters)
        checks = ownership.examine(self.inventory, owner, reached.facts)
        checks += validate(self.inventory, chosen, reached.facts)
        if not ownership.failed(checks):
            checks += await self._probe(chosen, reached, progress)
        for name in reached.facts:
            mine = [check for check in checks if check.host == name and check.status != "ok"]
            worst = "failed" if ownership.failed(mine) else "warning" if mine else "ok"
            text = {"failed": "not fit for a node, see below", "warning": "usable, see below", "ok": "checks passed"}[worst]
            progress.finish(name, text, outcome=worst)  # type: ignore[arg-type]  # mypy joins the literals to str
        return checks

    async def _probe(self, chosen: Sequence[Host], reached: Reached, progress: Progress) -> list[Check]:
        known = [host for host in chosen if host.name in reached.facts]
        room = hostlock.room(known, self.options.at_once)
        if room == 1 < len(known) and probe.plan(known, reached.facts):
            message = "whether the hosts reach each other was not tried: that takes two SSH connections at the same time"
            return [Check(None, "network", "warn", message, "give --concurrency 2, or more")]
        plans = [probe.plan(group, reached.facts) for group in probe.groups(known, room)]
        found = []
        for attempts in filter(None, plans):
            for attempt in attempts:
                progress.update(attempt.host.name, "trying the way to the other hosts")
            with self.timings.span("Probe network"):
                found.append(await probe.probe(attempts, reached.remotes))
        return probe.together(found, len(known)) if found else []

    async def _formation(self, chosen: Sequence[Host], reached: Reached) -> formed.Known:
        """By our own records, or else by what the agents say that run already; a dry run does not write it down."""
        store = self.store
        if store.formed_at is not None:
            return formed.Known(formed=True)
        if not store.has_authority() or (bootstrap := store.known_bootstrap) is None:
            return formed.Known()
        names = {host.name for host in chosen}
        idle = {name for name in names if name not in reached.facts or not reached.facts[name].agent.journal}
        asked = [host for host in self.inventory.control_hosts if host.name not in idle]
        if not asked:
            return formed.Known()
        agents = self.agents(store, reached.remotes)
        try:
            with self.timings.span("Ask who runs"):
                known = formed.known(bootstrap, await agents.formation(asked, timeout=PATIENCE))
        finally:
            await agents.close()
        if known.formed and not self.options.dry_run:
            store.mark_formed(self.now())
        return known

    def _unsafe(self, reached: Reached) -> list[Check]:
        """Settings that agents which run must not meet, as config apply refuses them. Whoever does not run starts with the new ones; and
        what somebody wrote into a file by hand is undone, whatever it was."""
        agents = [(facts, facts.agent) for facts in reached.facts.values()]
        running = [ownership.config_of(facts) for facts, agent in agents if agent.unit.running and not edited(agent.config or b"")]
        refusals = unsafe([config.settings for config in running if config is not None], self.inventory.settings)
        return [Check(None, refusal.path, "error", f"{refusal.path}: {refusal.message}", refusal.fix) for refusal in refusals]

    async def _targets(self, chosen: Sequence[Host], reached: Reached) -> list[Target]:
        """The release for each kind of host, built here if it was not before; then what each host shall look like."""
        kinds = dict.fromkeys(desired.release_target(reached.facts[host.name]) for host in chosen if host.name in reached.facts)
        with self.timings.span("Build release"):
            built = {kind: self.releases.cached(kind) or await self._build(kind) for kind in kinds}
        ca = self.store.ca_certificate() if self.store.has_authority() else None
        bootstrap = self.store.bootstrap() if ca or not self.options.dry_run else "made-when-deployed"
        keys = desired.Keys(ca, bootstrap)
        return desired.targets(self.inventory, chosen, reached.facts, built, keys, self.renderer, self.now())

    async def _build(self, kind: ReleaseTarget) -> Release:
        with self.output.progress() as progress:
            progress.update("release", f"building it for {kind}, once")
            release = await asyncio.to_thread(self.releases.get, kind)
            progress.finish("release", f"built for {kind}")
        return release

    def _with_authority(self, targets: list[Target], chosen: Sequence[Host], reached: Reached) -> list[Target]:
        """After consent: the cluster's CA, made now if this is its first deploy, in every host's desired state."""
        if self.store.has_authority():
            return targets
        authority = self.store.create_authority(self.now())
        built = {desired.release_target(target.facts): target.desired.release for target in targets}
        keys = desired.Keys(authority.certificate, self.store.bootstrap())
        return desired.targets(self.inventory, chosen, reached.facts, built, keys, self.renderer, self.now())

    def _plan(self, targets: Sequence[Target], known: formed.Known) -> list[Step]:
        steps = runner.plan(self.host_phases(), targets) + rolling.plan(targets)
        if not known.formed:
            voters = listed([host.name for host in self.inventory.control_hosts])
            steps.append(Step(None, "Form cluster", f"form the cluster {self.inventory.name} ({self.inventory.id}) with {voters}"))
        return steps

    async def _apply(self, targets: list[Target], reached: Reached, report: _Draft) -> Report:
        """Carries the plan out; with an empty one, only looks whether the cluster is healthy."""
        self.begun = bool(report.steps)
        busy = {step.host for step in report.steps}
        changing = [target for target in targets if target.name in busy]
        agents = self.agents(self.store, reached.remotes)
        try:
            with self.output.progress(hosts=len(targets)) as progress:
                locks = hostlock.Locks(reached.remotes, "deploy", self.options.at_once, [target.host for target in targets])
                async with locks.held(changing) as refused:
                    free = [target for target in changing if target.name not in refused]
                    for name, error in refused.items():
                        progress.finish(name, error.message, outcome="failed")
                        report.outcomes[name] = Outcome(error=error)
                    at_once = self.options.at_once
                    done = await runner.run(
                        self.host_phases(), free, reached.remotes, progress, self.timings, at_once=at_once, turn=locks.turn
                    )
                    report.outcomes |= done
                    sound = [target for target in targets if target.name not in report.outcomes or not report.outcomes[target.name].error]
                    await self._restart(sound, reached, agents, progress, report, locks)
                return await self._cluster([target for target in sound if not report.failed(target.name)], agents, progress, report)
        finally:
            await agents.close()

    async def _restart(
        self, targets: Sequence[Target], reached: Reached, agents: Agents, progress: Progress, report: _Draft, locks: hostlock.Locks
    ) -> None:
        if not rolling.plan(targets):
            return
        settings = self.inventory.settings
        for target in targets:
            report.outcomes.setdefault(target.name, Outcome())
        workers = settings.upgrade.workers_at_once(len(self.inventory.worker_hosts))
        rolled = rolling.RollingRestart(
            settings.initialization_timeout,
            self._patience(),
            settings.upgrade.soak,
            at_once=self.options.at_once,
            turn=lambda target: locks.turn(target, planned=False),
        )
        await rolled.run(targets, reached.remotes, agents, progress, report.outcomes, self.timings, workers)

    async def _cluster(self, targets: Sequence[Target], agents: Agents, progress: Progress, report: _Draft) -> Report:
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
            return report.finished(error=f"the cluster has no leader after {self._patience():g} s", fix="hmctl status")
        return report.finished()

    async def _settle(self, targets: Sequence[Target], agents: Agents, progress: Progress, report: _Draft) -> Verdict:
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
            verdict = await wait_healthy([target.host for target in targets], agents, timeout=self._patience(), heard=heard)
        for target in targets:
            if reason := verdict.waiting.get(target.name) or verdict.degraded.get(target.name):
                progress.finish(target.name, reason, outcome="warning")
            elif target.name in worth:
                progress.finish(target.name, "healthy")
        return verdict

    def _patience(self) -> float:
        return self.inventory.settings.initialization_timeout if self.options.timeout is None else self.options.timeout


@dataclass(slots=True)
class _Draft:
    """The report while it is being written."""

    deploy: Deploy
    chosen: Sequence[Host]
    reached: Reached
    checks: Sequence[Check]
    began: float
    steps: list[Step] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    cluster_changes: tuple[str, ...] = ()
    verdict: Verdict | None = None

    def failed(self, name: str) -> bool:
        return name in self.outcomes and self.outcomes[name].error is not None

    def finished(self, *, error: str | None = None, fix: str | None = None) -> Report:
        dry_run, verdict = self.deploy.options.dry_run, self.verdict
        names = [host.name for host in self.chosen]
        hosts = host_reports(names, self.steps, self.outcomes, self.reached.lost, dry_run=dry_run)
        cluster = tuple(step.change for step in self.steps if step.host is None) if dry_run else self.cluster_changes
        reasons = {**verdict.waiting, **verdict.degraded} if verdict else {}
        return Report(
            cluster=self.deploy.inventory.name,
            dry_run=dry_run,
            changed=any(host.changes for host in hosts) or bool(cluster),
            healthy=verdict.healthy if verdict else None,
            leader=verdict.leader if verdict else None,
            hosts=hosts,
            cluster_changes=cluster,
            checks=tuple(self.checks),
            problems=tuple(f"{name}: {reason}" for name, reason in reasons.items()),
            error=error,
            fix=fix,
            seconds=round(time.monotonic() - self.began, 3),
            timings=phase_times(self.deploy.timings),
        )


def consent(steps: Sequence[Step]) -> str:
    """The question before anything is changed."""
    hosts = len({step.host for step in steps if step.host is not None})
    where = f" on {plural(hosts, 'host')}" if hosts else ""
    return f"Make {'this change' if len(steps) == 1 else f'these {len(steps)} changes'}{where}?"


def select(hosts: Sequence[Host], limit: str | None) -> list[Host]:
    """The hosts whose names match one of the comma-separated patterns. Raises UsageError when none does."""
    if limit is None:
        return list(hosts)
    patterns = [pattern.strip() for pattern in limit.split(",") if pattern.strip()]
    chosen = [host for host in hosts if any(fnmatchcase(host.name, pattern) for pattern in patterns)]
    if not chosen:
        raise UsageError(f"--limit {limit} matches none of {listed([host.name for host in hosts])}")
    return chosen
