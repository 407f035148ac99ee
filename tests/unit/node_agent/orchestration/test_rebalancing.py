"""What moves when an operator asks for it: few, each for the better, and in the end as even as replicas can be."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from placing import GIB, PlainWay, candidate, nodes, placed, request, service

from hmcore.apps.constraints import parse_key
from hmcore.apps.spec import Port, Volume
from hmcore.records import NodeState
from node_agent.orchestration.scheduling.model import Placed
from node_agent.orchestration.scheduling.rebalancing import ENDS, rebalance


def carried_out(there, moves):
    """What is there when all that moved has gone."""
    after = {each.allocation.id: each for each in there}
    for move in moves:
        old = after.pop(move.allocation.id)
        allocation = replace(old.allocation, id=f"{old.allocation.id}0", node=move.node)
        after[allocation.id] = Placed(allocation=allocation, spec=old.spec, volumes=old.volumes)
    return list(after.values())


def on(there, name=None):
    return Counter(each.allocation.node for each in there if name in (None, each.allocation.service))


def test_a_node_that_came_back_gets_its_share():
    there = [placed("node1", slot=slot) for slot in (1, 2, 3)] + [placed("node2", slot=slot) for slot in (4, 5, 6)]
    moves = rebalance(nodes(3), there, {}, limit=10)
    assert [(move.allocation.slot, move.node) for move in moves] in ([(3, "node3"), (6, "node3")], [(6, "node3"), (3, "node3")])
    assert on(carried_out(there, moves)) == {"node1": 2, "node2": 2, "node3": 2}
    assert moves[1].reason.endswith("has 3 replicas, node3 has 1")
    assert rebalance(nodes(3), carried_out(there, moves), {}, limit=10) == ()


def test_no_more_than_wanted():
    there = [placed("node1", slot=slot) for slot in range(9)]
    assert len(rebalance(nodes(3), there, {}, limit=1)) == 1
    assert rebalance(nodes(3), there, {}, limit=0) == ()


def test_only_the_apps_that_are_meant():
    there = [placed("node1", slot=slot, app=app) for slot in range(4) for app in ("a", "b")]
    assert {move.allocation.app for move in rebalance(nodes(2), there, {}, limit=10, apps={"a"})} == {"a"}


def test_branches_of_a_label_first():
    fleet = [candidate("a1", labels={"zone": "a"}), candidate("a2", labels={"zone": "a"}), candidate("b1", labels={"zone": "b"})]
    spec = service(spread=["node.labels.zone"])
    there = [placed(node, spec, slot) for slot, node in enumerate(("a1", "a1", "a2", "a2"))]
    moves = rebalance(fleet, there, {}, limit=10)
    assert on(carried_out(there, moves)) == {"a1": 1, "a2": 1, "b1": 2}
    assert moves[0].reason.endswith("has 4 replicas, node.labels.zone of b1 has 0")


def test_nodes_within_a_branch():
    """The zones differ by one, which is even; the nodes of one of them do not."""
    fleet = [candidate("a1", labels={"zone": "a"}), candidate("a2", labels={"zone": "a"}), candidate("b1", labels={"zone": "b"})]
    there = [placed(node, service(spread=["node.labels.zone"]), slot) for slot, node in enumerate(("a1", "a1", "b1"))]
    (move,) = rebalance(fleet, there, {}, limit=10)
    assert move.node == "a2"


def test_single_replicas_are_spread_by_what_they_reserve():
    there = [placed("node1", service(cpus=1000), name=f"s{n}") for n in range(4)]
    moves = rebalance(nodes(2), there, {}, limit=10)
    assert on(carried_out(there, moves)) == {"node1": 2, "node2": 2}
    assert moves[0].reason == "node1 is reserved to 100 %, node2 to 0 %"


def test_single_replicas_that_reserve_nothing_by_their_number():
    there = [placed("node1", name=f"s{n}") for n in range(5)]
    moves = rebalance(nodes(2), there, {}, limit=10)
    assert sorted(on(carried_out(there, moves)).values()) == [2, 3]
    assert moves[0].reason == "node1 has 5 allocations, node2 has 0"


@pytest.mark.parametrize(
    "stays",
    [
        {"spec": service(mode="global")},
        {"stop": True},
        {"volumes": (Volume(name="data"),)},
        {"spec": service(constraints=["node.hostname==node1"])},
        {"spec": service(cpus=3000)},
    ],
)
def test_what_stays(stays):
    fleet = [candidate("node1", cpus=40_000), candidate("node2", cpus=2000), candidate("down", state=NodeState.DOWN)]
    there = [placed("node1", slot=slot, **stays) for slot in range(6)]
    assert rebalance(fleet, there, {}, limit=10) == ()


def test_what_is_on_a_node_that_is_not_heard_stays_there():
    there = [placed("node1", slot=slot) for slot in range(6)]
    assert rebalance([candidate("node1", state=NodeState.SUSPECT), candidate("node2")], there, {}, limit=10) == ()


def test_a_node_that_runs_no_apps_is_neither_end_of_a_move():
    there = [placed("node1", slot=slot) for slot in range(6)]
    assert rebalance([candidate("node1"), candidate("node2", apps=False)], there, {}, limit=10) == ()
    assert rebalance([candidate("node1", apps=False), candidate("node2")], there, {}, limit=10) == (), "it is emptied without being asked"


def test_many_nodes_that_run_no_apps_do_not_hide_those_that_do():
    """They are the emptiest."""
    there = [placed("full", spec=service(cpus=1000), app=f"app{number}") for number in range(4)]
    fleet = [candidate("full"), candidate("roomy", cpus=100_000), *(candidate(f"closed{number:02}", apps=False) for number in range(ENDS))]
    there += [placed("roomy", spec=service(cpus=1000), app="other")]
    assert {move.node for move in rebalance(fleet, there, {}, limit=10)} == {"roomy"}


def test_both_must_fit_at_the_same_time():
    spec = service(ports=[Port(target=80, published=80, mode="host")])
    there = [placed("node1", spec, 1), placed("node1", service(cpus=4000), 1, name="zoo"), placed("node2", spec, 2, stop=True)]
    moves = rebalance(nodes(2), there, {}, limit=10)
    assert [move.allocation.service for move in moves] == ["zoo"]


@st.composite
def situations(draw):
    fleet = [
        candidate(f"n{number}", cpus=draw(st.sampled_from([2000, 4000])), labels={"zone": draw(st.sampled_from("ab"))})
        for number in range(5)
    ]
    kinds = st.builds(
        service,
        cpus=st.sampled_from([0, 0, 500]),
        memory=st.sampled_from([0, GIB]),
        spread=st.sampled_from([(), ("node.labels.zone",)]),
        most=st.sampled_from([0, 0, 3]),
    )
    specs = {name: draw(kinds) for name in "abc"}
    drawn = draw(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(fleet), st.booleans()), max_size=14))
    there = [
        placed(node.name, specs[name], slot, slot, name=name, stop=stop and slot % 4 == 0) for slot, (name, node, stop) in enumerate(drawn)
    ]
    return fleet, there, draw(st.integers(0, 12))


def unevenness(fleet, there):
    """Level by level, what every move must lower: sums of squares by service, then loads from the greatest down, then allocations."""
    living = [each for each in there if not each.allocation.stop]
    levels = [0, 0]
    for name in {each.allocation.service for each in living}:
        mine = [each for each in living if each.allocation.service == name]
        for text in mine[0].spec.placement.spread:
            zone = {each.name: parse_key(text).of(each.node, each.platform) for each in fleet}
            levels[0] += sum(count**2 for count in Counter(zone[each.allocation.node] for each in mine).values())
        levels[1] += sum(count**2 for count in on(mine).values())
    cpus, memory = defaultdict(int), defaultdict(int)
    for each in living:
        cpus[each.allocation.node] += each.spec.reservations.cpus
        memory[each.allocation.node] += each.spec.reservations.memory
    loads = [
        max(cpus[each.name] * 1000 // each.capacity.cpus, memory[each.name] * 1000 // each.capacity.memory) for each in fleet
    ]  # fmt: skip
    return *levels, sorted(loads, reverse=True), sum(count**2 for count in on(living).values())


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(situations())
def test_every_move_is_for_the_better_and_fits(situation):
    fleet, there, limit = situation
    moves = rebalance(fleet, there, {}, limit=limit)
    assert len(moves) <= limit
    assert len({move.allocation.id for move in moves}) == len(moves)
    assert rebalance(list(reversed(fleet)), list(reversed(there)), {}, limit=limit) == moves
    room = PlainWay(fleet, there, {}, [])  # what has moved away is there still
    for number, move in enumerate(moves):
        before, after = carried_out(there, moves[:number]), carried_out(there, moves[: number + 1])
        assert unevenness(fleet, after) < unevenness(fleet, before)
        old = next(each for each in there if each.allocation.id == move.allocation.id)
        assert move.node in [each.name for each in room.passing(request(old.spec, old.allocation.slot, name=old.allocation.service))]
        room.there.append(placed(move.node, old.spec, old.allocation.slot, 1000 + number, name=old.allocation.service))


@settings(max_examples=100, deadline=None)
@given(situations())
def test_with_room_for_all_replicas_end_up_even(situation):
    fleet, there, _ = situation
    wide = [candidate(each.name, cpus=100_000, memory=100 * GIB, labels=each.node.labels) for each in fleet]
    there = [each for each in there if not each.allocation.stop and not each.spec.placement.max_per_node and not each.spec.placement.spread]
    after = carried_out(there, rebalance(wide, there, {}, limit=100))
    for name in {each.allocation.service for each in after}:
        counts = [on(after, name)[each.name] for each in wide]
        assert max(counts) - min(counts) <= 1


def test_what_mounts_a_volume_stays_even_where_its_data_is_not():
    there = [placed("node1", slot=slot, volumes=(Volume(name="data"),)) for slot in range(6)]
    assert rebalance(nodes(2), there, {"data": "node2"}, limit=10) == ()
