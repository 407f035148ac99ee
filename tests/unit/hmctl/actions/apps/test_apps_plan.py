"""What is odd about a plan."""

from __future__ import annotations

from typing import Any

import pytest

from hmcore.apps.spec import AppSpec, ContainerSpec, Mount, ServiceSpec, Update, Volume
from hmctl.actions.apps.plan import Plan, shared_volumes
from hmctl.compose.difference import difference

VOLUME = Mount(kind="volume", target="/data", source="data")
START_FIRST = Update(order="start-first")


def plan(service: ServiceSpec, before: ServiceSpec | None = None, **volumes: Volume) -> Plan:
    old, new = None if before is None else AppSpec(services={"db": before}), AppSpec(services={"db": service}, volumes=volumes)
    return Plan("shop", 0, new, difference(old, new), changed=True)


def service(replicas: int, *mounts: Mount, **said: Any) -> ServiceSpec:
    return ServiceSpec(container=ContainerSpec(image="db:1", mounts=mounts), replicas=replicas, **said)


def test_several_replicas_of_one_volume_are_warned_of() -> None:
    (said,) = shared_volumes(plan(service(2, VOLUME)))
    assert said == "the 2 replicas of db will share the volume data, all on the one node that has it"


@pytest.mark.parametrize(
    "elsewhere",
    [
        Volume(name="data", external=True),
        Volume(name="data", driver="rexray"),
        Volume(name="data", options={"type": "nfs4", "o": "addr=192.0.2.1"}),
    ],
)
def test_of_a_volume_that_several_nodes_may_have_no_node_is_told(elsewhere: Volume) -> None:
    assert shared_volumes(plan(service(2, VOLUME), data=elsewhere)) == ["the 2 replicas of db will share the volume data"]
    (said,) = shared_volumes(plan(service(2, VOLUME), data=Volume(name="shop_data", options={"type": "none", "o": "bind", "device": "/d"})))
    assert said.endswith("on the one node that has it")


@pytest.mark.parametrize("how", [{"update": START_FIRST}, {"rollback": START_FIRST}, {"update": START_FIRST, "mode": "global"}])
def test_start_first_is_two_on_one_volume(how: dict[str, Any]) -> None:
    (said,) = shared_volumes(plan(service(1, VOLUME, **how)))
    assert said == "order: start-first: the old and the new replica of db will share the volume data for a while"


@pytest.mark.parametrize(
    "harmless",
    [
        service(1, VOLUME),
        service(1, update=START_FIRST),
        service(0, VOLUME, update=START_FIRST),
        service(1, VOLUME, update=START_FIRST, exclusive=True),  # never two of it
        service(2),
        service(2, VOLUME, mode="global"),
        service(2, Mount(kind="tmpfs", target="/data")),
        service(2, Mount(kind="volume", target="/data")),  # each has its own
    ],
)
def test_what_is_not_shared_is_not_warned_of(harmless: ServiceSpec) -> None:
    assert shared_volumes(plan(harmless)) == []


def test_what_does_not_change_is_not_warned_of_again() -> None:
    assert shared_volumes(plan(service(2, VOLUME), service(2, VOLUME))) == []
