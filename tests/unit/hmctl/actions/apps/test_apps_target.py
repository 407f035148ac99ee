"""How replicas are named."""

from __future__ import annotations

import pytest

from hmcore.errors import UsageError
from hmctl.actions.apps.target import Target, replica_target, target


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("shop", Target("shop", "")),
        ("shop/web", Target("shop", "web")),
        ("shop/web.12", Target("shop", "web", 12)),
        ("shop/agent@n-1", Target("shop", "agent", None, "n-1")),
    ],
)
def test_what_is_typed_is_told_again(text: str, meant: Target) -> None:
    assert target(text) == meant
    assert str(meant) == text


@pytest.mark.parametrize(
    "wrong",
    ["", "shop/", "/web", *(f"shop/{each}" for each in ("web.", "web.x", "web/1", "web.1.2", "web@", "web.1@n1", "@n1", "web.\u0663"))],
)
def test_what_names_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        target(wrong)


def test_one_replica_is_of_a_service_and_on_one_node() -> None:
    assert replica_target("shop/web.12", "n1") == Target("shop", "web", 12, "n1")
    assert str(replica_target("shop/web.12", "n1")) == "shop/web.12 on n1"
    assert replica_target("shop/web", "n1") == replica_target("shop/web@n1", "n1") == replica_target("shop/web@n1")
    for text, node in (("shop", ""), ("shop/web@n1", "n2")):
        with pytest.raises(UsageError):
            replica_target(text, node)
