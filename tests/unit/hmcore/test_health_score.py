"""The score: the same for whoever makes it, and never better for being looked at twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hmcore.health import (
    CHECKS,
    ClusterCondition,
    NodeCondition,
    cluster_checks,
    complaints,
    component_check,
    reasons,
    score,
    with_mutes,
)
from hmcore.records import CheckReport, ComponentReport, ComponentState, Mute, NodeState

NAMES = ("node1", "node2", "node3")
BROKEN = CheckReport(name="disk", weight=2.0, worth=0.0, reason="full")
WELL = CheckReport(name="peers", weight=1.0, worth=1.0)

checks = st.lists(
    st.builds(
        CheckReport,
        name=st.sampled_from(CHECKS),
        weight=st.floats(0.1, 10),
        worth=st.floats(0, 1) | st.just(1.0),
        reason=st.just("why"),
        muted=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda check: check.name,
)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([], 0.0),
        ([WELL], 1.0),
        ([BROKEN], 0.0),
        ([BROKEN, WELL], 0.333),
        ([replace(BROKEN, muted=True), WELL], 1.0),
        ([BROKEN, replace(WELL, muted=True)], 0.333),
        ([replace(WELL, weight=100_000.0), replace(BROKEN, weight=0.001)], 0.999),  # almost is not all
    ],
)
def test_the_score_is_the_weighted_mean(found: list[CheckReport], wanted: float) -> None:
    assert score(found) == wanted


@given(checks)
def test_a_score_lies_between_0_and_1_and_less_than_1_has_a_reason(found: list[CheckReport]) -> None:
    assert 0.0 <= score(found) <= 1.0
    assert (score(found) < 1.0) == bool(reasons(found)) or not found
    assert {check.name for check in complaints(found)} == {check.name for check in found if check.worth < 1 and not check.muted}


@given(checks, st.sampled_from(CHECKS), st.sampled_from(["", "node1"]))
def test_muting_never_lowers_a_score(found: list[CheckReport], name: str, node: str) -> None:
    open_ones = [replace(check, muted=False) for check in found]
    mute = Mute(check=name, node=node)
    muted = with_mutes(open_ones, "node1", {mute.key: mute})
    assert score(muted) >= score(open_ones)
    assert name not in {check.name for check in complaints(muted)}


@given(checks)
def test_a_check_that_recovers_never_lowers_the_score(found: list[CheckReport]) -> None:
    assert score([replace(check, worth=1.0) if not number else check for number, check in enumerate(found)]) >= score(found)


def test_a_mute_holds_where_it_was_made() -> None:
    mutes = {mute.key: mute for mute in (Mute(check="disk"), Mute(check="peers", node="node1"))}
    assert [check.muted for check in with_mutes([BROKEN, WELL], "node1", mutes)] == [True, True]
    assert [check.muted for check in with_mutes([BROKEN, WELL], "node2", mutes)] == [True, False]
    assert [check.muted for check in with_mutes([replace(BROKEN, muted=True)], "node2", {})] == [False]  # a mute that has ended


@pytest.mark.parametrize("state", ComponentState)
def test_a_component_that_is_less_than_well_says_why(state: ComponentState) -> None:
    check = component_check("container", ComponentReport(state=state, error="no Docker", fix="systemctl start docker"))
    well = state in (ComponentState.RUNNING, ComponentState.READY)
    assert (check.name, check.weight) == ("component.container", 2.0)
    assert (check.worth == 1.0) == well
    assert (check.reason is None, check.fix is None) == (well, well)


def condition(*states: NodeState, following: int = 3, leader: str | None = "node1") -> ClusterCondition:
    nodes = [NodeCondition(name, state, 1.0, "r1") for name, state in zip(NAMES, states or [NodeState.READY] * 3, strict=True)]
    return ClusterCondition(3, following, leader, nodes)


READY, DOWN, SUSPECT = NodeState.READY, NodeState.DOWN, NodeState.SUSPECT


@pytest.mark.parametrize(
    ("found", "wanted", "lacking"),
    [
        (condition(), 1.0, []),
        (condition(READY, READY, DOWN, following=2), 0.722, ["cluster.quorum", "cluster.nodes"]),
        (condition(READY, READY, SUSPECT), 0.944, ["cluster.nodes"]),
        (condition(READY, DOWN, DOWN, following=1, leader=None), 0.278, ["cluster.quorum", "cluster.leader", "cluster.nodes"]),
        (condition(following=3, leader=None), 0.5, ["cluster.quorum", "cluster.leader"]),
        (ClusterCondition(1, 1, "node1", [NodeCondition("node1", READY, 1.0)]), 1.0, []),
        (ClusterCondition(1, 1, "node1", []), 0.667, ["cluster.nodes"]),
        (
            ClusterCondition(
                2, 2, "a", [NodeCondition("a", READY, 1.0, "r1"), NodeCondition("b", READY, 1.0, "r2", skewed=True)], ["b"], ["b"]
            ),
            0.833,
            ["cluster.leader", "cluster.members", "cluster.releases", "cluster.clocks"],
        ),
    ],
)
def test_the_clusters_score(found: ClusterCondition, wanted: float, lacking: list[str]) -> None:
    judged = cluster_checks(found)
    assert [check.name for check in complaints(judged)] == lacking
    assert score(judged) == wanted
    assert all((check.reason is None) == (check.worth == 1.0) for check in judged)


def test_a_muted_check_of_the_cluster_does_not_count() -> None:
    muted = cluster_checks(condition(READY, READY, SUSPECT), {"cluster.nodes": Mute(check="cluster.nodes")})
    assert score(muted) == 1.0
