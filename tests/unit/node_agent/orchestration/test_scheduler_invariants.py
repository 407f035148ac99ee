"""The scheduler against the plain way (placing.py), over all that there could be: filters, preferences, order of input, evenness."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placing import GIB, PlainWay, as_placed, candidate, placed, replicas, request, service, where

from hmcore.apps.spec import Port, Volume
from hmcore.records import NodeState, Role
from node_agent.orchestration.scheduler import plan
from node_agent.orchestration.scheduling.model import Assignment, Pending

NAMES = [f"node{number}" for number in range(1, 8)]
VOLUMES = (Volume(name="data"), Volume(name="logs"), Volume(name="backup", external=True), Volume(name="net", options={"type": "nfs"}))
CONSTRAINTS = ("node.labels.zone==a", "node.labels.zone!=a", "node.role==worker", "node.hostname!=node1", "no constraint")
SPREADS = ((), (), ("node.labels.zone",), ("node.labels.zone", "node.labels.rack"))

rarely = st.sampled_from([False] * 7 + [True])
ports = st.builds(
    Port,
    target=st.sampled_from([80, 81]),
    published=st.sampled_from([0, 80, 81]),
    protocol=st.sampled_from(["tcp", "tcp", "udp"]),
    mode=st.sampled_from(["ingress", "host", "host"]),
    address=st.sampled_from(["", "", "10.0.0.1", "10.0.0.2", "0.0.0.0"]),
)


@st.composite
def fleets(draw):
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=len(NAMES)))
    return [
        candidate(
            name,
            cpus=draw(st.sampled_from([0, 1000, 2000, 4000])),
            memory=draw(st.sampled_from([GIB, 4 * GIB])),
            role=draw(st.sampled_from(list(Role))),
            state=draw(st.sampled_from([NodeState.DOWN, NodeState.DRAINING] if draw(rarely) else [NodeState.READY, NodeState.DEGRADED])),
            labels={
                **draw(st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}])),
                **draw(st.sampled_from([{}, {"rack": "1"}, {"rack": "2"}])),
            },
            images=draw(st.sampled_from([frozenset(), frozenset({"i1"}), frozenset({"i1", "i2"})])),
            volumes=draw(st.frozensets(st.sampled_from([each.name for each in VOLUMES]), max_size=2)),
            engine=not draw(rarely),
            apps=not draw(rarely),
        )
        for name in names
    ]


specs = st.builds(
    service,
    cpus=st.sampled_from([0, 0, 500, 1000]),
    memory=st.sampled_from([0, 0, GIB // 2, GIB]),
    ports=st.one_of(st.just([]), st.just([]), st.lists(ports, max_size=2)),
    constraints=st.lists(st.sampled_from(CONSTRAINTS), max_size=1),
    spread=st.sampled_from(SPREADS),
    most=st.sampled_from([0, 0, 1, 2]),
    mode=st.sampled_from(["replicated", "replicated", "replicated", "global"]),
    network=st.sampled_from(["", "", "", "host", "none"]),
)
volumes = st.one_of(st.just(()), st.just(()), st.lists(st.sampled_from(VOLUMES), max_size=2, unique_by=lambda each: each.name).map(tuple))


@st.composite
def situations(draw):
    """Nodes, services of which each has one spec, what stands already (also where it would not be put now), and what is asked for."""
    fleet = draw(fleets())
    services = {name: (draw(specs), draw(volumes)) for name in ("a", "b", "c")}
    there = []
    for serial in range(draw(st.integers(0, 6))):
        name = draw(st.sampled_from(sorted(services)))
        spec, mounted = services[name]
        node = draw(st.sampled_from([*NAMES, "gone"]))
        there.append(placed(node, spec, serial, serial, name=name, volumes=mounted, stop=draw(rarely)))
    asked = []
    for slot in range(draw(st.integers(0, 14))):
        name = draw(st.sampled_from(sorted(services)))
        spec, mounted = services[name]
        replaced = draw(st.sampled_from([each.allocation.id for each in there])) if there and draw(rarely) else None
        asked.append(
            request(
                spec,
                slot,
                name=name,
                volumes=mounted,
                image_id=draw(st.sampled_from(["", "i1", "i2"])),
                node=draw(st.sampled_from(NAMES)) if spec.mode == "global" else "",
                instead_of=() if replaced is None else (replaced,),
                shunned=tuple(draw(st.lists(st.sampled_from([*NAMES, "gone"]), unique=True, max_size=3))) if draw(rarely) else (),
            )
        )
    homes = {each.name: draw(st.sampled_from(NAMES)) for each in VOLUMES[:2] if draw(rarely)}
    return fleet, there, asked, homes


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(situations())
def test_each_outcome_is_that_of_the_plain_way(situation):
    """A replica gets the best of the nodes that pass, and waits only when none does: then, and when all is planned."""
    fleet, there, asked, homes = situation
    outcomes = plan(fleet, there, asked, homes)
    assert Counter(id(each.request) for each in outcomes) == Counter(map(id, asked))
    plain = PlainWay(fleet, there, homes, [id for each in asked for id in each.instead_of])
    for each in outcomes:
        best = plain.first(each.request)
        if isinstance(each, Assignment):
            assert best is not None
            assert each.node == best.name
            plain.add(each)
        else:
            assert best is None
    for each in outcomes:
        if isinstance(each, Pending):
            assert plain.passing(each.request) == []


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(situations())
def test_an_explanation_accounts_for_every_node(situation):
    fleet, there, asked, homes = situation
    for each in plan(fleet, there, asked, homes):
        if isinstance(each, Pending):
            said = each.explanation
            assert said.nodes == (sum(one.name == each.request.node for one in fleet) if each.request.node else len(fleet))
            assert sum(removal.removed for removal in said.removals) == said.nodes
            assert said.fit == 0
            left = said.nodes
            for removal in said.removals:
                assert removal.of == left
                assert 0 < removal.removed == len(removal.nodes)
                left -= removal.removed
            assert said.text


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(situations())
def test_what_is_planned_keeps_to_every_limit(situation):
    """Said without the plain way: nothing new is above a limit, whatever stood there before."""
    fleet, there, asked, homes = situation
    outcomes = plan(fleet, there, asked, homes)
    by_name = {each.name: each for each in fleet}
    every = defaultdict(list)
    for each in [*there, *as_placed(outcomes)]:
        every[each.allocation.node].append(each)
    for each in outcomes:
        if not isinstance(each, Assignment):
            continue
        spec, node = each.request.spec, by_name[each.node]
        here = every[each.node]
        assert node.obstacle == ""
        assert node.apps
        if spec.reservations.cpus:
            assert sum(one.spec.reservations.cpus for one in here) <= node.capacity.cpus
        if spec.reservations.memory:
            assert sum(one.spec.reservations.memory for one in here) <= node.capacity.memory
        if spec.placement.max_per_node and spec.mode == "replicated":
            assert sum(one.allocation.service == each.request.service for one in here) <= spec.placement.max_per_node
        if spec.container.network_mode == "":
            for port in (port for port in spec.ports if port.mode == "host" and port.published and not port.address):
                same = [
                    one for one in here for other in one.spec.ports
                    if one.spec.container.network_mode == "" and other.mode == "host"
                    and (other.published, other.protocol) == (port.published, port.protocol)
                ]  # fmt: skip
                assert len({one.allocation.id for one in same}) == 1


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_does_not_matter(situation, chance):
    fleet, there, asked, homes = situation
    first = plan(fleet, there, asked, homes)
    for each in (fleet, there, asked):
        chance.shuffle(each)
    assert plan(fleet, there, asked, dict(reversed(homes.items()))) == first
    assert plan(fleet, there, asked, homes) == first


sizes = st.tuples(st.integers(1, 9), st.integers(1, 40))


def zoned(count):
    return [candidate(f"n{number}", labels={"zone": "ab"[number % 2], "rack": f"r{number % 4}"}) for number in range(count)]


@settings(deadline=None)
@given(sizes, st.sampled_from(SPREADS), st.randoms(use_true_random=False))
def test_replicas_are_spread_evenly_however_they_come(size, spread, chance):
    """At every level within one of even, planned in one go or one by one, in whichever order, with others around."""
    count, wanted = size
    fleet, asked = zoned(count), replicas(wanted, service(spread=spread))
    others = as_placed(plan(fleet, [], replicas(chance.randrange(10), service(cpus=100), name="other"), {}))
    at_once = list(where(plan(fleet, others, asked, {})).values())
    there, singly = list(others), []
    for each in chance.sample(asked, len(asked)):
        outcomes = plan(fleet, there, [each], {})
        there += as_placed(outcomes, serial=2000 + len(there))
        singly += where(outcomes).values()
    assert Counter(at_once) == Counter(singly)
    for result in (at_once, singly):
        assert even(fleet, result, spread)


def even(fleet, result, spread) -> bool:
    """The branches beneath one branch, and the nodes beneath the last one, have the same number but for one."""
    on = Counter(result)
    sums = defaultdict(dict)
    for each in fleet:
        path = tuple(each.node.labels[text.removeprefix("node.labels.")] for text in spread)
        for level in range(len(path)):
            sums[path[:level]].setdefault(path[: level + 1], 0)
            sums[path[:level]][path[: level + 1]] += on[each.name]
        sums[(*path, "nodes")][each.name] = on[each.name]
    return all(max(part.values()) - min(part.values()) <= 1 for part in sums.values())


@settings(deadline=None)
@given(st.integers(2, 8), st.integers(1, 12), st.booleans())
def test_a_rolling_update_leaves_replicas_even(count, wanted, start_first):
    """One after the other is replaced: the new one is there before the old one stops, or the old one stops first."""
    fleet, spec = zoned(count), service()
    there = as_placed(plan(fleet, [], replicas(wanted, spec), {}))
    for each in list(there):
        slot, old = each.allocation.slot, each.allocation
        if not start_first:
            there.remove(each)
        (outcome,) = plan(fleet, there, [request(spec, slot, instead_of=(old.id,) if start_first else ())], {})
        there = [one for one in there if one.allocation.id != old.id] + as_placed([outcome], serial=5000 + slot)
    on = Counter(each.allocation.node for each in there)
    assert max(on.values()) - min(on[each.name] for each in fleet) <= 1


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 8))
def test_whole_numbers_compare_as_their_parts_do(held, reserved, count):
    """Loads, allocations and replicas that grow do not run into each other in the number that a heap is ordered by."""
    fleet = [candidate(f"n{number}", cpus=60_000) for number in range(count)]
    there = [placed("n0", service(cpus=1000), slot, slot, name=f"s{slot % 3}") for slot in range(reserved)]
    there += [placed("n0", service(), slot, 100 + slot, name="light") for slot in range(held)]
    outcomes = plan(fleet, there, replicas(count, service(), name="light"), {})
    plain = PlainWay(fleet, there, {}, [])
    for each in outcomes:
        assert plain.first(each.request).name == each.node
        plain.add(each)
