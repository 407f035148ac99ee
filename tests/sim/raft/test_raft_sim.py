"""Many small disasters a plan. HYPERMESH_SIM_SEEDS=N runs N seeds of each instead of the few that every check can afford."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft_sim_checks import Violation
from raft_sim_network import Habits
from raft_sim_plans import PLANS, TINY
from raft_sim_world import Plan, World

from node_agent.consensus.limits import Limits

pytestmark = pytest.mark.timeout(24 * 3600 if "HYPERMESH_SIM_SEEDS" in os.environ else 120)

SEEDS = {
    "three": 25,
    "five": 12,
    "one": 6,
    "late": 24,
    "five-late": 24,
    "tiny": 20,
    "rough": 25,
    "crashy": 12,
    "earlier": 16,
    "members": 16,
    "members-five": 12,
    "members-rough": 16,
    "members-calm": 8,
    "slow-disks": 16,
    "disorder": 20,
}


def test_every_plan_has_its_share():
    assert set(SEEDS) == set(PLANS)


@pytest.mark.long
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
    if PLANS[plan].spares:
        assert min(seen[kind] for kind in ("Add: Done", "Remove: Done", "Remove: HandOver", "Add: Wait", "Remove: Propose")) > 0
    if PLANS[plan].slow_disks:
        assert seen["waited for the disk"] > 0
    assert seen["clock set"] > 0
    if PLANS[plan].limits is TINY:
        assert seen["snapshot under way"] > 0
    if plan == "one":
        assert min(seen[kind] for kind in ("crash", "kill", "stopped", "full", "StorageFull")) > 0
    elif plan != "members-calm":
        assert (
            min(seen[kind] for kind in ("crash", "kill", "stopped", "full", "wipe", "retried", "NoQuorum", "NotLeader", "StorageFull")) > 0
        )
        assert seen["leaders"] > SEEDS[plan]


plans = st.builds(
    Plan,
    voters=st.sampled_from([1, 2, 3, 4, 5]),
    spares=st.sampled_from([0, 0, 2]),
    seconds=st.floats(3, 12),
    faults=st.floats(0.5, 6),
    client_pauses=st.sampled_from([(0.005,), (0.005, 0.03, 0.08), (0.5,)]),
    limits=st.one_of(
        st.just(TINY),
        st.builds(
            Limits,
            compact_entries=st.integers(2, 60),
            compact_bytes=st.integers(500, 100_000),
            journal_slack=st.integers(200, 20_000),
            chunk=st.integers(100, 5000),
            in_flight=st.integers(1, 20),
        ),
    ),
    habits=st.builds(Habits, slow=st.floats(0, 0.08), congested=st.integers(10, 100), disorder=st.booleans()),
    crash_in_write=st.floats(0, 0.02),
    late=st.booleans(),
)


class Drawn(random.Random):
    """Dice whose first throws are given, each from 0 up to 1; they go on by themselves."""

    def __init__(self, throws: Sequence[float], seed: int) -> None:
        super().__init__(seed)
        self._throws = iter(throws)

    def random(self) -> float:
        """Of this everything else is made: random.Random sees to that for whoever has a `random` of its own."""
        given = next(self._throws, None)
        return super().random() if given is None else given


@pytest.mark.long
@settings(max_examples=int(os.environ.get("HYPERMESH_SIM_SEEDS", 12)), deadline=None, derandomize="HYPERMESH_SIM_SEEDS" not in os.environ)
@given(plans, st.integers(0, 2**32), st.lists(st.floats(0, 1, exclude_max=True), max_size=200))
def test_raft_holds_whatever_befalls_it(plan, seed, throws):
    """hypothesis draws the schedule: which faults there are, when, and whom they befall. What it can leave out of a failure, it does."""
    World(seed, plan, dice=Drawn(throws, seed)).run()


@pytest.mark.long
def test_the_schedule_is_what_the_dice_say():
    calm, troubled = [World(3, PLANS["rough"], dice=Drawn([throw] * 12, 3)).run().seen["crash"] for throw in (0.3, 0.1)]
    assert calm < troubled  # 0.3: connections break; 0.1: machines crash


@pytest.mark.long
@pytest.mark.parametrize("seed", [7, 10, 11])
def test_a_run_can_be_repeated(seed):
    one, other = World(seed, PLANS["rough"]).run(), World(seed, PLANS["rough"]).run()
    assert one.seen == other.seen
    assert one.checks.acknowledged == other.checks.acknowledged
    assert one.now == other.now
