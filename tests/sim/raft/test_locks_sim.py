"""Never two that both believe they hold a lock, whatever goes wrong; and without any one of the rules, there are (docs/adr/0074)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import pytest
from raft_sim_checks import Violation
from raft_sim_locks import Locks, Rules
from raft_sim_world import Plan, World

from hmcore import lease
from node_agent.consensus.effects import locks as effects
from node_agent.consensus.limits import Limits

pytestmark = pytest.mark.timeout(24 * 3600 if "HYPERMESH_SIM_SEEDS" in os.environ else 240)

LIMITS = Limits(compact_entries=40, journal_slack=2000)
PLAN = Plan(seconds=20.0, faults=1.0, client_pauses=(0.2, 0.5), limits=LIMITS, clients=1, inside=False)
PLANS = {
    "three": (PLAN, 8),
    "five": (Plan(voters=5, seconds=20.0, faults=1.0, client_pauses=(0.2, 0.5), limits=LIMITS, clients=1, inside=False), 4),
    "pauses": (Plan(seconds=20.0, faults=0.2, client_pauses=(0.2, 0.5), limits=LIMITS, clients=1, inside=False), 6),
    "members": (Plan(spares=2, seconds=20.0, faults=1.0, client_pauses=(0.2, 0.5), limits=LIMITS, clients=1, inside=False), 4),
}


def run(seed: int, plan: Plan, rules: Rules | None = None, *, pauses: bool = False) -> World:
    world = World(seed, plan)
    Locks(world, rules, pauses=pauses).begin()
    return world.run()


@pytest.mark.parametrize("name", PLANS)
def test_nobody_believes_what_another_believes(name: str) -> None:
    plan, seeds = PLANS[name]
    seen: Counter[str] = Counter()
    for seed in range(int(os.environ.get("HYPERMESH_SIM_SEEDS", seeds))):
        try:
            seen.update(run(seed, plan, pauses=name == "pauses").seen)
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
    assert min(seen[kind] for kind in ("lease", "lease lost", "renewed", "end proposed", "renewal refused")) > 0, seen


def broken(rules: Rules, seeds: Iterable[int], *, pauses: bool = False) -> str:
    for seed in seeds:
        try:
            run(seed, PLANS["pauses"][0] if pauses else PLAN, rules, pauses=pauses)
        except Violation as violation:
            return str(violation)
    return "nothing"


@pytest.mark.parametrize(
    "rules",
    [Rules(confirms=False), Rules(rearms=False), Rules(dooms=False), Rules(from_sent=False)],
    ids=["confirms", "rearms", "dooms", "from_sent"],
)
def test_without_this_rule_there_are_two(rules: Rules) -> None:
    assert broken(rules, range(100), pauses=not rules.confirms) == "two holders of a lock"


def test_without_a_margin_clocks_of_other_rates_make_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "MARGIN", 0.0)
    assert broken(Rules(), range(100)) == "two holders of a lock"


def test_with_tokens_that_come_again_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    take = effects.acquire_lock

    def again(draft, command, entry):  # type: ignore[no-untyped-def]
        draft.replace(tokens=0)
        return take(draft, command, entry)

    monkeypatch.setattr(effects, "acquire_lock", again)
    assert broken(Rules(), range(100)) in {"a token was not larger than those before", "two holders of a lock"}


def test_a_run_can_be_repeated() -> None:
    assert run(3, PLAN).seen == run(3, PLAN).seen
