"""What becomes of replicas: scenarios."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from rollout_scene import Scene, kinds, running, spec, started, stopped

from hmcore.apps.records import Phase, Rollout, Stage, wanted_revision
from hmcore.apps.spec import AppSpec, Dependency, Update
from hmcore.records import InstanceHealth, NodeState
from node_agent.orchestration.rollout import Terms

ONE, TWO, THREE = "shop/web.1.1", "shop/web.2.2", "shop/web.3.3"
START_FIRST = Update(order="start-first")
BACK = Update(failure_action="rollback")


# -- what is missing, what is too much


def test_all_replicas_start_at_once_and_are_good_once_they_were_fit_for_long_enough():
    scene = Scene(web=spec())
    assert started(scene.look()) == [("web", 1), ("web", 2), ("web", 3)]
    assert not scene.look().changes
    scene.obey()
    assert scene.look().next == scene.now + 5.0
    assert scene.app.rollouts["web"].stage is Stage.ROLLING
    done = scene.look(after=5.0)
    assert kinds(done) == ["rollout.done", "app.healthy"]
    assert (scene.app.healthy, scene.app.rollouts["web"].stage) == (1, Stage.STEADY)


def test_what_there_is_no_place_for_is_asked_for_again():
    scene = Scene(web=spec(replicas=1))
    first = scene.peek()
    assert scene.peek().starts == first.starts
    assert [(start.slot, start.generation, start.reason) for start in first.starts] == [(1, 1, "wanted")]


def test_scaling_replaces_nothing():
    scene = running(web=spec())
    scene.deploy(web=spec(replicas=5))
    decision = scene.look()
    assert (started(decision), stopped(decision)) == ([("web", 4), ("web", 5)], [])


def test_the_worst_are_surplus_first_then_the_newest():
    scene = running(web=spec(replicas=4))
    scene.tell(TWO, Phase.BACKOFF)
    scene.deploy(web=spec(replicas=2))
    assert stopped(scene.look()) == [TWO, "shop/web.4.4"]
    scene.settle()
    assert scene.live() == [ONE, THREE]
    scene.deploy(web=spec(replicas=3))
    assert started(scene.look()) == [("web", 2)], "the lowest number that is free"


def test_what_still_stops_counts_until_it_is_gone():
    scene = running(web=spec())
    scene.deploy(web=spec(replicas=1))
    scene.look()
    scene.deploy(web=spec(replicas=3))
    waiting = scene.look()
    assert (waiting.starts, waiting.waits) == ((), {"web": "web.3 may still run on n3"})
    scene.tell(TWO, Phase.DONE)
    decision = scene.look()
    assert (decision.forgets, started(decision)) == ((TWO,), [("web", 2)])


def test_a_service_that_was_removed_stops():
    scene = running(web=spec(), api=spec(replicas=1))
    scene.deploy(api=spec(replicas=1))
    assert [(stop.allocation[:9], stop.reason) for stop in scene.look().stops] == [("shop/web.", "its service was removed")] * 3
    scene.settle()
    assert {allocation.service for allocation in scene.allocations.values()} == {"api"}
    assert scene.app.rollouts.keys() == {"api"}
    assert scene.app.healthy == 2


def test_an_app_that_is_removed_stops_and_is_gone_once_nothing_is_left():
    scene = running(web=spec(replicas=2))
    scene.app = replace(scene.app, stopping=True)
    first = scene.look()
    assert (len(first.stops), first.starts, first.gone) == (2, (), False)
    scene.tell(ONE, Phase.DONE)
    assert scene.look().forgets == (ONE,)
    scene.tell(TWO, Phase.STOPPING)
    assert not scene.look().changes
    scene.tell(TWO, Phase.DONE)
    assert scene.look().forgets == (TWO,)
    last = scene.look()
    assert (last.gone, kinds(last)) == (True, ["app.removed"])


# -- nodes


def test_replicas_of_a_suspect_node_stay_and_of_one_that_is_down_start_elsewhere_at_once():
    scene = running(web=spec())
    scene.nodes["n2"] = NodeState.SUSPECT
    assert not scene.look().changes
    scene.nodes["n2"] = NodeState.DOWN
    decision = scene.look()
    assert [(stop.allocation, stop.reason) for stop in decision.stops] == [(TWO, "lost: n2 is down")]
    assert [(start.slot, start.reason) for start in decision.starts] == [(2, "in place of web.2 on n2")]
    assert kinds(decision) == ["replica.lost"]


def test_a_lost_replica_is_forgotten_once_its_node_has_ended_it_or_is_no_member_any_more():
    scene = running(web=spec())
    scene.homes = {2: "n1", 3: "n1"}
    scene.nodes["n2"] = scene.nodes["n3"] = NodeState.DOWN
    scene.anchors = {TWO, THREE}
    scene.look()
    scene.settle()
    assert {TWO, THREE} <= scene.allocations.keys(), "by them it is known where their volumes are"
    scene.nodes["n2"] = NodeState.READY
    assert not scene.look().changes
    scene.tell(TWO, Phase.DONE)
    del scene.nodes["n3"]
    assert set(scene.look().forgets) == {TWO, THREE}


def test_a_lost_replica_is_forgotten_while_its_node_is_away():
    scene = running(web=spec())
    scene.homes = {2: "n1", 3: "n1"}
    scene.nodes["n2"] = NodeState.DOWN
    scene.look()
    scene.settle()
    assert TWO not in scene.allocations
    assert len(scene.live()) == 3


def test_an_agent_that_said_good_bye_has_some_time_to_come_back():
    scene = running(web=spec())
    scene.terms = Terms(fence_after=10.0, lost_after=4.0, back_within=15.0)
    scene.homes = {2: "n1", 3: "n1"}
    scene.nodes["n2"] = scene.nodes["n3"] = NodeState.DOWN
    scene.stopped = {"n3"}
    quiet = scene.look()
    assert (quiet.changes, quiet.next) == (False, scene.now + 4.0)
    later = scene.look(after=4.0)
    assert (stopped(later), later.next) == ([TWO], scene.now + 11.0), "nothing was heard of it: it may have died"
    assert stopped(scene.look(after=11.0)) == [THREE]


def test_what_is_exclusive_waits_until_its_node_is_fenced():
    scene = running(db=spec(replicas=1, exclusive=True))
    scene.nodes["n1"] = NodeState.SUSPECT
    scene.heard["n1"] = scene.now - 2.0
    scene.look()
    scene.nodes["n1"] = NodeState.DOWN
    lost = scene.look(after=2.0)
    assert (len(lost.stops), lost.starts) == (1, ())
    assert "not fenced" in scene.look().waits["db"]
    assert scene.peek().next == scene.heard["n1"] + 10.0
    assert scene.look(after=5.9).starts == ()
    assert started(scene.look(after=0.1)) == [("db", 1)]


def test_a_new_leader_gives_the_fence_its_full_time():
    scene = running(db=spec(replicas=1, exclusive=True))
    scene.heard["n1"] = scene.now
    scene.nodes["n1"] = NodeState.DOWN
    scene.look()
    scene.now += 9.0
    scene.elect()
    assert scene.look().next == scene.now + 10.0
    assert scene.look(after=9.9).starts == ()
    assert started(scene.look(after=0.1)) == [("db", 1)]


def test_what_is_exclusive_waits_for_a_node_that_came_back_in_time():
    scene = running(db=spec(replicas=1, exclusive=True))
    scene.nodes["n1"] = NodeState.DOWN
    scene.look()
    scene.nodes["n1"] = NodeState.READY
    assert scene.look(after=20.0).starts == ()
    scene.tell("shop/db.1.1", Phase.DONE)
    assert started(scene.look()) == [("db", 1)]


def test_a_global_service_runs_on_every_node_that_is_there_and_fits():
    scene = Scene(agent=spec(mode="global"))
    scene.nodes["n3"] = NodeState.SUSPECT
    assert [(start.node, start.slot) for start in scene.look().starts] == [("n1", 0), ("n2", 0)]
    scene.nodes["n3"] = NodeState.READY
    assert [start.node for start in scene.look().starts] == ["n3"]
    scene.settle()
    scene.nodes["n1"] = NodeState.SUSPECT
    assert not scene.look().changes
    scene.nodes["n1"] = NodeState.DOWN
    scene.nodes["n2"] = NodeState.DRAINING
    decision = scene.look()
    assert {stop.reason for stop in decision.stops} == {"lost: n1 is down", "n2 is to be empty"}
    assert decision.starts == ()
    scene.settle()
    assert scene.live("agent") == ["shop/agent.0.3"]


def test_draining_moves_as_many_at_a_time_as_an_update_would():
    scene = running(web=spec())
    scene.nodes |= {"n1": NodeState.DRAINING, "n2": NodeState.DRAINING}
    scene.homes = {1: "n3", 2: "n3"}
    assert [(stop.allocation, stop.reason) for stop in scene.look().stops] == [(ONE, "n1 is to be empty")]
    scene.tell(ONE, Phase.DONE)
    assert started(scene.look()) == [("web", 1)]
    assert not scene.look().changes
    scene.obey()
    scene.look()
    assert stopped(scene.look(after=5.0)) == [TWO]
    scene.settle()
    assert {scene.allocations[id].node for id in scene.live()} == {"n3"}


def test_draining_starts_the_new_one_first_where_updates_do():
    scene = running(web=spec(update=START_FIRST))
    scene.nodes["n1"] = NodeState.DRAINING
    scene.homes = {1: "n3"}
    first = scene.look()
    assert (started(first), stopped(first)) == ([("web", 1)], [])
    scene.obey()
    scene.look()
    assert stopped(scene.look(after=5.0)) == [ONE]


def test_a_node_that_is_told_to_run_no_apps_is_emptied_as_gently_as_an_update_would():
    scene = running(web=spec())
    scene.closed = {"n1", "n2"}
    scene.homes = {1: "n3", 2: "n3"}
    assert [(stop.allocation, stop.reason) for stop in scene.look().stops] == [(ONE, "n1 runs no apps")]
    scene.tell(ONE, Phase.DONE)
    assert started(scene.look()) == [("web", 1)]
    assert not scene.look().changes
    scene.obey()
    scene.look()
    assert stopped(scene.look(after=5.0)) == [TWO]
    scene.settle()
    assert {scene.allocations[id].node for id in scene.live()} == {"n3"}
    scene.closed = set()
    assert not scene.look().changes, "nothing goes back by itself"


def test_a_node_that_runs_no_apps_is_emptied_also_while_a_rollout_is_paused():
    scene = running(web=spec(), agent=spec(mode="global"))
    scene.deploy(web=spec("v2"), agent=spec("v2", mode="global"))
    scene.look()
    (beside,) = (id for id, each in scene.allocations.items() if each.stop and each.service == "web")
    scene.tell(beside, Phase.DONE)
    for id in [id for id, each in scene.allocations.items() if each.stop and each.service == "agent"]:
        scene.tell(id, Phase.DONE)
    scene.look()
    for id in [id for id, each in scene.allocations.items() if each.generation == 2]:
        scene.tell(id, Phase.FAILED)
    scene.look()
    assert {rollout.stage for rollout in scene.app.rollouts.values()} == {Stage.PAUSED}
    scene.settle()
    scene.closed = {"n3"}
    scene.homes = {1: "n1", 2: "n1", 3: "n1"}
    scene.settle()
    assert "n3" not in {each.node for each in scene.allocations.values()}


def test_what_is_silent_on_a_node_that_runs_no_apps_is_waited_for_as_anywhere():
    """It may run on: a second one comes once its node is given up, and not before."""
    scene = running(web=spec())
    scene.closed, scene.homes = {"n1"}, {1: "n3"}
    scene.nodes["n1"] = NodeState.SUSPECT
    assert not scene.look().changes
    scene.nodes["n1"] = NodeState.DOWN
    assert stopped(scene.look()) == [ONE]


def test_a_global_service_does_not_count_a_node_that_runs_no_apps():
    scene = running(agent=spec(mode="global"))
    scene.closed = {"n2"}
    decision = scene.look()
    assert [(stop.reason, scene.allocations[stop.allocation].node) for stop in decision.stops] == [("n2 runs no apps", "n2")]
    scene.settle()
    assert [scene.allocations[id].node for id in scene.live("agent")] == ["n1", "n3"]
    assert scene.app.rollouts["agent"].stage is Stage.STEADY


def test_a_job_that_is_done_is_not_done_again_wherever_its_node_goes():
    scene = Scene(migrate=spec(replicas=1))
    scene.look()
    scene.tell("shop/migrate.1.1", Phase.DONE, exit_code=0)
    done = scene.look()
    assert done.done == ("shop/migrate.1.1",)
    assert scene.app.healthy == 1
    scene.elect()
    scene.nodes["n1"] = NodeState.DOWN
    assert not scene.look().changes
    scene.nodes["n1"] = NodeState.DRAINING
    assert not scene.look().changes


# -- updates


def test_stop_first_replaces_one_after_the_other():
    scene = running(web=spec())
    scene.deploy(web=spec("v2"))
    first = scene.look()
    assert [(stop.allocation, stop.reason) for stop in first.stops] == [(ONE, "replaced by generation 2")]
    assert first.starts == ()
    scene.tell(ONE, Phase.STOPPING)
    assert scene.look().starts == ()
    scene.tell(ONE, Phase.DONE)
    assert started(scene.look()) == [("web", 1)]
    scene.obey()
    assert stopped(scene.look()) == []
    assert stopped(scene.look(after=4.9)) == []
    assert stopped(scene.look(after=0.1)) == [TWO]
    scene.settle()
    assert (scene.images(), scene.app.healthy) == (["v2"] * 3, 2)


def test_the_next_one_starts_as_soon_as_the_old_one_has_ended_which_is_forgotten_once_it_is_removed():
    scene = running(web=spec())
    scene.deploy(web=spec("v2"))
    scene.look()
    scene.tell(ONE, Phase.STOPPING, stopped=True)
    decision = scene.look()
    assert (started(decision), decision.forgets) == ([("web", 1)], ())
    scene.tell(ONE, Phase.DONE)
    assert scene.look().forgets == (ONE,)


def test_what_is_exclusive_starts_once_the_old_one_is_removed():
    alone = {"replicas": 1, "exclusive": True}
    scene = running(web=spec(**alone))
    scene.deploy(web=spec("v2", **alone))
    assert stopped(scene.look()) == [ONE]
    scene.tell(ONE, Phase.STOPPING, stopped=True)
    assert scene.look().starts == ()
    scene.tell(ONE, Phase.DONE)
    assert started(scene.look()) == [("web", 1)]


def test_start_first_stops_the_old_one_once_the_new_one_is_good():
    scene = running(web=spec(update=START_FIRST))
    scene.deploy(web=spec("v2", update=START_FIRST))
    first = scene.look()
    assert (started(first), stopped(first)) == ([("web", 1)], [])
    scene.obey()
    assert not scene.look().stops
    second = scene.look(after=5.0)
    assert (started(second), stopped(second)) == ([], [ONE])
    assert scene.look().starts == (), "the old one still runs"
    scene.obey()
    assert started(scene.look()) == [("web", 2)]
    scene.settle()
    assert (scene.images(), len(scene.allocations)) == (["v2"] * 3, 3)


def test_what_is_exclusive_is_never_started_first():
    scene = running(db=spec(replicas=1, exclusive=True, update=START_FIRST))
    scene.deploy(db=spec("v2", replicas=1, exclusive=True, update=START_FIRST))
    assert scene.look().starts == ()


def test_parallelism_and_delay():
    how = Update(parallelism=2, delay=3.0, monitor=0.0)
    scene = running(web=spec(replicas=5, update=how))
    scene.look(after=10.0)
    scene.deploy(web=spec("v2", replicas=5, update=how))
    assert len(scene.look().stops) == 2
    scene.obey()
    assert len(scene.look().starts) == 2
    scene.obey()
    good = scene.look()
    assert (good.stops, good.next) == ((), scene.now + 3.0)
    assert len(scene.look(after=3.0).stops) == 2


def test_parallelism_0_is_all_at_once():
    scene = running(web=spec(update=Update(parallelism=0)))
    scene.deploy(web=spec("v2", update=Update(parallelism=0)))
    assert len(scene.look().stops) == 3


def test_what_is_not_fit_is_replaced_first():
    scene = running(web=spec())
    scene.tell(THREE, health=InstanceHealth.UNHEALTHY)
    scene.deploy(web=spec("v2"))
    assert stopped(scene.look()) == [THREE]


def test_an_update_waits_while_a_node_is_silent():
    scene = running(web=spec())
    scene.nodes["n3"] = NodeState.SUSPECT
    scene.deploy(web=spec("v2"))
    assert not scene.look().stops
    scene.nodes["n3"] = NodeState.READY
    assert stopped(scene.look()) == [ONE]


def test_an_update_waits_while_a_new_replica_that_was_good_is_not_fit():
    scene = running(web=spec(update=Update(monitor=0.0)))
    scene.deploy(web=spec("v2", update=Update(monitor=0.0)))
    scene.look()
    scene.obey()
    scene.look()
    new = scene.live()[0]
    scene.tell(new)
    second = scene.peek()
    assert stopped(second) == [TWO]
    scene.memory = second.observed
    scene.tell(new, Phase.BACKOFF)
    assert not scene.look().stops


def test_an_operators_restart_replaces_as_an_update_does():
    scene = running(web=spec())
    scene.app = replace(scene.app, restarts={"web": 1})
    assert [(stop.allocation, stop.reason) for stop in scene.look().stops] == [(ONE, "replaced: it was to be restarted")]
    scene.settle()
    assert {scene.allocations[id].revision for id in scene.live()} == {wanted_revision(scene.app, scene.generations[1].spec, "web")}
    assert scene.app.healthy == 1


def test_a_dependent_that_wants_it_is_restarted_with_what_it_depends_on():
    on = Dependency(restart=True)
    scene = running(db=spec(replicas=1), web=spec(depends_on={"db": on}))
    before = wanted_revision(scene.app, scene.generations[1].spec, "web")
    scene.app = replace(scene.app, restarts={"db": 1})
    assert wanted_revision(scene.app, scene.generations[1].spec, "web") != before
    scene.settle()
    assert before not in {scene.allocations[id].revision for id in scene.live()}


def test_a_newer_generation_in_the_middle_of_an_update():
    scene = running(web=spec(update=START_FIRST))
    scene.deploy(web=spec("v2", update=START_FIRST))
    scene.look()
    scene.deploy(web=spec("v3", update=START_FIRST))
    decision = scene.look()
    assert (stopped(decision), decision.starts) == ([next(id for id in scene.allocations if id.endswith(".4"))], ()), (
        "the one that served stays"
    )
    scene.settle()
    assert scene.images() == ["v3"] * 3


def test_services_roll_side_by_side():
    scene = running(web=spec(), api=spec())
    scene.deploy(web=spec("v2"), api=spec("v2"))
    assert {scene.allocations[id].service for id in stopped(scene.look())} == {"web", "api"}


# -- failures


def failing(how: Update, *, replicas: int = 3) -> Scene:
    """The first replica of an update has been started, and has failed."""
    scene = running(web=spec(replicas=replicas, update=how))
    scene.deploy(web=spec("v2", replicas=replicas, update=how))
    scene.look()
    scene.obey()
    scene.look()
    new = next(id for id in scene.live() if scene.allocations[id].generation == 2)
    scene.tell(new, Phase.BACKOFF, InstanceHealth.UNKNOWN, restarts=1, exit_code=3)
    return scene


def test_an_update_that_fails_is_paused():
    scene = failing(Update())
    decision = scene.look()
    assert kinds(decision) == ["replica.failed", "rollout.paused"]
    state = scene.app.rollouts["web"]
    assert (state.stage, state.failed) == (Stage.PAUSED, ("shop/web.1.4",))
    assert state.message == "1 of 3 new replicas failed (web.1 on n1: it ended with 3, and was started again)"
    assert not scene.look(after=1000).changes
    assert scene.app.healthy == 1


def test_that_docker_goes_away_under_a_watched_replica_is_no_failure_and_it_is_watched_anew():
    how = Update(monitor=10.0, failure_action="rollback")
    scene = running(web=spec(replicas=1, update=how))
    scene.look(after=10)
    scene.deploy(web=spec("v2", replicas=1, update=how))
    scene.look()
    scene.obey()
    scene.look()
    (new,) = (id for id in scene.live() if scene.allocations[id].generation == 2)
    scene.look(after=9)
    told = [(Phase.RUNNING, InstanceHealth.UNKNOWN), (Phase.STARTING, InstanceHealth.UNKNOWN), (Phase.RUNNING, InstanceHealth.HEALTHY)]
    for phase, health in told:  # Docker does not answer; it is back; so is the replica: as a node tells it, without an end
        scene.tell(new, phase, health)
        decision = scene.look(after=1)
        assert not decision.events
        assert (decision.generation, scene.app.generation) == (None, 2)
    assert scene.app.healthy == 1, "it is not yet fit for as long as it is to be watched"
    scene.look(after=10)
    assert (scene.app.healthy, scene.app.rollouts["web"].stage) == (2, Stage.STEADY)


def test_while_paused_what_is_missing_starts_as_it_last_was_healthy_and_nothing_is_replaced():
    scene = failing(Update())
    scene.look()
    scene.nodes["n3"] = NodeState.DOWN
    scene.homes[3] = "n2"
    decision = scene.look()
    assert stopped(decision) == [THREE]
    assert [(start.slot, start.generation) for start in decision.starts] == [(3, 1)]
    scene.settle()
    assert sorted(scene.images()) == ["v1", "v1", "v2"]


def stuck(how: Update, **more: object) -> Scene:
    """An update whose first new replica does not get its image."""
    scene = running(web=spec(update=how, rollback=Update(monitor=1.0)))
    scene.deploy(web=spec("v2", update=how, rollback=Update(monitor=1.0)))
    scene.look()
    scene.obey()
    scene.look()
    scene.tell(newest(scene), Phase.PULLING, InstanceHealth.UNKNOWN, error="nobody has v2")
    assert not scene.look(after=1000).changes, "as long as its node does not call it stuck it may come"
    scene.tell(newest(scene), Phase.PULLING, InstanceHealth.UNKNOWN, error="nobody has v2", stuck=True, **more)
    return scene


def newest(scene: Scene) -> str:
    return next(id for id in scene.live() if scene.allocations[id].generation == scene.app.generation)


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_an_update_whose_image_nobody_gets_is_taken_back(order):
    scene = stuck(Update(failure_action="rollback", order=order))
    decision = scene.look()
    assert kinds(decision) == ["replica.failed", "app.rollback"]
    assert decision.generation is not None
    assert "1 of 3 new replicas failed (web.1 on n1: it cannot be started: nobody has v2)" in decision.generation.note
    scene.settle()
    assert (scene.images(), scene.app.healthy) == (["v1"] * 3, 3)


def test_an_update_whose_image_nobody_gets_is_paused_and_stays_so_when_it_comes_after_all():
    scene = stuck(Update())
    assert kinds(scene.look()) == ["replica.failed", "rollout.paused"]
    state = scene.app.rollouts["web"]
    assert state.message == "1 of 3 new replicas failed (web.1 on n1: it cannot be started: nobody has v2)"
    scene.tell(newest(scene))
    scene.settle()
    assert (scene.app.rollouts["web"], scene.app.healthy) == (state, 1)


def test_of_replicas_that_are_stuck_as_many_are_tolerated_as_may_fail():
    scene = stuck(Update(max_failure_ratio=0.34))
    assert kinds(scene.look()) == ["replica.failed"]
    assert scene.app.rollouts["web"].stage is Stage.ROLLING


@pytest.mark.parametrize("elected", [False, True])
def test_a_new_leader_judges_what_is_stuck_too(elected):
    scene = stuck(Update())
    if elected:
        scene.elect()
        scene.tell("shop/web.1.4", Phase.BACKOFF, InstanceHealth.UNKNOWN, stuck=True)
    scene.look()
    assert scene.app.rollouts["web"].stage is Stage.PAUSED


def test_what_was_good_or_is_of_an_earlier_generation_is_not_judged_by_being_stuck():
    scene = running(web=spec(update=Update(monitor=1.0)))
    scene.deploy(web=spec("v2", update=Update(monitor=1.0)))
    scene.look()
    scene.obey()
    scene.look()
    new = newest(scene)
    scene.tell(new)
    scene.look()
    assert scene.look(after=1.0).observed.replicas[new].good is not None
    for id in (new, THREE):
        scene.tell(id, Phase.BACKOFF, InstanceHealth.UNKNOWN, stuck=True)
    scene.look()
    assert (scene.app.rollouts["web"].stage, scene.app.rollouts["web"].failed) == (Stage.ROLLING, ())


def test_a_pause_ends_with_the_next_generation():
    scene = failing(Update())
    scene.look()
    scene.deploy(web=spec("v3"))
    scene.settle()
    assert (scene.images(), scene.app.healthy) == (["v3"] * 3, 3)


def test_a_failed_version_that_is_only_scaled_is_not_called_healthy():
    scene = failing(Update())
    scene.look()
    scene.deploy(web=spec("v2", replicas=4))
    scene.look()
    assert (scene.app.rollouts["web"].stage, scene.app.healthy) == (Stage.PAUSED, 1)


def test_draining_goes_on_while_paused():
    scene = failing(Update())
    scene.look()
    scene.nodes["n2"] = NodeState.DRAINING
    scene.homes[2] = "n3"
    assert stopped(scene.look()) == [TWO]
    scene.tell(TWO, Phase.DONE)
    assert [start.generation for start in scene.look().starts] == [1]


def test_with_continue_it_goes_on_but_is_not_healthy():
    scene = failing(Update(failure_action="continue"))
    scene.look()
    assert scene.app.rollouts["web"].stage is Stage.ROLLING
    scene.settle()
    state = scene.app.rollouts["web"]
    assert (state.stage, scene.images(), scene.app.healthy) == (Stage.STEADY, ["v2"] * 3, 1)
    assert "went on" in state.message


def test_with_continue_a_delay_counts_from_the_failure():
    scene = failing(Update(failure_action="continue", delay=7.0, monitor=0.0))
    assert not scene.look().stops
    later = scene.look()
    assert (later.stops, later.next) == ((), scene.now + 7.0)
    assert stopped(scene.look(after=7.0)) == [TWO]


def test_some_may_fail():
    scene = failing(Update(max_failure_ratio=0.34))
    scene.look()
    assert scene.app.rollouts["web"].stage is Stage.ROLLING
    scene.settle()
    assert scene.app.healthy == 2


def test_a_rollback_brings_back_all_services_as_they_last_were_healthy():
    scene = running(web=spec(update=BACK), api=spec(replicas=1))
    scene.deploy(web=spec("v2", update=BACK, rollback=Update(parallelism=0)), api=spec("v2", replicas=2), extra=spec())
    scene.look()
    scene.obey()
    scene.look()
    new = next(id for id in scene.live() if scene.allocations[id].generation == 2)
    scene.tell(new, Phase.FAILED, InstanceHealth.UNKNOWN, error="no such image")
    decision = scene.look()
    assert decision.generation is not None
    assert (decision.generation.number, decision.generation.origin, decision.generation.spec) == (3, 1, scene.generations[1].spec)
    assert decision.generation.note == "generation 2 failed: web: 1 of 3 new replicas failed (web.1 on n1: it was given up: no such image)"
    assert (scene.app.generation, scene.app.rollouts, kinds(decision)) == (3, {}, ["replica.failed", "app.rollback"])
    scene.settle()
    assert (scene.images(), scene.images("api"), scene.app.healthy) == (["v1"] * 3, ["v1"], 3)
    assert {allocation.service for allocation in scene.allocations.values()} == {"web", "api"}


def test_a_rollback_runs_by_its_own_settings_and_goes_no_further_back():
    scene = running(web=spec(update=BACK))
    scene.deploy(origin=1, web=spec("v2", update=BACK, rollback=Update(parallelism=2)))
    assert len(scene.look().stops) == 2
    scene.obey()
    scene.look()
    scene.tell(next(id for id in scene.live() if scene.allocations[id].generation == 2), Phase.FAILED)
    scene.look()
    assert (scene.app.generation, scene.app.rollouts["web"].stage) == (2, Stage.PAUSED)


def test_start_first_rolls_back_to_the_replica_that_never_stopped():
    how = Update(order="start-first", failure_action="rollback")
    scene = failing(how)
    scene.look()
    assert scene.app.generation == 3
    assert stopped(scene.look()) == ["shop/web.1.4"]
    scene.settle()
    assert scene.live() == [ONE, TWO, THREE]


def test_a_first_deployment_that_fails_is_paused_and_says_so():
    scene = Scene(web=spec(replicas=1, update=BACK))
    scene.look()
    scene.tell(ONE, Phase.FAILED, InstanceHealth.UNKNOWN, error="no such file")
    scene.look()
    state = scene.app.rollouts["web"]
    assert state.stage is Stage.PAUSED
    assert "no earlier healthy generation" in state.message
    assert not scene.look().changes


def test_what_ends_after_it_was_good_is_no_failed_update():
    scene = running(web=spec())
    scene.deploy(web=spec(replicas=4))
    scene.look()
    scene.tell(ONE, Phase.BACKOFF, restarts=1, exit_code=1)
    scene.settle()
    assert scene.app.healthy == 2


def test_a_job_that_ends_badly_is_a_failure():
    scene = Scene(migrate=spec(replicas=1))
    scene.look()
    scene.tell("shop/migrate.1.1", Phase.DONE, exit_code=2)
    scene.look()
    assert "ended with 2" in scene.app.rollouts["migrate"].message


def test_a_new_leader_does_not_blame_a_replica_for_what_was_before_it():
    scene = running(web=spec())
    scene.deploy(web=spec("v2"))
    scene.look()
    scene.obey()
    scene.look()
    new = next(id for id in scene.live() if scene.allocations[id].generation == 2)
    scene.elect()
    scene.look()
    scene.tell(new, restarts=1)
    scene.look()
    assert scene.app.rollouts["web"].failed == ()
    scene.tell(new, Phase.BACKOFF, restarts=2)
    scene.look()
    assert scene.app.rollouts["web"].failed == (new,)


def test_a_new_leader_watches_for_the_whole_time_again():
    scene = running(web=spec())
    scene.deploy(web=spec("v2"))
    scene.look()
    scene.obey()
    scene.look()
    scene.obey()
    scene.look(after=4.9)
    scene.elect()
    scene.obey()
    assert scene.look().next == scene.now + 5.0
    assert not scene.look(after=4.9).stops
    assert stopped(scene.look(after=0.1)) == [TWO]


# -- depends_on


def gated(condition: str, *, required: bool = True, **more: object) -> Scene:
    on = Dependency(condition=condition, required=required)  # type: ignore[arg-type]
    return Scene(db=spec(replicas=1, **more), web=spec(replicas=1, depends_on={"db": on}))


DB = "shop/db.1.1"


def test_nothing_starts_before_what_it_depends_on():
    scene = gated("healthy")
    decision = scene.look()
    assert (started(decision), decision.waits) == ([("db", 1)], {"web": "db is not healthy yet"})
    scene.tell(DB, health=InstanceHealth.UNKNOWN)
    assert not scene.look().starts
    scene.tell(DB)
    assert started(scene.look()) == [("web", 1)]


def test_to_be_started_is_enough_where_it_says_so():
    scene = gated("started")
    scene.look()
    scene.tell(DB, Phase.STARTING)
    assert not scene.look().starts
    scene.tell(DB, health=InstanceHealth.UNKNOWN)
    assert started(scene.look()) == [("web", 1)]


def test_to_be_completed_is_to_have_ended_with_0():
    scene = gated("completed")
    scene.look()
    scene.tell(DB)
    assert not scene.look().starts
    scene.tell(DB, Phase.DONE, exit_code=0)
    assert started(scene.look()) == [("web", 1)]


def test_what_is_not_required_holds_up_nobody_once_it_has_failed():
    for required in (True, False):
        scene = gated("healthy", required=required)
        scene.look()
        scene.tell(DB, Phase.FAILED)
        scene.look()
        assert bool(scene.live()) is not required


def test_an_update_waits_for_the_update_of_what_it_depends_on():
    on = {"db": Dependency(condition="healthy")}
    scene = running(db=spec(replicas=1), web=spec(depends_on=on))
    scene.deploy(db=spec("v2", replicas=1), web=spec("v2", depends_on=on))
    assert stopped(scene.look()) == [DB]
    assert not scene.look().stops
    scene.nodes["n3"] = NodeState.DOWN
    assert [(start.service, start.generation) for start in scene.look().starts if start.service == "web"] == [("web", 1)], (
        "what was lost comes back as it was"
    )
    scene.nodes["n3"] = NodeState.READY
    scene.settle()
    assert (scene.images(), scene.app.healthy) == (["v2"] * 3, 2)


def test_once_the_generation_was_reached_nothing_waits():
    on = {"db": Dependency(condition="healthy")}
    scene = running(db=spec(replicas=1), web=spec(replicas=1, depends_on=on))
    scene.tell(DB, Phase.BACKOFF)
    scene.app = replace(scene.app, restarts={"web": 1})
    assert len(scene.look().stops) == 1


def test_revisions_say_what_needs_other_containers():
    one = AppSpec(services={"web": spec()})
    scaled = AppSpec(services={"web": spec(replicas=9, update=START_FIRST)})
    other = AppSpec(services={"web": spec("v2")})
    app = Scene(web=spec()).app
    again = replace(app, restarts={"web": 2})
    assert wanted_revision(app, one, "web") == wanted_revision(app, scaled, "web")
    assert len({wanted_revision(app, one, "web"), wanted_revision(app, other, "web"), wanted_revision(again, one, "web")}) == 3


# -- ways out of too many that fail


def test_what_is_called_done_while_others_are_left_is_gone_on_with_and_judged():
    """As another release's leader, or a restored backup, may leave it."""
    scene = failing(Update())
    called = Rollout(stage=Stage.STEADY, generation=2, revision=wanted_revision(scene.app, scene.generations[2].spec, "web"))
    scene.app = replace(scene.app, healthy=2, rollouts={"web": called})
    scene.settle()
    assert (scene.app.rollouts["web"].stage, scene.images()) == (Stage.PAUSED, ["v2", "v1", "v1"])


def too_many(how: Update) -> Scene:
    """Of two replicas four were wanted; those beyond two are ill, and always were."""
    scene = running(4, web=spec(replicas=2, update=how))
    scene.deploy(web=spec(replicas=4, update=how))
    scene.look()
    scene.obey()
    for id in scene.live()[2:]:
        scene.tell(id, health=InstanceHealth.UNHEALTHY)
    return scene


def test_scaled_back_those_that_are_ill_go_and_do_not_count_as_failed():
    scene = too_many(Update())
    assert kinds(scene.look()) == ["replica.failed", "replica.failed", "rollout.paused"]
    scene.deploy(web=spec(replicas=2))
    decision = scene.look()
    assert (sorted(stopped(decision)), decision.events) == (scene.live()[2:] or ["shop/web.3.3", "shop/web.4.4"], ())
    scene.settle()
    assert (scene.app.rollouts["web"].stage, scene.app.healthy, len(scene.live())) == (Stage.STEADY, 3, 2)


def test_a_way_back_from_too_many_is_not_stopped_by_those_that_it_removes():
    scene = too_many(BACK)
    assert kinds(scene.look())[-1] == "app.rollback"
    assert scene.app.generation == 3
    scene.settle()
    assert (scene.app.rollouts["web"].stage, scene.app.healthy, len(scene.live())) == (Stage.STEADY, 3, 2)


@pytest.mark.parametrize(("phase", "more"), [(Phase.DONE, {"exit_code": 1}), (Phase.FAILED, {"error": "no such program"})])
def test_what_failed_for_good_is_tried_again_by_the_next_generation(phase, more):
    scene = Scene(job=spec(replicas=1), web=spec(replicas=1))
    scene.look()
    scene.obey()
    (job,) = scene.live("job")
    scene.tell(job, phase, **more)
    assert "rollout.paused" in kinds(scene.look())
    scene.deploy(job=spec(replicas=1), web=spec("v2", replicas=1))
    first = scene.look()
    assert job in stopped(first)
    assert "replica.failed" not in kinds(first)
    scene.settle()
    assert scene.live("job") != [job]
    assert scene.app.healthy == 2


def test_a_job_that_is_done_is_not_done_again_by_the_next_generation():
    scene = Scene(job=spec(replicas=1), web=spec(replicas=1))
    scene.look()
    scene.obey()
    (job,) = scene.live("job")
    scene.tell(job, Phase.DONE, exit_code=0)
    scene.settle()
    scene.deploy(job=spec(replicas=1), web=spec("v2", replicas=1))
    scene.settle()
    assert scene.live("job") == [job]


def test_what_start_first_waits_for_is_said():
    scene = running(web=spec(update=START_FIRST))
    scene.deploy(web=spec("v2", update=START_FIRST))
    scene.look()
    scene.obey()
    scene.look()
    assert stopped(scene.look(after=5.0)) == [ONE]
    scene.tell(ONE, Phase.STOPPING, InstanceHealth.UNKNOWN, error="Docker does not answer")
    assert scene.look().waits == {"web": "web.1 may still run on n1: Docker does not answer"}
