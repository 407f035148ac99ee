"""What clients alone can notice: nobody looks inside the members, and the history of what they said is not linearizable."""

from __future__ import annotations

import dataclasses

import pytest
from linearizability import Outcome
from raft_sim_checks import Violation
from raft_sim_plans import PLANS
from raft_sim_world import World

from node_agent.consensus.rules import ALL


def outcomes(plan, seeds):
    """The verdict on each run, also of one that came to a halt for another reason: what was said until then counts."""
    for seed in seeds:
        world = World(seed, dataclasses.replace(plan, inside=False))
        try:
            world.run()
        except Violation as violation:
            world.seen[str(violation)] += 1
        yield world.clients.verdict().outcome


def test_clients_get_answers():
    world = World(3, PLANS["three"]).run()
    assert world.clients.answered > 20


@pytest.mark.long
def test_a_leader_that_asks_nobody_is_caught():
    plan = dataclasses.replace(PLANS["three"], protections=dataclasses.replace(ALL, read_barrier=False))
    assert Outcome.ILLEGAL in outcomes(plan, range(200))


@pytest.mark.long
@pytest.mark.parametrize("plan", ["three", "rough"])
def test_with_all_rules_nobody_notices_anything(plan):
    assert set(outcomes(PLANS[plan], range(10))) == {Outcome.OK}
