"""A node's own instances: components and containers, whatever labels say, bounded, and told no oftener than is good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hmcore.pool import Candidate, cells, share_out
from hmcore.records import ComponentReport, ComponentState, InstanceHealth
from node_agent.consensus.limits import MAX_COMMAND
from node_agent.consensus.statemachine.commands import PutInstances, encode
from node_agent.container.info import ContainerInfo
from node_agent.registry.own import (
    MOST_BYTES,
    Place,
    bounded,
    component_instances,
    container_instances,
    differ,
    revision,
    unanswered,
)

H = InstanceHealth
PLACE = Place("node1", "10.0.0.1", 7443, "fe5e071ce7da000000")


@pytest.mark.parametrize(
    ("state", "health"),
    [
        (ComponentState.RUNNING, H.HEALTHY),
        (ComponentState.READY, H.HEALTHY),
        (ComponentState.DEGRADED, H.DEGRADED),
        (ComponentState.ERROR, H.UNHEALTHY),
        (ComponentState.STOPPED, H.UNHEALTHY),
        (ComponentState.STOPPING, H.UNHEALTHY),
        (ComponentState.UNINITIALIZED, H.UNKNOWN),
        (ComponentState.INITIALIZING, H.UNKNOWN),
    ],
)
def test_a_component_is_an_instance_of_a_service_of_the_platform(state, health):
    (one,) = component_instances(PLACE, {"consensus": ComponentReport(state=state, error="why")})
    assert (one.id, one.service, one.node, one.port) == ("node1/consensus", "hypermesh/consensus", "node1", 7443)
    assert (one.version, one.health, one.reason) == ("fe5e071ce7da", health, "why")


def web(**given: object) -> ContainerInfo:
    return ContainerInfo(**({"id": "c" * 64, "name": "web-1", "service": "shop/web"} | given))  # type: ignore[arg-type]


def test_a_container_is_an_instance_of_the_service_that_its_label_names():
    labels = {"hypermesh.tags": "blue, edge,,bad tag,edge"}
    (one,) = container_instances(
        PLACE, [web(image="shop:1", address="172.17.0.2", port=80, version="v1", weight=10, priority=2, labels=labels)], ()
    )
    assert (one.id, one.service, one.address, one.port, one.version) == ("node1/web-1", "shop/web", "172.17.0.2", 80, "v1")
    assert (one.weight, one.priority, one.tags, one.health) == (10, 2, ["blue", "edge"], H.HEALTHY)
    assert one.attributes == {"container": "c" * 12, "image": "shop:1"}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"hypermesh.allocation": "shop/web.2.17", "hypermesh.generation": "3"}, {"allocation": "shop/web.2.17", "generation": "3"}),
        ({"hypermesh.allocation": "shop/web.2.17"}, {}),
        ({"hypermesh.allocation": "shop/web.2.17", "hypermesh.generation": "three"}, {}),
        ({"hypermesh.allocation": "shop/web.2.17\n", "hypermesh.generation": "3"}, {}),
        ({"hypermesh.allocation": "x" * 5000, "hypermesh.generation": "3"}, {}),
        ({"hypermesh.generation": "3"}, {}),
    ],
)
def test_a_replica_says_which_one_it_is_and_what_it_is_made_of(labels, told):
    (one,) = container_instances(PLACE, [web(labels=labels)], ())
    assert {name: one.attributes[name] for name in ("allocation", "generation") if name in one.attributes} == told
    (bare,) = container_instances(PLACE, [web(service="web-1", network="host")], ())
    assert (bare.service, bare.address) == ("web-1", "10.0.0.1")


@pytest.mark.parametrize(
    ("given", "address", "health"),
    [
        ({"state": "created"}, "", H.UNKNOWN),
        ({"state": "created", "network": "host"}, "", H.UNKNOWN),
        ({"state": "exited", "address": "172.17.0.3"}, "", H.UNHEALTHY),
        ({"state": "restarting", "address": "172.17.0.3"}, "", H.UNHEALTHY),
        ({"state": "paused", "address": "172.17.0.3"}, "172.17.0.3", H.UNHEALTHY),
        ({"network": "none"}, "", H.UNKNOWN),
        ({"network": "none", "port": 0}, "", H.HEALTHY),
        ({"network": "none", "health": "unhealthy"}, "", H.UNHEALTHY),
        ({"network": "host"}, "10.0.0.1", H.HEALTHY),
        ({"network": f"container:{'e' * 64}"}, "172.17.0.9", H.HEALTHY),
        ({"network": f"container:{'f' * 64}"}, "", H.UNKNOWN),
        ({"network": "container:gone"}, "", H.UNKNOWN),
    ],
)
def test_no_address_is_told_where_nobody_answers_and_none_such_gets_calls(given, address, health):
    others = [web(id="e" * 64, name="proxy", address="172.17.0.9"), web(id="f" * 64, name="ended", address="172.17.0.9", state="exited")]
    found = {one.id: one for one in container_instances(PLACE, [web(**({"port": 80} | given)), *others], ())}
    one = found["node1/web-1"]
    assert (one.address, one.health) == (address, health)
    assert one.port == given.get("port", 80)
    assert share_out(cells([Candidate(one)])).members == ((Candidate(one),) if health is H.HEALTHY else ())


def test_a_container_that_is_not_watched_is_as_well_as_before_and_says_why():
    (seen,) = container_instances(PLACE, [web()], ())
    (one,) = container_instances(PLACE, [web()], (), {"c" * 64: "outside hypermesh.slice (--cgroup-parent)"})
    assert one.attributes == {**seen.attributes, "unwatched": "outside hypermesh.slice (--cgroup-parent)"}
    assert replace(one, attributes=seen.attributes) == seen
    assert differ([seen], [one])


@pytest.mark.parametrize(
    ("state", "check", "health"),
    [
        ("running", "", H.HEALTHY),
        ("running", "healthy", H.HEALTHY),
        ("running", "starting", H.UNKNOWN),
        ("running", "unhealthy", H.UNHEALTHY),
        ("created", "", H.UNKNOWN),
        ("exited", "healthy", H.UNHEALTHY),
        ("paused", "healthy", H.UNHEALTHY),
        ("", "", H.UNHEALTHY),
    ],
)
def test_a_containers_health_is_what_docker_says(state, check, health):
    (one,) = container_instances(PLACE, [web(state=state, health=check)], ())
    assert one.health is health
    assert bool(one.reason) == (health is not H.HEALTHY)


@pytest.mark.parametrize("wanted", ["hypermesh/consensus", "hypermesh/", "a b", "../x", "x" * 300, "a/b/c", ""])
def test_no_label_takes_the_platforms_names_or_breaks_the_grammar(wanted):
    (one,) = container_instances(PLACE, [web(service=wanted)], ())
    assert one.service == "web-1"


def test_a_container_called_like_a_component_is_told_apart():
    found = container_instances(PLACE, [web(name="consensus"), web(name="consensus", id="d" * 64)], {"node1/consensus"})
    assert [one.id for one in found] == ["node1/consensus-cccccccccccc", "node1/consensus-dddddddddddd"]


anything = st.text(max_size=300)
infos = st.builds(
    ContainerInfo,
    id=st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
    name=anything,
    service=anything,
    image=anything,
    state=anything,
    network=anything,
    health=anything,
    version=anything,
    labels=st.dictionaries(st.just("hypermesh.tags"), anything),
)


@given(st.lists(infos, max_size=4, unique_by=lambda info: info.id))
def test_whatever_labels_hold_ids_are_unique_and_of_this_node(containers):
    found = container_instances(PLACE, containers, {"node1/consensus"})
    assert len({one.id for one in found} - {"node1/consensus"}) == len(containers)
    for one in found:
        assert one.id.startswith("node1/")
        assert len(one.id) < 300
        assert one.id.isprintable()
        assert one.service.isprintable()
        assert not one.service.startswith("hypermesh/")
    assert revision(found) == revision(container_instances(PLACE, list(reversed(containers)), {"node1/consensus"}))


def test_what_one_command_cannot_carry_is_left_out_and_counted():
    components = component_instances(PLACE, {"registry": ComponentReport(state=ComponentState.RUNNING)})
    many = container_instances(PLACE, [web(id=f"{n:064x}", name=f"w{n:05}", image="i" * 250) for n in range(3000)], ())
    kept, left_out = bounded([*components, *many])
    assert kept[0] == components[0]
    assert 0 < left_out == 3001 - len(kept)
    command = PutInstances(node="node1", incarnation=2**60, revision=revision(kept), instances=kept)
    assert MOST_BYTES < len(encode(command)) + 1000 < MAX_COMMAND
    assert bounded(components) == (tuple(components), 0)


def test_a_revision_is_63_bits_and_tells_lists_apart():
    components = component_instances(PLACE, {"registry": ComponentReport(state=ComponentState.RUNNING)})
    assert 0 < revision(components) < 2**63
    assert revision(components) == revision(tuple(components)) != revision([])


def test_other_words_are_nothing_to_tell():
    before = component_instances(PLACE, {"a": ComponentReport(state=ComponentState.DEGRADED, error="1 of 3")})
    words = [replace(before[0], reason="2 of 3")]
    assert not differ(before, words)
    assert differ(before, [replace(before[0], health=H.HEALTHY)])
    assert differ(before, [])
    assert differ(before, [replace(before[0], weight=1)])


def test_containers_are_unknown_while_docker_does_not_answer():
    (one,) = unanswered(container_instances(PLACE, [web()], ()))
    assert (one.health, one.reason) == (H.UNKNOWN, "Docker does not answer")
