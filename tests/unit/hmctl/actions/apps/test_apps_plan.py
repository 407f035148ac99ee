"""What is odd about a plan."""

from __future__ import annotations

import pytest

from hmcore.apps.spec import AppSpec, ContainerSpec, Mount, ServiceSpec
from hmctl.actions.apps.plan import Plan, shared_volumes
from hmctl.compose.difference import difference

VOLUME = Mount(kind="volume", target="/data", source="data")


def plan(service: ServiceSpec, before: ServiceSpec | None = None) -> Plan:
    old, new = None if before is None else AppSpec(services={"db": before}), AppSpec(services={"db": service})
    return Plan("shop", 0, new, difference(old, new), changed=True)


def service(replicas: int, *mounts: Mount, mode: str = "replicated") -> ServiceSpec:
    return ServiceSpec(container=ContainerSpec(image="db:1", mounts=mounts), replicas=replicas, mode=mode)  # type: ignore[arg-type]


def test_several_replicas_of_one_volume_are_warned_of() -> None:
    (said,) = shared_volumes(plan(service(2, VOLUME)))
    assert said == "the 2 replicas of db will share the volume data, all on the one node that has it"


@pytest.mark.parametrize(
    "harmless",
    [
        service(1, VOLUME),
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
