"""What a series of probes comes to."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.spec import Probe
from hmcore.records import InstanceHealth
from node_agent.container.checks import FIRST, SHORTEST, Check, after, begin

U, H, X = InstanceHealth.UNKNOWN, InstanceHealth.HEALTHY, InstanceHealth.UNHEALTHY


def probed(probe: Probe, up: float = math.inf, down: float = math.inf, until: float = 300.0) -> list[tuple[float, InstanceHealth]]:
    """When it changes to what: something that answers from `up` to `down`."""
    check, found = begin(probe, 0.0), [(0.0, U)]
    while check.due < until:
        now = check.due
        check = after(check, "" if up <= now < down else "connection refused", now)
        if check.health is not found[-1][1]:
            found.append((now, check.health))
    return found


def test_what_is_up_at_once_is_fit_at_once_whatever_the_interval() -> None:
    assert probed(Probe(kind="tcp", interval=30)) == [(0.0, U), (62.75, X)]
    assert probed(Probe(kind="tcp", interval=30), up=0) == [(0.0, U), (FIRST, H)]
    ((_, _), (when, health)) = probed(Probe(kind="tcp", interval=30), up=2)
    assert health is H
    assert when <= 4


def test_failures_in_a_row_make_it_unfit_and_one_success_fit_again() -> None:
    check = after(begin(Probe(interval=1, retries=2), 0.0), "", 1.0)
    assert (check.health, check.due) == (H, 2.0)
    check = after(check, "no", 2.0)
    assert (check.health, check.reason, check.failures) == (H, "no", 1)
    check = after(after(check, "", 3.0), "no", 4.0)
    assert check.health is H
    check = after(check, "no", 5.0)
    assert check.health is X
    check = after(check, "", 6.0)
    assert (check.health, check.reason) == (H, "")


def test_failures_within_the_start_period_do_not_count() -> None:
    probe = Probe(interval=1, retries=3, start_period=100)
    ((_, _), (when, health)) = probed(probe)
    assert health is X
    assert 102 <= when <= 105
    assert probed(probe, up=99.5)[1][1] is H


def test_a_success_ends_the_start_period() -> None:
    found = probed(Probe(interval=1, retries=2, start_period=100), up=0, down=5)
    assert [health for _, health in found] == [U, H, X]
    assert found[2][0] < 8


def test_it_looks_often_at_first_and_calmly_later() -> None:
    check, looks = begin(Probe(interval=30, start_interval=5), 0.0), []
    for _ in range(8):
        looks.append(check.due)
        check = after(check, "no", check.due)
    assert looks == [0.25, 0.75, 1.75, 3.75, 7.75, 12.75, 17.75, 22.75]
    check = after(check, "", 25.0)
    assert check.due == 55.0


seconds = st.floats()


@given(
    st.builds(Probe, interval=seconds, timeout=seconds, retries=st.integers(), start_period=seconds, start_interval=seconds),
    st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=20),
)
def test_any_probe_and_any_outcomes_give_a_check_that_goes_on(probe: Probe, outcomes: list[tuple[bool, float]]) -> None:
    check: Check = begin(probe, 0.0)
    for failed, took in outcomes:
        now = check.due + took
        check = after(check, "no" if failed else "", now)
        assert now + min(FIRST, SHORTEST) <= check.due <= now + 86_400
        assert 0 < check.timeout <= 86_400
        assert (check.health is H) or failed
