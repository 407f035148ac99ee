"""From an app to its replicas, through the commands that the state takes: rollout and scheduler together."""

from __future__ import annotations

import pytest
from appbed import NAMES, Bed, web

from hmcore.apps.records import Stage
from hmcore.apps.spec import AppSpec, ContainerSpec, Resources, ServiceSpec, Update
from hmcore.records import NodeState
from node_agent.consensus.statemachine.commands import PutApp, SetNodeState, StopApp


def test_an_app_is_spread_and_becomes_healthy():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    assert [node for _, _, node in bed.running()] == [name for name in NAMES for _ in range(2)]
    app = bed.state.apps["shop"]
    assert (app.healthy, app.rollouts["web"].stage, len(bed.state.allocations)) == (1, Stage.STEADY, 6)


def test_another_image_replaces_all_and_stops_at_that():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(3)))
    bed.run()
    bed.do(PutApp(name="shop", spec=web(3, "web:2")))
    bed.run()
    assert {generation for _, generation, _ in bed.running()} == {2}
    assert (len(bed.state.allocations), bed.state.apps["shop"].healthy) == (3, 2)


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_a_version_that_fails_is_taken_back_by_itself(order):
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(3)))
    bed.run()
    bed.sick.add("web:2")
    bed.do(PutApp(name="shop", spec=web(3, "web:2", update=Update(failure_action="rollback", order=order))))
    bed.run()
    app = bed.state.apps["shop"]
    assert (app.generation, app.healthy, bed.state.generations["shop@3"].origin) == (3, 3, 1)
    specs = {bed.state.generations[f"shop@{generation}"].spec.services["web"].container.image for _, generation, _ in bed.running()}
    assert (specs, len(bed.running())) == ({"web:1"}, 3)
    assert "app.rollback" in {event.kind for event in bed.state.events}


def test_what_a_dead_node_ran_runs_elsewhere():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    bed.do(SetNodeState(name="node1", state=NodeState.DOWN))
    bed.run()
    assert [node for _, _, node in bed.running()] == ["node2"] * 3 + ["node3"] * 3


def test_a_node_that_runs_no_apps_gets_none_and_loses_what_it_has():
    bed = Bed()
    bed.closed = {"node1"}
    agents = ServiceSpec(container=ContainerSpec(image="agent:1"), mode="global")
    bed.do(PutApp(name="shop", spec=AppSpec(services={**web(4).services, "agent": agents})))
    bed.run()
    assert [(service, node) for service, _, node in bed.running()] == [
        *(("agent", node) for node in ("node2", "node3")),
        *(("web", node) for node in ("node2", "node2", "node3", "node3")),
    ]
    bed.closed = {"node2"}
    bed.run()
    assert {node for _, _, node in bed.running()} == {"node1", "node3"}
    assert len(bed.running()) == 6
    bed.closed = set(NAMES)
    bed.run()
    assert bed.waits["web"] == "role: 3 of 3 nodes run no apps"
    assert sum(service == "web" for service, _, _ in bed.running()) == 3, "no more is taken down at a time than an update would"


def test_who_finds_no_room_is_told_why_and_nothing_is_recorded_again_and_again():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(2, reservations=Resources(memory=9 << 30))))
    bed.run(5.0)
    index = bed.state.apps["shop"].index
    bed.run(5.0)
    assert (bed.running(), bed.state.apps["shop"].index) == ([], index)
    assert "memory" in bed.waits["web"]


def test_a_removed_app_leaves_nothing():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(4)))
    bed.run()
    bed.do(StopApp(name="shop"))
    bed.run()
    assert (bed.state.apps, bed.state.allocations, bed.state.generations) == ({}, {}, {})
