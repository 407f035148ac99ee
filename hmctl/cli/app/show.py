"""hmctl app ls, ps, history, explain: what there is, where it runs, what it was, and why it is not as it shall be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from hmctl.cli.app.options import AppArgument, TargetArgument, look
from hmctl.cli.context import current
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.output import Output
from hmctl.text import Cell, Style, Styled, duration

if TYPE_CHECKING:
    from hmctl.actions.apps.explaining import AppExplanation
    from hmctl.actions.apps.history import AppHistory, GenerationView
    from hmctl.actions.apps.view import AppCount, AppList, AppReplicas, ReplicaView

STAGES: dict[str, Style] = {"steady": "good", "rolling": "warning", "paused": "bad", "removing": "dim"}
PHASES: dict[str, Style] = {
    "waiting": "dim",
    "pulling": "warning",
    "starting": "warning",
    "running": "good",
    "backoff": "bad",
    "stopping": "dim",
    "done": "dim",
    "failed": "bad",
}
HEALTH: dict[str, Style] = {"healthy": "good", "degraded": "warning", "unhealthy": "bad", "unknown": "dim"}


def ls(ctx: typer.Context, via: ViaOption = Via.AUTO, timeout: TimeoutOption = None) -> None:
    """List the apps: their generation, how many replicas of each service are healthy, and how far their rollouts are."""
    from hmctl.actions.apps.view import listing

    context = current(ctx)
    document = listing(look(context, "", via, timeout))
    context.output.result(document, lambda: _show_apps(context.output, document))
    if not document.apps:
        context.output.note("there are no apps yet; hmctl app deploy -f compose.yaml makes one")


def ps(ctx: typer.Context, target: TargetArgument, via: ViaOption = Via.AUTO, timeout: TimeoutOption = None) -> None:
    """List the replicas of an app, or of one service: where they are, how they fare, and why not better.

    A replica that is to stop is listed until its node has stopped it.
    """
    from hmctl.actions.apps.progress import revisions
    from hmctl.actions.apps.view import checked_service, replicas, split

    context = current(ctx)
    name, service = split(target)
    seen = look(context, name, via, timeout)
    app = seen.app(name)
    document = replicas(seen, app, revisions(app, seen.present(app).spec), checked_service(seen, app, service))
    context.output.result(document, lambda: _show_replicas(context.output, document, time.time()))
    if not document.replicas:
        context.output.note(f"no replica of {target} has a place; hmctl app explain {target}")


def history(ctx: typer.Context, name: AppArgument, via: ViaOption = Via.AUTO, timeout: TimeoutOption = None) -> None:
    """List what an app was to be, the latest generation first: by whom, why, what changed, and whether all of it came to be healthy.

    The latest ten are kept. What changed is against the one listed below.
    """
    from hmctl.actions.apps.history import history as made

    context = current(ctx)
    seen = look(context, name, via, timeout)
    document = made(seen, seen.app(name))
    context.output.result(document, lambda: _show_history(context.output, document))


def explain(ctx: typer.Context, target: TargetArgument, via: ViaOption = Via.AUTO, timeout: TimeoutOption = None) -> None:
    """Say why an app, or a service, is not as it shall be: what is waited for, how many nodes each filter removed, what fails where."""
    from hmctl.actions.apps.explaining import explanation
    from hmctl.actions.apps.view import checked_service, split

    context = current(ctx)
    name, service = split(target)
    seen = look(context, name, via, timeout)
    app = seen.app(name)
    document = explanation(seen, app, checked_service(seen, app, service))
    context.output.result(document, lambda: _show_explanation(context.output, document))
    if not seen.leader:
        context.output.note("what is waited for is known to a leader only")


def _show_apps(output: Output, document: AppList) -> None:
    if not document.apps:
        return
    columns: list[Column | str] = [
        "APP",
        Column("GENERATION", right=True, spared=1),
        "STATE",
        Column("HEALTHY", wraps=True),
        Column("WHY", wraps=True),
    ]
    output.table(columns, [app_row(each) for each in document.apps])


def app_row(app: AppCount) -> list[Cell]:
    short = any(each.healthy < each.desired for each in app.services)
    counted = ", ".join(f"{each.name} {each.healthy}/{each.desired}" for each in app.services)
    return [
        app.name,
        str(app.generation),
        Styled(app.stage, STAGES[app.stage]),
        Styled(counted, "warning" if short and app.stage != "removing" else None),
        app.message,
    ]


def _show_replicas(output: Output, document: AppReplicas, now: float) -> None:
    if not document.replicas:
        return
    columns: list[Column | str] = [
        "REPLICA",
        "NODE",
        "PHASE",
        "HEALTH",
        Column("SINCE", right=True, spared=2),
        Column("RESTARTS", right=True, spared=1),
        Column("GENERATION", right=True, spared=3),
        Column("CONTAINER", spared=4),
        Column("PORTS", spared=5),
        Column("WHY", wraps=True),
    ]
    output.table(columns, [replica_row(each, now) for each in document.replicas])


def replica_row(replica: ReplicaView, now: float) -> list[Cell]:
    from hmctl.actions.apps.ports import port_words

    phase = replica.phase or "not heard of"
    return [
        replica.replica,
        replica.node,
        Styled(phase, PHASES.get(phase, "dim")),
        Styled(replica.health, HEALTH.get(replica.health)),
        "-" if replica.since is None else duration(max(0.0, now - replica.since)),
        str(replica.restarts),
        str(replica.generation),
        replica.container[:12] or "-",
        port_words(replica.ports),
        "; ".join(why_of(replica)),
    ]


def why_of(replica: ReplicaView) -> list[str]:
    """What is worth telling of it beside its phase."""
    found = []
    if replica.stop:
        found.append(f"to stop: {replica.reason}" if replica.reason else "to stop")
    elif not replica.current:
        found.append("to be replaced")
    if replica.error:
        found.append(f"it cannot be started: {replica.error}" if replica.stuck else replica.error)
    elif replica.exit_code is not None and replica.phase in ("backoff", "failed", "done"):
        found.append(f"it ended with {replica.exit_code}")
    return found


def _show_history(output: Output, document: AppHistory) -> None:
    columns: list[Column | str] = [
        Column("GENERATION", right=True),
        Column("DEPLOYED", spared=1),
        Column("BY", spared=2),
        "STATE",
        Column("WHAT", wraps=True),
        Column("CHANGED", wraps=True),
    ]
    output.table(columns, [generation_row(each) for each in reversed(document.generations)])


def generation_row(generation: GenerationView) -> list[Cell]:
    from hmctl.actions.apps.history import changed_words

    state, style = ("was healthy", None) if generation.reached else ("never healthy", "warning")
    if generation.present:
        state, style = ("present, healthy", "good") if generation.reached else ("present, not healthy yet", "warning")
    back = f"brings back {generation.origin}" if generation.origin else ""
    return [
        str(generation.number),
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(generation.unix_time)) if generation.unix_time else "-",
        generation.author or "the cluster",
        Styled(state, style),  # type: ignore[arg-type]
        ": ".join(filter(None, (back, generation.note))) or ", ".join(f"{name} {image}" for name, image in generation.services.items()),
        changed_words(generation.changed),
    ]


def _show_explanation(output: Output, document: AppExplanation) -> None:
    from hmctl.actions.apps.explaining import summary
    from hmctl.actions.apps.view import located

    removing = ", being removed" if document.removing else ""
    output.line(Styled(document.name, "strong"), f"  generation {document.generation}{removing}")
    for service in document.services:
        found = service.progress
        output.paragraph("  ", Styled(found.service, STAGES[found.stage]), "  ", text=summary(service))
        for line in service.waits:
            output.paragraph("    ", Styled("waits: ", "accent"), text=line)
        for replica in service.replicas:
            output.paragraph("    ", Styled(f"{located(replica.replica, replica.node)}: ", "dim"), text=replica.why)
