"""What the cluster's status says of its apps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from app_seen import FIT, ILL, seen

from hmcore.apps.calls import AppsReply
from hmcore.apps.records import Stage
from hmcore.errors import CallTimeout
from hmctl.actions.apps.check import Told, check_apps, statuses
from hmctl.actions.status import Verdict


@pytest.mark.parametrize(
    ("found", "stage", "verdict", "message"),
    [
        ([FIT] * 3, Stage.STEADY, Verdict.OK, "1 app, all of 4 replicas healthy"),
        ([FIT, FIT, ILL], Stage.STEADY, Verdict.WARN, "shop/web: 2 of 3 healthy"),
        ([FIT, FIT], Stage.ROLLING, Verdict.OK, "shop/web: 2 of 3 healthy, being rolled out"),
        ([FIT, FIT, ILL], Stage.PAUSED, Verdict.WARN, "shop/web: 2 of 3 healthy, its rollout is paused"),
    ],
)
def test_a_service_that_lacks_replicas_is_a_warning_unless_it_is_on_its_way(
    found: list[dict[str, Any]], stage: Stage, verdict: Verdict, message: str
) -> None:
    check = check_apps(seen(*found, stage=stage).reply)
    assert check is not None
    assert (check.status, check.message, check.fix) == (verdict, message, "hmctl app explain shop" if verdict is Verdict.WARN else None)


def test_what_is_being_removed_lacks_nothing() -> None:
    reply = seen(ILL, stage=Stage.STEADY).reply
    (app,) = reply.apps
    check = check_apps(msgspec.structs.replace(reply, apps=[msgspec.structs.replace(app, stopping=True)]))
    assert check is not None
    assert check.status is Verdict.OK
    assert "shop/web is being removed" in check.message


@pytest.mark.parametrize("told", [None, AppsReply(index=3)])
def test_without_apps_nothing_is_said(told: Told) -> None:
    assert check_apps(told) is None
    assert statuses(told) == []


def test_a_leader_that_cannot_tell_is_a_warning() -> None:
    check = check_apps(CallTimeout("no answer within 2 s", host="node1"))
    assert check is not None
    assert check.status is Verdict.WARN
    assert "no answer within 2 s" in check.message


def test_every_service_is_counted() -> None:
    (app,) = statuses(seen(FIT, ILL, stage=Stage.STEADY).reply)
    assert (app.name, app.generation) == ("shop", 4)
    assert [(each.name, each.desired, each.running, each.healthy) for each in app.services] == [("agent", 1, 1, 1), ("web", 3, 2, 1)]
