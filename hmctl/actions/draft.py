"""deploy's report while it is being written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hmctl.actions.report import Report, host_reports, phase_times
from hmctl.phases.base import Step
from hmctl.phases.connect import Reached
from hmctl.phases.healthy import Verdict
from hmctl.phases.runner import Outcome, Timings
from hmctl.phases.validate import Check

if TYPE_CHECKING:
    from hmcore.config.inventory import Host


@dataclass(slots=True)
class Draft:
    """`began` on the monotonic clock."""

    cluster: str
    dry_run: bool
    timings: Timings
    chosen: Sequence[Host]
    reached: Reached
    checks: Sequence[Check]
    began: float
    steps: list[Step] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    cluster_changes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    verdict: Verdict | None = None

    def failed(self, name: str) -> bool:
        return name in self.outcomes and self.outcomes[name].error is not None

    def check(self, name: str) -> None:
        """Raises what befell the host, if it was set aside."""
        if name in self.outcomes and (error := self.outcomes[name].error) is not None:
            raise error

    def add(self, outcomes: Mapping[str, Outcome]) -> None:
        """What became of hosts, after what became of them before."""
        for name, outcome in outcomes.items():
            before = self.outcomes.get(name, Outcome())
            self.outcomes[name] = Outcome(
                changes=tuple(dict.fromkeys((*before.changes, *outcome.changes))),
                warnings=[*before.warnings, *outcome.warnings],
                error=outcome.error or before.error,
            )

    def finished(self, *, error: str | None = None, fix: str | None = None) -> Report:
        verdict = self.verdict
        names = [host.name for host in self.chosen]
        hosts = host_reports(names, self.steps, self.outcomes, self.reached.lost, dry_run=self.dry_run)
        cluster = tuple(step.change for step in self.steps if step.host is None) if self.dry_run else self.cluster_changes
        reasons = {**verdict.waiting, **verdict.degraded} if verdict else {}
        return Report(
            cluster=self.cluster,
            dry_run=self.dry_run,
            changed=any(host.changes for host in hosts) or bool(cluster),
            healthy=verdict.healthy and not self.problems if verdict else None,
            leader=verdict.leader if verdict else None,
            hosts=hosts,
            cluster_changes=cluster,
            checks=tuple(self.checks),
            problems=(*(f"{name}: {reason}" for name, reason in reasons.items()), *self.problems),
            error=error,
            fix=fix,
            seconds=round(time.monotonic() - self.began, 3),
            timings=phase_times(self.timings),
        )
