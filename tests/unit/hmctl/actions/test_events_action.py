"""Events of several sources as one list: which are wanted, in which order, at what time."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.records import Event, NodeEvent
from hmctl.actions.events import Wanted, asked_kinds, local_time, lost, merged, of_cluster, of_node, rfc3339

NOW = datetime(2026, 11, 22, 18, 30, tzinfo=timezone(timedelta(hours=1)))


def replicated(index: int, kind: str = "node.down", subject: str = "node1", at: float = 0.0) -> Event:
    return Event(index=index, kind=kind, subject=subject, message="m", author="alice", unix_time=at)


def own(sequence: int, at: float, node: str = "node1") -> NodeEvent:
    return NodeEvent(sequence=sequence, unix_time=at, kind="exec", node=node, container="web", container_id="id", message="exec x")


@pytest.mark.parametrize(
    ("wanted", "subjects"),
    [
        (Wanted(), ["node1", "node1/web", "hm-1", "node2"]),
        (Wanted(kinds=("node",)), ["node1", "node2"]),
        (Wanted(kinds=("node.down",)), ["node1"]),
        (Wanted(kinds=("nod",)), []),
        (Wanted(kinds=("exec",)), []),
        (Wanted(nodes=frozenset({"node1"})), ["node1", "node1/web"]),
        (Wanted(container="web"), ["node1/web"]),
        (Wanted(container="node1/web"), ["node1/web"]),
        (Wanted(container="node2/web"), []),
        (Wanted(since=3.0), ["hm-1", "node2"]),
    ],
)
def test_which_of_the_clusters_events_are_wanted(wanted: Wanted, subjects: list[str]) -> None:
    events = [
        replicated(1, "node.down", "node1", 1),
        replicated(2, "instance.unhealthy", "node1/web", 2),
        replicated(3, "cluster.formed", "hm-1", 3),
        replicated(4, "node.ready", "node2", 4),
    ]
    assert [event.view.subject for event in of_cluster(events, wanted)] == subjects


def test_whom_to_ask() -> None:
    assert Wanted().node_kinds == ("exec", "tcp")
    assert Wanted().of_cluster
    only = Wanted(kinds=("tcp",))
    assert (only.node_kinds, only.of_cluster, only.asks("node1")) == (("tcp",), False, True)
    assert not Wanted(kinds=("node",)).asks("node1")
    assert [Wanted(container="node1/web").asks(name) for name in ("node1", "node2")] == [True, False]
    assert [Wanted(nodes=frozenset({"node2"})).asks(name) for name in ("node1", "node2")] == [False, True]


def test_the_clusters_events_bear_author_and_time_and_begin_after_an_index() -> None:
    (event,) = of_cluster([replicated(4), replicated(5, at=1_795_000_000.25)], Wanted(), after=4)
    assert (event.view.time, event.view.author, event.view.node) == ("2026-11-18T11:06:40.250Z", "alice", None)
    (old,) = of_cluster([replicated(1)], Wanted())
    assert old.view.time is None  # an earlier release gave none


def test_merged_by_time_and_one_source_never_out_of_its_order() -> None:
    cluster = of_cluster([replicated(9, at=5.0), replicated(9, subject="node2", at=5.0)], Wanted())
    first, second = of_node([own(3, 4.0), own(4, 5.0)], Wanted()), of_node([own(1, 4.5, "node2")], Wanted())
    found = merged([cluster, first, second], None)
    assert [(event.source, event.number, event.part) for event in found] == [
        ("node1", 3, 0), ("node2", 1, 0), ("", 9, 0), ("", 9, 1), ("node1", 4, 0),
    ]  # fmt: skip
    assert merged([cluster, first, second], 2) == found[-2:]
    assert merged([cluster], 0) == []


@pytest.mark.parametrize(
    ("clusters", "nodes", "limit", "told"),
    [
        (3, 20, 10, (3, 7)),
        (8, 20, 10, (5, 5)),
        (8, 2, 10, (8, 2)),
        (20, 3, 10, (7, 3)),
        (0, 20, 10, (0, 10)),
        (8, 20, 0, (0, 0)),
        (1, 9, 1, (0, 1)),
    ],
)
def test_what_containers_do_leaves_half_of_the_lines_to_the_cluster(clusters: int, nodes: int, limit: int, told: tuple[int, int]) -> None:
    """Which happened before all of it."""
    lists = [of_cluster([replicated(index, at=float(index)) for index in range(clusters)], Wanted())]
    lists += [of_node([own(number, 100.0 + number) for number in range(nodes)], Wanted())]
    found = merged(lists, limit, fairly=True)
    assert (sum(not event.source for event in found), sum(bool(event.source) for event in found)) == told
    assert found == sorted(found)
    every = merged(lists, None, fairly=True)
    assert len(every) == clusters + nodes
    assert found[-1:] == every[-1:][:limit], "the latest"


def test_a_gap_stands_before_what_came_after_it() -> None:
    gap = lost("node1", 12, before=5.0, last=-1)
    assert merged([[gap], of_node([own(4, 5.0)], Wanted())], None)[0] is gap
    assert (gap.view.message, gap.view.kind, gap.view.attributes) == ("12 events lost", "lost", {"count": "12"})


def test_since_leaves_out_what_was_before() -> None:
    assert [event.number for event in of_node([own(1, 1.0), own(2, 2.0)], Wanted(since=2.0))] == [2]


def test_times_for_people_have_a_date_only_on_other_days() -> None:
    assert local_time("2026-11-22T17:31:02.123Z", NOW) == "18:31:02.123"
    assert local_time("2026-11-21T23:30:00.000Z", NOW) == "00:30:00.000"  # it is today in their zone
    assert local_time("2026-11-21T17:31:02.123Z", NOW) == "2026-11-21 18:31:02.123"
    assert local_time(None, NOW) == "-"


@given(st.floats())
def test_any_clock_gives_some_time(unix_time: float) -> None:
    assert rfc3339(unix_time).endswith("Z")


def test_every_kind_that_is_replicated_can_be_asked_for() -> None:
    """The kinds are written where they come about; hmctl, which must not import that, lists them."""
    agent = Path(__file__).parents[4].joinpath("node_agent")
    files = [*agent.glob("consensus/statemachine/effects/*.py"), *agent.glob("orchestration/**/*.py")]
    source = "".join(path.read_text() for path in sorted(files))
    kinds = set(re.findall(r'(?:record\(entry, |Happening\(|Phase\.[A-Z]+: )"([a-z]+\.[a-z-]+)"', source))
    assert {"app.deployed", "rollout.paused", "replica.failed", "lock.taken"} < kinds
    assert set(asked_kinds(kinds)) == kinds


def test_kinds_may_be_given_with_commas_and_again() -> None:
    assert asked_kinds(["exec, tcp", "node.down,exec", ""]) == ("exec", "tcp", "node.down")
