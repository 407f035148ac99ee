"""Nodes whose agents live and whose Docker does not: what they have is given up after a while, and holds up no rollout meanwhile."""

from __future__ import annotations

from appbed import Bed, web
from msgspec.structs import replace
from rollout_scene import Scene, kinds, running, spec, started, stopped

from hmcore.apps.records import Phase, Stage
from hmcore.apps.spec import AppSpec, ContainerSpec, Mount, ServiceSpec, Update, Volume
from hmcore.records import InstanceHealth, NodeState
from node_agent.consensus.statemachine.appcommands import PutApp, StopApp
from node_agent.orchestration.rollout import Terms

ONE, TWO, THREE = (f"shop/web.{slot}.{slot}" for slot in (1, 2, 3))
DB = "shop/db.1.1"


def cut(scene: Scene, node: str = "n2") -> Scene:
    """Docker is away there, as the node's agent says."""
    scene.dockerless.add(node)
    scene.nodes[node] = NodeState.DEGRADED
    for id, each in scene.allocations.items():
        if each.node == node:
            scene.tell(id, Phase.RUNNING, InstanceHealth.UNKNOWN, error="Docker does not answer")
    return scene


def test_its_replicas_are_placed_elsewhere_after_a_while():
    scene = cut(running(web=spec()))
    quiet = scene.look()
    assert (quiet.changes, quiet.next) == (False, scene.now + 60.0)
    assert quiet.waits == {"web": "Docker does not answer on n2; what it has there is placed elsewhere after 60 s"}
    assert not scene.look(after=59.9).changes
    scene.homes = {2: "n1"}
    decision = scene.look(after=0.1)
    assert [(stop.allocation, stop.reason) for stop in decision.stops] == [(TWO, "lost: Docker does not answer on n2")]
    assert (started(decision), kinds(decision)) == ([("web", 2)], ["replica.lost"])
    assert scene.look().forgets == (TWO,)


def test_a_docker_that_is_restarted_moves_nothing():
    scene = cut(running(web=spec()))
    scene.look()
    scene.look(after=50.0)
    scene.dockerless.clear()
    scene.look()
    cut(scene)
    assert not scene.look(after=59.0).changes
    assert scene.look().next == scene.now + 60.0


def test_a_new_leader_gives_it_its_full_time():
    scene = cut(running(web=spec()))
    scene.look()
    scene.now += 50.0
    told = dict(scene.statuses)
    scene.elect()
    scene.statuses = told
    scene.look()
    assert not scene.look(after=59.9).changes
    assert stopped(scene.look(after=0.1)) == [TWO]


def test_a_rollout_goes_on_without_it():
    scene = cut(running(web=spec()))
    scene.deploy(web=spec("v2"))
    scene.homes = {2: "n1"}
    assert scene.look().stops
    assert "Docker does not answer" in scene.look().waits["web"]
    scene.now += 60.0
    scene.settle()
    assert (scene.images(), scene.app.healthy, scene.app.rollouts["web"].stage) == (["v2"] * 3, 2, Stage.STEADY)
    assert {each.node for each in scene.allocations.values()} == {"n1", "n3"}


def test_a_node_that_shall_run_no_apps_is_left_although_its_docker_does_not_answer():
    scene = cut(running(web=spec()))
    scene.closed = {"n2"}
    scene.homes = {2: "n1"}
    assert stopped(scene.look()) == [TWO]
    assert scene.look().starts == ()
    assert started(scene.look(after=60.0)) == [("web", 2)]


def test_what_could_be_nowhere_else_stays_and_is_said_to():
    scene = cut(running(web=spec()))
    scene.pinned = {TWO}
    decision = scene.look(after=1000.0)
    assert (decision.changes, decision.next, decision.waits) == (False, None, {"web": "Docker does not answer on n2"})


def test_what_is_to_stop_is_given_up_wherever_it_could_be():
    scene = cut(running(web=spec()))
    scene.pinned = {TWO}
    scene.look()
    scene.app = replace(scene.app, stopping=True)
    scene.look()
    scene.statuses |= {id: replace(scene.statuses[id], phase=Phase.DONE) for id in (ONE, THREE)}
    assert not scene.look().gone
    assert scene.look(after=60.0).gone


def test_what_is_exclusive_starts_elsewhere_once_the_fence_has_ended_it():
    scene = cut(running(db=spec(replicas=1, exclusive=True)), "n1")
    scene.heard["n1"] = scene.now
    scene.asked["n1"] = scene.now
    scene.look()
    scene.now += 59.0
    scene.asked["n1"] = scene.heard["n1"] = scene.now  # its agent keeps its lease
    lost = scene.look(after=1.0)
    assert (stopped(lost), lost.starts) == ([DB], ())
    scene.asked["n1"] = scene.heard["n1"] = scene.now  # a last time
    assert "not fenced" in scene.look().waits["db"]
    assert scene.peek().next == scene.now + 10.0
    scene.heard["n1"] = scene.now + 9.0  # heartbeats go on
    assert scene.look(after=9.9).starts == ()
    scene.homes = {1: "n2"}
    assert started(scene.look(after=0.1)) == [("db", 1)]


def test_a_new_leader_does_not_know_whether_a_lease_was_asked_for():
    scene = cut(running(db=spec(replicas=1, exclusive=True)), "n1")
    scene.terms = Terms(fence_after=100.0)
    scene.elect()
    scene.asked = {"n1": scene.now - 1000.0}  # it led before
    scene.look()
    assert stopped(scene.look(after=60.0)) == [DB]
    assert scene.look(after=39.9).starts == ()
    assert started(scene.look(after=0.1)) == [("db", 1)]


def test_a_global_service_is_not_started_there_and_comes_back():
    scene = Scene(agent=spec(mode="global"))
    scene.dockerless.add("n3")
    assert [start.node for start in scene.look().starts] == ["n1", "n2"]
    scene.dockerless.clear()
    scene.settle()
    cut(scene, "n3")
    scene.deploy(agent=spec("v2", mode="global"))
    for _ in range(100):
        scene.look(after=1.0)
        scene.obey()
    assert (scene.app.healthy, {scene.allocations[id].node for id in scene.live("agent")}) == (2, {"n1", "n2"})
    scene.dockerless.clear()
    scene.nodes["n3"] = NodeState.READY
    scene.settle()
    assert {scene.allocations[id].node for id in scene.live("agent")} == {"n1", "n2", "n3"}


# -- with scheduler and state


def database() -> AppSpec:
    container = ContainerSpec(image="db:1", mounts=(Mount(kind="volume", source="data", target="/data"),))
    return AppSpec(services={"db": ServiceSpec(container=container)}, volumes={"data": Volume(name="shop_data")})


def test_nothing_is_placed_where_docker_does_not_answer():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    bed.dockerless = {"node1"}
    bed.run(100.0)
    assert [node for _, _, node in bed.running()] == ["node2"] * 3 + ["node3"] * 3
    bed.do(PutApp(name="shop", spec=web(6, "web:2", update=Update(order="start-first"))))
    bed.run(100.0)
    assert bed.state.apps["shop"].healthy == 2
    bed.dockerless = set()
    bed.run()
    assert {node for _, _, node in bed.running()} == {"node2", "node3"}


def test_where_no_node_has_docker_all_stays():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=web(6)))
    bed.run()
    before = bed.running()
    bed.dockerless = {"node1", "node2", "node3"}
    bed.run(200.0)
    assert bed.running() == before
    bed.do(StopApp(name="shop"))
    bed.run(200.0)
    assert not bed.state.apps


def test_a_database_waits_for_the_docker_that_has_its_volume():
    bed = Bed()
    bed.do(PutApp(name="shop", spec=database()))
    bed.run()
    ((_, _, home),) = before = bed.running()
    bed.dockerless = {home}
    bed.run(200.0)
    assert bed.running() == before
    assert bed.waits == {"db": f"Docker does not answer on {home}"}
