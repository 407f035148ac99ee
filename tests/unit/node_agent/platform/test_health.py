"""The figure and its reasons."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hmcore.records import ComponentReport
from hmcore.records import ComponentState as S
from node_agent.platform.health import Check, checks, judge

reports = st.dictionaries(
    st.sampled_from(["transport", "consensus", "orchestration", "container"]),
    st.builds(ComponentReport, state=st.sampled_from(S), error=st.none() | st.just("because")),
)


def test_all_running_is_one():
    health = judge(checks({name: ComponentReport(state=S.RUNNING) for name in ("transport", "consensus", "orchestration", "container")}))
    assert (health.score, health.reasons) == (1.0, ())


def test_docker_down_costs_a_little_and_says_why():
    components = {name: ComponentReport(state=S.RUNNING) for name in ("transport", "consensus", "orchestration")}
    components["container"] = ComponentReport(state=S.DEGRADED, error="Docker does not answer on /var/run/docker.sock")
    health = judge(checks(components))
    assert (health.score, health.reasons) == (0.9, ("Docker does not answer on /var/run/docker.sock",))


def test_nothing_known_is_not_well():
    assert judge([]).score == 0.0


@given(reports)
def test_less_than_one_always_has_a_reason_and_one_never(components):
    health = judge(checks(components))
    assert 0.0 <= health.score <= 1.0
    assert (health.score < 1.0) == bool(health.reasons) or not components


@given(st.lists(st.builds(Check, st.just("x"), st.floats(0.1, 10), st.floats(0, 1)), min_size=1))
def test_a_component_that_recovers_never_lowers_the_score(found):
    better = [Check(found[0].name, found[0].weight, 1.0), *found[1:]]
    assert judge(better).score >= judge(found).score
