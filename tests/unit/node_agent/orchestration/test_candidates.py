"""Nodes as the scheduler sees them, and where volumes are at home."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from hmcore.apps.records import Machine
from hmcore.apps.spec import Resources
from hmcore.records import Node, Role
from node_agent.orchestration.candidates import candidates, homes
from node_agent.orchestration.scheduling.fleet import Fleet

NAMES = ("node1", "node2", "node3")


def view(*machines: Machine, nodes: tuple[str, ...] = NAMES, labels: dict[str, str] | None = None) -> SimpleNamespace:
    made = {name: Node(name=name, address="198.18.0.9", port=7443, role=Role.WORKER, release="r1", labels=labels or {}) for name in nodes}
    return SimpleNamespace(nodes=made, machines={machine.node: machine for machine in machines})


def test_a_member_that_has_not_told_what_it_has_gets_nothing() -> None:
    (found,) = candidates(view(nodes=("node1",)))
    assert (found.engine, found.capacity) == (False, Resources())
    assert found.obstacle


def test_what_a_node_told_is_what_it_has() -> None:
    told = Machine(
        node="node2", cpus=4000, memory=8 << 30, os="linux", arch="x86_64", engine=True, images=("sha256:1",), volumes=("shop_data",)
    )
    _, found, _ = candidates(view(told))
    assert (found.node.name, found.engine, found.obstacle) == ("node2", True, "")
    assert (found.capacity.cpus, found.capacity.memory) == (4000, 8 << 30)
    assert (found.platform.os, found.platform.arch) == ("linux", "x86_64")
    assert (found.images, found.volumes) == ({"sha256:1"}, {"shop_data"})


def test_a_node_whose_docker_is_away_gets_nothing_whatever_else_it_told() -> None:
    found, *_ = candidates(view(Machine(node="node1", cpus=4000, memory=8 << 30, engine=False)))
    assert found.obstacle


def test_a_node_that_says_so_runs_no_apps_and_one_that_says_nothing_of_it_does() -> None:
    """Of an earlier release, or recorded by one."""
    unwilling = Machine(node="node1", engine=True, apps=False)
    silent = msgpack.decode(msgpack.encode({"node": "node2", "engine": True}), type=Machine)
    found = candidates(view(unwilling, silent))
    assert [each.apps for each in found] == [False, True, True]
    assert b"apps" not in msgpack.encode(silent), "an earlier release reads what it wrote"
    assert msgpack.decode(msgpack.encode(unwilling), type=Machine) == unwilling


def test_labels_that_a_node_told_are_there_for_constraints() -> None:
    fleet = Fleet(candidates(view(Machine(node="node1", engine=True), nodes=("node1",), labels={"zone": "a"})))
    assert len(fleet.satisfying("node.labels.zone == a")) == 1
    assert not fleet.satisfying("node.labels.zone != a")


def test_who_is_no_member_is_no_candidate_but_its_data_is_where_it_is() -> None:
    """A database must not begin elsewhere with an empty volume because its node was struck from the list for a moment."""
    gone = view(Machine(node="node9", engine=True, volumes=("shop_data",)))
    assert [found.node.name for found in candidates(gone)] == list(NAMES)
    assert homes(gone) == {"shop_data": "node9"}


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from("abcd"), unique=True)))
def test_a_volume_is_at_home_exactly_where_it_is_alone(volumes: dict[str, list[str]]) -> None:
    found = homes(view(*(Machine(node=name, volumes=tuple(there)) for name, there in volumes.items())))
    for volume in "abcd":
        where = [name for name, there in volumes.items() if volume in there]
        assert found.get(volume) == (where[0] if len(where) == 1 else None)
