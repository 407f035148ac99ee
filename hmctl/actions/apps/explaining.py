"""Why an app is not, or not yet, as it shall be: what is waited for, and which replicas fail. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hmcore.apps.records import App, Stage
from hmctl.actions.apps.progress import ServiceProgress, progress, trouble
from hmctl.actions.apps.view import Seen


class ReplicaTrouble(msgspec.Struct, frozen=True, kw_only=True):
    """`phase` null: its node has not said anything of it yet."""

    id: str
    replica: str
    node: str
    phase: str | None
    why: str


class ServiceExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """`waits`: what the leader waits for, a line each: of replicas without a place how many nodes each filter removed."""

    progress: ServiceProgress
    waits: list[str]
    replicas: list[ReplicaTrouble]


class AppExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl app explain`. `leader` false: nobody leads, so that what is waited for is not known."""

    name: str
    generation: int
    removing: bool
    told_by: str
    leader: bool
    index: int
    services: list[ServiceExplanation]


def explanation(seen: Seen, app: App, service: str = "") -> AppExplanation:
    chosen = [each for each in progress(seen, app.name) if service in ("", each.service)]
    return AppExplanation(
        name=app.name,
        generation=app.generation,
        removing=app.stopping,
        told_by=seen.told_by,
        leader=seen.leader,
        index=seen.reply.index,
        services=[
            ServiceExplanation(
                progress=each,
                waits=[line for line in seen.reply.waits.get(f"{app.name}/{each.service}", "").splitlines() if line.strip()],
                replicas=list(_troubles(seen, app, each.service)),
            )
            for each in chosen
        ],
    )


def _troubles(seen: Seen, app: App, service: str) -> Iterator[ReplicaTrouble]:
    """Replicas that are wanted and not fit, and those that were to stop and have not."""
    for each in sorted(seen.allocations(app.name, service), key=lambda each: (each.slot, each.node, each.serial)):
        status = seen.status(each)
        if each.stop:
            why = f"it is to stop: {each.reason}" if each.reason else "it is to stop"
        elif status is None:
            why = f"{each.node} has not said anything of it yet"
        elif not (why := trouble(each, status)):
            continue
        phase = None if status is None else str(status.phase)
        yield ReplicaTrouble(id=each.id, replica=each.replica, node=each.node, phase=phase, why=why)


def summary(service: ServiceExplanation) -> str:
    """In a few words, for a line that goes on with the reasons."""
    found = service.progress
    if found.stage == Stage.PAUSED:
        return f"paused: {found.message}"
    if found.outcome and not service.replicas and not service.waits:
        return f"as it shall be: {found.healthy} of {found.desired} healthy"
    return f"{found.stage}: {found.placed} of {found.desired} placed, {found.started} started, {found.healthy} healthy"
