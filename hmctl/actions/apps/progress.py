"""How far an app is from what its generation wants, service by service, and when there is nothing more to wait for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Phase, Rollout, Stage, wanted_revision
from hmcore.apps.spec import AppSpec
from hmcore.errors import HyperMeshError
from hmcore.records import InstanceHealth
from hmctl.actions.apps.view import Seen, desired, ended_well, is_fit, one_line
from hmctl.progress import Outcome

_PULLED = (Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.DONE)  # it has its image; in other phases if it has a container


class ServiceProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Of the `desired` replicas, how many that are as the generation wants them have a place, their image, a container that runs, and are
    healthy; `failed`: how many failed while they were watched. `waiting`: for what; `failing`: what fails and why; `message`: why it is
    paused, or went on all the same."""

    service: str
    stage: str
    desired: int
    placed: int
    pulled: int
    started: int
    healthy: int
    failed: int
    waiting: str = ""
    failing: str = ""
    message: str = ""

    @property
    def text(self) -> str:
        """`pulled 3/3, started 2/3, healthy 0/3; failing: web.2 on node3: it ended with 1`."""
        if not self.desired:
            counts = "no replicas are wanted" if self.stage == Stage.STEADY else "no replicas are placed yet"
        else:
            steps = (("pulled", self.pulled), ("started", self.started), ("healthy", self.healthy))
            counts = ", ".join(f"{word} {number}/{self.desired}" for word, number in steps)
        if self.stage == Stage.PAUSED:
            return f"paused: {self.message} ({counts})"
        if self.outcome:
            well = f"healthy {self.healthy}/{self.desired}" if self.desired else counts
            return f"{well}; {self.message}" if self.message else well
        trouble = [f"failing: {self.failing}"] if self.failing else []
        trouble += [f"waiting: {one_line(self.waiting)}"] if self.waiting else []
        return "; ".join((counts, *trouble))

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None: it goes on. What was done once and has lost a replica since is not well until that is replaced."""
        if self.stage == Stage.PAUSED:
            return "failed"
        if self.stage == Stage.STEADY and self.healthy + self.failed >= self.desired:
            return "warning" if self.message else "ok"
        return None


class Ending(StrEnum):
    """How it came out. `planned`: it was only asked what would change. `started`: nobody waited for it. `replaced`: something else is
    wanted by now. `timeout`: it goes on."""

    UNCHANGED = "unchanged"
    PLANNED = "planned"
    STARTED = "started"
    HEALTHY = "healthy"
    PAUSED = "paused"
    ROLLED_BACK = "rolled-back"
    REPLACED = "replaced"
    REMOVED = "removed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Goal:
    """That `services` of the app (all, if none are named) run as its generation has them; `generation` 0: that it is gone."""

    name: str
    generation: int
    services: frozenset[str] = frozenset()

    @property
    def ending(self) -> Ending:
        return Ending.HEALTHY if self.generation else Ending.REMOVED


@dataclass(frozen=True, slots=True)
class End:
    """`why` in words, and the command that helps; both empty when the goal is reached."""

    ending: Ending
    why: str = ""
    fix: str = ""

    @property
    def error(self) -> HyperMeshError | None:
        return HyperMeshError(self.why, fix=self.fix) if self.why else None


def revisions(app: App, spec: AppSpec) -> dict[str, str]:
    """By service, what a replica of it shall be now. `spec`: the whole one."""
    return {name: wanted_revision(app, spec, name) for name in spec.services}


def progress(seen: Seen, name: str) -> list[ServiceProgress]:
    """Of all services, by name. Nothing of an app that is not there."""
    app = next((app for app in seen.reply.apps if app.name == name), None)
    if app is None:
        return []
    present = seen.present(app)
    wanted = revisions(app, present.spec)
    return [_of_service(seen, app, present, service, wanted[service]) for service in sorted(wanted)]


def _of_service(seen: Seen, app: App, present: Generation, service: str, revision: str) -> ServiceProgress:
    live = [each for each in seen.allocations(app.name, service) if not each.stop]
    ours = [(each, seen.status(each)) for each in live if each.revision == revision]
    wanted = desired(present.spec.services[service], live)
    rollout = _rollout(app, service, revision)
    return ServiceProgress(
        service=service,
        stage=str(rollout.stage),
        desired=wanted,
        placed=min(wanted, len(ours)),
        pulled=min(wanted, sum(_is_pulled(*each) for each in ours)),
        started=min(wanted, sum(_is_started(*each) for each in ours)),
        healthy=min(wanted, sum(ended_well(*each) or is_fit(each[1]) for each in ours)),
        failed=len(rollout.failed),
        waiting=seen.reply.waits.get(f"{app.name}/{service}", ""),
        failing=_failing(ours),
        message=rollout.message,
    )


def _rollout(app: App, service: str, revision: str) -> Rollout:
    """Once something else is wanted, what was recorded counts for nothing."""
    found = app.rollouts.get(service)
    return found if found is not None and (found.generation, found.revision) == (app.generation, revision) else Rollout()


def _is_pulled(allocation: Allocation, status: AllocationStatus | None) -> bool:
    return allocation.done or (status is not None and (status.phase in _PULLED or bool(status.container)))


def _is_started(allocation: Allocation, status: AllocationStatus | None) -> bool:
    return ended_well(allocation, status) or (status is not None and status.phase is Phase.RUNNING)


def _failing(ours: Sequence[tuple[Allocation, AllocationStatus | None]]) -> str:
    found = [(each, why) for each, status in ours if (why := trouble(each, status))]
    if not found:
        return ""
    first, why = found[0]
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{first.located}: {one_line(why)}{others}"


def trouble(allocation: Allocation, status: AllocationStatus | None) -> str:
    """What is wrong with a replica, in words; empty: it is fit, or on its way."""
    if status is None or allocation.stop or ended_well(allocation, status):
        return ""
    because = f": {status.error}" if status.error else "" if status.exit_code is None else f": it ended with {status.exit_code}"
    if status.stuck:
        return f"it cannot be started{because}"
    match status.phase:
        case Phase.FAILED:
            return f"given up{because}"
        case Phase.DONE:
            return f"it ended with {status.exit_code}" if not status.error else status.error
        case Phase.BACKOFF:
            again = f" (started again {status.restarts} times)" if status.restarts > 1 else ""
            return f"it is to be started again{because}{again}"
        case Phase.RUNNING if status.health is InstanceHealth.UNHEALTHY:
            return f"unhealthy{f': {status.error}' if status.error else ''}"
        case Phase.PULLING | Phase.STARTING | Phase.RUNNING:
            return status.error
    return ""


def ended(seen: Seen, goal: Goal) -> End | None:
    """Whether there is nothing more to wait for; None: there is."""
    app = next((app for app in seen.reply.apps if app.name == goal.name), None)
    if not goal.generation:
        return _gone(app, goal)
    if app is None or app.stopping:
        words = "is being removed" if app else "was removed"
        return End(Ending.REMOVED, f"{goal.name} {words} while its rollout was waited for", "hmctl events")
    if app.generation != goal.generation:
        return _overtaken(seen, app, goal)
    of_interest = [each for each in progress(seen, app.name) if not goal.services or each.service in goal.services]
    if paused := [each for each in of_interest if each.stage == Stage.PAUSED]:
        why = "; ".join(f"{each.service}: {each.message}" for each in paused)
        return End(Ending.PAUSED, f"{goal.name}: the rollout of generation {goal.generation} is paused: {why}", _after_a_failure(app))
    if all(each.outcome for each in of_interest):
        return End(Ending.HEALTHY)
    return None


def _gone(app: App | None, goal: Goal) -> End | None:
    if app is None:
        return End(Ending.REMOVED)
    if not app.stopping:
        return End(Ending.REPLACED, f"{goal.name} was deployed again while it was removed", f"hmctl app history {goal.name}")
    return None


def _overtaken(seen: Seen, app: App, goal: Goal) -> End:
    """By the cluster itself, which takes back what failed, or by another operator. Generations of an app that was removed and deployed anew
    begin at 1 again."""
    later = sorted((each for each in seen.generations(app.name) if each.number > goal.generation), key=lambda each: each.number)
    first = next(iter(later), None)
    history = f"hmctl app history {app.name}"
    if first is not None and first.number == goal.generation + 1 and first.origin and not first.author:
        why = f"{app.name}: {first.note}; generation {first.number} brings back what generation {first.origin} was"
        return End(Ending.ROLLED_BACK, why, f"hmctl app logs {app.name}; {history}")
    by = f" by {first.author}" if first is not None and first.author else ""
    return End(Ending.REPLACED, f"{app.name} is at generation {app.generation} by now{by}, not {goal.generation}", history)


def _after_a_failure(app: App) -> str:
    """`app restart` is for what failed for a reason that is none of the file's: the same file once more changes nothing."""
    back = f", hmctl app rollback {app.name}" if app.healthy and app.healthy != app.generation else ""
    return f"hmctl app explain {app.name} says more; then deploy what works{back}, or hmctl app restart {app.name} to try the same again"


def out_of_time(seen: Seen | None, goal: Goal, seconds: float, trouble: HyperMeshError | None = None) -> End:
    """It is waited for no longer; what was seen last says why. `trouble`: why nothing newer was."""
    explain = f"hmctl app explain {goal.name}"
    if seen is None or trouble is not None:
        because = f": {trouble}" if trouble else ""
        return End(Ending.TIMEOUT, f"{goal.name}: nobody told within {seconds:g} s how far it is{because}", "hmctl status")
    if not goal.generation:
        left = sorted({each.node for each in seen.allocations(goal.name)})
        where = f": replicas are left on {', '.join(left)}" if left else ""
        return End(Ending.TIMEOUT, f"{goal.name} is not gone after {seconds:g} s{where}; its removal goes on", explain)
    missing = [
        each for each in progress(seen, goal.name) if each.stage != Stage.STEADY and each.service in (goal.services or {each.service})
    ]
    why = "; ".join(f"{each.service}: {each.text}" for each in missing)
    return End(Ending.TIMEOUT, f"{goal.name} is not there after {seconds:g} s: {why}; its rollout goes on", explain)


def with_dependents(spec: AppSpec, services: Iterable[str]) -> frozenset[str]:
    """`services`, and those that are restarted with them."""
    chosen = set(services)
    also = {name for name, each in spec.services.items() for on, how in each.depends_on.items() if how.restart and on in chosen}
    return frozenset(chosen | also)
