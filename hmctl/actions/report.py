"""What a workflow came to: the document that -o json prints, and the exit code that follows from it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from hmcore.errors import HyperMeshError
from hmctl.phases.base import Step
from hmctl.phases.runner import Outcome, Timings
from hmctl.phases.validate import Check

DONE, FAILED, PARTLY, PENDING = 0, 1, 3, 10


@dataclass(frozen=True, slots=True)
class HostReport:
    """`changes` were made, or would be (dry run)."""

    name: str
    status: Literal["changed", "unchanged", "planned", "failed", "unreachable"]
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """How long a phase took from its first host's begin to its last host's end, and who was slowest."""

    phase: str
    seconds: float
    slowest: str
    slowest_seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    cluster: str
    dry_run: bool
    changed: bool  # something was, or in a dry run would be
    healthy: bool | None  # None: not looked at
    leader: str | None
    hosts: tuple[HostReport, ...]
    cluster_changes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    problems: tuple[str, ...] = ()  # why it is not healthy, or was not formed
    error: str | None = None
    fix: str | None = None
    seconds: float = 0.0
    timings: tuple[PhaseTime, ...] = field(default=())

    def exit_code(self, *, detailed: bool) -> int:
        """Design section 10."""
        well = [host for host in self.hosts if host.status not in ("failed", "unreachable")]
        if self.error is not None or (self.hosts and not well):
            return FAILED
        if len(well) < len(self.hosts) or self.healthy is False or any(host.warnings for host in well):
            return PARTLY
        return PENDING if detailed and self.dry_run and self.changed else DONE


def host_reports(
    names: Sequence[str], steps: Sequence[Step], outcomes: dict[str, Outcome], lost: dict[str, HyperMeshError], *, dry_run: bool
) -> tuple[HostReport, ...]:
    reports = []
    for name in names:
        outcome = outcomes.get(name, Outcome())
        planned = tuple(step.change for step in steps if step.host == name)
        error = lost.get(name) or outcome.error
        if error is not None:
            status: Literal["changed", "unchanged", "planned", "failed", "unreachable"] = "unreachable" if name in lost else "failed"
            reports.append(HostReport(name, status, outcome.changes, tuple(outcome.warnings), error.message, error.fix))
        elif dry_run:
            reports.append(HostReport(name, "planned" if planned else "unchanged", planned))
        else:
            reports.append(HostReport(name, "changed" if outcome.changes else "unchanged", outcome.changes, tuple(outcome.warnings)))
    return tuple(reports)


def phase_times(timings: Timings) -> tuple[PhaseTime, ...]:
    """One row a phase, in the order in which they began."""
    rows = []
    for phase in dict.fromkeys(span[0] for span in sorted(timings.spans, key=lambda span: span[2])):
        spans = [span for span in timings.spans if span[0] == phase]
        began, ended = min(span[2] for span in spans), max(span[2] + span[3] for span in spans)
        slowest = max(spans, key=lambda span: span[3])
        rows.append(PhaseTime(phase, round(ended - began, 3), slowest[1], round(slowest[3], 3)))
    return tuple(rows)
