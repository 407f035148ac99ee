"""Whom to take content from, and who keeps it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from node_agent.transport.seeding import COPIES, Search, keepers

NODES = [f"node{number}" for number in range(20)]
NAMES = st.sets(st.sampled_from(NODES))


@given(me=st.sampled_from(NODES), nodes=NAMES, holders=NAMES, missed=NAMES, busy=NAMES)
def test_only_who_may_help_is_asked_and_everybody_in_turn(
    me: str, nodes: set[str], holders: set[str], missed: set[str], busy: set[str]
) -> None:
    search = Search(me, "d", frozenset(holders), dict.fromkeys(missed, ""), frozenset(busy))
    asked: list[str] = []
    while (node := search.choose(nodes, {})) is not None:
        asked.append(node)
        search = replace(search, missed={**search.missed, node: "not there"})
    assert set(asked) == nodes - {me} - missed - busy
    assert asked == sorted(asked, key=lambda node: node not in holders)  # those that are said to have it first


def test_many_takers_spread_over_all_who_have_it() -> None:
    holders = frozenset(NODES[:4])
    chosen = Counter(Search(f"taker{number}", "d", holders).choose(NODES, {}) for number in range(400))
    assert set(chosen) == holders
    assert max(chosen.values()) < 150


def test_one_taker_of_many_contents_spreads_too() -> None:
    loads: Counter[str] = Counter()
    for number in range(8):
        node = Search("taker", f"d{number}", frozenset(NODES[:4])).choose(NODES, loads)
        assert node is not None
        loads[node] += 1
    assert set(loads.values()) == {2}


@given(NAMES.filter(lambda nodes: len(nodes) > COPIES), st.text(min_size=1, max_size=5))
def test_keepers_change_as_little_as_they_can(nodes: set[str], image: str) -> None:
    chosen = keepers(image, nodes)
    assert len(chosen) == COPIES
    assert keepers(image, list(reversed(sorted(nodes)))) == chosen
    for gone in nodes:
        assert keepers(image, nodes - {gone}) >= chosen - {gone}


def test_few_nodes_keep_everything() -> None:
    assert keepers("i", ["a", "b"]) == {"a", "b"}
    assert keepers("i", []) == frozenset()
