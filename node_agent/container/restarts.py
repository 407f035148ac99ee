"""When a container that ended is started again, if at all. Pure. All times in seconds."""

from __future__ import annotations

import math

from hmcore.apps.records import Phase
from hmcore.apps.spec import Restart

CEILING = 60.0  # of the pauses
FLOOR = 0.5  # of the second pause and all later ones: nobody starts a container that ends at once hundreds of times a second
RAN_LONG = 60.0  # after so long its earlier ends are forgotten, if its policy has no window
TROUBLE = 1.0  # the first pause after what is not the container's fault


def pause(restart: Restart, streak: int) -> float:
    """Before the start that follows the `streak`-th end in a row, from 1: doubling from `delay`. A delay above the ceiling stays so."""
    delay = max(0.0, restart.delay) if math.isfinite(restart.delay) else CEILING
    if streak <= 1:
        return delay
    return max(delay, min(CEILING, max(delay, FLOOR) * 2.0 ** min(streak - 1, 10)))


def trouble_pause(troubles: int) -> float:
    return min(CEILING, TROUBLE * 2.0 ** min(max(troubles, 1) - 1, 10))


def streak_after(restart: Restart, streak: int, ran: float) -> int:
    """How many ends in a row it is with one that ran for `ran`."""
    return 1 if ran >= (restart.window if restart.window > 0 else RAN_LONG) else streak + 1


def final(restart: Restart, streak: int, *, failed: bool) -> Phase | None:
    """What it ends as, once and for all; None: it is started again."""
    again = restart.condition == "any" or (restart.condition == "on-failure" and failed)
    if again and (restart.attempts <= 0 or streak <= restart.attempts):
        return None
    return Phase.DONE if not again and not failed else Phase.FAILED
