"""A replica that is to stop has its stop signal only once nobody is led to it any more, and soon in any case."""

from __future__ import annotations

import math

import pytest
from docker_model import IMAGE, Docker, stopped, wanted
from hypothesis import given
from hypothesis import strategies as st
from node_model import Node

from hmcore.apps.records import Phase
from hmcore.records import ALLOCATION, Instance, InstanceHealth, Registration
from node_agent.container.actions import Kill, Remove, Stop
from node_agent.container.creation import NodeFacts
from node_agent.container.draining import MOST, Drain, drained
from node_agent.container.wanted import known_fit

MARGIN = NodeFacts("hm-a").margin
WEB, OTHER = "shop/web.1.7", "shop/web.2.8"


def running(*ids: str) -> Node:
    """Its replicas run, and the cluster knows."""
    here = Node(Docker(images={IMAGE}), {id: wanted(id) for id in ids})
    here.settle()
    here.fit = set(ids)
    return here


def stop(here: Node, id: str = WEB) -> None:
    here.wanted[id] = stopped(here.wanted[id])


def test_it_is_told_as_stopping_at_once_and_stopped_once_the_cluster_knows_it_as_unfit() -> None:
    here = running(WEB)
    stop(here)
    assert here.round().actions == ()
    assert (here.statuses[WEB].phase, here.statuses[WEB].health) == (Phase.STOPPING, InstanceHealth.UNKNOWN)
    assert here.wake == here.now + MOST
    here.now += 0.05
    assert here.fit is not None
    here.fit.clear()
    assert here.round().actions == ()
    assert here.wake == here.now + MARGIN
    here.now += MARGIN - 0.001
    assert here.round().actions == ()
    here.now = here.wake
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)
    here.settle()
    assert here.docker.containers == {}


def test_a_cluster_that_does_not_come_to_know_it_is_not_waited_for_for_long() -> None:
    here = running(WEB)
    stop(here)
    began = here.now
    here.round()
    here.now = began + MOST - 0.01
    assert here.round().actions == ()
    here.now = began + MOST
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


def test_knowledge_that_comes_late_does_not_make_it_longer() -> None:
    here = running(WEB)
    stop(here)
    began = here.now
    here.round()
    here.now, here.fit = began + MOST - MARGIN / 2, set()
    here.round()
    assert here.wake == began + MOST


def test_where_nobody_leads_it_is_stopped_at_once() -> None:
    here = running(WEB)
    here.fit = None
    stop(here)
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


@pytest.mark.parametrize("known", [set(), {OTHER}])
def test_one_that_is_known_as_unfit_at_the_first_look_may_have_come_to_be_so_by_this_very_stop(known: set[str]) -> None:
    here = running(WEB)
    here.fit = known
    stop(here)
    assert here.round().actions == ()
    assert here.wake == here.now + MARGIN
    here.now = here.wake
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


def test_a_cluster_that_loses_its_leader_meanwhile_is_not_waited_for() -> None:
    here = running(WEB)
    stop(here)
    assert here.round().actions == ()
    here.fit = None
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


def test_an_orphan_waits_too() -> None:
    here = running(WEB)
    del here.wanted[WEB]
    assert here.round().actions == ()
    here.fit = set()
    here.round()
    here.now = here.wake
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


def test_to_what_names_no_port_nobody_is_led() -> None:
    here = running(WEB)
    here.docker.containers["c1"].serves = False
    stop(here)
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


def test_that_it_runs_no_more_is_told_before_it_is_removed() -> None:
    here = running(WEB)
    stop(here)
    here.round()
    assert not here.statuses[WEB].stopped
    here.docker.end("c1", 0)
    assert here.round().actions == (Remove(WEB, "c1"),)
    assert (here.statuses[WEB].phase, here.statuses[WEB].stopped) == (Phase.STOPPING, True)
    here.settle()
    assert (here.statuses[WEB].phase, here.statuses[WEB].stopped) == (Phase.DONE, False)


def test_what_has_ended_meanwhile_is_removed_without_more_ado() -> None:
    here = running(WEB)
    stop(here)
    here.round()
    here.docker.end("c1", 0)
    assert here.round().actions == (Remove(WEB, "c1"),)


def test_once_it_has_had_its_signal_the_cluster_changes_nothing_any_more() -> None:
    here = running(WEB)
    here.docker.containers["c1"].deaf = True
    here.fit = set()
    stop(here)
    here.round()
    here.now = here.wake
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)
    here.fit = {WEB}
    assert here.round().actions == ()
    assert here.wake == here.now + 10.0
    here.now = here.wake
    assert here.round().actions == (Kill(WEB, "c1"),)


def test_one_that_is_wanted_again_runs_on_and_is_drained_anew_another_time() -> None:
    here = running(WEB)
    stop(here)
    here.round()
    here.wanted[WEB] = wanted(WEB)
    here.now += 10 * MOST
    assert here.round().actions == ()
    assert here.statuses[WEB].phase is Phase.RUNNING
    stop(here)
    assert here.round().actions == ()
    assert here.wake == here.now + MOST


def test_of_several_each_waits_for_itself() -> None:
    here = running(WEB, OTHER)
    stop(here)
    stop(here, OTHER)
    here.round()
    here.fit = {OTHER}
    here.round()
    here.now = here.wake
    assert here.round().actions == (Stop(WEB, "c1", 10.0),)


looks = st.lists(st.tuples(st.floats(0.0, 1.0), st.none() | st.booleans()), min_size=1, max_size=20)


@given(looks)
def test_it_never_waits_longer_than_most_and_never_shorter_than_the_margin(happening: list[tuple[float, bool | None]]) -> None:
    now, drain = 100.0, None
    first_unfit: float | None = None
    for step, fit in happening:
        now += step
        drain = drained(drain, fit=fit, now=now, margin=MARGIN)
        if fit is False and first_unfit is None:
            first_unfit = now
        began = 100.0 + happening[0][0]
        assert drain.due <= began + MOST
        if all(each is not None for _, each in happening):
            assert drain.due == min(began + MOST, math.inf if first_unfit is None else first_unfit + MARGIN)
        elif happening[0][1] is None:
            assert drain.due < now


def test_drains_are_as_they_were_when_the_cluster_shows_an_older_list_again() -> None:
    drain = drained(drained(None, fit=True, now=1.0, margin=MARGIN), fit=False, now=1.5, margin=MARGIN)
    assert drained(drain, fit=True, now=1.6, margin=MARGIN) == drain == Drain(1.0, 1.5, MARGIN)


@pytest.mark.parametrize("health", InstanceHealth)
def test_whom_the_cluster_leads_to_is_read_from_what_is_registered(health: InstanceHealth) -> None:
    made = Instance(id="node1/a", service="shop/web", node="node1", address="10.1.0.9", health=health, attributes={ALLOCATION: WEB})
    by_hand = Instance(id="node1/b", service="b", node="node1", address="10.1.0.8", health=health)
    registration = Registration(revision=1, incarnation=1, instances=(made, by_hand))
    fit = health in (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED)
    assert known_fit(registration) == ({WEB} if fit else set())
    assert known_fit(None) == set()
    assert known_fit(Registration(revision=1, incarnation=1, instances=(made,), expired="not renewed for 60 s")) == set()
