"""How hmctl scales: the real command against simulated SSH hosts and agents (tests/scale), which share this machine's processors with it.

Growth is judged by hmctl's own processor time, which the simulators do not share, as the ratio of what a host more costs at two sizes.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from bed import Bed
from figures import Figure, Kind
from yardstick import START, Start, start, typical

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scale"))

from fleet import Fleet, Run, fleet

LIMIT = 32  # hmctl's own default
ASKED, DEPLOYED = (50, 100, 200, 500), (10, 50, 100, 200, 500)
ROUNDS = 7
TURNS = 4  # of fresh deploys: the processor time of one of ten hosts varies by a quarter

STATUS_100 = Kind("status of 100 nodes", "s", 1.0, START, tolerance=1.8)
STATUS_500 = Kind("status of 500 nodes", "s", 5.0, START, tolerance=1.8)
STATUS_CPU = Kind("status of 500 nodes, processor time", "s", None, START)
STATUS_STEPS = Kind("status, processor time of 500 nodes over that of 50", "x", 10, "linear")
STATUS_GROWTH = Kind("status, cost of a node at 500 over that at 200", "x", 1.3, "linear", tolerance=1.8)
DEPLOY_100 = Kind("deploy, 100 fresh simulated hosts", "s", 15.0, START, tolerance=1.8)
DEPLOY_NOTHING = Kind("deploy, 100 hosts, nothing to do", "s", 5.0, START, tolerance=1.8)
DEPLOY_GROWTH = Kind("deploy, cost of a host at 200 over that at 50", "x", 1.3, "linear", tolerance=1.8)
DEPLOY_GROWTH_500 = Kind("deploy, cost of a host at 500 over that at 100", "x", 1.3, "linear", tolerance=1.8)
DEPLOY_500 = Kind("deploy, 500 fresh simulated hosts", "s", 75.0, START, tolerance=1.8)
CONNECTIONS = Kind("SSH connections at once, most of all", "", float(LIMIT), slack=1.0)
MEMORY = Kind("hmctl's memory, most of all", "MB", 500.0, START, slack=1.0)
FIGURES = (
    STATUS_100,
    STATUS_500,
    STATUS_CPU,
    STATUS_STEPS,
    STATUS_GROWTH,
    DEPLOY_100,
    DEPLOY_NOTHING,
    DEPLOY_GROWTH,
    DEPLOY_GROWTH_500,
    DEPLOY_500,
    CONNECTIONS,
    MEMORY,
)


@dataclass(frozen=True)
class Measured:
    """A command's run and, by turns with it, the peer's."""

    run: Run
    peer: Start


@dataclass(frozen=True)
class Deploy:
    """Of fresh hosts, and once more; `peak`: SSH connections at once, as the servers count them."""

    fresh: Measured
    again: Measured
    peak: int


def measure(_bed: Bed) -> list[Figure]:
    status = {count: _status(count) for count in ASKED}
    deploys = _deploys()
    fresh = {count: deploy.fresh for count, deploy in deploys.items()}
    runs = [*status.values(), *fresh.values(), *(deploy.again for deploy in deploys.values())]
    simulated = f"simulated agents (uvloop) on the same machine; median of {ROUNDS}, by turns"
    small = "a release of 0.2 MB, so that hmctl is measured, not the line"
    asking, deploying = ({count: made.run.cpu for count, made in each.items()} for each in (status, fresh))
    most = float(max(deploy.peak for deploy in deploys.values()))
    largest = max(made.run.memory for made in runs)
    return [
        _wall(STATUS_100, status[100], simulated),
        _wall(STATUS_500, status[500], simulated),
        STATUS_CPU.of(asking[500], status[500].peer.cpu, "hmctl's own; the least of the same"),
        STATUS_STEPS.of(asking[500] / asking[50], 10.0, "hmctl's own"),
        _growth(STATUS_GROWTH, asking, 50, 200, 500),
        _wall(DEPLOY_100, fresh[100], small),
        _wall(DEPLOY_NOTHING, deploys[100].again, "once more"),
        _growth(DEPLOY_GROWTH, deploying, 10, 50, 200),
        _growth(DEPLOY_GROWTH_500, deploying, 10, 100, 500),
        _wall(DEPLOY_500, fresh[500], small),
        CONNECTIONS.of(most, note="as the servers count them"),
        MEMORY.of(largest, status[500].peer.memory, "up to 500 hosts"),
    ]


def _wall(kind: Kind, made: Measured, note: str) -> Figure:
    return kind.of(made.run.wall, made.peer.wall, note)


def _growth(kind: Kind, seconds: dict[int, float], few: int, some: int, many: int) -> Figure:
    """What a node more costs between `some` and `many`, over what it costs between `few` and `some`: 1 is linear, whatever starting hmctl
    costs. Sizes on both sides of where hmctl begins to ask differently (32 hosts) would say nothing."""
    grown = ((seconds[many] - seconds[some]) / (many - some)) / ((seconds[some] - seconds[few]) / (some - few))
    return kind.of(grown, 1.0, f"processor time of hmctl, beside that between {few} and {some}")


def _status(count: int) -> Measured:
    """The median wall time and the least processor time of some runs."""
    with fleet(count, ssh=False) as hosts:
        hosts.form()
        pairs = [(_well(hosts, "status"), start()) for _ in range(ROUNDS)]
    runs, peers = zip(*pairs, strict=True)
    run = replace(runs[0], wall=statistics.median(run.wall for run in runs), cpu=min(run.cpu for run in runs))
    return Measured(run, typical(list(peers)))


def _deploys() -> dict[int, Deploy]:
    """By number of hosts: of some fresh fleets, the median wall time and the least processor time; and one of them once more. By turns, and
    all sizes as often: the machine is not as fast at all times, and growth compares them."""
    turns = [{count: _deploy(count) for count in DEPLOYED} for _ in range(TURNS)]
    return {count: _typical([turn[count] for turn in turns]) for count in DEPLOYED}


def _typical(deploys: list[Deploy]) -> Deploy:
    runs = [each.fresh.run for each in deploys]
    run = replace(runs[0], wall=statistics.median(run.wall for run in runs), cpu=min(run.cpu for run in runs))
    return replace(deploys[0], fresh=replace(deploys[0].fresh, run=run), peak=max(each.peak for each in deploys))


def _deploy(count: int) -> Deploy:
    with fleet(count) as hosts:
        peers = [start() for _ in range(ROUNDS)]
        first = _well(hosts, "deploy", "--yes", "--timeout", "120")
        peers += [start() for _ in range(ROUNDS)]
        again = _well(hosts, "deploy", "--yes")
        after = peers[ROUNDS:] + [start() for _ in range(ROUNDS)]
        return Deploy(Measured(first, typical(peers)), Measured(again, typical(after)), hosts.hosts(counts="now")["peak"])


def _well(hosts: Fleet, *arguments: str) -> Run:
    run = hosts.hmctl(*arguments)
    if run.status != 0:
        raise RuntimeError(f"hmctl {' '.join(arguments)} ended with {run.status}: {run.stdout}{run.stderr}")
    return run
