"""Who gets the next call: strategies by their promises, failover by priority and health, and words for everybody who was passed over."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hmcore.pool import Candidate, Locality, Pool, gather
from hmcore.records import Instance, InstanceHealth, Maintenance
from hmcore.selection import Filter, Strategy, choose, covering, matching, why_not

H = InstanceHealth


def web(name: str, health: H = H.HEALTHY, **given: object) -> Candidate:
    labels = given.pop("labels", {})
    maintenance = given.pop("maintenance", None)
    node = str(given.pop("node", name))
    instance = Instance(id=f"{node}/{name}", service="shop/web", node=node, address="10.0.0.1", health=health, **given)  # type: ignore[arg-type]
    return Candidate(instance, maintenance, labels)  # type: ignore[arg-type]


def ids(pool: Pool) -> list[str]:
    return [each.instance.id.partition("/")[2] for each in pool.members]


healths = st.sampled_from(H)
fleets = st.lists(
    st.tuples(st.integers(0, 30), healths, st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=12, unique_by=lambda each: each[0]
).map(
    lambda rows: [
        web(f"w{number}", health, priority=priority, weight=weight, maintenance=Maintenance(target="x") if out else None)
        for number, health, priority, weight, out in rows
    ]
)


@given(fleets, st.booleans())
def test_only_the_fit_share_the_traffic_and_everybody_else_is_told_why(fleet, allow_unknown):
    pool = gather(fleet, allow_unknown=allow_unknown)
    fit = {H.HEALTHY, H.DEGRADED} | ({H.UNKNOWN} if allow_unknown else set())
    able = [each for each in fleet if each.maintenance is None and each.instance.weight and each.instance.health in fit]
    assert bool(pool.members) == bool(able)
    assert set(ids(pool)) <= {each.instance.id.partition("/")[2] for each in able}
    assert len({(each.instance.health, each.instance.priority) for each in pool.members}) <= 1
    if any(each.instance.health is H.HEALTHY for each in able):
        assert all(each.instance.health is H.HEALTHY for each in pool.members)
    for each in able:  # nobody as healthy has a lower number
        if pool.members and each.instance.health is pool.members[0].instance.health:
            assert each.instance.priority >= pool.members[0].instance.priority
    if not allow_unknown:
        for each in fleet:
            assert (why_not(each, Filter(include_maintenance=True), pool) is None) == (each in pool.members)


@given(fleets, st.sampled_from(Strategy), st.floats(0, 1, exclude_max=True), st.integers(0, 1000), st.text(max_size=5))
def test_every_strategy_chooses_from_the_pool_and_always_the_same_for_the_same_question(fleet, strategy, chance, turn, key):
    pool = gather(fleet)
    chosen = choose(pool, strategy, chance=chance, turn=turn, latency={}, key=key)
    assert (chosen in pool.members) if pool.members else chosen is None
    assert choose(pool, strategy, chance=chance, turn=turn, latency={}, key=key) == chosen


def test_failover_by_priority_and_back():
    first, second = web("a", priority=0), web("b", priority=1)
    assert ids(gather([first, second])) == ["a"]
    for health in (H.UNHEALTHY, H.UNKNOWN, H.DEGRADED):
        assert ids(gather([web("a", health, priority=0), second])) == ["b"]
    assert ids(gather([web("a", H.DEGRADED), web("b", H.UNHEALTHY, priority=1)])) == ["a"]
    assert ids(gather([web("a", H.UNKNOWN)])) == []
    assert ids(gather([web("a", H.UNKNOWN)], allow_unknown=True)) == ["a"]
    assert ids(gather([web("a", H.UNHEALTHY)], allow_unknown=True)) == []


def test_the_nearest_come_first_when_they_are_fit():
    here, near, far = web("a", node="n1"), web("b", node="n2", labels={"zone": "z1"}), web("c", node="n3", labels={"zone": "z2"})
    locality = Locality(node="n1", label="zone", value="z1")
    assert ids(gather([far, near, here], locality=locality)) == ["a"]
    assert ids(gather([far, near, web("a", H.UNHEALTHY, node="n1")], locality=locality)) == ["b"]
    assert ids(gather([far], locality=locality)) == ["c"]
    assert ids(gather([web("a", node="n1", priority=1), far], locality=locality)) == ["c"]  # priority is the operator's word


def test_chance_goes_by_weight():
    pool = gather([web("a", weight=300), web("b", weight=100), web("c", weight=0)])
    drawn = random.Random(1)
    counted = Counter(choose(pool, Strategy.WEIGHTED, chance=drawn.random()).instance.node for _ in range(8000))  # type: ignore[union-attr]
    assert set(counted) == {"a", "b"}
    assert 2.7 < counted["a"] / counted["b"] < 3.3


def test_turns_and_latencies():
    pool = gather([web("a"), web("b"), web("c")])
    assert [choose(pool, Strategy.ROUND_ROBIN, turn=turn).instance.node for turn in range(4)] == ["a", "b", "c", "a"]  # type: ignore[union-attr]

    def fastest(**known: float) -> str:
        latency = {f"{name}/{name}": value for name, value in known.items()}
        return choose(pool, Strategy.LEAST_LATENCY, latency=latency).instance.node  # type: ignore[union-attr]

    assert fastest(a=3.0, b=1.0, c=2.0) == "b"
    assert fastest(a=3.0, b=1.0) == "c", "one that was never asked must be tried"


keys = st.lists(st.text(max_size=8), min_size=1, max_size=30, unique=True)
members = st.lists(st.tuples(st.integers(0, 99), st.integers(1, 500)), min_size=2, max_size=8, unique_by=lambda each: each[0]).map(
    lambda rows: [web(f"w{number}", weight=weight) for number, weight in rows]
)


@pytest.mark.long
@given(members, keys, st.data())
def test_only_keys_that_must_move_do(fleet, wanted, data):
    """When one leaves, only its keys move; when one comes, keys move only to it; when one gains weight, keys move only to it."""

    def placed(candidates: list[Candidate]) -> dict[str, str]:
        return {key: choose(gather(candidates), Strategy.CONSISTENT_HASH, key=key).instance.id for key in wanted}  # type: ignore[union-attr]

    index = data.draw(st.integers(0, len(fleet) - 1))
    one, rest = fleet[index], [each for each in fleet if each is not fleet[index]]
    before, without = placed(fleet), placed(rest)
    assert all(without[key] == place for key, place in before.items() if place != one.instance.id)
    heavier = [*rest, Candidate(replace(one.instance, weight=one.instance.weight * 2))]
    assert all(after in (before[key], one.instance.id) for key, after in placed(heavier).items())
    assert placed(list(reversed(fleet))) == before, "the order must not matter"


def test_keys_spread_by_weight():
    pool = gather([web("a", weight=100), web("b", weight=100), web("c", weight=200)])
    counted = Counter(choose(pool, Strategy.CONSISTENT_HASH, key=f"user-{n}").instance.node for n in range(4000))  # type: ignore[union-attr]
    assert abs(counted["a"] - 1000) < 120
    assert abs(counted["c"] - 2000) < 160


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Filter(node="other"), "it is on a"),
        (Filter(version="v2"), "it is version v1"),
        (Filter(tags=frozenset({"blue", "edge"})), "it has no tag edge"),
        (Filter(labels=(("zone", "z2"),)), "its node's zone is z1"),
        (Filter(labels=(("rack", "r"),)), "its node's rack is not set"),
        (Filter(health=frozenset({H.UNKNOWN})), "degraded: slow"),
        (Filter(version="v1", tags=frozenset({"blue"}), labels=(("zone", "z1"),), node="a"), None),
    ],
)
def test_filters_say_why_not(asked, why):
    one = web("a", H.DEGRADED, reason="slow", version="v1", tags=["blue"], labels={"zone": "z1"})
    assert asked.why_not(one) == why
    assert (matching([one], asked) == (one,)) == (why is None)


def test_maintenance_of_the_instance_or_its_node():
    one = web("a").instance
    own, nodes = Maintenance(target="a/a", reason="mine"), Maintenance(target="a/", reason="all")
    assert covering(one, {"a/a": own, "a/": nodes}) == own
    assert covering(one, {"a/": nodes}) == nodes
    assert covering(one, {"b/": nodes, "a/b": own}) is None
    out = Candidate(one, nodes)
    assert Filter().why_not(out) == "in maintenance: all"
    assert Filter(include_maintenance=True).why_not(out) is None
    assert not gather([out]).members


def test_words_for_those_who_stand_by():
    pool = gather([web("a"), web("b", priority=2), web("c", H.DEGRADED, reason="slow"), web("d", weight=0)])
    asked = Filter()
    assert why_not(web("b", priority=2), asked, pool) == "priority 2: stands by while one of priority 0 is fit"
    assert why_not(web("c", H.DEGRADED, reason="slow"), asked, pool) == "degraded: slow; others are healthy"
    assert why_not(web("d", weight=0), asked, pool) == "its weight is 0"
    assert why_not(web("e", H.UNHEALTHY), asked, Pool()) == "unhealthy"
