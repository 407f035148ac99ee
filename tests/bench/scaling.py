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
SIZES = (10, 50, 100, 200, 500)
ROUNDS = 7


def measure(_bed: Bed) -> list[Figure]:
    status = {count: _status(count) for count in SIZES}
    deploys = {count: _deploy(count) for count in SIZES}
    runs = [*status.values(), *(run for pair in deploys.values() for run in pair[:2])]
    fresh = {count: pair[0] for count, pair in deploys.items()}
    simulated = f"simulated agents on the same machine; median of {ROUNDS}"
    small = "a release of 0.2 MB, so that hmctl is measured, not the line"
    asking, deploying = ({count: run.cpu for count, run in runs.items()} for runs in (status, fresh))
    most = float(max(pair[2] for pair in deploys.values()))
    return [
        Figure("status of 100 nodes", status[100].wall, "s", 1.0, "status of 10", status[10].wall, note=simulated, tolerance=2.0),
        Figure("status of 500 nodes", status[500].wall, "s", 5.0, note=simulated),
        Figure("status of 500 nodes, processor time", asking[500], "s", 10 * asking[50], "of 50", asking[50], note="hmctl's own"),
        _growth("status, cost of a node at 500 over that at 200", asking, 50, 200, 500),
        Figure("deploy, 100 fresh simulated hosts", fresh[100].wall, "s", 15.0, "of 10", fresh[10].wall, note=small, tolerance=2.0),
        Figure("deploy, 100 hosts, nothing to do", deploys[100][1].wall, "s", 5.0, "of 10", deploys[10][1].wall, tolerance=2.0),
        _growth("deploy, cost of a host at 200 over that at 50", deploying, 10, 50, 200),
        _growth("deploy, cost of a host at 500 over that at 100", deploying, 10, 100, 500),
        Figure("deploy, 500 fresh simulated hosts", fresh[500].wall, "s", 75.0, note=small),
        Figure("SSH connections at once, most of all", most, "", float(LIMIT), note="as the servers count them", tolerance=1.0),
        Figure("hmctl's memory, most of all", max(run.memory for run in runs), "MB", 500.0, note="up to 500 hosts", tolerance=1.0),
    ]


def _growth(name: str, seconds: dict[int, float], few: int, some: int, many: int) -> Figure:
    """What a node more costs between `some` and `many`, over what it costs between `few` and `some`: 1 is linear, whatever starting hmctl
    costs. Sizes on both sides of where hmctl begins to ask differently (32 hosts) would say nothing."""
    grown = ((seconds[many] - seconds[some]) / (many - some)) / ((seconds[some] - seconds[few]) / (some - few))
    return Figure(name, grown, "x", 1.3, "linear", 1.0, note="processor time of hmctl")


def _status(count: int) -> Run:
    """The median wall time and the least processor time of some runs."""
    with fleet(count, ssh=False) as hosts:
        hosts.form()
        runs = [_well(hosts, "status") for _ in range(ROUNDS)]
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
