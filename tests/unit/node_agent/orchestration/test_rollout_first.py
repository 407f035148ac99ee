"""First versions have patience, and a rollout that failed is done once all is right after all (docs/adr/0112)."""

from __future__ import annotations

import pytest
from rollout_scene import Scene, kinds, running, spec

from hmcore.apps.records import Phase, Stage
from hmcore.apps.spec import Dependency, ServiceSpec, Update
from hmcore.records import InstanceHealth
from node_agent.orchestration.rollouts.service import FIRST_ENDS

RIGHT_AFTER = 60.0
ONE = "shop/web.1.1"


def first(**services: ServiceSpec) -> Scene:
    """A first generation whose replicas run and have been seen to."""
    scene = Scene(**services)
    scene.look()
    for id in list(scene.allocations):
        scene.tell(id, Phase.STARTING, InstanceHealth.UNKNOWN)
    scene.look(after=1)
    return scene


def end(scene: Scene, id: str, times: int) -> None:
    scene.tell(id, Phase.BACKOFF, InstanceHealth.UNKNOWN, restarts=times, exit_code=1)


def test_a_first_version_that_has_to_wait_for_what_it_needs_ends_some_times_and_comes_up() -> None:
    """`depends_on: [db]` waits for a start, not until it listens."""
    scene = first(web=spec(replicas=1, depends_on={"db": Dependency()}), db=spec(replicas=1))
    (db,) = scene.live("db")
    scene.tell(db)
    scene.look(after=1)
    (web,) = scene.live("web")
    for times in range(1, FIRST_ENDS + 1):
        end(scene, web, times)
        assert not any(each.subject.startswith("shop/web") for each in scene.look(after=5).events)
    scene.tell(web, restarts=FIRST_ENDS)
    scene.settle()
    state = scene.app.rollouts["web"]
    assert (scene.app.healthy, state.stage, state.failed) == (1, Stage.STEADY, ())


def test_a_first_version_that_goes_on_ending_has_failed() -> None:
    scene = first(web=spec(replicas=1))
    end(scene, ONE, FIRST_ENDS + 1)
    assert kinds(scene.look(after=5)) == ["replica.failed", "rollout.paused"]


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.DONE])
def test_a_first_version_that_is_given_up_has_failed_at_once(phase: Phase) -> None:
    scene = first(web=spec(replicas=1))
    scene.tell(ONE, phase, InstanceHealth.UNKNOWN, exit_code=1)
    assert kinds(scene.look(after=1)) == ["replica.failed", "rollout.paused"]


def test_a_service_that_is_new_to_a_healthy_app_has_patience_and_the_others_have_none() -> None:
    scene = running(web=spec(replicas=1))
    scene.deploy(web=spec("v2", replicas=1), api=spec(replicas=1))
    scene.look()
    scene.obey()
    scene.look()
    (web,), (api,) = scene.live("web"), scene.live("api")
    end(scene, api, FIRST_ENDS)
    assert not scene.look(after=1).events
    end(scene, web, 1)
    assert [(each.kind, each.subject) for each in scene.look(after=1).events] == [("replica.failed", web), ("rollout.paused", "shop/web")]


def paused() -> Scene:
    scene = first(web=spec(replicas=1))
    end(scene, ONE, FIRST_ENDS + 1)
    scene.look(after=1)
    assert scene.app.rollouts["web"].stage is Stage.PAUSED
    scene.tell(ONE, restarts=FIRST_ENDS + 1)
    return scene


def test_what_was_paused_is_done_once_all_of_it_has_been_fit_for_a_while() -> None:
    scene = paused()
    scene.look()
    right = scene.now + RIGHT_AFTER
    assert scene.look(after=RIGHT_AFTER - 1).next == pytest.approx(right), "nothing else makes anybody look"
    decision = scene.look(after=1)
    assert kinds(decision) == ["rollout.done", "app.healthy"]
    assert decision.events[0].message == "all replicas are of generation 1, and have been fit for 60 s"
    state = scene.app.rollouts["web"]
    assert (state.stage, state.failed, state.message, scene.app.healthy) == (Stage.STEADY, (), "", 1)
    assert not scene.look(after=1000).changes


def test_what_ends_again_meanwhile_begins_that_while_anew() -> None:
    scene = paused()
    scene.look()
    scene.look(after=RIGHT_AFTER - 1)
    end(scene, ONE, FIRST_ENDS + 2)
    scene.look(after=2)
    scene.tell(ONE, restarts=FIRST_ENDS + 2)
    scene.look()
    assert not scene.look(after=RIGHT_AFTER - 1).changes
    assert kinds(scene.look(after=1)) == ["rollout.done", "app.healthy"]


def test_a_later_update_that_fails_goes_back_to_what_came_right() -> None:
    scene = paused()
    scene.look()
    scene.look(after=RIGHT_AFTER)
    scene.deploy(web=spec("v2", replicas=1, update=Update(failure_action="rollback")))
    scene.look()
    scene.obey()
    scene.look()
    (new,) = scene.live("web")
    scene.tell(new, Phase.FAILED, InstanceHealth.UNKNOWN, exit_code=1)
    assert kinds(scene.look(after=1)) == ["replica.failed", "app.rollback"]


def test_a_paused_update_of_which_replicas_are_left_to_replace_stays_paused() -> None:
    how = Update()
    scene = running(web=spec(update=how))
    scene.deploy(web=spec("v2", update=how))
    scene.look()
    scene.obey()
    scene.look()
    new = next(id for id in scene.live() if scene.allocations[id].generation == 2)
    end(scene, new, 1)
    assert "rollout.paused" in kinds(scene.look(after=1))
    scene.tell(new, restarts=1)
    scene.look()
    assert not scene.look(after=1000).changes
    assert scene.app.rollouts["web"].stage is Stage.PAUSED


def test_an_app_that_went_on_in_spite_of_failures_is_healthy_once_all_is_right() -> None:
    how = Update(failure_action="continue", monitor=0.0)
    scene = first(web=spec(replicas=1, update=how))
    scene.tell(ONE, Phase.RUNNING, InstanceHealth.UNHEALTHY)
    scene.look(after=1)
    scene.look()
    assert (scene.app.rollouts["web"].stage, scene.app.healthy) == (Stage.STEADY, 0)
    assert not scene.look(after=1000).changes, "it is unhealthy still"
    scene.tell(ONE)
    scene.look()
    assert kinds(scene.look(after=RIGHT_AFTER)) == ["rollout.done", "app.healthy"]
    assert scene.app.healthy == 1
