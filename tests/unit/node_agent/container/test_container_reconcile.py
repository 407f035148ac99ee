"""reconcile: each rule by itself. That it always comes to what is wanted is in test_reconcile_converges.py."""

from __future__ import annotations

import pytest
from docker_model import CLUSTER, IMAGE, NODE, Docker, allocation, done, labels_of, stopped, wanted
from node_model import Node

from hmcore.apps.records import AllocationStatus, Phase
from hmcore.apps.spec import AppSpec, Probe, Restart
from hmcore.errors import ContainerRefused, HyperMeshError, NoSpace, PartGone, PortTaken
from hmcore.records import InstanceHealth
from node_agent.container.actions import Cancel, Kill, Pull, Remove, Run, Start, Stop
from node_agent.container.creation import Wanted
from node_agent.container.memory import KILL_AGAIN, Memory, recalled
from node_agent.container.reconcile import Seen, reconcile, unanswered

WEB = "shop/web.1.7"


def node(*wants: Wanted, images: set[str] | None = None) -> Node:
    return Node(Docker(images={IMAGE} if images is None else images), {want.allocation.id: want for want in wants})


def running(want: Wanted | None = None) -> Node:
    """A node whose one replica runs."""
    made = node(want or wanted(WEB))
    made.settle()
    assert made.statuses[WEB].phase is Phase.RUNNING
    return made


def only(here: Node) -> AllocationStatus:
    return here.statuses[WEB]


def test_what_is_wanted_is_created_started_and_told() -> None:
    here = node(wanted(WEB))
    (action,) = here.round().actions
    assert isinstance(action, Run)
    assert action.name == "shop-web-1-7"
    assert only(here).phase is Phase.STARTING
    assert here.round().actions == ()
    assert only(here) == AllocationStatus(id=WEB, phase=Phase.RUNNING, health=InstanceHealth.HEALTHY, container="c1", since=1000.0)


def test_before_it_is_known_what_is_wanted_nothing_is_an_orphan() -> None:
    docker = Docker()
    docker.put("shop-web-1-7", labels_of(WEB))
    verdict = reconcile(None, Seen(docker.look(), 0, 0.0), Memory(), NODE)
    assert (verdict.actions, verdict.statuses) == ((), {})


def test_a_container_that_runs_already_is_adopted() -> None:
    here = node(wanted(WEB))
    here.docker.put("shop-web-1-7", labels_of(WEB))
    assert here.round().actions == ()
    assert (only(here).phase, only(here).container, only(here).restarts) == (Phase.RUNNING, "c1", 0)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"hypermesh.cluster": CLUSTER},
        {"hypermesh.allocation": WEB},
        labels_of(WEB) | {"hypermesh.cluster": "hm-another"},
        labels_of(""),
    ],
)
@pytest.mark.parametrize("state", ["running", "exited", "created", "dead"])
def test_what_is_not_ours_is_not_touched(labels: dict[str, str], state: str) -> None:
    here = node()
    here.docker.put("anything", labels, state)
    assert here.round().actions == ()


def test_an_orphan_is_stopped_and_removed_and_said_nothing_of() -> None:
    here = node()
    here.docker.put("shop-web-1-7", labels_of(WEB))
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)
    assert here.round().actions == (Remove(WEB, "c1"),)
    assert (here.round().actions, here.docker.containers, here.statuses, here.memory.allocations) == ((), {}, {}, {})


def test_a_container_that_is_deaf_is_killed_when_its_grace_is_over() -> None:
    here = node(stopped(wanted(WEB)))
    here.docker.put("shop-web-1-7", labels_of(WEB) | {"hypermesh.stop-grace": "2.5"}, deaf=True)
    assert here.round().actions == (Stop(WEB, "c1", 2.5),)
    assert here.round().actions == ()
    assert (here.wake, only(here).phase) == (here.now + 2.5, Phase.STOPPING)
    here.now += 2.5
    assert here.round().actions == (Kill(WEB, "c1"),)
    here.settle()
    assert (here.docker.containers, only(here).phase, only(here).container) == ({}, Phase.DONE, "")


def test_an_orphan_that_is_wanted_after_all_has_all_of_its_grace_later() -> None:
    here = node()
    here.docker.put("shop-web-1-7", labels_of(WEB), deaf=True)
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)
    here.wanted[WEB] = wanted(WEB)
    assert here.round().actions == ()
    here.now += 60
    here.wanted[WEB] = stopped(wanted(WEB))
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


def test_one_that_survives_being_killed_is_killed_again() -> None:
    here = node(stopped(wanted(WEB)))
    here.docker.put("shop-web-1-7", labels_of(WEB) | {"hypermesh.stop-grace": "0"}, deaf=True)
    here.round()
    assert here.round().actions == (Kill(WEB, "c1"),)
    here.docker.containers["c1"].state = "running"  # it waits for a disk, say
    assert here.round().actions == ()
    here.now += KILL_AGAIN
    assert here.round().actions == (Kill(WEB, "c1"),)


def test_what_fails_while_it_is_stopped_is_said_and_tried_again() -> None:
    here = node(stopped(wanted(WEB)))
    here.docker.put("shop-web-1-7", labels_of(WEB))
    assert here.round(fault=lambda action: "before").actions == (Stop(WEB, "c1", 10.0),)
    assert here.round().actions == ()
    assert (only(here).phase, only(here).error, here.wake) == (Phase.STOPPING, "Docker does not answer", here.now + 1)
    here.now += 1
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


def test_one_that_is_stopped_and_was_never_started_is_done() -> None:
    here = node(stopped(wanted(WEB)))
    assert here.round().actions == ()
    assert only(here).phase is Phase.DONE


def test_a_stop_lets_go_of_the_pull() -> None:
    here = node(wanted(WEB), images=set())
    assert here.round(hang=lambda action: True).actions == (Pull(WEB, IMAGE),)
    assert here.round().actions == ()
    assert only(here).phase is Phase.PULLING
    here.wanted[WEB] = stopped(here.wanted[WEB])
    assert here.round().actions == (Cancel(WEB),)
    assert here.round().actions == ()
    assert only(here).phase is Phase.DONE


def test_a_pull_that_nobody_wants_any_more_is_let_go_of() -> None:
    here = node(wanted(WEB), images=set())
    here.round(hang=lambda action: True)
    del here.wanted[WEB]
    assert here.round().actions == (Cancel(WEB),)


def test_of_two_containers_the_one_that_runs_stays() -> None:
    here = node(wanted(WEB))
    here.docker.put("copy", labels_of(WEB), "exited", exit_code=0)
    here.docker.put("shop-web-1-7", labels_of(WEB))
    assert here.round().actions == (Remove(WEB, "c1"),)
    assert only(here).container == "c2"


def test_a_container_of_another_revision_goes_before_the_right_one_comes() -> None:
    here = node(wanted(WEB))
    here.docker.put("shop-web-1-7", labels_of(WEB, revision="r0"))
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)
    here.settle()
    assert [container.labels["hypermesh.revision"] for container in here.docker.containers.values()] == ["r1"]


def test_what_was_seen_before_an_action_ended_says_nothing_of_it() -> None:
    here = node(wanted(WEB))
    before = here.look()
    here.round()
    assert here.round(looked=before).actions == ()
    assert (only(here).phase, only(here).restarts) == (Phase.STARTING, 0)  # it is not gone, it was not there yet
    here.docker.end("c1", 1)
    here.settle()
    here.docker.end("c1", 1)
    here.round()
    here.now = here.wake
    ended = here.look()
    here.round()
    assert here.round(looked=ended).actions == ()
    assert only(here).restarts == here.memory.of(WEB).restarts == 2


def test_one_action_at_a_time() -> None:
    here = node(wanted(WEB))
    here.round(hang=lambda action: True)
    assert here.round().actions == ()
    assert only(here).phase is Phase.STARTING


def test_it_waits_for_what_it_depends_on_before_its_first_start_only() -> None:
    here = node(wanted(WEB, waiting="shop/db is not healthy yet"))
    assert here.round().actions == ()
    assert (only(here).phase, only(here).error) == (Phase.WAITING, "shop/db is not healthy yet")
    here.wanted[WEB] = wanted(WEB)
    here.settle()
    here.wanted[WEB] = wanted(WEB, waiting="shop/db is not healthy any more")
    here.docker.end("c1", 1)
    here.settle()
    assert (only(here).phase, only(here).restarts) == (Phase.RUNNING, 1)


def test_without_its_generation_what_runs_runs_on_and_nothing_is_begun() -> None:
    here = node(Wanted(allocation(WEB), None))
    assert here.round().actions == ()
    assert (only(here).phase, only(here).error) == (Phase.WAITING, "its generation is not known here yet")
    here.docker.put("shop-web-1-7", labels_of(WEB))
    assert here.round().actions == ()
    assert only(here).phase is Phase.RUNNING
    here.wanted[WEB] = Wanted(allocation(WEB), AppSpec(services={}))
    assert here.round().actions == ()


# Images


def test_an_image_that_is_missing_is_pulled_first() -> None:
    here = node(wanted(WEB), images=set())
    assert here.round().actions == (Pull(WEB, IMAGE),)
    assert isinstance(here.round().actions[0], Run)


def test_an_image_whose_id_nobody_knew_is_what_the_pull_came_to() -> None:
    here = node(wanted(WEB, image_id=""), images=set())
    (pull,) = here.decide().actions
    assert pull == Pull(WEB, "web:1")
    here.round()
    (run,) = here.decide().actions
    assert isinstance(run, Run)
    assert run.body["Image"] == "web:1"


def test_a_pull_that_fails_is_tried_again_ever_more_rarely_and_never_given_up() -> None:
    here = node(wanted(WEB, restart=Restart(condition="none", attempts=1)), images=set())
    pauses = []
    for _ in range(9):
        assert here.round(fault=lambda action: "before").actions == (Pull(WEB, IMAGE),)
        assert here.round().actions == ()
        assert (only(here).phase, only(here).error) == (Phase.PULLING, "Docker does not answer")
        pauses.append(here.wake - here.now)
        here.now = here.wake
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    here.settle()
    assert (only(here).phase, only(here).error, only(here).restarts) == (Phase.RUNNING, "", 0)


def test_an_image_that_docker_does_not_have_after_all_is_pulled() -> None:
    here = node(wanted(WEB), images=set())
    here.round()
    here.docker.images.clear()  # docker image prune
    assert isinstance(here.round().actions[0], Run)
    here.now += 1
    assert here.round().actions == (Pull(WEB, IMAGE),)
    here.settle()
    assert only(here).phase is Phase.RUNNING


def test_where_docker_calls_an_image_otherwise_it_runs_by_that_and_is_pulled_by_what_all_nodes_call_it() -> None:
    here = node(wanted(WEB), images=set())
    here.docker.called = {IMAGE: "sha256:docker"}
    assert here.round().actions == (Pull(WEB, IMAGE),)
    (run,) = here.round().actions
    assert isinstance(run, Run)
    assert run.body["Image"] == "sha256:docker"
    here.docker.containers.clear()
    here.docker.images.clear()
    for _ in range(20):
        here.now += 60
        if (actions := here.round().actions) and isinstance(actions[0], Pull):
            break
    assert actions == (Pull(WEB, IMAGE),)
    here.settle()
    assert only(here).phase is Phase.RUNNING


# Ends


def test_one_that_ended_is_started_again_after_its_pause_and_that_can_be_seen() -> None:
    here = running()
    here.docker.end("c1", 3)
    assert here.round().actions == ()
    assert (only(here).phase, only(here).exit_code, only(here).error) == (Phase.BACKOFF, 3, "it ended with 3")
    assert here.wake == here.now + 1
    here.now += 1
    assert here.round().actions == (Start(WEB, "c1"),)
    here.round()
    assert (only(here).phase, only(here).exit_code, only(here).error, only(here).restarts) == (Phase.RUNNING, 3, "", 1)


def test_a_crash_loop_is_slowed_down_and_counted() -> None:
    here = running()
    pauses = []
    for _ in range(8):
        here.docker.end("c1", 137)
        here.round()
        pauses.append(here.wake - here.now)
        here.now = here.wake
        here.round()
        here.now += 1
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    assert only(here).error == "it ended with 137 (by signal 9), 8 times in a row"
    here.round()
    assert only(here).restarts == 8


def test_an_end_between_two_looks_is_counted_once_each() -> None:
    here = running()
    for number in range(1, 4):
        here.docker.end("c1", 1)
        here.round()
        here.round()
        here.now = here.wake
        here.round()  # started; it has ended again before anybody looked
        assert here.memory.of(WEB).restarts == number


def test_after_a_long_run_its_earlier_ends_are_forgotten() -> None:
    here = running()
    for ran, pause in ((1, 1), (1, 2), (61, 1), (1, 2)):
        here.now += ran
        here.docker.end("c1", 1)
        here.round()
        assert here.wake - here.now == pause
        here.now = here.wake
        here.round()
        here.round()


@pytest.mark.parametrize(
    ("condition", "exit_code", "phase", "error"),
    [
        ("none", 0, Phase.DONE, ""),
        ("none", 1, Phase.FAILED, "it ended with 1"),
        ("on-failure", 0, Phase.DONE, ""),
        ("on-failure", 1, Phase.BACKOFF, "it ended with 1"),
        ("any", 0, Phase.BACKOFF, "it ended with 0"),
    ],
)
def test_its_policy_says_what_an_end_means(condition: str, exit_code: int, phase: Phase, error: str) -> None:
    here = running(wanted(WEB, restart=Restart(condition=condition)))  # type: ignore[arg-type]
    here.docker.end("c1", exit_code)
    here.round()
    assert (only(here).phase, only(here).error, only(here).exit_code) == (phase, error, exit_code)
    here.now += 3600
    assert bool(here.round().actions) == (phase is Phase.BACKOFF)


def test_attempts_are_counted_and_then_it_is_given_up() -> None:
    here = running(wanted(WEB, restart=Restart(condition="on-failure", delay=1, attempts=2)))
    for _ in range(3):
        here.docker.end("c1", 1)
        here.round()
        here.now += 60
        here.round()
    assert (only(here).phase, only(here).restarts, only(here).error) == (Phase.FAILED, 2, "it ended with 1, 3 times in a row")
    assert here.wake == float("inf")


def test_an_agent_that_starts_again_goes_on_from_what_it_told() -> None:
    here = running(wanted(WEB, restart=Restart(condition="on-failure", attempts=1, delay=1)))
    for _ in range(2):
        here.docker.end("c1", 1)
        here.round()
        here.now += 60
        here.round()
    before = only(here)
    assert before.phase is Phase.FAILED
    here.restart_agent(told=True)
    here.now += 3600
    assert here.round().actions == ()
    assert only(here) == before
    here.docker.containers.clear()  # docker container prune
    assert here.round().actions == ()


def test_a_job_that_the_cluster_knows_is_done_is_not_done_again() -> None:
    here = node(done(wanted(WEB)))
    assert here.round().actions == ()
    assert only(here).phase is Phase.DONE
    here.docker.put("shop-web-1-7", labels_of(WEB))
    assert here.round().actions == ()
    assert only(here).phase is Phase.RUNNING


def test_a_refused_start_counts_as_a_restart_so_that_rollouts_see_it() -> None:
    here = node(wanted(WEB))
    here.docker.broken = ContainerRefused("no")
    for number in range(1, 5):
        assert len(here.round().actions) == 1
        here.round()
        assert (only(here).phase, only(here).restarts) == (Phase.BACKOFF, number)
        here.now = here.wake


def test_of_what_an_agent_told_only_what_lasts_is_recalled() -> None:
    told = AllocationStatus(id=WEB, phase=Phase.BACKOFF, restarts=4, exit_code=9, error="it ended with 9", since=5.0)
    recall = recalled([told]).of(WEB)
    assert (recall.restarts, recall.exit_code, recall.final, recall.error, recall.ended) == (4, 9, None, "", False)


def test_one_that_somebody_removed_comes_back() -> None:
    here = running()
    here.docker.containers.clear()
    here.round()
    assert (only(here).phase, only(here).error) == (Phase.BACKOFF, "its container was removed by somebody")
    here.settle()
    assert (only(here).phase, only(here).restarts) == (Phase.RUNNING, 1)


@pytest.mark.parametrize("code", [0, 143, 137])
@pytest.mark.parametrize("told", [None, True, False])
@pytest.mark.parametrize("condition", ["none", "on-failure", "any"])
def test_a_restart_of_docker_brings_all_back_and_is_no_end_of_theirs(condition: str, told: bool | None, code: int) -> None:
    here = running(wanted(WEB, restart=Restart(condition=condition, attempts=1, delay=90)))  # type: ignore[arg-type]
    for _ in range(3):
        here.docker.restart(code)
        if told is not None:
            here.restart_agent(told=told)
        assert isinstance(here.round().actions[0], Start), "at once"
        assert only(here).phase is Phase.STARTING
        here.settle()
        assert (only(here).phase, only(here).restarts, only(here).exit_code, only(here).error) == (Phase.RUNNING, 0, None, "")


def test_a_job_that_was_done_before_docker_was_restarted_stays_done() -> None:
    here = running(wanted(WEB, restart=Restart(condition="on-failure")))
    here.docker.end("c1", 0)
    here.settle()
    here.docker.restart()
    here.restart_agent(told=True)
    here.settle()
    assert (only(here).phase, here.docker.containers["c1"].starts) == (Phase.DONE, 1)


def test_an_end_by_itself_counts_also_after_docker_was_restarted() -> None:
    here = running(wanted(WEB, restart=Restart(condition="on-failure", delay=1)))
    here.docker.restart()
    here.settle()
    here.docker.end("c1", 3)
    here.round()
    assert (only(here).phase, only(here).exit_code, only(here).error) == (Phase.BACKOFF, 3, "it ended with 3")
    here.settle()
    assert (only(here).phase, only(here).restarts) == (Phase.RUNNING, 1)


def test_a_docker_ends_a_container_once_whatever_the_clocks_say() -> None:
    here = running(wanted(WEB, restart=Restart(condition="any", attempts=1, delay=1)))
    here.docker.restart()
    here.docker.since += 1000  # the clock was put back since Docker was started
    here.settle()
    for _ in range(2):
        here.docker.end("c1", 1)
        here.settle()
    assert (only(here).phase, only(here).exit_code) == (Phase.FAILED, 1)


# Refusals


def test_a_container_that_cannot_be_started_is_tried_as_its_policy_says() -> None:
    here = node(wanted(WEB, restart=Restart(condition="on-failure", attempts=1, delay=1)))
    here.docker.broken = ContainerRefused('exec: "nope": executable file not found in $PATH')
    assert isinstance(here.round().actions[0], Run)
    here.round()
    assert (only(here).phase, only(here).error) == (Phase.BACKOFF, 'exec: "nope": executable file not found in $PATH')
    here.now += 1
    assert here.round().actions == (Start(WEB, "c1"),)
    here.round()
    assert only(here).phase is Phase.FAILED
    assert "executable file not found in $PATH, 2 times in a row" in only(here).error


@pytest.mark.parametrize(("error", "remade"), [(PortTaken("port is already allocated"), False), (PartGone("network x not found"), True)])
def test_a_container_that_something_it_needs_is_gone_for_is_made_anew(error: HyperMeshError, remade: bool) -> None:
    here = running()
    here.docker.end("c1", 1)
    here.docker.broken = error
    here.round()
    here.now += 1
    here.round()
    here.docker.broken = None
    here.settle()
    assert only(here).phase is Phase.RUNNING
    assert ("c1" not in here.docker.containers) == remade


def test_a_full_disk_is_not_the_containers_fault() -> None:
    here = node(wanted(WEB, restart=Restart(condition="none")))
    here.docker.broken = NoSpace("no space left on device")
    for _ in range(20):
        here.round()
        here.now += 60
    assert only(here).error == "no space left on device"
    here.docker.broken = None
    here.settle()
    assert (only(here).phase, only(here).restarts) == (Phase.RUNNING, 0)


def test_a_name_that_is_somebody_elses_is_not_insisted_on() -> None:
    here = node(wanted("a-b/c.1.1"), wanted("a/b-c.1.1"))  # both are called a-b-c-1-1
    here.docker.put("a-b-c-1-1", {})
    here.settle()
    assert all(status.phase is Phase.RUNNING for status in here.statuses.values())
    names = [container.name for container in here.docker.containers.values()]
    assert names[0] == "a-b-c-1-1"
    assert len(set(names)) == 3


def test_trouble_with_starting_does_not_hold_up_stopping() -> None:
    here = node(wanted(WEB))
    here.round(fault=lambda action: "half")
    for _ in range(8):
        here.now += 60
        assert here.round(fault=lambda action: "before").actions == (Start(WEB, "c1"),)
    here.wanted[WEB] = stopped(here.wanted[WEB])
    assert here.round().actions == (Remove(WEB, "c1"),)


def test_what_frees_ports_comes_first() -> None:
    here = node(wanted(WEB), wanted("shop/new.1.8", image_id="sha256:2"))
    here.docker.put("gone", labels_of("shop/old.1.1"), "exited")
    here.docker.put("going", labels_of("shop/old.2.2"))
    assert [type(action) for action in here.decide().actions] == [Stop, Remove, Run, Pull]


# Health


@pytest.mark.parametrize(
    ("said", "health", "error"),
    [
        ("", InstanceHealth.HEALTHY, ""),
        ("healthy", InstanceHealth.HEALTHY, ""),
        ("starting", InstanceHealth.UNKNOWN, ""),
        ("unhealthy", InstanceHealth.UNHEALTHY, "its health check fails"),
    ],
)
def test_docker_says_how_it_is(said: str, health: InstanceHealth, error: str) -> None:
    from dataclasses import replace

    here = running()
    asked, containers = here.look()
    here.decide((asked, {id: replace(container, health=said) for id, container in containers.items()}))
    assert (only(here).health, only(here).error) == (health, error)


def test_where_the_agent_probes_its_word_counts() -> None:
    probe = Probe(kind="tcp", port=8080)
    here = running(wanted(WEB, probe=probe))
    verdict = here.round()
    assert only(here).health is InstanceHealth.UNKNOWN
    (target,) = verdict.targets.values()
    assert (target.address, target.port, target.probe) == ("10.1.0.9", 8080, probe)
    here.healths["c1"] = InstanceHealth.UNHEALTHY, "its health check fails: connection refused"
    here.round()
    assert (only(here).health, only(here).error) == here.healths["c1"]
    here.docker.end("c1", 1)
    assert here.round().targets == {}
    assert only(here).health is InstanceHealth.UNKNOWN


def test_a_paused_one_runs_and_is_not_fit() -> None:
    here = running()
    here.docker.containers["c1"].state = "paused"
    assert here.round().actions == ()
    assert (only(here).phase, only(here).health, only(here).error) == (Phase.RUNNING, InstanceHealth.UNHEALTHY, "it is paused")


def test_while_docker_is_away_nobody_vouches_for_anything() -> None:
    here = running()
    (status,) = unanswered(here.statuses).values()
    assert (status.phase, status.health, status.error) == (Phase.RUNNING, InstanceHealth.UNKNOWN, "Docker does not answer")


@pytest.mark.parametrize("state", ["removing", "", "of the future"])
def test_a_state_that_is_not_understood_is_waited_out(state: str) -> None:
    here = running()
    here.docker.containers["c1"].state = state
    assert here.round().actions == ()
    here.wanted.clear()
    assert here.round().actions == ()
