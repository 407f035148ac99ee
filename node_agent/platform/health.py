"""How well the node is: one figure from 0 to 1, and the reasons why it is not 1. Pure.

A weight says how much the node loses with the component: without its connections or its log it is out of the cluster, without Docker
it still votes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hmcore.records import ComponentReport
from hmcore.records import ComponentState as S

WEIGHTS: Mapping[str, float] = {"transport": 3.0, "consensus": 3.0, "orchestration": 2.0, "container": 2.0}
_WORTH: Mapping[S, float] = {S.RUNNING: 1.0, S.READY: 1.0, S.DEGRADED: 0.5}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `worth` is 1 when it is well, 0 when it is gone; `reason` says why it is less than 1."""

    name: str
    weight: float
    worth: float
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    score: float
    reasons: tuple[str, ...] = ()


def checks(components: Mapping[str, ComponentReport]) -> list[Check]:
    """One check for each component."""
    return [
        Check(name, WEIGHTS.get(name, 1.0), _WORTH.get(report.state, 0.0), _reason(name, report)) for name, report in components.items()
    ]


def judge(found: list[Check]) -> Health:
    """The weighted share of what is well. No checks: nothing is well yet."""
    whole = sum(check.weight for check in found)
    score = sum(check.weight * check.worth for check in found) / whole if whole else 0.0
    return Health(round(score, 3), tuple(check.reason for check in found if check.reason))


def _reason(name: str, report: ComponentReport) -> str | None:
    match report.state:
        case S.RUNNING | S.READY:
            return None
        case S.DEGRADED:  # the component's own words
            return report.error or f"{name} is degraded"
        case S.ERROR:
            return f"{name} failed: {report.error}" if report.error else f"{name} failed"
        case S.UNINITIALIZED | S.INITIALIZING:
            return f"{name} is starting"
        case S.STOPPING | S.STOPPED:
            return f"{name} is stopping"
