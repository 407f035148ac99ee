"""What cannot be started on one node is tried on another, once for each, and stays where it is while no other would take it."""

from __future__ import annotations

import pytest
from appbed import NAMES, Bed, web

from hmcore.apps.records import Stage
from hmcore.apps.spec import AppSpec, ContainerSpec, Mount, Placement, ServiceSpec, Volume
from node_agent.consensus.statemachine.appcommands import PutApp, ScaleApp
from node_agent.orchestration.rollouts.memory import SHUNNED, Observed

DATA = Mount(kind="volume", source="data", target="/d")


def nodes(bed: Bed) -> list[str]:
    return [node for _, _, node in bed.running()]


def deployed(unable: dict[str, set[str]], spec: AppSpec, seconds: float = 60.0) -> Bed:
    bed = Bed()
    bed.unable = unable
    bed.do(PutApp(name="shop", spec=spec))
    run(bed, seconds)
    return bed


def run(bed: Bed, seconds: float = 60.0) -> None:
    """A look every few seconds, as long as anything is to come."""
    end, before = bed.now + seconds, -1.0
    while before < bed.now < end:
        before = bed.now
        bed.run(5.0)


def test_it_is_started_on_another_node():
    bed = deployed({"node2": {"web:1"}}, web(3))
    assert "node2" not in nodes(bed)
    assert len(nodes(bed)) == 3
    assert bed.stops == ["it cannot be started on node2"]
    run(bed, 600.0)
    assert bed.stops == ["it cannot be started on node2"], "once"


def test_it_stays_where_no_other_node_takes_it_and_is_started_there_yet():
    spec = web(3, placement=Placement(max_per_node=1))
    bed = deployed({"node2": {"web:1"}}, spec)
    assert (sorted(nodes(bed)), bed.stops) == (list(NAMES), [])
    assert bed.memory.shunned
    bed.unable.clear()
    run(bed)
    assert (sorted(nodes(bed)), bed.stops) == (list(NAMES), [])
    assert not bed.memory.shunned, "it can by now"


def test_where_no_node_can_it_is_tried_on_each_in_turn_and_not_on_and_on():
    bed = deployed({node: {"web:1"} for node in NAMES}, web(1), SHUNNED - 1)
    assert len(bed.stops) == 2
    run(bed, SHUNNED * 5)
    assert len(bed.stops) <= 2 + 5 * 3


def test_what_comes_anew_goes_where_one_could_be_started_and_else_is_tried_all_the_same():
    bed = deployed({"node2": {"web:1"}}, web(3))
    bed.do(ScaleApp(name="shop", replicas={"web": 6}))
    run(bed)
    assert "node2" not in nodes(bed)
    assert len(nodes(bed)) == 6
    narrow = deployed({node: {"web:1"} for node in NAMES}, web(1, placement=Placement(max_per_node=1)))
    narrow.do(ScaleApp(name="shop", replicas={"web": 3}))
    run(narrow)
    assert sorted(nodes(narrow)) == list(NAMES)


def test_a_node_that_can_by_now_is_shunned_no_longer():
    bed = deployed({"node2": {"web:1"}}, web(3))
    bed.do(PutApp(name="shop", spec=web(3, "web:2")))
    run(bed)
    assert sorted(nodes(bed)) == list(NAMES), "of what it could not start, not of all"
    bed.now += SHUNNED
    bed.unable.clear()
    bed.do(PutApp(name="shop", spec=web(3)))
    run(bed)
    assert sorted(nodes(bed)) == list(NAMES)


def test_a_new_leader_finds_out_for_itself():
    bed = deployed({"node2": {"web:1"}}, web(3))
    bed.memory = Observed()
    bed.do(ScaleApp(name="shop", replicas={"web": 6}))
    run(bed)
    assert "node2" not in nodes(bed)
    assert len(nodes(bed)) == 6


@pytest.mark.parametrize(
    "spec",
    [
        AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="web:1"), mode="global")}),
        web(1, exclusive=True),
        AppSpec(
            services={
                "web": ServiceSpec(container=ContainerSpec(image="web:1", mounts=(Mount(kind="volume", source="data", target="/d"),)))
            },
            volumes={"data": Volume(name="shop_data")},
        ),
    ],
    ids=["global", "exclusive", "volume"],
)
def test_what_belongs_to_its_node_stays(spec: AppSpec):
    bed = deployed({node: {"web:1"} for node in NAMES}, spec)
    assert bed.stops == []


def test_an_update_that_is_paused_by_it_is_not_made_something_else():
    bed = deployed({}, web(3))
    bed.unable = {"node2": {"web:2"}, "node1": {"web:2"}, "node3": {"web:2"}}
    bed.do(PutApp(name="shop", spec=web(3, "web:2")))
    run(bed)
    assert bed.state.apps["shop"].rollouts["web"].stage is Stage.PAUSED
    assert sorted(generation for _, generation, _ in bed.running()) == [1, 1, 2]
    assert not [reason for reason in bed.stops if "cannot be started" in reason]
