"""Apps that are removed while nodes are away that had replicas of them: that ends, and the name is free."""

from __future__ import annotations

import pytest
from appbed import Bed, web
from msgspec.structs import replace
from rollout_scene import Scene, kinds, running, spec

from hmcore.apps.records import statuses_key
from hmcore.apps.spec import AppSpec, ContainerSpec, Mount, ServiceSpec, Volume
from hmcore.records import NodeState
from node_agent.consensus.statemachine.appcommands import PutApp, StopApp
from node_agent.consensus.statemachine.commands import SetNodeState
from node_agent.orchestration.rollout import Terms


def removed(scene: Scene) -> Scene:
    scene.app = replace(scene.app, stopping=True)
    return scene


def test_an_app_of_which_a_dead_node_has_something_is_removed():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    bed.do(SetNodeState(name="node1", state=NodeState.DOWN))
    bed.do(StopApp(name="shop"))
    bed.run()
    assert (bed.state.apps, bed.state.allocations, bed.state.generations) == ({}, {}, {})
    last = bed.state.events[-1]
    assert (last.kind, last.message) == ("app.removed", "what node1 may still have of it is removed when it is back")


def test_an_app_that_failed_over_long_ago_is_removed_and_its_name_deploys_anew():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    old = set(bed.state.allocations)
    told = bed.state.statuses[statuses_key("node1")].allocations
    bed.do(SetNodeState(name="node1", state=NodeState.DOWN))
    bed.run()
    assert {each.node for each in bed.state.allocations.values()} == {"node2", "node3"}, "what was lost is not kept"
    bed.do(StopApp(name="shop"))
    bed.run()
    bed.memory = type(bed.memory)()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    ids = {each.id for each in bed.state.allocations.values()}
    assert len(ids) == 6
    assert not ids & {key.partition("/")[2] for key in old}, "what the dead node has is nobody's, whatever it is called"
    assert bed.state.statuses[statuses_key("node1")].allocations == told
    bed.do(SetNodeState(name="node1", state=NodeState.READY))
    bed.run()
    assert bed.state.statuses[statuses_key("node1")].allocations == (), "it is told that it has nothing"
    assert {each.id for each in bed.state.allocations.values()} == ids


def database() -> AppSpec:
    container = ContainerSpec(image="db:1", mounts=(Mount(kind="volume", source="data", target="/data"),))
    return AppSpec(services={"db": ServiceSpec(container=container)}, volumes={"data": Volume(name="shop_data")})


@pytest.mark.parametrize("known", [False, True])
def test_where_a_volume_is_stays_known_while_its_app_is_there(known: bool):
    """`known`: its node came to tell of the volume before it died."""
    bed = Bed()
    bed.do(PutApp(name="shop", spec=database()))
    bed.run()
    ((_, _, home),) = bed.running()
    bed.volumes = {"shop_data": home} if known else {}
    bed.do(SetNodeState(name=home, state=NodeState.DOWN))
    bed.run()
    assert bed.running() == [], "nothing begins elsewhere with an empty volume"
    assert "shop_data" in bed.waits["db"]
    assert len(bed.state.allocations) == (0 if known else 1)
    bed.do(SetNodeState(name=home, state=NodeState.READY))
    bed.run()
    assert [node for _, _, node in bed.running()] == [home]
    bed.do(SetNodeState(name=home, state=NodeState.DOWN))
    bed.do(StopApp(name="shop"))
    bed.run()
    assert (bed.state.apps, bed.state.allocations) == ({}, {})


def test_what_is_exclusive_is_forgotten_only_once_its_node_is_fenced():
    scene = removed(running(db=spec(replicas=1, exclusive=True)))
    scene.heard["n1"] = scene.now
    scene.nodes["n1"] = NodeState.DOWN
    first = scene.look()
    assert (len(first.stops), first.gone, first.next) == (1, False, scene.now + 10.0)
    assert not scene.look(after=9.9).changes
    last = scene.look(after=0.1)
    assert (len(last.forgets), last.gone, kinds(last)) == (1, True, ["app.removed"])


def test_what_is_left_behind_is_told_when_all_else_has_ended():
    scene = removed(running(web=spec()))
    scene.nodes["n2"] = NodeState.DOWN
    scene.look()
    assert scene.look().forgets == ()
    scene.obey()
    last = scene.look()
    assert (last.gone, [event.message for event in last.events]) == (
        True,
        ["what n2 may still have of it is removed when it is back"],
    )


def test_an_agent_that_said_good_bye_is_waited_for_before_what_it_has_is_forgotten():
    scene = running(web=spec())
    scene.terms = Terms(fence_after=10.0, lost_after=4.0, back_within=15.0)
    scene.nodes["n2"], scene.stopped = NodeState.DOWN, {"n2"}
    scene.look()
    removed(scene)
    scene.look()
    scene.obey()
    scene.look()
    assert not scene.look(after=14.0).gone
    scene.obey()
    assert scene.look(after=1.0).gone


def test_a_node_that_is_only_suspect_is_waited_for():
    scene = removed(running(web=spec()))
    scene.nodes["n2"] = NodeState.SUSPECT
    scene.look()
    scene.allocations = {id: each for id, each in scene.allocations.items() if each.node == "n2"}
    assert not scene.look(after=100.0).changes
