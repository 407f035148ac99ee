"""Never two that both believe they hold a lock, whatever goes wrong; and without any one of the rules, there are (docs/adr/0074).

Not here: that a lock whose end was proposed is not renewed any more. A holder that keeps lease.py's rules has lost it by then; the rule
keeps the answer to a renewal true for any other. See test_leases.py.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from raft_sim_checks import Violation
from raft_sim_locks import PATIENT, Locks, Rules
from raft_sim_world import Plan, World

from hmcore import lease
from node_agent.consensus.limits import Limits
from node_agent.consensus.statemachine.commands import Applied
from node_agent.consensus.statemachine.effects import locks as effects

pytestmark = pytest.mark.timeout(24 * 3600 if "HYPERMESH_SIM_SEEDS" in os.environ else 240)

LIMITS = Limits(compact_entries=40, journal_slack=2000)
PLAN = Plan(seconds=20.0, faults=1.0, client_pauses=(0.2, 0.5), limits=LIMITS, clients=1, inside=False)
CALM = Plan(seconds=20.0, faults=0.1, client_pauses=(0.5,), limits=LIMITS, clients=1, inside=False)
PLANS = {
    "three": (PLAN, 8),
    "five": (Plan(voters=5, seconds=20.0, faults=1.0, client_pauses=(0.2, 0.5), limits=LIMITS, clients=1, inside=False), 4),
    "pauses": (Plan(seconds=20.0, faults=0.2, client_pauses=(0.2, 0.5), limits=LIMITS, clients=1, inside=False), 6),
    "members": (Plan(spares=2, seconds=20.0, faults=1.0, client_pauses=(0.2, 0.5), limits=LIMITS, clients=1, inside=False), 4),
}


def run(seed: int, plan: Plan, rules: Rules | None = None, **more: Any) -> World:
    world = World(seed, plan)
    Locks(world, rules, **more).begin()
    return world.run()


@pytest.mark.long
@pytest.mark.parametrize("name", PLANS)
def test_nobody_believes_what_another_believes(name: str) -> None:
    plan, seeds = PLANS[name]
    seen: Counter[str] = Counter()
    for seed in range(int(os.environ.get("HYPERMESH_SIM_SEEDS", seeds))):
        try:
            seen.update(run(seed, plan, pauses=name == "pauses").seen)
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
    assert min(seen[kind] for kind in ("lease", "lease lost", "renewed", "end proposed")) > 0, seen
    assert seen["renewal refused"] > 0 or name != "three", seen


def broken(rules: Rules, plan: Plan = PLAN, first: int = 0, **more: Any) -> str:
    """The first promise that is broken. From seed `first` on, where it shows soon; when that moves, it takes longer."""
    for seed in range(first, first + 200):
        try:
            run(seed, plan, rules, **more)
        except Violation as violation:
            return str(violation)
    return "nothing"


TWO = "two holders of a lock"


@pytest.mark.long
def test_without_confirmation_there_are_two() -> None:
    """A leader that stood still, and was replaced meanwhile, promises what it cannot keep."""
    assert broken(Rules(confirms=False), PLANS["pauses"][0], first=36, pauses=True) == TWO


def test_with_a_new_leader_that_does_not_begin_all_terms_anew_there_are_two() -> None:
    assert broken(Rules(rearms=False)) == TWO


@pytest.mark.long
def test_with_holders_that_count_from_the_answer_there_are_two() -> None:
    assert broken(Rules(from_sent=False), patience=PATIENT) == TWO


@pytest.mark.long
def test_without_a_margin_clocks_of_other_rates_make_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "MARGIN", 0.0)
    assert broken(Rules(), CALM, holders=8) == TWO


@pytest.mark.long
def test_with_tokens_that_come_again_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    take = effects.acquire_lock

    def again(draft, command, entry):  # type: ignore[no-untyped-def]
        draft.replace(tokens=0)
        return take(draft, command, entry)

    monkeypatch.setattr(effects, "acquire_lock", again)
    assert broken(Rules()) in {"a token was not larger than those before", TWO}


@pytest.mark.long
def test_with_a_holder_that_gets_its_token_again_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own late release, of before it took the lock anew, would free it."""
    take = effects.acquire_lock

    def again(draft, command, entry):  # type: ignore[no-untyped-def]
        held = draft.table("locks").get(command.name)
        if held is not None and held.holder == command.holder:
            return Applied(changed=False, token=held.token)
        return take(draft, command, entry)

    monkeypatch.setattr(effects, "acquire_lock", again)
    assert broken(Rules()) == TWO


@pytest.mark.long
def test_a_run_can_be_repeated() -> None:
    assert run(3, PLAN).seen == run(3, PLAN).seen
