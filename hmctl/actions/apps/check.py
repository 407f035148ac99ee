"""What `hmctl status` says of apps: their counts, and a check. The leader tells them along with its report. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from hmcore.apps.calls import AppsReply
from hmcore.errors import HyperMeshError
from hmctl.actions.apps.view import AppCount, Seen, ServiceCount, listing
from hmctl.actions.status import AppStatus, Check, ServiceStatus, Verdict
from hmctl.text import plural

NAME = "apps"
MOST_SAID = 5  # services in one message; hmctl app ls has them all

Told = AppsReply | HyperMeshError | None  # what the leader says; None: nobody leads, or it knows of no apps yet


def statuses(told: Told) -> list[AppStatus]:
    return [
        AppStatus(
            name=app.name,
            generation=app.generation,
            services=[
                ServiceStatus(name=each.name, desired=each.desired, running=each.running, healthy=each.healthy) for each in app.services
            ],
        )
        for app in _counts(told)
    ]


def check_apps(told: Told) -> Check | None:
    """A service that is paused, or has fewer replicas than it came to once, is a warning; one that is on its way is not. None: there is no
    app, or nobody can tell, which other checks complain of."""
    if isinstance(told, HyperMeshError):
        return Check(name=NAME, status=Verdict.WARN, message=f"how apps fare cannot be told: {told}", fix=told.fix or "hmctl app ls")
    counts = _counts(told)
    if not counts:
        return None
    services = [(app, each) for app in counts for each in app.services]
    if short := [(app, each) for app, each in services if _troubled(app, each)]:
        apps = list(dict.fromkeys(app.name for app, _ in short))
        return Check(name=NAME, status=Verdict.WARN, message=_said(short), fix=f"hmctl app explain {apps[0]}")
    if moving := [(app, each) for app, each in services if app.stage == "removing" or each.stage != "steady"]:
        return Check(name=NAME, status=Verdict.OK, message=_said(moving))
    replicas = sum(each.desired for _, each in services)
    return Check(name=NAME, status=Verdict.OK, message=f"{plural(len(counts), 'app')}, all of {plural(replicas, 'replica')} healthy")


def _counts(told: Told) -> list[AppCount]:
    return listing(Seen(told_by="", leader=True, reply=told)).apps if isinstance(told, AppsReply) else []


def _troubled(app: AppCount, service: ServiceCount) -> bool:
    return app.stage != "removing" and (service.stage == "paused" or (service.stage == "steady" and service.healthy < service.desired))


def _said(services: Iterable[tuple[AppCount, ServiceCount]]) -> str:
    words = [_words(app, each) for app, each in services]
    more = [f"and {len(words) - MOST_SAID} more"] if len(words) > MOST_SAID else []
    return "; ".join(words[:MOST_SAID] + more)


def _words(app: AppCount, service: ServiceCount) -> str:
    name = f"{app.name}/{service.name}"
    if app.stage == "removing":
        return f"{name} is being removed"
    stage = {"paused": ", its rollout is paused", "rolling": ", being rolled out"}.get(service.stage, "")
    return f"{name}: {service.healthy} of {service.desired} healthy{stage}"
