"""Long runs, by hand: python tests/sim/raft/raft_sim_run.py PLAN FIRST COUNT [--trace]. Plans are in raft_sim_plans.py."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "linearizability"))  # as pytest has it

from raft_sim_checks import Violation
from raft_sim_plans import PLANS
from raft_sim_world import World


def main(name: str, first: int, count: int, trace: bool) -> int:
    broken: Counter[str] = Counter()
    seeds: dict[str, list[int]] = {}
    seen: Counter[str] = Counter()
    acknowledged = proposed = leaders = 0
    began = time.perf_counter()
    for seed in range(first, first + count):
        world = World(seed, PLANS[name], print if trace else None)
        try:
            world.run()
        except Violation as violation:
            broken[str(violation)] += 1
            seeds.setdefault(str(violation), []).append(seed)
            if trace:
                traceback.print_exc()
        acknowledged += len(world.checks.acknowledged)
        proposed += world.proposed
        leaders += world.checks.leaders
        seen.update(world.seen)
    seconds = time.perf_counter() - began
    print(f"{name:24} seeds {first}..{first + count - 1} broken {broken.total()} acknowledged {acknowledged}/{proposed}", end=" ")
    print(f"leaders/run {leaders / count:.1f} {seconds / count * 1000:.0f} ms/run {dict(seen)}")
    for what, times in broken.most_common():
        print(f"    {times:5} {what}  seeds {seeds[what][:6]}")
    return 1 if broken else 0


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    sys.exit(main(words[0], int(words[1]), int(words[2]), "--trace" in sys.argv))
