"""By hand: python tests/sim/linearizability/check_jepsen_logs.py FOLDER (test_data/jepsen of github.com/anishathalye/porcupine).

Jepsen's logs of etcd 2, whose reads did not ask a quorum. Their first publisher names no licence, so they stay where they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from known_histories import Register, jepsen
from linearizability import Outcome, check

# As in porcupine_test.go. All others are illegal; of 95 there is nothing.
LINEARIZABLE = {2, 5, 7, 18, 25, 31, 38, 45, 48, 49, 51, 53, 56, 67, 75, 76, 80, 87, 92, 98, 100, 101, 102}


def main(folder: Path) -> int:
    wrong = []
    for number in (number for number in range(103) if number != 95):
        verdict = check(Register(), jepsen((folder / f"etcd_{number:03}.log").read_text()))
        if verdict.outcome is not (Outcome.OK if number in LINEARIZABLE else Outcome.ILLEGAL):
            wrong.append(number)
            print(f"etcd_{number:03}: {verdict.explain()}")
    print(f"102 logs, {len(wrong)} verdicts other than porcupine's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
