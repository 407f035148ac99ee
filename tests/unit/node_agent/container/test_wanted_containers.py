"""Which containers get calls, as what: by what their service says now, and by how their agent sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from docker_model import CLUSTER, allocation, labels_of, stopped, wanted
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from hmcore.apps.records import AllocationStatus, Generation, Phase
from hmcore.apps.spec import AppSpec, ContainerSpec, Port, ServiceSpec
from hmcore.records import InstanceHealth
from node_agent.container.creation import Wanted
from node_agent.container.fencing.chain import Permit
from node_agent.container.info import ContainerInfo
from node_agent.container.wanted import permitted, registered, wanted_of

WEB = "shop/web.1.7"
CONTAINER = ContainerInfo(id="c1", name="shop-web-1-7", service="shop/web", labels=labels_of(WEB), address="10.1.0.9", port=80)


def status(phase: Phase = Phase.RUNNING, health: InstanceHealth = InstanceHealth.HEALTHY, container: str = "c1") -> AllocationStatus:
    return AllocationStatus(id=WEB, phase=phase, health=health, container=container)


def seen(want: Wanted | None, said: AllocationStatus | None, info: ContainerInfo = CONTAINER) -> ContainerInfo:
    wants = {} if want is None else {WEB: want}
    return registered({info.id: info}, wants, {} if said is None else {WEB: said})[info.id]


@pytest.mark.parametrize(
    ("told", "health"),
    [
        (status(), "healthy"),
        (status(health=InstanceHealth.DEGRADED), "healthy"),
        (status(health=InstanceHealth.UNHEALTHY), "unhealthy"),
        (status(health=InstanceHealth.UNKNOWN), "starting"),
        (status(Phase.STARTING), "starting"),
        (status(container="c0"), "starting"),  # the one before
        (None, "starting"),
    ],
)
def test_a_replica_is_as_its_agent_sees_it(told: AllocationStatus | None, health: str) -> None:
    for said in ("", "healthy", "unhealthy"):  # whatever Docker's own check finds
        assert seen(wanted(WEB), told, replace(CONTAINER, health=said)).health == health


@pytest.mark.parametrize("told", [status(), status(Phase.STOPPING), None])
def test_what_is_to_stop_and_what_nobody_wants_get_no_calls(told: AllocationStatus | None) -> None:
    assert seen(stopped(wanted(WEB)), told).health == "unhealthy"
    assert seen(None, told).health == "unhealthy"


def test_a_job_that_has_done_its_work_is_no_instance_and_one_that_failed_is_an_unhealthy_one() -> None:
    ended = replace(CONTAINER, state="exited", health="", exit_code=0)
    for code, there in ((0, set[str]()), (1, {"c1"})):
        said = AllocationStatus(id=WEB, phase=Phase.DONE, exit_code=code, container="c1")
        assert set(registered({"c1": ended}, {WEB: wanted(WEB)}, {WEB: said})) == there


def test_weight_priority_and_port_are_those_of_the_service_as_it_is_now() -> None:
    service = ServiceSpec(container=ContainerSpec(image="web:1"), weight=7, priority=2, ports=(Port(target=8080, published=80),))
    found = seen(Wanted(allocation(WEB), AppSpec(services={"web": service})), status(), replace(CONTAINER, weight=100, priority=0))
    assert (found.weight, found.priority, found.port) == (7, 2, 8080)


def test_without_a_published_port_it_is_the_lowest_that_is_exposed_or_the_images() -> None:
    assert seen(wanted(WEB, expose=(9000, 3000)), status()).port == 3000
    assert seen(wanted(WEB), status()).port == CONTAINER.port


def test_what_somebody_started_by_hand_is_as_docker_says() -> None:
    mine = replace(CONTAINER, labels={"hypermesh.cluster": CLUSTER}, health="unhealthy", weight=3)
    assert seen(wanted(WEB), status(), mine) == mine


def test_what_does_not_run_keeps_the_health_that_docker_gives_it() -> None:
    assert seen(wanted(WEB), status(), replace(CONTAINER, state="exited", health="")).health == ""


infos = st.builds(
    lambda labels, state, health: replace(CONTAINER, labels=labels, state=state, health=health),
    st.sampled_from([{}, labels_of(WEB), labels_of("gone/x.1.1")]),
    st.sampled_from(["running", "exited", "paused", "", "odd"]),
    st.sampled_from(["", "healthy", "unhealthy", "starting"]),
)
statuses = st.none() | st.builds(status, st.sampled_from(Phase), st.sampled_from(InstanceHealth), st.sampled_from(["c1", "c0", ""]))
wants = st.none() | st.sampled_from([wanted(WEB), wanted(WEB, stop=True), replace(wanted(WEB), app=None)])


@given(wants, statuses, infos)
def test_only_a_wanted_replica_that_its_agent_found_fit_gets_calls(
    want: Wanted | None, told: AllocationStatus | None, info: ContainerInfo
) -> None:
    found = seen(want, told, info)
    if info.allocation and info.running and found.health in ("", "healthy"):
        assert info.allocation == WEB
        assert want is not None
        assert not want.allocation.stop
        assert told is not None
        assert (told.phase, told.container) == (Phase.RUNNING, "c1")
        assert told.health in (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED)


def test_each_allocation_is_wanted_with_the_spec_of_its_own_generation() -> None:
    made = allocation(WEB)
    later = structs.replace(allocation("shop/web.2.9"), generation=2)
    spec = AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="web:1"))})
    generation = Generation(app="shop", number=1, spec=spec, digest="1")
    found = wanted_of({WEB: made, later.id: later}, {generation.key: generation})
    assert (found[WEB].app, found[later.id].app) == (spec, None)


def test_only_what_is_exclusive_is_bound_to_the_lease() -> None:
    spec = AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="db:1"), exclusive=True)})
    both = {WEB: Wanted(allocation(WEB), spec), "a": wanted(WEB)}
    found = permitted(both, Permit(barred="cut off", held="no lease", lease=9))
    assert (found[WEB].barred, found[WEB].held, found[WEB].lease) == ("cut off", "no lease", 9)
    assert found["a"] == both["a"]
