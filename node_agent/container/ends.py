"""Whether a container ended by itself, or because Docker or the machine went away under it (docs/adr/0108). Pure.

Times are seconds since 1970, by this machine's clock, as Docker stamps what it starts and ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

STOPPING = 30.0  # seconds before Docker's unit was left in which an end counts as Docker's: one stopped by hand is left when it has ended
PROPERTIES = ("ActiveState", "Job", "ActiveExitTimestampMonotonic")  # of Docker's unit, as systemd calls them

_BETWEEN = ("deactivating", "activating")


@dataclass(frozen=True, slots=True)
class Unit:
    """Docker's, as systemd has it. `passing`: it is being stopped or started, or about to be (so it is while a machine goes down), and
    whatever ends now may end by that. `left`: when it was left last since the machine started, in seconds of CLOCK_MONOTONIC; None: never,
    or nobody knows."""

    passing: bool = False
    left: float | None = None


@dataclass(frozen=True, slots=True)
class Docker:
    """`since`: none that was started before outlived that: with live-restore when the machine was started, else when Docker was. `left`:
    when the Docker before was told to stop, or died; None: nobody knows."""

    since: float
    left: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Of a container: when it was started last, and when that ended."""

    started: float
    finished: float


def unit_of(said: str) -> Unit:
    """`systemctl show` of PROPERTIES. Total: what it does not say is not so. A `Job` is what is queued for the unit."""
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    stamp = found.get("ActiveExitTimestampMonotonic", "")
    left = int(stamp) / 1e6 if stamp.isascii() and stamp.isdecimal() and len(stamp) < 19 else 0.0
    passing = found.get("ActiveState") in _BETWEEN or found.get("Job", "") not in ("", "0")
    return Unit(passing, left or None)


def run_of(inspected: object) -> Run | None:
    """Of `GET /containers/ID/json`. Total; None: it does not say."""
    state = inspected.get("State") if isinstance(inspected, dict) else None
    if not isinstance(state, dict):
        return None
    started, finished = _stamp(state.get("StartedAt")), _stamp(state.get("FinishedAt"))
    return None if started is None or finished is None else Run(started, finished)


def by_docker(runs: Mapping[str, Run], docker: Docker) -> dict[str, float]:
    """Those whose last run ended with an earlier Docker: by id, `since`."""
    return {id: docker.since for id, run in runs.items() if _by_docker(run, docker)}


def _by_docker(run: Run, docker: Docker) -> bool:
    """Not by when it ended: what outlived a Docker that crashed is ended by the next one, some time after its start."""
    if run.started >= docker.since:
        return False
    return docker.left is None or run.finished >= docker.left - STOPPING


def _stamp(value: object) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
