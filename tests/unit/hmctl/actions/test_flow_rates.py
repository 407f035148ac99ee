"""Flows compared with a moment ago, and who a peer is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import PeerUnreachable
from hmctl.actions.flows import COUNTERS, FlowView, Sample, exit_code, peer_name, problems, rates

NODES = {"10.0.0.1": "node1", "10.0.0.2": "node2"}


def view(container: str = "web", *counts: int, container_id: str | None = None) -> FlowView:
    values = dict(zip(COUNTERS, [*counts, *[0] * 6], strict=False))
    return FlowView(
        node="node1",
        container=container,
        container_id=f"{container}-id" if container_id is None else container_id,
        service=container,
        peer="10.0.0.9",
        peer_name=None,
        protocol="tcp",
        **values,
    )


def moved(before: list[FlowView], after: list[FlowView], seconds: float = 2.0) -> list[tuple[str, float, float]]:
    found = rates(Sample.of(10.0, before), Sample.of(10.0 + seconds, after), "t")
    return [(flow.container, flow.bytes_in_per_second, flow.connections_out_per_second) for flow in found]


def test_only_what_moved_and_by_the_second() -> None:
    assert moved([view("a", 100), view("b", 7)], [view("a", 300, 0, 0, 0, 0, 4), view("b", 7), view("new", 50)]) == [
        ("a", 100.0, 2.0),
        ("new", 25.0, 0.0),
    ]


def test_counters_that_went_back_began_anew() -> None:
    assert moved([view("a", 100, 50)], [view("a", 10, 60)]) == [("a", 5.0, 0.0)]


def test_a_flow_whose_container_was_forgotten_did_not_just_move() -> None:
    gone = view("cgroup-7", 1000, container_id="")
    assert moved([], [gone]) == []
    assert moved([view("cgroup-7", 0, container_id="")], [gone]) == [("cgroup-7", 500.0, 0.0)]


counts = st.lists(st.integers(0, 50), min_size=6, max_size=6)


@given(st.dictionaries(st.sampled_from("abc"), counts), st.dictionaries(st.sampled_from("abc"), counts), st.floats(-1, 10))
def test_rates_are_never_negative(before: dict[str, list[int]], after: dict[str, list[int]], seconds: float) -> None:
    then, now = (Sample.of(at, [view(key, *row) for key, row in side.items()]) for at, side in ((0.0, before), (seconds, after)))
    for flow in rates(then, now, "t"):
        assert seconds > 0
        assert all(getattr(flow, f"{name}_per_second") >= 0 for name in COUNTERS)


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("10.0.0.2", "node2"),
        ("172.17.0.3", "node1/db"),
        ("172.17.0.1", "node1"),
        ("127.0.0.1", "itself"),
        ("::1", "itself"),
        ("203.0.113.9", None),
        ("?", None),
    ],
)
def test_a_peer_is_a_node_a_neighbour_itself_or_unknown(peer: str, name: str | None) -> None:
    assert peer_name("node1", peer, {"172.17.0.3": "db", "172.17.0.1": "node1"}, NODES) == name


def test_problems_are_failures_with_their_fix_and_decide_the_exit_code() -> None:
    (problem,) = problems({"node1": object(), "node2": PeerUnreachable("no answer", fix="hmctl deploy")})
    assert (problem.node, problem.error, problem.fix) == ("node2", "no answer", "hmctl deploy")
    assert [exit_code(3, failed) for failed in range(4)] == [0, 3, 3, 4]
