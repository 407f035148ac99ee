"""How hmctl scales: the real command against simulated SSH hosts and agents (tests/scale), which share this machine's processors with it.

Growth is judged by hmctl's own processor time, which the simulators do not share, as the ratio of what a host more costs at two sizes.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from pathlib import Path

from bed import Bed
from figures import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scale"))

from fleet import Fleet, Run, fleet

LIMIT = 32  # hmctl's own default


def measure(_bed: Bed) -> list[Figure]:
    status = {count: _status(count) for count in (10, 50, 100, 200, 500)}
    deploys = {count: _deploy(count) for count in (10, 50, 100, 200, 500)}
    runs = [*status.values(), *(run for pair in deploys.values() for run in pair[:2])]
    fresh = {count: pair[0] for count, pair in deploys.items()}
    simulated = "simulated agents on the same machine; median of 5"
    small = "a release of 0.2 MB, so that hmctl is measured, not the line"
    costs = {"status": {n: run.cpu for n, run in status.items()}, "deploy": {n: run.cpu for n, run in fresh.items()}}
    small_growth = {name: _growth(seconds, 10, 50, 200) for name, seconds in costs.items()}
    growth = {name: _growth(seconds, 10, 100, 500) for name, seconds in costs.items()}
    cpu = "processor time of hmctl"
    most = float(max(pair[2] for pair in deploys.values()))
    return [
        Figure("status of 100 nodes", status[100].wall, "s", 1.0, "status of 10", status[10].wall, note=simulated, tolerance=2.0),
        Figure("status of 500 nodes", status[500].wall, "s", 5.0, note=simulated),
        Figure(
            "status, cost of a node at 200 over that at 50", small_growth["status"], "x", 1.3, "linear", 1.0, note="processor time of hmctl"
        ),
        Figure("status, cost of a node at 500 over that at 100", growth["status"], "x", 1.3, "linear", 1.0, note=cpu),
        Figure("deploy, 100 fresh simulated hosts", fresh[100].wall, "s", 15.0, "of 10", fresh[10].wall, note=small, tolerance=2.0),
        Figure("deploy, 100 hosts, nothing to do", deploys[100][1].wall, "s", 5.0, "of 10", deploys[10][1].wall, tolerance=2.0),
        Figure(
            "deploy, cost of a host at 200 over that at 50", small_growth["deploy"], "x", 1.3, "linear", 1.0, note="processor time of hmctl"
        ),
        Figure("deploy, cost of a host at 500 over that at 100", growth["deploy"], "x", 1.3, "linear", 1.0, note=cpu),
        Figure("deploy, 500 fresh simulated hosts", fresh[500].wall, "s", 75.0, note=small),
        Figure("SSH connections at once, most of all", most, "", float(LIMIT), note="as the servers count them", tolerance=1.0),
        Figure("hmctl's memory, most of all", max(run.memory for run in runs), "MB", 500.0, note="up to 500 hosts", tolerance=1.0),
    ]


def _growth(seconds: dict[int, float], few: int, some: int, many: int) -> float:
    """What a node more costs between `some` and `many`, over what it costs between `few` and `some`: 1 is linear, whatever starting hmctl
    costs."""
    return ((seconds[many] - seconds[some]) / (many - some)) / ((seconds[some] - seconds[few]) / (some - few))


def _status(count: int) -> Run:
    with fleet(count, ssh=False) as hosts:
        hosts.form()
        runs = [_well(hosts, "status") for _ in range(5)]
    return replace(runs[0], wall=statistics.median(run.wall for run in runs), cpu=min(run.cpu for run in runs))


def _deploy(count: int) -> tuple[Run, Run, int]:
    with fleet(count) as hosts:
        first = _well(hosts, "deploy", "--yes", "--timeout", "120")
        again = _well(hosts, "deploy", "--yes")
        return first, again, hosts.hosts(counts="now")["peak"]


def _well(hosts: Fleet, *arguments: str) -> Run:
    run = hosts.hmctl(*arguments)
    if run.status != 0:
        raise RuntimeError(f"hmctl {' '.join(arguments)} ended with {run.status}: {run.stdout}{run.stderr}")
    return run
