"""What was observed, and what the node's checks make of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.health import NODE_WEIGHTS
from hmcore.records import CheckReport, ComponentReport, Mute, Node, NodeState, Role
from hmcore.records import ComponentState as S
from node_agent.platform.health import LOW_MEMORY_BYTES, OWN_MEMORY_BYTES, Memory, Observations, checks, judge
from node_agent.platform.vitals import Links, Slow, read_memory

COMPONENTS = ("transport", "consensus", "container", "network", "security", "apps", "registry", "orchestration")
RUNNING = {name: ComponentReport(state=S.RUNNING) for name in COMPONENTS}
NO_DOCKER = ComponentReport(state=S.DEGRADED, error="Docker is not running", fix="systemctl start docker")
FULL = "the disk of /var/lib/hypermesh is nearly full (under 5% and 1 GB free)"
OLD = "the certificate expires on 2026-12-01: run `hmctl deploy`"
ROOM = Memory(total=8 << 30, available=4 << 30, own=100 << 20)


def node(name: str, state: NodeState = NodeState.READY) -> Node:
    return Node(name=name, address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1", state=state)


def seen(**given: object) -> Observations:
    return Observations(**{"components": RUNNING, "leader": "node1", "memory": ROOM, "peers": 2, **given})  # type: ignore[arg-type]


def of(name: str, seen: Observations) -> CheckReport:
    return next(check for check in checks(seen) if check.name == name)


def test_all_well_is_one():
    health = judge(checks(seen(events_lost=0, metrics=ComponentReport(state=S.RUNNING))))
    assert (health.score, health.reasons) == (1.0, ())


def test_every_check_is_in_the_catalogue_with_its_weight():
    everything = seen(events_lost=0, metrics=ComponentReport(state=S.RUNNING))
    assert {check.name: check.weight for check in checks(everything)} == NODE_WEIGHTS


def test_what_is_not_observed_is_no_check():
    names = {check.name for check in checks(seen(memory=None))}
    assert names.isdisjoint({"memory", "events", "metrics"})


def test_docker_down_costs_a_little_and_says_why_and_what_mends_it():
    ailing = seen(components={**RUNNING, "container": NO_DOCKER})
    health = judge(checks(ailing))
    assert (health.score, health.reasons) == (0.955, ("Docker is not running",))
    assert of("component.container", ailing).fix == "systemctl start docker"


def test_nothing_known_is_not_well():
    assert judge([]).score == 0.0


@pytest.mark.parametrize(
    ("check", "given", "worth", "reason"),
    [
        ("disk", {"disk": FULL}, 0.5, FULL),
        ("certificate", {"certificate": OLD}, 0.5, OLD),
        ("memory", {"memory": Memory(8 << 30, LOW_MEMORY_BYTES - 1, 0)}, 0.0, "nearly out of memory"),
        ("memory", {"memory": Memory(1 << 30, LOW_MEMORY_BYTES - 1, 0)}, 1.0, None),  # a quarter of a small machine
        ("memory", {"memory": Memory(8 << 30, 4 << 30, OWN_MEMORY_BYTES + 1)}, 0.5, "the agent keeps more than 512 MB"),
        ("events", {"events_lost": 7}, 0.5, "does not keep up"),
        (
            "metrics",
            {"metrics": ComponentReport(state=S.DEGRADED, error="in use", fix="ss -ltnp")},
            0.0,
            "in use",
        ),
        ("peers", {"unlinked": frozenset({"node2"}), "members": {"node2": node("node2")}}, 0.5, "no connection to node2"),
        ("peers", {"unlinked": frozenset({"node2"}), "members": {"node2": node("node2", NodeState.SUSPECT)}}, 1.0, None),
        ("peers", {"unlinked": frozenset({"node2"}), "members": {"node2": node("node2", NodeState.DOWN)}}, 1.0, None),
        ("peers", {"unlinked": frozenset({"node2"}), "members": {"node2": node("node2")}, "leader": None}, 1.0, None),
        ("peers", {"unlinked": frozenset({"node9"})}, 1.0, None),  # no member: not yet, or not any more
    ],
)
def test_each_check(check, given, worth, reason):
    found = of(check, seen(**given))
    assert found.worth == worth
    assert (found.reason is None) if reason is None else re.search(re.escape(reason), found.reason)
    assert found.fix or worth == 1.0 or check == "events"


@pytest.mark.parametrize(("name", "cause"), [("consensus", {"disk": FULL}), ("transport", {"certificate": OLD})])
def test_what_a_check_says_its_component_does_not_say_again(name, cause):
    (trouble,) = cause.values()
    found = checks(seen(components={**RUNNING, name: ComponentReport(state=S.DEGRADED, error=trouble)}, **cause))
    assert judge(found).reasons == (trouble,)
    assert judge(checks(seen(**cause))).score == judge(found).score


def test_a_muted_check_stays_in_sight():
    found = checks(
        seen(components={**RUNNING, "container": NO_DOCKER}),
        "node1",
        {"x": Mute(check="x"), "component.container@node1": Mute(check="component.container", node="node1")},
    )
    assert [check.name for check in found if check.muted] == ["component.container"]
    assert judge(found) == judge(checks(seen()))


@given(
    st.dictionaries(
        st.sampled_from(COMPONENTS),
        st.builds(ComponentReport, state=st.sampled_from(S), error=st.none() | st.just("because") | st.just(FULL)),
    ),
    st.none() | st.just(FULL),
)
def test_less_than_one_always_has_a_reason_and_one_never(components, disk):
    health = judge(checks(Observations(components=components, disk=disk)))
    assert 0.0 <= health.score <= 1.0
    assert (health.score < 1.0) == bool(health.reasons)


def test_a_link_is_lost_after_a_while_and_found_at_once():
    links, peers = Links(grace=4.0), frozenset({"node2", "node3"})
    assert links.lost(peers, frozenset({"node2"}), 0.0) == frozenset()
    assert links.lost(peers, frozenset({"node2"}), 3.9) == frozenset()
    assert links.lost(peers, frozenset({"node2"}), 4.0) == {"node3"}
    assert links.lost(peers, peers, 4.1) == frozenset()
    assert links.lost(peers, frozenset({"node2"}), 8.0) == frozenset()  # counts anew


def test_slow_things_are_looked_at_now_and_then_and_events_counted_in_between():
    lost = iter((100, 100, 103, 5))
    looks = []
    slow = Slow(interval=10.0, disk=lambda: looks.append(1), events_lost=lambda: next(lost), memory=lambda: None)
    told = []
    for now in (0.0, 0.5, 9.9, 10.0, 20.0, 30.0):
        slow.look(now)
        told.append(slow.events_lost)
    assert len(looks) == 4
    assert told == [0, 0, 0, 0, 3, 0]  # what was lost before our time, and a counter that began anew, are no loss


def test_the_machine_says_how_much_memory_there_is(tmp_path):
    memory = read_memory()
    assert memory is not None
    assert 0 < memory.own < memory.total
    assert 0 < memory.available <= memory.total
    assert read_memory(tmp_path) is None
