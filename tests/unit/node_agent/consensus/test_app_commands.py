"""What commands about apps do to the replicated state."""

from __future__ import annotations

import msgspec
import pytest
from committing import AUTHOR, WHEN, node, run
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hmcore.apps.records import Allocation, AllocationStatus, Machine, Phase, Rollout, Stage, Subnet, allocation_id
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import (
    AdmitNode,
    PlanApp,
    PutApp,
    PutStatuses,
    PutSubnet,
    RestartApp,
    ScaleApp,
    Stop,
    StopApp,
    Told,
)
from node_agent.consensus.statemachine.commands import (
    Applied,
    Command,
    FormCluster,
    Refused,
    RemoveNode,
)
from node_agent.consensus.statemachine.effects.apps import KEPT_GENERATIONS
from node_agent.consensus.statemachine.machine import restore, snapshot
from node_agent.consensus.statemachine.state import State, digest


def web(replicas: int = 2, image: str = "web:1") -> AppSpec:
    return AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image=image), replicas=replicas)})


def begun(*commands: Command, level: int = levels.LATEST) -> State:
    return run(State(), FormCluster(id="hm-a", bootstrap="b1", level=level), node("node1"), node("node2"), *commands)[0]


def replica(slot: int, node: str = "node1", serial: int = 1, generation: int = 1) -> Allocation:
    id = allocation_id("shop", "web", slot, serial)
    return Allocation(id=id, app="shop", service="web", slot=slot, node=node, generation=generation, revision="r")


def plan(state: State, **named: object) -> PlanApp:
    app = state.apps["shop"]
    return msgspec.structs.replace(PlanApp(app="shop", basis=app.index, rollouts=app.rollouts, healthy=app.healthy), **named)


def test_each_other_spec_is_a_generation():
    state, result = run(begun(), PutApp(name="shop", spec=web(), note="first"))
    assert result == Applied(revision=1)
    app, made = state.apps["shop"], state.generations["shop@1"]
    assert (app.generation, app.healthy, app.rollouts) == (1, 0, {})
    assert (made.spec, made.author, made.unix_time, made.note) == (web(), AUTHOR, WHEN, "first")
    assert state.events[-1].kind == "app.deployed"
    assert run(state, PutApp(name="shop", spec=web()))[1] == Applied(changed=False, revision=1)
    assert run(state, PutApp(name="shop", spec=web(3)))[1] == Applied(revision=2)


def test_who_saw_another_generation_is_refused():
    state = begun(PutApp(name="shop", spec=web()))
    _, result = run(state, PutApp(name="shop", spec=web(3), expect=0))
    assert result == Refused("shop is at generation 1 by now, not 0", revision=1)
    assert run(state, PutApp(name="shop", spec=web(3), expect=1))[1] == Applied(revision=2)


def test_bringing_back_a_generation_makes_a_new_one_even_of_the_same_spec():
    state, result = run(begun(PutApp(name="shop", spec=web())), PutApp(name="shop", spec=web(), origin=1))
    assert (result, state.generations["shop@2"].origin) == (Applied(revision=2), 1)


def test_scaling_changes_the_numbers_only():
    state, result = run(begun(PutApp(name="shop", spec=web(2))), ScaleApp(name="shop", replicas={"web": 5}))
    assert (result, state.generations["shop@2"].spec) == (Applied(revision=2), web(5))
    assert run(state, ScaleApp(name="shop", replicas={"web": 5}))[1] == Applied(changed=False, revision=2)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (ScaleApp(name="shop", replicas={"db": 1}), "shop has no service db"),
        (ScaleApp(name="blog", replicas={"web": 1}), "there is no app blog"),
        (RestartApp(name="shop", services=("db",)), "shop has no service db"),
        (RestartApp(name="blog"), "there is no app blog"),
    ],
)
def test_what_is_not_there_is_refused(command, why):
    assert run(begun(PutApp(name="shop", spec=web())), command)[1] == Refused(why)


def test_a_global_service_is_not_scaled():
    spec = AppSpec(services={"agent": ServiceSpec(container=ContainerSpec(image="a"), mode="global")})
    _, result = run(begun(PutApp(name="shop", spec=spec)), ScaleApp(name="shop", replicas={"agent": 2}))
    assert result == Refused("shop/agent is global: it runs once on every node that fits")


def test_of_an_exclusive_service_there_is_one():
    spec = AppSpec(services={"db": ServiceSpec(container=ContainerSpec(image="a"), exclusive=True)})
    state, result = run(begun(PutApp(name="shop", spec=spec)), ScaleApp(name="shop", replicas={"db": 2}))
    assert result == Refused("shop/db is exclusive: never two of it run at a time")
    state, _ = run(state, ScaleApp(name="shop", replicas={"db": 0}))
    assert run(state, ScaleApp(name="shop", replicas={"db": 1}))[1] == Applied(changed=True, revision=3)


@pytest.mark.parametrize("several", [{"replicas": 2}, {"mode": "global"}])
def test_what_is_exclusive_begins_with_no_more_than_one(several):
    spec = AppSpec(services={"db": ServiceSpec(container=ContainerSpec(image="a"), exclusive=True, **several)})
    for origin in (0, 1):
        state, result = run(begun(PutApp(name="blog", spec=web())), PutApp(name="shop", spec=spec, origin=origin))
        assert result == Refused("shop/db is exclusive: never two of it run at a time")
        assert "shop" not in state.apps


def test_a_wanted_restart_is_counted_and_rolls():
    state = begun(PutApp(name="shop", spec=web()))
    state, _ = run(state, plan(state, rollouts={"web": Rollout(stage=Stage.STEADY)}), RestartApp(name="shop"))
    assert (state.apps["shop"].restarts, state.apps["shop"].rollouts) == ({"web": 1}, {})


def test_a_plan_starts_stops_and_forgets():
    state = begun(PutApp(name="shop", spec=web()))
    one, two = replica(1, serial=1), replica(2, "node2", 2)
    told = Told(kind="app.healthy", subject="shop", message="all replicas are fit")
    state, result = run(state, plan(state, starts=(one, two), events=(told,)))
    assert result == Applied()
    assert {key: each.index for key, each in state.allocations.items()} == {"node1/shop/web.1.1": 5, "node2/shop/web.2.2": 5}
    assert (state.apps["shop"].serial, state.events[-1].kind) == (2, "app.healthy")
    state, _ = run(state, plan(state, stops=(Stop(key=one.key, reason="surplus"),), healthy=1))
    stopped = state.allocations[one.key]
    assert (stopped.stop, stopped.reason, state.apps["shop"].healthy) == (True, "surplus", 1)
    state, _ = run(state, plan(state, forgets=(one.key,)))
    assert set(state.allocations) == {two.key}


def test_a_plan_brings_back_what_was_healthy():
    state = begun(PutApp(name="shop", spec=web(1)))
    state, _ = run(state, plan(state, healthy=1), PutApp(name="shop", spec=web(2)))
    assert (state.generations["shop@1"].reached, state.generations["shop@2"].reached) == (True, False)
    state, result = run(state, plan(state, back_to=1, note="generation 2 failed"))
    made = state.generations["shop@3"]
    assert (result, made.spec, made.origin, made.note) == (Applied(revision=3), web(1), 1, "generation 2 failed")
    assert (state.apps["shop"].generation, state.apps["shop"].healthy) == (3, 1)
    assert run(state, plan(state, back_to=9))[1] == Refused("shop has no generation 9")


def test_what_ended_well_is_noted():
    state = begun(PutApp(name="shop", spec=web()))
    state, _ = run(state, plan(state, starts=(replica(1),)))
    state, _ = run(state, plan(state, done=(replica(1).key,)))
    assert state.allocations[replica(1).key].done


def test_a_plan_from_before_a_change_is_refused_as_a_whole():
    state = begun(PutApp(name="shop", spec=web()))
    stale = plan(state, starts=(replica(1),))
    state, result = run(state, ScaleApp(name="shop", replicas={"web": 7}), stale)
    assert (result, state.allocations) == (Refused("shop has changed since the plan was made"), {})
    again = plan(state, starts=(replica(1),))
    assert run(state, again, again)[1] == Refused("shop has changed since the plan was made")


@pytest.mark.parametrize(
    "wrong",
    [
        {"starts": (replica(1, "node9"),)},
        {"starts": (replica(1, generation=9),)},
        {"starts": (replace(replica(1), app="blog"),)},
        {"stops": (Stop(key="node1/shop/web.9.9", reason="x"),)},
        {"forgets": ("node1/shop/web.9.9",)},
    ],
)
def test_a_plan_about_what_is_not_there_changes_nothing(wrong):
    state = begun(PutApp(name="shop", spec=web()))
    after, result = run(state, plan(state, **wrong))
    assert isinstance(result, Refused)
    assert (after.apps, after.allocations) == (state.apps, state.allocations)


def test_an_app_is_forgotten_once_nothing_is_left_of_it():
    state = begun(PutApp(name="shop", spec=web()))
    state, _ = run(state, plan(state, starts=(replica(1),)), StopApp(name="shop"))
    assert isinstance(run(state, PutApp(name="shop", spec=web(9)))[1], Refused)
    assert run(state, plan(state, gone=True))[1] == Refused("shop still has 1 allocations")
    state, result = run(state, plan(state, forgets=(replica(1).key,), gone=True))
    assert (result, state.apps, state.generations, state.allocations) == (Applied(), {}, {}, {})


def test_old_generations_are_forgotten_but_for_those_in_use():
    state = begun(PutApp(name="shop", spec=web(1)))
    state, _ = run(state, plan(state, starts=(replica(1),), healthy=1))
    for number in range(2, 2 * KEPT_GENERATIONS):
        state, _ = run(state, PutApp(name="shop", spec=web(number)))
    numbers = sorted(each.number for each in state.generations.values())
    assert numbers == [1, *range(KEPT_GENERATIONS, 2 * KEPT_GENERATIONS)]


def test_subnets_are_given_once_and_to_one_node():
    state, result = run(begun(), PutSubnet(subnet=Subnet(node="node1", cidr="10.210.0.0/24")))
    assert (result, state.subnets["node1"].cidr) == (Applied(), "10.210.0.0/24")
    assert run(state, PutSubnet(subnet=Subnet(node="node1", cidr="10.210.0.0/24")))[1] == Applied(changed=False)
    for other in (
        Subnet(node="node2", cidr="10.210.0.0/24"),
        Subnet(node="node1", cidr="10.210.1.0/24"),
        Subnet(node="x", cidr="10.210.2.0/24"),
    ):
        assert isinstance(run(state, PutSubnet(subnet=other))[1], Refused)


def test_a_removed_node_takes_all_with_it():
    state = begun(PutApp(name="shop", spec=web()), PutSubnet(subnet=Subnet(node="node1", cidr="10.210.0.0/24")))
    status = AllocationStatus(id=replica(1).id, phase=Phase.RUNNING)
    told = PutStatuses(node="node1", incarnation=1, allocations=(status,), machine=Machine(node="node1", cpus=2000))
    state, _ = run(state, plan(state, starts=(replica(1), replica(2, "node2", 2))), told)
    assert state.statuses["node1/"].allocations == (status,)
    assert state.machines["node1"].cpus == 2000
    state, _ = run(state, RemoveNode(name="node1"))
    assert (set(state.allocations), state.statuses, state.machines, state.subnets) == ({"node2/shop/web.2.2"}, {}, {}, {})


def test_below_their_level_apps_leave_no_trace():
    state = begun(PutApp(name="shop", spec=web()), level=levels.TRUSTED)
    status = AllocationStatus(id="x", phase=Phase.RUNNING)
    state, _ = run(state, PutStatuses(node="node1", incarnation=1, allocations=(status,), machine=Machine(node="node1", cpus=2000)))
    assert (state.apps, state.statuses) == ({}, {})
    assert b"machines" not in snapshot(state)
    assert b"allocations" not in snapshot(state)


@given(st.lists(st.integers(1, 9), max_size=12))
def test_a_snapshot_brings_all_of_it_back(numbers):
    state = begun(PutApp(name="shop", spec=web(1)), PutSubnet(subnet=Subnet(node="node1", cidr="10.210.0.0/24")))
    for serial, number in enumerate(numbers, 1):
        state, _ = run(state, PutApp(name="shop", spec=web(number)))
        state, _ = run(state, plan(state, starts=(replica(number, serial=serial, generation=state.apps["shop"].generation),)))
    again = restore(snapshot(state))
    assert (again.apps, again.generations, again.allocations) == (state.apps, state.generations, state.allocations)
    assert again.digest == digest(again)


def exclusive(replicas: int = 1) -> AppSpec:
    return AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="db:1"), replicas=replicas, exclusive=True)})


def test_a_plan_made_before_a_node_was_admitted_is_refused():
    state = begun(PutApp(name="shop", spec=exclusive()), PutApp(name="blog", spec=web()))
    state, _ = run(state, plan(state, starts=(replica(1),)))
    planned = plan(state, starts=(replica(1, "node2", serial=2),), stops=(Stop(key=replica(1).key, reason="lost"),))
    other = state.apps["blog"]
    state, result = run(state, AdmitNode(node="node1"))
    assert result == Applied(changed=True)
    assert run(state, planned)[1] == Refused("shop has changed since the plan was made")
    assert state.apps["blog"] == other
    assert state.statuses["node1/"].index == state.index, "what the node follows tells it of this"
    assert run(state, AdmitNode(node="node2"))[1] == Applied(changed=False)
    assert run(state, AdmitNode(node="node9"))[1] == Refused("there is no node node9")


def test_what_is_exclusive_outlives_the_removal_of_its_node():
    """It may run there until it is fenced, and must not be started elsewhere before."""
    state = begun(PutApp(name="shop", spec=exclusive()), PutApp(name="blog", spec=web()))
    other = replace(replica(1), id="blog/web.1.1", app="blog")
    state, _ = run(state, plan(state, starts=(replica(1),)))
    state, _ = run(state, replace(plan(state, starts=(other,)), app="blog", basis=state.apps["blog"].index))
    assert len(state.allocations) == 2
    state, _ = run(state, RemoveNode(name="node1"))
    assert list(state.allocations) == [replica(1).key]
    state, result = run(state, plan(state, forgets=(replica(1).key,)))
    assert (result, state.allocations) == (Applied(), {})
