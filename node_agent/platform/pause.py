"""How long a failed agent waits before it leaves, so that systemd does not start it over and over: growing with each failure in a row.

systemd starts it again half a second after it left, for ever (design section 3). What is wrong with a damaged journal or a bad
configuration does not mend itself in that time; an operator who mends it restarts the unit, which does not wait.
"""

from __future__ import annotations

from pathlib import Path

FIRST, CEILING = 0.5, 30.0  # seconds
FORGET = 60.0  # seconds of life after which a failure is the first of its kind again


def next_failure(before: int, age: float) -> tuple[int, float]:
    """(failures in a row with this one, seconds to wait) of an agent that lived for `age` seconds, after `before` failures in a row."""
    failures = 1 if age >= FORGET else before + 1
    return failures, min(CEILING, FIRST * 2.0 ** min(failures - 1, 10))


def count_failure(file: Path, age: float) -> float:
    """Note one more failure in `file`, which outlives a restart but not a boot. Returns the seconds to wait; without a place to note it,
    as after a first failure."""
    try:
        before = int(file.read_text())
    except (OSError, ValueError):
        before = 0
    failures, pause = next_failure(before, age)
    try:
        file.write_text(f"{failures}\n")
    except OSError:
        return FIRST
    return pause
