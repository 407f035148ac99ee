"""Which numbers of replicas are asked about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pytest

from hmcore.apps.spec import AppSpec, ContainerSpec, Resources, ServiceSpec
from hmctl.actions.apps.plan import Plan
from hmctl.actions.apps.scaling import doubts
from hmctl.compose.difference import difference

NODES = {"node1": Resources(cpus=2000, memory=4 << 30), "node2": Resources(cpus=1000, memory=8 << 30)}


def service(replicas: int, cpus: int = 0, memory: int = 0, mode: Literal["replicated", "global"] = "replicated") -> ServiceSpec:
    return ServiceSpec(
        container=ContainerSpec(image="web:1"), replicas=replicas, mode=mode, reservations=Resources(cpus=cpus, memory=memory)
    )


def said(before: dict[str, ServiceSpec], after: dict[str, ServiceSpec], capacity: Mapping[str, Resources] = NODES) -> list[str]:
    old, new = AppSpec(services=before), AppSpec(services=after)
    return doubts(old, Plan("shop", 1, new, difference(old, new), changed=True), capacity)


def test_what_is_beyond_fifty_for_each_node_is_in_doubt() -> None:
    assert said({"web": service(1)}, {"web": service(100)}) == []
    assert said({"web": service(1)}, {"web": service(101)}) == ["101 replicas of shop are more than 50 for each of 2 nodes"]
    assert said({"web": service(1), "db": service(1)}, {"web": service(100), "db": service(1)}) != []
    assert said({"web": service(1), "all": service(1, mode="global")}, {"web": service(100), "all": service(1, mode="global")}) == []


@pytest.mark.parametrize(
    ("reserved", "most"),
    [((500, 0), 4 + 2), ((0, 3 << 30), 1 + 2), ((500, 2 << 30), 2 + 2), ((1500, 1), 1), ((9000, 0), 0)],
)
def test_what_reservations_leave_no_room_for_is_in_doubt(reserved: tuple[int, int], most: int) -> None:
    assert said({"web": service(0, *reserved)}, {"web": service(most, *reserved)}) == []
    expected = f"on 2 nodes there is room for {most} of the {most + 1} replicas of web, by what they reserve, and nothing else"
    assert said({"web": service(0, *reserved)}, {"web": service(most + 1, *reserved)}) == [expected]


def test_who_has_too_many_may_have_fewer_without_being_asked() -> None:
    assert said({"web": service(1000, 500)}, {"web": service(900, 500)}) == []
    assert said({"web": service(1000)}, {"web": service(1000)}) == []


def test_without_a_word_of_what_nodes_have_nothing_is_in_doubt() -> None:
    assert said({"web": service(1)}, {"web": service(9999)}, {}) == []
