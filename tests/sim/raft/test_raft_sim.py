"""Many small disasters a plan. HYPERMESH_SIM_SEEDS=N runs N seeds of each instead of the few that every check can afford."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from raft_sim_checks import Violation
from raft_sim_plans import PLANS
from raft_sim_world import World

SEEDS = {"three": 25, "five": 12, "one": 6, "late": 12, "five-late": 8, "tiny": 20, "rough": 25, "crashy": 12, "disorder": 12}


def test_every_plan_has_its_share():
    assert set(SEEDS) == set(PLANS)


@pytest.mark.timeout(24 * 3600 if "HYPERMESH_SIM_SEEDS" in os.environ else 120)
@pytest.mark.parametrize("plan", PLANS)
def test_raft_holds(plan):
    seen: Counter[str] = Counter()
    for seed in range(int(os.environ.get("HYPERMESH_SIM_SEEDS", SEEDS[plan]))):
        world = World(seed, PLANS[plan])
        try:
            world.run()
        except Violation as violation:
            pytest.fail(f"{violation}; the story: python tests/sim/raft/raft_sim_run.py {plan} {seed} 1 --trace")
        seen.update(world.seen)
        seen["acknowledged"] += len(world.checks.acknowledged)
        seen["leaders"] += world.checks.leaders
    assert seen["acknowledged"] > 0
    if plan != "one":
        assert min(seen[kind] for kind in ("crash", "full", "wipe", "retried", "NoQuorum", "NotLeader", "StorageFull")) > 0
        assert seen["leaders"] > SEEDS[plan]


def test_a_run_can_be_repeated():
    one, other = World(7, PLANS["rough"]).run(), World(7, PLANS["rough"]).run()
    assert one.seen == other.seen
    assert one.checks.acknowledged == other.checks.acknowledged
    assert one.now == other.now
