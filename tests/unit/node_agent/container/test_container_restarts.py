"""When a container that ended is started again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.records import Phase
from hmcore.apps.spec import Restart
from node_agent.container.restarts import CEILING, FLOOR, final, pause, streak_after, trouble_pause


@pytest.mark.parametrize(
    ("delay", "pauses"),
    [
        (5.0, [5, 10, 20, 40, 60, 60]),
        (0.0, [0, 1, 2, 4, 8, 16]),
        (0.1, [0.1, 1, 2, 4, 8, 16]),
        (60.0, [60, 60]),
        (90.0, [90, 90]),
        (-1.0, [0, 1]),
        (float("nan"), [60, 60]),
        (float("inf"), [60, 60]),
    ],
)
def test_pauses_double_up_to_the_ceiling(delay: float, pauses: list[float]) -> None:
    assert [pause(Restart(delay=delay), streak) for streak in range(1, len(pauses) + 1)] == pauses


@given(st.floats(0, 1000), st.integers(1, 10_000))
def test_pauses_never_shrink_and_are_bounded(delay: float, streak: int) -> None:
    policy = Restart(delay=delay)
    assert pause(policy, streak) <= pause(policy, streak + 1) <= max(CEILING, delay)
    assert pause(policy, streak + 1) >= min(FLOOR, CEILING)
    assert trouble_pause(streak) <= trouble_pause(streak + 1) <= CEILING


@pytest.mark.parametrize(
    ("window", "ran", "streak"), [(0.0, 59.9, 4), (0.0, 60.0, 1), (5.0, 4.9, 4), (5.0, 5.0, 1), (600.0, 60.0, 4), (600.0, 600.0, 1)]
)
def test_a_long_run_ends_the_streak(window: float, ran: float, streak: int) -> None:
    assert streak_after(Restart(window=window), 3, ran) == streak


@pytest.mark.parametrize(
    ("condition", "attempts", "streak", "failed", "phase"),
    [
        ("any", 0, 10_000, True, None),
        ("any", 2, 2, False, None),
        ("any", 2, 3, False, Phase.FAILED),
        ("on-failure", 0, 9, True, None),
        ("on-failure", 1, 2, True, Phase.FAILED),
        ("on-failure", 1, 2, False, Phase.DONE),
        ("none", 0, 1, False, Phase.DONE),
        ("none", 5, 1, True, Phase.FAILED),
    ],
)
def test_what_it_ends_as(condition: str, attempts: int, streak: int, failed: bool, phase: Phase | None) -> None:
    assert final(Restart(condition=condition, attempts=attempts), streak, failed=failed) is phase  # type: ignore[arg-type]
