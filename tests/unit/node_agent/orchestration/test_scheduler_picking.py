"""Places for few replicas (picking.py): as the plain way and as choosing.py, in clusters of more than a handful of nodes."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placing import GIB, PlainWay, candidate, placed, request, service

from hmcore.apps.spec import Port, Volume
from hmcore.records import NodeState
from node_agent.orchestration.scheduler import MANY, plan
from node_agent.orchestration.scheduling.bits import bits, first, numbers
from node_agent.orchestration.scheduling.choosing import Choice
from node_agent.orchestration.scheduling.filters import fitting
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.model import Assignment, Candidate, Placed, Request
from node_agent.orchestration.scheduling.needs import Wants
from node_agent.orchestration.scheduling.picking import Picker
from node_agent.orchestration.scheduling.shelves import Shelves
from node_agent.orchestration.scheduling.standing import enter

ZONE, RACK = "node.labels.zone", "node.labels.rack"
seeds = st.integers(0, 1 << 32)


def fleet_of(chance: Random, count: int) -> list[Candidate]:
    """Some are small, full of images, not ready, or without labels; ten volumes are about."""
    return [
        candidate(
            f"node{number}",
            cpus=chance.choice([500, 1000, 2000, 4000]),
            memory=chance.choice([GIB, 4 * GIB]),
            state=chance.choice([NodeState.READY] * 9 + [NodeState.DOWN]),
            labels={"rack": str(number % 9)} | ({"zone": "abc"[number % 3]} if number % 10 else {}),
            images=frozenset(chance.sample(["i1", "i2"], chance.randrange(3))),
            volumes=frozenset(f"v{chance.randrange(10)}" for _ in range(chance.randrange(3))),
        )
        for number in range(count)
    ]


def asked_of(chance: Random, services: int, most: int) -> list[Request]:
    found = []
    for number in range(services):
        spec = service(
            cpus=chance.choice([0, 100, 300, 1000]),
            memory=chance.choice([0, GIB // 2]),
            ports=[Port(target=80, published=80 + chance.randrange(2), mode="host", address=chance.choice(["", "10.0.0.1"]))]
            if chance.random() < 0.3
            else (),
            constraints=chance.choice([(), (), (f"{ZONE}==a",), ("node.hostname!=node1",), (f"{RACK}==1", f"{ZONE}!=b")]),
            spread=chance.choice([(), (ZONE,), (ZONE, RACK)]),
            most=chance.choice([0, 0, 1]),
        )
        volumes = tuple(Volume(name=f"v{each}") for each in chance.sample(range(12), 2)) if chance.random() < 0.1 else ()
        image = chance.choice(["", "i1", "i2"])
        found += [request(spec, slot, name=f"s{number}", image_id=image, volumes=volumes) for slot in range(chance.randint(1, most))]
    return found


def standing_of(chance: Random, asked: list[Request], names: list[str]) -> list[Placed]:
    """Some of the services have replicas already, also on nodes that are none."""
    some = chance.sample(asked, len(asked) // 3)
    return [
        placed(chance.choice([*names, "gone"]), each.spec, 100 + serial, serial, name=each.service, stop=chance.random() < 0.1)
        for serial, each in enumerate(some)
    ]


@pytest.mark.long
@settings(max_examples=20, deadline=None)
@given(seeds)
def test_many_services_of_few_replicas_go_where_the_plain_way_puts_them(seed):
    """So many at once that room and ports run out for some of them."""
    chance = Random(seed)
    fleet = fleet_of(chance, chance.choice([20, 70, MANY * 2 + 5]))
    asked = asked_of(chance, 30, 4)
    there = standing_of(chance, asked, [each.name for each in fleet])
    plain = PlainWay(fleet, there, {}, [])
    for each in plan(fleet, there, asked, {}):
        best = plain.first(each.request)
        assert (each.node if isinstance(each, Assignment) else None) == (None if best is None else best.name)
        if isinstance(each, Assignment):
            plain.add(each)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_one_by_one_and_all_in_order_are_the_same(seed):
    """Every service until nothing of it fits any more, both ways, each with books of its own."""
    chance = Random(seed)
    fleet = fleet_of(chance, chance.choice([1, 5, 60]))
    asked = asked_of(chance, 12, 1)
    there = standing_of(chance, asked, [each.name for each in fleet])
    wants = Wants()
    books = [Ledger(Fleet(fleet)) for _ in range(2)]
    for ledger in books:
        enter(ledger, wants, there)
    picker = Picker(books[0])
    for each in asked:
        named, needs = (each.app, each.service), wants.of(each.spec, ())
        nodes = fitting(books[1], named, needs, {})
        choice = Choice(books[1], named, needs, nodes, image=each.image_id) if nodes else None
        for _ in range(chance.choice([1, 3, 100])):
            number = picker.take(named, needs, {}, image=each.image_id)
            assert number == (None if choice is None else choice.take())
            if number is None:
                break
        assert picker.take(named, needs, {}, node="nobody") is None
    assert books[0].room.burdens == books[1].room.burdens


def test_room_that_one_service_lacks_is_there_for_what_needs_less():
    fleet = [candidate(f"n{number}", cpus=1000) for number in range(3)]
    asked = [
        request(service(cpus=cpus, most=1), app=app)
        for app, cpus in (("a", 2000), ("b", 700), ("c", 700), ("d", 700), ("e", 700), ("f", 300))
    ]
    nodes = {each.request.app: each.node if isinstance(each, Assignment) else None for each in plan(fleet, [], asked, {})}
    assert [nodes[app] for app in "ae"] == [None, None]
    assert sorted(nodes[app] for app in "bcd") == ["n0", "n1", "n2"]
    assert nodes["f"]


def test_who_has_one_of_a_service_already_is_asked_again_for_another():
    """`max_per_node` is a service's own; room is not."""
    fleet = [candidate("n0"), candidate("n1")]
    spec = service(cpus=100, most=1)
    asked = [request(spec, slot, app=app) for app in "ab" for slot in (1, 2, 3)]
    placed_on = Counter(each.request.app for each in plan(fleet, [], asked, {}) if isinstance(each, Assignment))
    assert placed_on == {"a": 2, "b": 2}


@given(st.sets(st.integers(0, 200), min_size=1), st.integers(0, 200))
def test_bits_are_the_numbers(members, start):
    made = bits(members, 201)
    assert list(numbers(made)) == sorted(members)
    assert first(made, start) == min(members, key=lambda number: (number - start) % 201)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 8)), max_size=60))
def test_shelves_are_the_nodes_by_burden(burdens, changes):
    shelves = Shelves(burdens)
    for number, after in ((number % len(burdens), after) for number, after in changes):
        shelves.move(number, burdens[number], after)
        burdens[number] = after
    expected = [{number for number, each in enumerate(burdens) if each == burden} for burden in sorted(set(burdens))]
    assert [set(numbers(shelf)) for shelf in shelves] == expected
    assert len(shelves) == len(expected)
