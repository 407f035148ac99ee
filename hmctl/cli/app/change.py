"""hmctl app scale, restart, rollback, rm: changes of an app that is there, waited for until they have come out."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from hmcore.errors import UsageError
from hmctl.cli.app.deploy import show_plan
from hmctl.cli.app.options import (
    PATIENCE,
    AppArgument,
    PatienceOption,
    TargetArgument,
    WaitOption,
    YesOption,
    carry_out,
    look,
    refuse_clashes,
)
from hmctl.cli.app.waiting import settle, still
from hmctl.cli.completing import scaled_services
from hmctl.cli.context import current
from hmctl.cli.status import ViaOption
from hmctl.client import Via
from hmctl.text import listed, plural

MOST_REPLICAS = 10_000  # as the agents have it

_NUMBER = re.compile(r"[0-9]{1,9}")


def scale(
    ctx: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="APP/SERVICE=N...", help="Services of one app, and their replicas.", autocompletion=scaled_services),
    ],
    wait: WaitOption = True,
    timeout: PatienceOption = PATIENCE,
    yes: YesOption = False,
    via: ViaOption = Via.AUTO,
) -> int:
    """Set how many replicas services have. It is a new generation of the app; deploying its file again sets what the file says.

    Asks only if that is very many: more than 50 for each node, or than nodes have room for by what is reserved.
    """
    from hmcore.apps.calls import SCALE, ScaleRequest
    from hmctl.actions.apps.calls import new_request
    from hmctl.actions.apps.plan import scaled, shared_volumes
    from hmctl.actions.apps.progress import Goal
    from hmctl.actions.apps.scaling import doubts

    name, replicas = numbers(targets)
    context = current(ctx)
    seen = look(context, name, via, capacity=True)
    app = seen.app(name)
    present, wanted = seen.present(app).spec, scaled(seen, app, replicas)
    refuse_clashes(context, name, present, wanted.spec, via)
    doubted = doubts(present, wanted, seen.reply.capacity)
    for words in (*shared_volumes(wanted), *doubted):
        context.output.warn(words)
    context.output.confirm(f"Scale {name} all the same?", yes=yes or not doubted)
    request = ScaleRequest(id=new_request(), name=name, replicas=replicas)
    reply = carry_out(context, SCALE, request, name, via, seen)
    code = 0 if reply.changed else still(context, app, f"{name} has as many replicas as that already")
    return settle(context, Goal(name, reply.revision), reply, via, wait=wait, timeout=timeout) or code


def numbers(targets: list[str]) -> tuple[str, dict[str, int]]:
    """The app, and replicas by service. Raises UsageError."""
    found: dict[tuple[str, str], int] = {}
    for target in targets:
        where, _, number = target.rpartition("=")
        name, _, service = where.partition("/")
        if not name or not service or "/" in service or not _NUMBER.fullmatch(number) or int(number) > MOST_REPLICAS:
            raise UsageError(f"{target!r} is not APP/SERVICE=N, N from 0 to {MOST_REPLICAS}", fix="such as hmctl app scale shop/web=3")
        if found.setdefault((name, service), int(number)) != int(number):
            raise UsageError(f"{where} is to have {found[name, service]} and {int(number)} replicas", fix="name each service once")
    apps = sorted({name for name, _ in found})
    if len(apps) > 1:
        raise UsageError(f"these are services of {len(apps)} apps: {', '.join(apps)}", fix="scale one app at a time")
    return apps[0], {service: number for (_, service), number in found.items()}


def restart(
    ctx: typer.Context,
    target: TargetArgument,
    wait: WaitOption = True,
    timeout: PatienceOption = PATIENCE,
    via: ViaOption = Via.AUTO,
) -> int:
    """Replace the containers of an app, or of one service, by new ones; as gently as its update_config says."""
    from hmcore.apps.calls import RESTART, RestartRequest
    from hmctl.actions.apps.calls import new_request
    from hmctl.actions.apps.progress import Goal, with_dependents
    from hmctl.actions.apps.view import checked_service, split

    name, service = split(target)
    context = current(ctx)
    seen = look(context, name, via)
    app = seen.app(name)
    chosen = (checked_service(seen, app, service),) if service else ()
    reply = carry_out(context, RESTART, RestartRequest(id=new_request(), name=name, services=chosen), name, via, seen)
    services = with_dependents(seen.present(app).spec, chosen)
    return settle(context, Goal(name, reply.revision, services), reply, via, wait=wait, timeout=timeout)


def rollback(
    ctx: typer.Context,
    name: AppArgument,
    to: Annotated[
        int | None,
        typer.Option(
            "--to",
            min=1,
            metavar="GENERATION",
            help="Which one: see hmctl app history.  [default: the last other one that was healthy]",
            show_default=False,
        ),
    ] = None,
    wait: WaitOption = True,
    timeout: PatienceOption = PATIENCE,
    yes: YesOption = False,
    via: ViaOption = Via.AUTO,
) -> int:
    """Make an app again what it was. That is a new generation, which brings back an earlier one."""
    from hmcore.apps.calls import ROLLBACK, RollbackRequest
    from hmctl.actions.apps.calls import new_request
    from hmctl.actions.apps.history import earlier
    from hmctl.actions.apps.progress import Goal
    from hmctl.compose.difference import difference

    context = current(ctx)
    seen = look(context, name, via)
    app = seen.app(name)
    back = earlier(seen, app, to or 0)
    present = seen.present(app).spec
    refuse_clashes(context, name, present, back.spec, via)
    changes = difference(present, back.spec)
    show_plan(context.output, f"{name}, back to what generation {back.number} was", app.generation, changes)
    if not back.reached:
        context.output.warn(f"generation {back.number} was never healthy, and is not taken back by itself", fix=f"hmctl app history {name}")
    context.output.confirm(f"Roll {name} back to generation {back.number}?", yes=yes)
    reply = carry_out(context, ROLLBACK, RollbackRequest(id=new_request(), name=name, to=back.number), name, via, seen)
    return settle(context, Goal(name, reply.revision), reply, via, wait=wait, timeout=timeout, plan=changes)


def remove(
    ctx: typer.Context,
    name: AppArgument,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to wait until nothing of it is left.")] = True,
    timeout: PatienceOption = PATIENCE,
    yes: YesOption = False,
    via: ViaOption = Via.AUTO,
) -> int:
    """Remove an app: its containers are stopped, its generations forgotten. Named volumes stay on their nodes, with their data. What a node
    that is down still has of it is removed when that is back."""
    from hmcore.apps.calls import REMOVE, RemoveRequest
    from hmctl.actions.apps.calls import new_request
    from hmctl.actions.apps.progress import Goal
    from hmctl.actions.apps.view import kept_volumes

    context = current(ctx)
    seen = look(context, name, via)
    app = seen.app(name)
    left = seen.allocations(name)
    whose = ", ".join(sorted({each.service for each in left}))
    what = f"{plural(len(left), 'replica')} of {whose} will be stopped and removed" if left else "no replica of it has a place"
    context.output.note(f"{name}: {what}")
    context.output.note(f"its {plural(len(seen.generations(name)), 'generation')} will be forgotten")
    if volumes := kept_volumes(seen, name):
        stay = "its volume stays on its node" if len(volumes) == 1 else "its volumes stay on their nodes"
        context.output.note(f"{stay}, with the data (docker volume ls there): {listed(volumes)}")
    context.output.confirm(f"Remove {name}?", yes=yes or app.stopping)  # it was wanted already
    reply = carry_out(context, REMOVE, RemoveRequest(id=new_request(), name=name), name, via, seen)
    return settle(context, Goal(name, 0), reply, via, wait=wait, timeout=timeout)
