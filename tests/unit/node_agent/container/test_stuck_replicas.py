"""When a node says that a replica is stuck: what it tries for its first start fails again and again, and through no fault of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from docker_model import IMAGE, Docker, stopped, wanted
from hypothesis import given
from hypothesis import strategies as st
from node_model import Node

from hmcore.apps.records import AllocationStatus, Phase
from hmcore.apps.spec import Restart
from hmcore.errors import (
    BlobBusy,
    BlobStoreFull,
    HyperMeshError,
    ImageUnavailable,
    LayerDown,
    NameTaken,
    NoLease,
    NoSpace,
    PartGone,
    SecretError,
    SecretsLocked,
)
from node_agent.container.actions import Action, Pull, Run
from node_agent.container.creation import Wanted
from node_agent.container.hindrance import FREE, LASTING, TRIES, Hindrance
from node_agent.container.memory import recalled
from node_agent.container.reconcile import unanswered

WEB = "shop/web.1.7"
NOBODY = ImageUnavailable("nobody has it")


def node(want: Wanted | None = None, *, lacking: HyperMeshError | None = None, broken: HyperMeshError | None = None) -> Node:
    """Its replica gets no image, or cannot be started."""
    docker = Docker(images=set() if lacking else {IMAGE}, lacking=lacking, broken=broken)
    return Node(docker, {WEB: want or wanted(WEB)})


def only(here: Node) -> AllocationStatus:
    return here.statuses[WEB]


def go_on(here: Node, seconds: float, until: Callable[[], bool] = lambda: False, **options: Callable[[Action], str]) -> bool:
    """Rounds as they come due, for so long, or until it is so. Whether it is."""
    end = here.now + seconds
    while True:
        here.round(**options)  # type: ignore[arg-type]
        here.round(**options)  # type: ignore[arg-type]
        if until() or here.now >= end:
            return until()
        here.now = min(end, max(here.wake, here.now + 0.1))


@pytest.mark.parametrize("error", [NOBODY, BlobStoreFull("no room"), BlobBusy("busy"), NoSpace("full"), SecretError("another value")])
def test_a_replica_that_never_gets_its_image_is_stuck_after_half_a_minute_and_says_why(error: HyperMeshError) -> None:
    here = node(lacking=error)
    assert not go_on(here, LASTING - 1, lambda: only(here).stuck)
    assert go_on(here, 10, lambda: only(here).stuck)
    assert (only(here).phase, only(here).error, only(here).restarts) == (Phase.PULLING, error.message, 0)
    pulls = here.docker.calls.count("Pull")
    go_on(here, 200)
    assert only(here).stuck
    assert here.docker.calls.count("Pull") > pulls, "it is tried on"
    here.docker.lacking = None
    here.settle()
    assert (only(here).phase, only(here).stuck, only(here).error) == (Phase.RUNNING, False, "")


@pytest.mark.parametrize("error", [NoSpace("no space left"), PartGone("its volume data is not on this node"), NameTaken("in use")])
def test_a_replica_whose_container_cannot_be_made_through_no_fault_of_its_own_is_stuck_too(error: HyperMeshError) -> None:
    here = node(broken=error)
    assert not go_on(here, LASTING - 1, lambda: only(here).stuck)
    assert go_on(here, 35, lambda: only(here).stuck)
    assert (only(here).error, only(here).restarts) == (error.message, 0)
    here.docker.broken = None
    here.settle()
    assert (only(here).phase, only(here).stuck) == (Phase.RUNNING, False)


def test_an_image_that_is_pulled_and_gone_again_each_time_is_no_progress() -> None:
    here, began = node(), 1000.0
    while not here.statuses or not only(here).stuck:
        here.docker.images.clear()
        here.round()
        here.now += 0.5
        assert here.now < began + 2 * LASTING
    assert here.now >= began + LASTING
    assert here.docker.calls.count("Pull") > TRIES
    assert "No such image" in only(here).error


def test_a_pull_that_came_to_its_end_is_progress() -> None:
    here = node(lacking=NOBODY)
    go_on(here, LASTING - 5)
    here.docker.lacking, here.docker.broken = None, NoSpace("no space left")
    assert not go_on(here, LASTING, lambda: only(here).stuck)
    assert go_on(here, 40, lambda: only(here).stuck)


def test_a_pull_that_is_under_way_is_not_stuck_however_long_it_takes() -> None:
    here = node(lacking=NOBODY)
    here.round(hang=lambda action: True)
    here.now += 100 * LASTING
    here.round()
    assert (only(here).phase, only(here).stuck) == (Phase.PULLING, False)
    here.answer()  # and then it fails: once
    here.round()
    assert not only(here).stuck
    assert go_on(here, LASTING + 10, lambda: only(here).stuck)
    here.now = here.wake
    here.round(hang=lambda action: True)
    here.now += 1
    here.round()
    assert not only(here).stuck, "this one may succeed"


@pytest.mark.parametrize("error", [LayerDown("Docker does not answer"), NoLease("cut off"), SecretsLocked("no control node gives it")])
def test_that_docker_or_the_control_nodes_are_away_is_never_held_against_it(error: HyperMeshError) -> None:
    here = node(lacking=error)
    assert not go_on(here, 20 * LASTING, lambda: only(here).stuck)


def test_a_restart_of_docker_in_between_begins_anew() -> None:
    here = node(lacking=NOBODY)
    go_on(here, LASTING - 1)
    go_on(here, LASTING, fault=lambda action: "before")
    assert not go_on(here, LASTING - 1, lambda: only(here).stuck)


def test_while_docker_is_away_nobody_is_called_stuck() -> None:
    here = node(lacking=NOBODY)
    assert go_on(here, LASTING + 10, lambda: only(here).stuck)
    (status,) = unanswered(here.statuses).values()
    assert (status.stuck, status.error) == (False, "Docker does not answer")


def test_to_wait_for_others_is_not_to_be_stuck() -> None:
    here = node(lacking=NOBODY)
    assert go_on(here, LASTING + 10, lambda: only(here).stuck)
    here.wanted[WEB] = replace(here.wanted[WEB], waiting="db is not healthy yet")
    go_on(here, LASTING)
    assert (only(here).phase, only(here).stuck) == (Phase.WAITING, False)
    here.wanted[WEB] = replace(here.wanted[WEB], waiting="")
    assert not go_on(here, LASTING - 1, lambda: only(here).stuck), "it begins anew"


def test_one_that_ran_before_is_not_stuck_but_started_again() -> None:
    here = node()
    here.settle()
    here.docker.end(only(here).container, 1)
    here.docker.broken = NoSpace("no space left")
    assert not go_on(here, 10 * LASTING, lambda: only(here).stuck)
    assert (only(here).phase, only(here).restarts) == (Phase.BACKOFF, 1)


def test_one_that_is_to_stop_is_not_stuck() -> None:
    here = node(lacking=NOBODY)
    assert go_on(here, LASTING + 10, lambda: only(here).stuck)
    here.wanted[WEB] = stopped(here.wanted[WEB])
    here.round()
    assert (only(here).phase, only(here).stuck) == (Phase.DONE, False)


def test_an_agent_that_starts_again_counts_anew() -> None:
    here = node(lacking=NOBODY)
    assert go_on(here, LASTING + 10, lambda: only(here).stuck)
    here.memory = recalled(here.statuses.values())
    assert not go_on(here, LASTING - 1, lambda: only(here).stuck)
    assert go_on(here, 10, lambda: only(here).stuck)


failures = st.sampled_from([NOBODY, NoSpace("full"), LayerDown("Docker does not answer"), SecretsLocked("nobody")])


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 5.0, 14.0, 29.0, 30.0]), failures), max_size=12))
def test_it_lasts_if_and_only_if_enough_tries_failed_for_long_enough_with_nothing_else_in_between(steps) -> None:
    now, found = 1000.0, FREE
    row: list[float] = []
    for pause, error in steps:
        now += pause
        found = found.after(error, now)
        row = [*row, now] if isinstance(error, ImageUnavailable | NoSpace) else []
        assert found.lasting == (len(row) >= TRIES and row[-1] - row[0] >= LASTING)
    assert found == (Hindrance(len(row), row[0], row[-1]) if row else FREE)


happenings = st.sampled_from(["round", "hang", "answer", "full", "room", "agent", "prune", "1", "8", "31", "end"])


@given(st.data(), st.lists(happenings, max_size=40))
def test_whatever_happens_only_what_never_ran_is_stuck_never_during_a_pull_and_it_comes_up_once_it_can(data: st.DataObject, steps) -> None:
    here = Node(Docker(), {WEB: wanted(WEB, restart=Restart(delay=1.0))})
    for step in steps:
        match step:
            case "round":
                here.round(fault=lambda action: data.draw(st.sampled_from(["", "", "before", "half"])))
            case "hang":
                here.round(hang=lambda action: isinstance(action, Pull | Run))
            case "answer" if here.under_way:
                here.answer()
            case "full":
                here.docker.lacking = here.docker.broken = NoSpace("full")
            case "room":
                here.docker.lacking = here.docker.broken = None
            case "agent":
                here.restart_agent(told=data.draw(st.booleans()))
            case "prune":
                here.docker.images.clear()
            case "end":
                for made in [made for made in here.docker.containers.values() if made.state == "running"]:
                    here.docker.end(made.id, 1)
            case "1" | "8" | "31":
                here.now += float(step)
        if step in ("round", "hang"):
            acting = here.memory.of(WEB).acting
            here.decide()
            if only(here).stuck:
                assert not any(made.starts for made in here.docker.containers.values())
                assert not isinstance(acting, Pull)
                assert only(here).phase in (Phase.PULLING, Phase.STARTING, Phase.BACKOFF)
                assert only(here).error
    here.docker.lacking = here.docker.broken = None
    here.settle()
    assert (only(here).phase, only(here).stuck) == (Phase.RUNNING, False)
