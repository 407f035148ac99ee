"""Where replicas go, case by case. Over everything that there could be: test_scheduler_invariants.py."""

from __future__ import annotations

from collections import Counter

import pytest
from placing import GIB, as_placed, candidate, nodes, placed, replicas, request, service, where

from hmcore.apps.constraints import Platform
from hmcore.apps.explanation import Filter
from hmcore.apps.spec import AppSpec, ContainerSpec, Mount, Port, ServiceSpec, Volume
from hmcore.records import NodeState, Role
from node_agent.orchestration.scheduler import eligible, plan
from node_agent.orchestration.scheduling.model import Assignment, Pending, volumes_of
from node_agent.orchestration.scheduling.needs import bound

HTTP = Port(target=8080, published=80)
HOST = Port(target=8080, published=80, mode="host")
DATA = Volume(name="shop_data")


def counts(outcomes) -> Counter:
    return Counter(each.node for each in outcomes if isinstance(each, Assignment))


def why(candidates, there, asked, homes=None):
    """The explanation of the one that waits."""
    (outcome,) = plan(candidates, there, [asked], homes or {})
    assert isinstance(outcome, Pending), outcome
    return outcome.explanation


def only(candidates, there, asked, homes=None) -> str:
    (outcome,) = plan(candidates, there, [asked], homes or {})
    assert isinstance(outcome, Assignment), outcome.explanation.text
    return outcome.node


def test_replicas_are_spread_over_nodes():
    assert sorted(counts(plan(nodes(3), [], replicas(7), {})).values()) == [2, 2, 3]


def test_nobody_to_ask():
    outcome = why([], [], request())
    assert outcome.text == "there are no nodes"


def test_what_was_placed_counts_and_stays():
    there = [placed("node1", slot=1), placed("node1", slot=2), placed("node2", slot=3)]
    assert only(nodes(3), there, request(slot=4)) == "node3"


@pytest.mark.parametrize(
    ("obstacle", "state"),
    [
        ({"state": NodeState.SUSPECT}, "suspect"),
        ({"state": NodeState.DOWN}, "down"),
        ({"state": NodeState.DRAINING}, "draining"),
        ({"state": NodeState.DRAINED}, "drained"),
        ({"engine": False}, "without Docker"),
    ],
)
def test_a_node_that_is_not_ready_gets_nothing(obstacle, state):
    fleet = [candidate("node1", **obstacle), candidate("node2")]
    assert counts(plan(fleet, [], replicas(3), {})) == {"node2": 3}
    (removal,) = why(fleet[:1], [], request()).removals
    assert (removal.filter, removal.states, removal.nodes) == (Filter.READY, {state: 1}, ("node1",))


def test_a_degraded_node_still_runs_apps():
    assert only([candidate("node1", state=NodeState.DEGRADED)], [], request()) == "node1"


def test_a_node_that_runs_no_apps():
    fleet = [candidate("node1", role=Role.CONTROL, apps=False), candidate("node2")]
    assert counts(plan(fleet, [], replicas(2), {})) == {"node2": 2}
    assert why(fleet[:1], [], request()).text == "role: 1 of 1 node runs no apps"


def test_constraints_hold():
    fleet = [candidate("node1", role=Role.CONTROL, labels={"disk": "ssd"}), candidate("node2", labels={"disk": "SSD"}), candidate("node3")]
    spec = service(constraints=["node.role == worker", "node.labels.disk==ssd"])
    assert only(fleet, [], request(spec)) == "node2"
    said = why([fleet[0], fleet[2]], [], request(spec))
    assert said.text.splitlines() == [
        "constraint: 1 of 2 nodes does not satisfy node.role == worker",
        "constraint: 1 of 1 node does not satisfy node.labels.disk==ssd",
    ]


def test_a_constraint_that_nobody_understands_lets_nobody_pass_and_says_so():
    said = why(nodes(2), [], request(service(constraints=["node.role=worker"])))
    assert said.text == "constraint: node.role=worker cannot be understood: 'node.role=worker' is no placement constraint"
    assert said.removals[0].removed == 2


def test_memory_is_explained_with_figures():
    fleet = [candidate("node1", memory=GIB), candidate("node2", memory=2 * GIB), candidate("node3", state=NodeState.DOWN)]
    spec = service(memory=2 * GIB)
    there = [placed("node2", service(memory=GIB // 2), app="other")]
    said = why(fleet, there, request(spec))
    assert said.text.splitlines() == [
        "ready: 1 of 3 nodes is not ready (1 down)",
        "memory: 2 of 2 nodes have less than 2 GiB free; the most is 1.5 GiB on node2",
    ]
    memory = said.removals[1]
    assert (memory.wanted, memory.most, memory.best, memory.nodes) == (2 * GIB, GIB * 3 // 2, "node2", ("node1", "node2"))


def test_what_stops_takes_up_room_until_it_is_gone():
    spec = service(cpus=3000)
    assert why(nodes(1), [placed("node1", spec, stop=True)], request(spec, 2)).removals[0].filter is Filter.CPUS
    assert only(nodes(1), [], request(spec, 2)) == "node1"


def test_what_stops_is_no_replica_any_more():
    there = [placed("node1", slot=1, stop=True), placed("node2", slot=2), placed("node3", slot=3)]
    assert only(nodes(3), there, request(slot=1)) == "node1"


def test_what_is_to_be_replaced_does_not_count_as_a_replica():
    there = [placed(f"node{slot}", slot=slot) for slot in (1, 2, 3)]
    for each in there:
        asked = request(slot=each.allocation.slot, instead_of=(each.allocation.id,))
        assert only(nodes(3), there, asked) == each.allocation.node


def test_a_node_that_shrank_still_takes_what_reserves_nothing():
    there = [placed("node1", service(memory=20 * GIB), app="other")]
    assert only(nodes(1), there, request(service())) == "node1"
    assert only(nodes(1), there, request(service(cpus=1000))) == "node1"
    assert why(nodes(1), there, request(service(memory=1))).text.endswith("the most is 0 B")


def test_a_port_of_a_node_is_had_once():
    outcomes = plan(nodes(2), [], replicas(3, service(ports=[HOST])), {})
    assert sorted(counts(outcomes).values()) == [1, 1]
    (waiting,) = [each for each in outcomes if isinstance(each, Pending)]
    assert waiting.explanation.text == "port: 2 of 2 nodes have 80/tcp in use"


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({"address": "10.0.0.1"}, {"address": "10.0.0.2"}, True),
        ({"address": "10.0.0.1"}, {"address": "10.0.0.1"}, False),
        ({"address": "0.0.0.0"}, {"address": "10.0.0.1"}, False),
        ({"address": "::"}, {}, False),
        ({"address": "fd00::1"}, {"address": "fd00:0::1"}, False),
        ({"protocol": "udp"}, {}, True),
        ({"published": 0}, {"published": 0}, True),
        ({"published": 81}, {}, True),
    ],
)
def test_ports_of_a_node(one, other, both):
    def spec(changes):
        return service(ports=[Port(**({"target": 8080, "published": 80, "mode": "host"} | changes))])

    outcomes = plan(nodes(1), [], [request(spec(one), name="a"), request(spec(other), name="b")], {})
    assert counts(outcomes)["node1"] == (2 if both else 1)


def test_a_container_in_its_nodes_own_network_has_there_what_it_listens_on():
    spec = service(ports=[HTTP], network="host")
    assert counts(plan(nodes(1), [], replicas(2, spec), {}))["node1"] == 1
    taken = service(ports=[Port(target=1, published=8080, mode="host")])
    assert why(nodes(1), [placed("node1", spec)], request(taken, name="other")).removals[0].filter is Filter.PORT
    assert only(nodes(1), [placed("node1", spec)], request(service(ports=[HTTP], network="none"), slot=2)) == "node1"


@pytest.mark.parametrize(("one", "other"), [(HTTP, HTTP), (HTTP, HOST), (HOST, HTTP)])
def test_a_published_port_is_one_services_on_all_nodes(one, other):
    there = [placed("node1", service(ports=[one]), app="blog")]
    said = why(nodes(2), there, request(service(ports=[other])))
    assert said.text == "published: 80/tcp belongs to blog/web"
    assert (said.nodes, said.removals[0].removed) == (2, 2)


def test_a_published_port_is_shared_by_the_replicas_of_its_service():
    assert sum(counts(plan(nodes(2), [], replicas(5, service(ports=[HTTP])), {})).values()) == 5


def test_a_published_port_is_free_when_its_service_stops():
    there = [placed("node1", service(ports=[HTTP]), app="blog", stop=True)]
    assert only(nodes(1), there, request(service(ports=[HTTP]))) == "node1"


def test_of_two_that_want_a_port_the_first_by_name_has_it():
    asked = [request(service(ports=[HTTP]), app=app) for app in ("b", "a")]
    assert where(plan(nodes(2), [], asked, {})).keys() == {("a", "web", 1), ("b", "web", 1)}
    assert where(plan(nodes(2), [], asked, {}))["b", "web", 1] is None


def test_max_per_node():
    spec = service(most=2)
    there = [placed("node1", spec, slot=9, stop=True)]
    outcomes = plan(nodes(2), there, replicas(5, spec), {})
    assert counts(outcomes) == {"node1": 1, "node2": 2}
    pending = [each for each in outcomes if isinstance(each, Pending)]
    assert {each.explanation.text for each in pending} == {
        "max-per-node: 2 of 2 nodes have 2 of the service already, the most that a node may have"
    }


def test_a_volume_stays_where_its_data_is():
    asked = replicas(3, service(mounts=["data"]), volumes=(DATA,))
    assert set(counts(plan(nodes(5), [], asked, {"shop_data": "node4"}))) == {"node4"}
    assert len(counts(plan(nodes(5), [], asked, {}))) == 1  # one plan gives it a home for all of them
    there = [placed("node2", service(), name="db", volumes=(DATA,), stop=True)]
    assert set(counts(plan(nodes(5), there, asked, {}))) == {"node2"}


def test_a_volume_whose_node_is_gone_is_waited_for():
    asked = request(service(mounts=["data"]), volumes=(DATA,))
    fleet = [candidate("node1"), candidate("node2", state=NodeState.DOWN)]
    assert why(fleet, [], asked, {"shop_data": "node2"}).text.splitlines() == [
        "ready: 1 of 2 nodes is not ready (1 down)",
        "volume: 1 of 1 node does not have shop_data, which lives on node2",
    ]
    assert why(fleet[:1], [], asked, {"shop_data": "node9"}).removals[0].owner == "node9"


def test_two_volumes_that_live_apart():
    both = (Volume(name="a"), Volume(name="b"))
    said = why(nodes(3), [], request(volumes=both), {"a": "node1", "b": "node2"})
    assert [removal.what for removal in said.removals] == ["a", "b"]


def test_data_that_an_app_left_behind_is_found_again():
    fleet = [*nodes(4), candidate("old", volumes=frozenset({"shop_data"}), cpus=1000)]
    assert only(fleet, [], request(volumes=(DATA,))) == "old"
    assert only(fleet, [], request(service(cpus=2000), volumes=(DATA,))) != "old"


def test_an_external_volume_must_be_there():
    fleet = [candidate("node1"), candidate("node2", volumes=frozenset({"backup"}))]
    external = (Volume(name="backup", external=True),)
    assert only(fleet, [], request(volumes=external)) == "node2"
    assert why(fleet[:1], [], request(volumes=external)).text == "volume: 1 of 1 node does not have backup, which is external"


def test_which_volumes_are_bound():
    volumes = (
        DATA,
        Volume(name="external", external=True),
        Volume(name="elsewhere", driver="rexray"),
        Volume(name="nfs", options={"type": "nfs4", "o": "addr=10.0.0.9", "device": ":/data"}),
        Volume(name="disk", driver="local", options={"type": "none", "o": "bind", "device": "/srv"}),
    )
    assert bound(volumes) == ("disk", "shop_data")


def test_a_global_service_has_its_volume_on_every_node():
    spec = service(mode="global", mounts=["data"])
    there = [placed("node1", spec, 0, volumes=(DATA,))]
    asked = request(spec, 0, volumes=(DATA,), node="node2")
    assert only(nodes(2), there, asked, {"shop_data": "node1"}) == "node2"


def test_the_volumes_of_a_service():
    mounts = (
        Mount(kind="volume", source="data", target="/d"),
        Mount(kind="volume", target="/a"),
        Mount(kind="bind", source="/x", target="/b"),
    )
    app = AppSpec(
        services={"db": ServiceSpec(container=ContainerSpec(image="db", mounts=mounts))},
        volumes={"data": DATA, "other": Volume(name="other")},
    )
    assert volumes_of(app, "db") == (DATA,)


def test_spread_goes_before_the_number_on_a_node():
    fleet = [candidate("a1", labels={"zone": "a"}), *(candidate(f"b{n}", labels={"zone": "b"}) for n in range(4))]
    outcomes = counts(plan(fleet, [], replicas(8, service(spread=["node.labels.zone"])), {}))
    assert outcomes["a1"] == 4
    assert sorted(outcomes[f"b{n}"] for n in range(4)) == [1, 1, 1, 1]


def test_spread_over_two_labels():
    fleet = [
        candidate(f"{zone}{rack}{n}", labels={"zone": zone, "rack": f"{zone}{rack}"})
        for zone, racks in (("x", 3), ("y", 1))
        for rack in range(racks)
        for n in range(2)
    ]
    outcomes = counts(plan(fleet, [], replicas(12, service(spread=["node.labels.zone", "node.labels.rack"])), {}))
    zones = Counter()
    racks = Counter()
    for name, count in outcomes.items():
        zones[name[0]] += count
        racks[name[:2]] += count
    assert zones == {"x": 6, "y": 6}
    assert racks == {"x0": 2, "x1": 2, "x2": 2, "y0": 6}


def test_nodes_without_the_label_are_a_branch_of_their_own():
    fleet = [candidate("a", labels={"zone": "a"}), candidate("n1"), candidate("n2")]
    assert counts(plan(fleet, [], replicas(4, service(spread=["node.labels.zone"])), {}))["a"] == 2


def test_a_full_branch_does_not_hold_the_others_up():
    fleet = [candidate("a", cpus=1000, labels={"zone": "a"}), candidate("b", labels={"zone": "b"})]
    assert counts(plan(fleet, [], replicas(5, service(cpus=1000, spread=["node.labels.zone"])), {})) == {"a": 1, "b": 4}


def test_order_of_preference():
    """Each takes the node from the one that the next would take."""
    asked = request(service(cpus=100), 2, image_id="sha256:1")
    heavy, light = service(cpus=2000), service(cpus=1000)

    def fleet(*images):
        return [candidate(f"node{n}", images=frozenset({"sha256:1"}) if n in images else frozenset()) for n in (1, 2, 3)]

    fewest = [placed("node1"), placed("node2", heavy, app="x"), placed("node3", light, app="y")]
    assert only(fleet(1), fewest, asked) == "node3"  # fewer replicas, though fuller, and the image is on node1
    assert only(fleet(2), [placed("node1", heavy, app="x"), placed("node2", heavy, app="y")], asked) == "node3"  # emptiest
    several = [placed("node1", app="x"), placed("node1", app="y"), placed("node2", app="x"), placed("node3", app="x", slot=2)]
    assert only(fleet(1, 3), several, asked) == "node3"  # as empty, fewer allocations, and the image
    assert only(fleet(1), several, asked) in ("node2", "node3")
    assert only(fleet(2), [], asked) == "node2"


def test_not_all_services_begin_on_the_same_node():
    first = {only(nodes(8), [], request(app=f"app{n}")) for n in range(40)}
    assert len(first) > 4


def test_what_has_one_place_to_go_comes_before_what_may_go_anywhere():
    spec = service(cpus=4000)
    asked = [request(spec, app="a"), request(spec, app="z", node="node1")]
    assert where(plan(nodes(2), [], asked, {})) == {("a", "web", 1): "node2", ("z", "web", 1): "node1"}


def test_a_request_for_one_node_waits_for_that_node():
    said = why(nodes(3), [placed("node2", service(cpus=4000), app="x")], request(service(cpus=1000), node="node2"))
    assert said.text == "cpus: 1 of 1 node has less than 1 processor free; the most is 0"
    assert why(nodes(1), [], request(node="gone")).nodes == 0


def test_where_a_global_service_runs():
    fleet = [
        candidate("control", role=Role.CONTROL),
        candidate("down", state=NodeState.DOWN),
        candidate("drained", state=NodeState.DRAINED),
        candidate("draining", state=NodeState.DRAINING),
        candidate("no-docker", engine=False),
        candidate("ready"),
        candidate("suspect", state=NodeState.SUSPECT),
        candidate("suspect-control", role=Role.CONTROL, state=NodeState.SUSPECT),
        candidate("tired", state=NodeState.DEGRADED),
        candidate("unwilling", apps=False),
        candidate("unwilling-and-down", apps=False, state=NodeState.DOWN),
    ]
    found = eligible(fleet, service(mode="global", constraints=["node.role==worker"]))
    assert found.nodes == ("ready", "tired")
    assert found.keep == ("down", "no-docker", "suspect")
    assert (found.explanation.nodes, found.explanation.fit) == (11, 2)
    assert sum(removal.removed for removal in found.explanation.removals) == 9


def test_platforms_are_asked_for():
    arm = candidate("arm")
    arm = type(arm)(node=arm.node, capacity=arm.capacity, platform=Platform("linux", "aarch64"))
    spec = service(constraints=["node.platform.arch==arm64"])
    assert only([candidate("node1"), arm], [], request(spec)) == "arm"


def test_one_by_one_as_in_one_go():
    fleet = [candidate(f"node{n}", labels={"zone": "abc"[n % 3]}) for n in range(7)]
    asked = replicas(20, service(cpus=300, spread=["node.labels.zone"]))
    there = []
    for each in asked:
        there += as_placed(plan(fleet, there, [each], {}), serial=len(there))
    assert {(each.allocation.app, each.allocation.service, each.allocation.slot): each.allocation.node for each in there} == where(
        plan(fleet, [], asked, {})
    )


def test_of_several_that_mount_a_volume_the_first_tells_where_it_lives():
    there = [placed("node3", serial=1, volumes=(DATA,)), placed("node1", serial=2, volumes=(DATA,))]
    asked = request(slot=2, volumes=(DATA,))
    assert only(nodes(3), there, asked) == only(nodes(3), there[::-1], asked) == "node3"


def test_an_explanation_tells_the_figures_of_its_moment():
    large, small = service(memory=6 * GIB), service(memory=GIB)
    asked = [request(large, name="a"), request(small, name="b"), request(large, name="c")]
    first, _, last = plan(nodes(1, memory=5 * GIB), [], asked, {})
    assert first.explanation.text.endswith("the most is 5 GiB on node1")
    assert last.explanation.text.endswith("the most is 4 GiB on node1")
