"""What is refused of an app, whoever sends it."""

from __future__ import annotations

import pytest

from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.errors import InvalidRequest
from node_agent.platform.apps import check_spec


def spec(**named: object) -> AppSpec:
    return AppSpec(services={"db": ServiceSpec(container=ContainerSpec(image="db:1"), **named)})  # type: ignore[arg-type]


@pytest.mark.parametrize("several", [{"replicas": 2}, {"mode": "global"}])
def test_several_of_an_exclusive_service(several):
    check_spec("shop", spec(**several))
    check_spec("shop", spec(exclusive=True))
    check_spec("shop", spec(exclusive=True, replicas=0))
    with pytest.raises(InvalidRequest, match="db is exclusive: never two of it run at a time"):
        check_spec("shop", spec(exclusive=True, **several))
