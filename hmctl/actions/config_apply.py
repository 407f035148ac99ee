"""config diff and config apply: other settings for a cluster that runs, node by node, and back if a node does not come back.

    connect, gather facts, compare     what differs? (all that diff does)
    refuse                             what cannot be rolled; no quorum; a node that is down
    ask each node's own agent          would it start with the new file? nothing has been changed yet
    plan, consent, lock                as deploy does
    roll                               hmctl/phases/reconfigure.py

Run again, it finishes what was begun. What is not configuration is left to deploy (hmctl/actions/config_diff.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hmcore.errors import CommandFailed, HyperMeshError, Unreachable
from hmctl import layout
from hmctl.actions.claim import Claim
from hmctl.actions.config_diff import Comparison, ConfigDiff, compare
from hmctl.actions.config_refusal import not_well, refused
from hmctl.actions.config_report import ConfigReport, NodeOutcome, outcomes
from hmctl.actions.hosts import Hosts, select
from hmctl.live import Progress
from hmctl.output import Output
from hmctl.phases import hostlock
from hmctl.phases.agents import Agents
from hmctl.phases.connect import Reached, reach
from hmctl.phases.healthy import GRACE, PATIENCE, Verdict, judge, wait_healthy
from hmctl.phases.reconfigure import Fate, Reconfiguration, Rewrite, order
from hmctl.phases.runner import Timings
from hmctl.remote.base import Remote, check
from hmctl.render import Renderer
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.state import OperatorStore

_CHECK_TIMEOUT = 30.0  # seconds: Python starts, and reads one file


@dataclass(frozen=True, slots=True)
class Options:
    """`timeout`: how long a node may take to be healthy again, in seconds; None: as the settings have it. `skip_unreachable`: leave out
    nodes that are down."""

    limit: str | None = None
    dry_run: bool = False
    yes: bool = False
    at_once: int = 32
    timeout: float | None = None
    skip_unreachable: bool = False


@dataclass(slots=True)
class ConfigApply:
    """One run of either. The collaborators are handed in, so that tests can run it on hosts in memory."""

    inventory: Inventory
    store: OperatorStore
    hosts: Hosts
    agents: Callable[[OperatorStore, Mapping[str, Remote]], Agents]
    output: Output
    options: Options
    show_plan: Callable[[ConfigDiff, Sequence[str]], None] = lambda diff, order: None
    timings: Timings = field(default_factory=Timings)
    renderer: Renderer = field(default_factory=Renderer)
    claim: Claim = field(default_factory=Claim)
    interrupted: ConfigReport | None = None  # what an interrupted run came to, once it has taken back what it had begun

    async def compare(self, reached: Reached, progress: Progress) -> Comparison:
        """Reads every chosen node's file; and, where the change must go with what the others run with, theirs."""
        chosen = select(self.inventory.hosts, self.options.limit)
        others = [host for host in self.inventory.hosts if host not in chosen]
        await self._read(chosen, reached, progress)
        found = self._compared(chosen, (), reached)
        if not others or not found.meets_others:
            return found
        await self._read(others, reached, progress)
        return self._compared(chosen, others, reached)

    async def _read(self, hosts: Sequence[Host], reached: Reached, progress: Progress) -> None:
        await reach(hosts, self.hosts.connect, reached, progress, self.timings, at_once=self.options.at_once)
        for host in hosts:
            if host.name in reached.facts:
                progress.finish(host.name, "read its configuration")

    def _compared(self, chosen: Sequence[Host], others: Sequence[Host], reached: Reached) -> Comparison:
        return compare(self.inventory, chosen, reached.facts, reached.lost, self.store.known_bootstrap, self.renderer, others)

    async def diff(self) -> ConfigDiff:
        """What differs. Changes nothing."""
        with self.output.progress() as progress:
            return (await self.compare(Reached(), progress)).diff

    async def apply(self) -> ConfigReport:
        """Raises UsageError, Interrupted and LockHeld; what befalls a node, or the cluster, is in the report."""
        if self.claim.wait and not self.options.dry_run:
            await self.claim.take()  # before looking, as deploy does
        began, reached = time.monotonic(), Reached()
        with self.output.progress() as progress:
            found = await self.compare(reached, progress)
        draft = _Draft(self, found.diff, began)
        agents = self.agents(self.store, reached.remotes)
        try:
            hosts = list(self.inventory.hosts)
            before = judge([host.name for host in hosts], await agents.reports(hosts, timeout=PATIENCE))
            draft.leader = before.leader
            down = draft.left_out = not_well(found.diff, before, hosts)
            rewrites = {name: rewrite for name, rewrite in found.rewrites.items() if name not in down}
            if why := refused(found.diff, before, down, idle=not rewrites, skip=self.options.skip_unreachable):
                return draft.finished(error=why.message, fix=why.fix)
            if not rewrites:
                return draft.finished(healthy=not before.waiting)
            if refusals := await self._validate(list(rewrites.values()), reached):
                draft.failed(refusals)
                return draft.finished(error=f"{listed(list(refusals))}: refused by the agent there; nothing was changed")
            settings = self.inventory.settings
            workers = settings.upgrade.workers_at_once(len(self.inventory.worker_hosts))
            batches = order(list(rewrites.values()), before.leader, workers)
            turns = [" + ".join(rewrite.name for rewrite in batch) for batch in batches]
            self.show_plan(found.diff, turns)
            if self.options.dry_run:
                return draft.finished()
            self._warn(found.diff, before, down)
            self.output.confirm(f"Change the settings of {plural(len(rewrites), 'node')}?", yes=self.options.yes)
            await self.claim.take()
            well = [host for host in hosts if host.name not in before.waiting and host.name not in down]
            return await self._roll(batches, well, before, reached, agents, draft)
        finally:
            await agents.close()

    def _warn(self, diff: ConfigDiff, before: Verdict, down: Mapping[str, HyperMeshError]) -> None:
        if diff.unasked:
            self.output.warn(f"nobody knows whether the settings of {listed(list(diff.unasked))}, which stay, go with the new ones")
        control = [host.name for host in self.inventory.control_hosts]
        up = [name for name in control if name not in before.waiting and name not in down]
        if len(up) - 1 < len(control) // 2 + 1:
            self.output.warn(
                f"with {plural(len(up), 'control node')} up, the cluster decides nothing while one of them restarts: some seconds each"
            )

    async def _validate(self, rewrites: Sequence[Rewrite], reached: Reached) -> dict[str, HyperMeshError]:
        """Each node's own release says whether it would start with the new file."""
        refusals: dict[str, HyperMeshError] = {}
        gate = asyncio.Semaphore(self.options.at_once)

        async def one(rewrite: Rewrite) -> None:
            async with gate:
                try:
                    argv = [layout.WRAPPER, "check-config", "-"]
                    await check(reached.remotes[rewrite.name], argv, stdin=rewrite.config, timeout=_CHECK_TIMEOUT)
                except CommandFailed as error:
                    said = error.stderr.strip().splitlines()
                    old = any("invalid choice: 'check-config'" in line for line in said)
                    message = "its release is too old to check a configuration" if old else _words(said) or error.message
                    fix = "hmctl deploy brings it this release" if old else "change the inventory; or, if the setting is new, hmctl deploy"
                    refusals[rewrite.name] = HyperMeshError(message, host=rewrite.name, fix=fix)
                except HyperMeshError as error:
                    refusals[rewrite.name] = error

        async with asyncio.TaskGroup() as group:
            for rewrite in rewrites:
                group.create_task(one(rewrite), name=f"validate {rewrite.name}")
        return {rewrite.name: refusals[rewrite.name] for rewrite in rewrites if rewrite.name in refusals}

    async def _roll(
        self,
        batches: Sequence[Sequence[Rewrite]],
        well: Sequence[Host],
        before: Verdict,
        reached: Reached,
        agents: Agents,
        draft: _Draft,
    ) -> ConfigReport:
        settings = self.inventory.settings
        rewrites = [rewrite for batch in batches for rewrite in batch]
        patience = settings.initialization_timeout if self.options.timeout is None else self.options.timeout
        on = [rewrite.host for rewrite in rewrites]
        locks = hostlock.Locks(reached.remotes, "config apply", self.options.at_once, on, self.claim.check)
        with self.output.progress() as progress:
            draft.roll = roll = Reconfiguration(
                reached.remotes,
                agents,
                progress,
                self.timings,
                again=self.hosts.connect,
                locks=locks,
                at_once=self.options.at_once,
                limit=settings.initialization_timeout,
                patience=patience,
                soak=settings.upgrade.soak,
                before=before.ailing,
            )
            try:
                async with locks.held(rewrites) as taken:
                    if taken:
                        draft.failed(taken)
                        return draft.finished(error=f"{listed(list(taken))} cannot be had; nothing was changed")
                    why = await roll.roll(batches, well)
            except asyncio.CancelledError:
                self.interrupted = draft.finished(error="interrupted", fix=_after_interrupt(roll.fates))
                raise
            if why is not None:
                return draft.finished(error=_outcome(why, roll.fates), fix=_after(roll.fates))
            verdict = await wait_healthy(well, agents, timeout=GRACE, grace=GRACE)
        draft.leader = verdict.leader
        draft.problems = tuple(f"{name}: {said}" for name, said in {**verdict.degraded, **verdict.waiting}.items())
        return draft.finished(healthy=verdict.healthy)


def _outcome(why: str, fates: Mapping[str, Fate]) -> str:
    failed = [name for name, fate in fates.items() if fate.error]
    stuck = [name for name, fate in fates.items() if fate.state == "stuck"]
    taken = f"could not be taken back on {listed(stuck)}" if stuck else "was taken back"
    reason = "" if failed else f" ({why})"  # theirs stands with them
    return f"the change {taken}, for {listed(failed) or 'the cluster'} did not come back healthy with it{reason}"


def _after(fates: Mapping[str, Fate]) -> str:
    """What mends a change that was taken back, or was not."""
    stuck = [name for name, fate in fates.items() if fate.state == "stuck"]
    if stuck and all(isinstance(fates[name].stuck, Unreachable) for name in stuck):
        return f"put the old values back in the inventory; once {listed(stuck)} can be reached, hmctl config diff shows what is left to do"
    if stuck:
        return f"hmctl logs {' '.join(stuck)} says why; put the old values back in the inventory, then: hmctl deploy"
    failed = next((name for name, fate in fates.items() if fate.error), None)
    return f"hmctl logs {failed} says more; change the inventory, then apply again" if failed else "hmctl status"


def _after_interrupt(fates: Mapping[str, Fate]) -> str:
    if any(fate.state == "stuck" for fate in fates.values()):
        return "hmctl config diff shows how each node was left; hmctl config apply goes on from there"
    if any(fate.error for fate in fates.values()):  # it was being taken back already, and would be again
        return _after(fates)
    return "hmctl config apply begins anew"


def _words(said: Sequence[str]) -> str:
    return " ".join(said).removeprefix("hypermesh-agent: ")


@dataclass(slots=True)
class _Draft:
    """The report while it is being written."""

    apply: ConfigApply
    diff: ConfigDiff
    began: float
    leader: str | None = None
    problems: tuple[str, ...] = ()
    left_out: Mapping[str, HyperMeshError] = field(default_factory=dict)
    errors: dict[str, HyperMeshError] = field(default_factory=dict)
    roll: Reconfiguration | None = None

    def failed(self, errors: Mapping[str, HyperMeshError]) -> None:
        self.errors |= errors

    def finished(self, *, healthy: bool | None = None, error: str | None = None, fix: str | None = None) -> ConfigReport:
        fates = self.roll.fates if self.roll else {}
        dry_run = self.apply.options.dry_run
        planned = dry_run and error is None  # what is refused would not be done
        nodes: tuple[NodeOutcome, ...] = outcomes(self.diff, fates, self.errors, self.left_out, planned=planned)
        return ConfigReport(
            cluster=self.apply.inventory.name,
            dry_run=dry_run,
            changed=any(node.status in ("changed", "planned", "stuck") for node in nodes),
            rolled_back=bool(self.roll and self.roll.undone),
            healthy=healthy,
            leader=self.leader,
            nodes=nodes,
            refusals=self.diff.refusals,
            problems=self.problems,
            error=error,
            fix=fix,
            seconds=round(time.monotonic() - self.began, 3),
        )
