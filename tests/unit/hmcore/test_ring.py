"""The ring is an index and nothing more: it gives what looking at every point would, whatever it has been through. A change is cheap."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.ring import ARC, PROBES, Circle, Near, Ring, Share, _numbers, heaviest, probes, weight_class

AROUND = 1 << 64


def share(number: int, weight: int = 100) -> Share:
    return Share(f"n{number % 7}/c{number}", f"n{number % 7}", weight)


def found(ring: Ring, key: str, fit: Iterable[Share]) -> str | None:
    ids = {each.id for each in fit}
    near: Near | None = None
    for number, circle in ring.circles.items():
        near = circle.nearest(probes(key), lambda _, id: id in ids, heaviest(number), near)
    return near.id if near is not None else None


def plainly(fit: Iterable[Share], key: str) -> str | None:
    """Every point of everybody, from every probe."""
    ways = [
        ((point - look) % AROUND / each.weight, each.id) for each in fit for point in _numbers(each.id, b"point") for look in probes(key)
    ]
    return min(ways)[1] if ways else None


shares = st.lists(
    st.builds(share, st.integers(0, 40), st.sampled_from([1, 2, 3, 99, 100, 101, 1000, 65535])), max_size=9, unique_by=lambda each: each.id
).map(frozenset)
keys = st.lists(st.text(max_size=5), min_size=1, max_size=2, unique=True)


@given(st.lists(shares, min_size=1, max_size=4), keys, st.data())
def test_whatever_it_went_through_it_gives_what_looking_at_everything_gives(story, wanted, data):
    ring, before = Ring(), frozenset[Share]()
    for now in story:
        ring = ring.changed(before - now, now - before)
        before = now
        assert sorted(ring.circles) == sorted({weight_class(each.weight) for each in now})
        fit = data.draw(st.sets(st.sampled_from(sorted(now)))) if now else set()
        for key in wanted:
            assert found(ring, key, now) == found(Ring.of(now), key, now) == plainly(now, key)
            assert found(ring, key, fit) == plainly(fit, key), "others on the ring must not matter"


def test_arcs_stay_small_and_in_order_while_many_come_and_go():
    all_of_them = [share(number) for number in range(300)]
    ring = Ring()
    for each in all_of_them:
        ring = ring.changed([], [each])
    (circle,) = ring.circles.values()
    spots = [spot for arc in circle.arcs for spot in arc]
    assert spots == sorted(spots)
    assert list(circle.starts) == [arc[0][0] for arc in circle.arcs]
    assert max(map(len, circle.arcs)) <= 2 * ARC
    assert spots == [spot for arc in Ring.of(all_of_them).circles[weight_class(100)].arcs for spot in arc]
    for each in all_of_them:
        ring = ring.changed([each], [])
    assert ring == Ring()


def test_the_circle_is_round():
    circle = Circle.of([share(1), share(2)])
    spots = [spot for arc in circle.arcs for spot in arc]
    (first, id, node, weight), look = spots[0], spots[-1][0] + 1
    assert circle.nearest([look], lambda *_: True, weight, None) == Near(first - look + AROUND, weight, id, node)
    assert circle.nearest([look], lambda *_: False, weight, None) is None, "and looked at once"


def test_a_change_leaves_the_ring_before_it_as_it_was():
    first = Ring.of([share(1), share(2)])
    places = {key: found(first, key, [share(1), share(2)]) for key in "abcdefgh"}
    first.changed([share(1)], [share(3)])
    assert {key: found(first, key, [share(1), share(2)]) for key in "abcdefgh"} == places


@pytest.mark.parametrize("weights", [[100] * 20, [300, 100, 100, 50] * 4])
def test_shares_are_by_weight(weights):
    fleet = [share(number, weight) for number, weight in enumerate(weights)]
    ring, times = Ring.of(fleet), 6000
    counted = dict.fromkeys((each.id for each in fleet), 0)
    for number in range(times):
        place = found(ring, f"user-{number}", fleet)
        assert place is not None
        counted[place] += 1
    for each in fleet:
        assert 0.7 < counted[each.id] / (times * each.weight / sum(weights)) < 1.3


def test_the_same_everywhere_and_for_ever():
    """Nodes of different releases must agree. If this changes, every key's place does."""
    fleet = [share(number, 100 + number) for number in range(10)]
    assert [found(Ring.of(fleet), key, fleet) for key in ("", "somebody", "ключ", "\ud800")] == ["n4/c4", "n6/c6", "n1/c8", "n2/c9"]


def test_one_instances_change_among_ten_thousand_costs_no_more_than_itself():
    fleet = [share(number) for number in range(10_000)]
    ring = Ring.of(fleet)
    fit = frozenset(each.id for each in fleet[1:])

    def after_a_change() -> Iterator[float]:
        for number in range(20):
            began = time.process_time()
            changed = ring.changed([fleet[0]], [share(10_000 + number)])
            for circle in changed.circles.values():
                circle.nearest(probes(f"key {number}"), lambda _, id: id in fit, heaviest(weight_class(100)), None)
            yield time.process_time() - began

    assert min(after_a_change()) < 0.003, "the whole ring is built again"
    assert len(probes("")) == PROBES
