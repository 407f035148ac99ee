"""What `hmctl app explain` says, word by word."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.explanation import Explanation, Filter, Removal

GIB = 1 << 30


def removal(by: Filter, removed: int = 3, of: int = 5, **facts) -> Removal:
    return Removal(filter=by, removed=removed, of=of, **facts)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (
            removal(Filter.MEMORY, wanted=2 * GIB, most=GIB + GIB // 4, best="node2"),
            "memory: 3 of 5 nodes have less than 2 GiB free; the most is 1.2 GiB on node2",
        ),
        (removal(Filter.MEMORY, 1, 1, wanted=300), "memory: 1 of 1 node has less than 300 B free; the most is 0 B"),
        (
            removal(Filter.CPUS, wanted=1500, most=250, best="n1"),
            "cpus: 3 of 5 nodes have less than 1.5 processors free; the most is 0.25 on n1",
        ),
        (removal(Filter.CPUS, 1, wanted=1000), "cpus: 1 of 5 nodes has less than 1 processor free; the most is 0"),
        (removal(Filter.READY, states={"down": 1, "draining": 2}), "ready: 3 of 5 nodes are not ready (1 down, 2 draining)"),
        (removal(Filter.ROLE), "role: 3 of 5 nodes run no apps"),
        (removal(Filter.CONSTRAINT, 1, what="node.role==worker"), "constraint: 1 of 5 nodes does not satisfy node.role==worker"),
        (removal(Filter.CONSTRAINT, what="x", error="no"), "constraint: x cannot be understood: no"),
        (removal(Filter.VOLUME, what="shop_db", owner="n1"), "volume: 3 of 5 nodes do not have shop_db, which lives on n1"),
        (removal(Filter.VOLUME, what="data"), "volume: 3 of 5 nodes do not have data, which is external"),
        (
            removal(Filter.MAX_PER_NODE, wanted=2),
            "max-per-node: 3 of 5 nodes have 2 of the service already, the most that a node may have",
        ),
        (removal(Filter.PORT, what="80/tcp"), "port: 3 of 5 nodes have 80/tcp in use"),
        (removal(Filter.PUBLISHED, 5, what="80/tcp", owner="shop/web"), "published: 80/tcp belongs to shop/web"),
    ],
)
def test_words(one, text):
    assert one.text == text


def test_every_filter_has_words():
    for by in Filter:
        assert removal(by).text.startswith(f"{by.value}: ")


def test_a_line_for_each_filter():
    both = Explanation(nodes=5, removals=(removal(Filter.ROLE, 1), removal(Filter.PORT, 4, 4, what="80/tcp")))
    assert both.text == "role: 1 of 5 nodes runs no apps\nport: 4 of 4 nodes have 80/tcp in use"
    assert Explanation(nodes=0).text == "there are no nodes"
    assert Explanation(nodes=5, fit=5).text == "5 of 5 nodes fit"


def test_it_travels():
    said = Explanation(nodes=5, removals=(removal(Filter.READY, states={"down": 3}, nodes=("a", "b", "c")),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=Explanation) == said


@given(st.integers(1, 1 << 44), st.integers(0, 1 << 44))
def test_what_does_not_suffice_never_looks_as_if_it_did(wanted, most):
    if most >= wanted:
        wanted, most = most + 1, wanted
    words = removal(Filter.MEMORY, wanted=wanted, most=most, best="n1").text
    asked, _, there = words.partition("less than ")[2].partition(" free; the most is ")
    assert asked != there.removesuffix(" on n1")
