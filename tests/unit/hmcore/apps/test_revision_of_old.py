"""What was deployed by an earlier release keeps its revision: nothing that runs is replaced because a spec can say more now."""

from __future__ import annotations

import msgspec
import pytest

from hmcore.apps.spec import AppSpec, ContainerSpec, Probe, ServiceSpec, revision

OLD = ServiceSpec(container=ContainerSpec(image="db:1", probe=Probe(test=("CMD", "true"), interval=float("30.0")), expose=(80,)))


def found(container: ContainerSpec) -> str:
    return revision(AppSpec(services={"db": ServiceSpec(container=container)}), "db")


def test_a_check_whose_times_were_as_usual() -> None:
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(OLD), type=ServiceSpec)  # says 30.0, as the file did
    assert found(stored.container) == found(OLD.container) == "f4a69388d0412a22"


@pytest.mark.parametrize("more", [{"probe": Probe(test=("CMD", "true"), written=("interval",))}, {"expose_udp": (53,)}])
def test_what_says_more_is_another(more: dict[str, object]) -> None:
    assert found(msgspec.structs.replace(OLD.container, **more)) != found(OLD.container)
