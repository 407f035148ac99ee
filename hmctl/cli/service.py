"""hmctl service: what answers under which name, where, and how fit it is; who gets the next call; taking things out of traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hmcore.errors import UsageError
from hmcore.records import InstanceHealth
from hmcore.selection import Strategy
from hmctl.cli.completing import inventory_nodes
from hmctl.cli.context import Context, current, group
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.output import Output
from hmctl.text import Cell, Style, Styled, listed, plural

if TYPE_CHECKING:
    from hmctl.actions.service import InstanceView, MaintenanceChange, Resolution, Seen, ServiceList

app = group("List services and their instances, see who gets the next call, take instances out of traffic.")

HEALTH_STYLE: dict[InstanceHealth, Style] = {
    InstanceHealth.HEALTHY: "good",
    InstanceHealth.DEGRADED: "warning",
    InstanceHealth.UNHEALTHY: "bad",
    InstanceHealth.UNKNOWN: "dim",
}
_MOST_NODES = 4

ServiceArgument = Annotated[str, typer.Argument(metavar="SERVICE", help="A service, such as hypermesh/consensus or shop/web.")]
NodeOption = Annotated[
    str, typer.Option("--node", metavar="NODE", help="Only instances on this node.", show_default=False, autocompletion=inventory_nodes)
]


@app.command("ls")
def ls(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="[SERVICE]", help="List this one's instances.", show_default=False)] = "",
    every: Annotated[bool, typer.Option("--all", "-a", help="List the instances of all services.")] = False,
    node: NodeOption = "",
    health: Annotated[InstanceHealth | None, typer.Option(help="Only instances in this health.", show_default=False)] = None,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> None:
    """List the services, or the instances of one: where they are, their version and health.

    A narrow terminal is spared columns: WEIGHT and PRIORITY first, never HEALTH and WHY.
    """
    from hmctl.actions.service import listing

    context = current(ctx)
    if node:
        context.inventory(warn=False).host(node)  # says so when there is none
    seen = _look(context, via, timeout)
    document = listing(seen, service=service, node=node, health=health)
    if service or every:
        context.output.result(document, lambda: _show_instances(context.output, document, _addresses(context), named=every and not service))
    else:
        context.output.result(document, lambda: _show_services(context.output, document))
    if not document.instances:
        context.output.note("nothing matches" if node or health or service else "nothing is registered yet")


@app.command("resolve")
def resolve(
    ctx: typer.Context,
    service: ServiceArgument,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Only instances with this tag.", show_default=False)
    ] = None,
    version: Annotated[str, typer.Option(metavar="VERSION", help="Only instances of this version.", show_default=False)] = "",
    node: NodeOption = "",
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Only instances on nodes with this label.", show_default=False),
    ] = None,
    caller: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="NODE",
            help="As this node chooses: its own instances first.",
            show_default=False,
            autocompletion=inventory_nodes,
        ),
    ] = "",
    strategy: Annotated[Strategy, typer.Option(help="How one of several is chosen.")] = Strategy.WEIGHTED,
    key: Annotated[str, typer.Option(metavar="KEY", help="What a consistent hash is of.", show_default=False)] = "",
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, metavar="N", help="Choose for so many calls.")] = 1,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> int:
    """Show whom the next call would go to, and why not to the others.

    Exit code 1: no instance is fit.
    """
    from hmcore.pool import Locality
    from hmcore.selection import Filter
    from hmctl.actions.service import node_labels, resolution

    context = current(ctx)
    asked = Filter(tags=frozenset(tags or ()), version=version, node=node, labels=node_labels(labels or ()))
    for name in filter(None, (node, caller)):
        context.inventory(warn=False).host(name)  # says so when there is none
    seen = _look(context, via, timeout)
    document = resolution(seen, service, asked, strategy, key=key, times=count, locality=Locality(node=caller))
    context.output.result(document, lambda: _show_resolution(context.output, document, _addresses(context)))
    return 0 if document.chosen else 1


@app.command("maintain")
def maintain(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="An instance (NODE/NAME), or a node with all that it runs (NODE/).")],
    on: Annotated[bool | None, typer.Option("--on/--off", help="Take it out of traffic, or give it back.", show_default=False)] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever asks.", show_default=False)] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> None:
    """Take an instance, or all of a node's, out of traffic; or give it back. Nothing is stopped.

    It stays so, whatever becomes of the instance, until --off: a container that is replaced under its name comes back out of traffic.
    `hmctl service ls --all` lists the maintenance of what is not there any more.
    """
    from hmctl.actions.service import as_target, concerned, kept_out

    if on is None:
        raise UsageError("out of traffic, or back into it?", fix="--on takes it out, --off gives it back")
    context = current(ctx)
    target = as_target(target)
    seen = _look(context, via, timeout)
    kept = [] if on else kept_out(seen, target)
    ids = [each.instance.id for each in concerned(seen, target) if not kept or (target.endswith("/") and each.instance.id not in kept)]
    known = seen.maintenance.get(target)
    if (known is None) if not on else (known is not None and known.reason == reason):
        document = _changed(target, ids, on=on, changed=False, index=seen.reply.index)
    else:
        _show_plan(context.output, seen, target, ids, reason, kept, on=on)
        context.output.confirm(_question(target, ids, on=on, kept=kept), yes=yes)
        document = context.run(_maintain(context, target, ids, reason, via, on=on))
    context.output.result(document, lambda: _show_change(context.output, document, kept))


def _look(context: Context, via: Via, timeout: float | None) -> Seen:
    from hmctl.actions.service import look
    from hmctl.client import Access

    inventory = context.inventory(warn=False)
    seen = context.run(look(inventory, Access.of(context.store(inventory), via), via=via, timeout=timeout))
    if not seen.leader:
        context.output.warn(f"the cluster has no leader: this is what {seen.told_by} knew last")
    return seen


async def _maintain(context: Context, target: str, ids: list[str], reason: str, via: Via, *, on: bool) -> MaintenanceChange:
    from hmcore.api import MAINTAIN, MaintainRequest
    from hmctl.actions.change import change, request_id

    inventory = context.inventory(warn=False)
    request = MaintainRequest(id=request_id(), target=target, on=on, reason=reason)
    reply = await change(inventory, context.store(inventory), MAINTAIN, request, via=via, say=context.output.note)
    return _changed(target, ids, on=on, changed=reply.changed, index=reply.index)


def _changed(target: str, ids: list[str], *, on: bool, changed: bool, index: int) -> MaintenanceChange:
    from hmctl.actions.service import MaintenanceChange

    return MaintenanceChange(target=target, on=on, changed=changed, index=index, instances=ids)


def _question(target: str, ids: Sequence[str], *, on: bool, kept: Sequence[str]) -> str:
    what = f"{target} ({plural(len(ids), 'instance')})" if target.endswith("/") else target
    if on:
        return f"Take {what} out of traffic?"
    return f"Give {what} back to traffic?" if ids or not kept else f"End the maintenance of {target}?"


def _show_plan(output: Output, seen: Seen, target: str, ids: list[str], reason: str, kept: list[str], *, on: bool) -> None:
    from hmctl.actions.service import left_alone

    what = f"{target}: {plural(len(ids), 'instance')}" if target.endswith("/") else target
    if ids or not kept:
        output.note(f"{what} will {'get no traffic' if on else 'get traffic again'}{f' ({reason})' if on and reason else ''}")
    if kept:
        output.note(f"{_staying(target, kept)}; to end that, too: {_ending(kept)}")
    if on and (alone := left_alone(seen, target)):
        output.warn(f"no other healthy instance is left of {listed(alone)}")


def _staying(target: str, kept: list[str]) -> str:
    if target.endswith("/"):
        stay, alone = ("stays", "itself") if len(kept) == 1 else ("stay", "themselves")
        return f"{listed(kept)} {stay} out of traffic, in maintenance by {alone}"
    return f"{target} stays out of traffic because of {kept[0]}"


def _ending(kept: list[str]) -> str:
    return f"hmctl service maintain {kept[0] if len(kept) == 1 else 'NODE/NAME'} --off"


def _show_change(output: Output, change: MaintenanceChange, kept: list[str]) -> None:
    if kept and not change.target.endswith("/"):
        done = "no longer" if change.changed else "not"
        output.line(f"{change.target} is {done} in maintenance by itself{'' if change.changed else '; nothing was changed'}")
        output.warn(_staying(change.target, kept), fix=_ending(kept))
        return
    state = "in maintenance" if change.on else "in traffic"
    if change.changed:
        output.line(f"{change.target} is {state}")
    else:
        output.line(f"{change.target} is {state} already; nothing was changed")


def _show_services(output: Output, document: ServiceList) -> None:
    columns: list[Column | str] = [
        "SERVICE",
        Column("FIT", right=True),
        Column("VERSION", spared=2),
        Column("WHERE", wraps=True, spared=1),
        Column("", wraps=True),
    ]
    rows: list[list[Cell]] = []
    for service in document.services:
        style: Style = "good" if service.fit == service.total else "warning" if service.fit else "bad"
        rest = [f"{number} {health}" for health, number in service.health.items() if number and health != InstanceHealth.HEALTHY]
        rest += [f"{service.maintenance} in maintenance"] if service.maintenance else []
        rows.append(
            [
                service.name,
                Styled(f"{service.fit}/{service.total}", style),
                listed(service.versions, most=2) or "-",
                listed(service.nodes, most=_MOST_NODES),
                ", ".join(rest),
            ]
        )
    output.table(columns, rows)


def _show_instances(output: Output, document: ServiceList, nodes: Collection[str], *, named: bool) -> None:
    called = any(view.latency_ms is not None for view in document.instances)
    columns: list[Column | str] = [
        *(["SERVICE"] if named else []),
        "INSTANCE",
        "HEALTH",
        Column("ADDRESS", spared=1),
        Column("VERSION", spared=2),
        Column("WEIGHT", right=True, spared=5),
        Column("PRIORITY", right=True, spared=4),
        *([Column("LATENCY", right=True, spared=3)] if called else []),
        Column("WHY", wraps=True),
    ]
    rows: list[list[Cell]] = [
        [
            *([view.service] if named else []),
            view.id,
            Styled(str(view.health), HEALTH_STYLE[view.health]),
            _address(view),
            view.version or "-",
            str(view.weight),
            str(view.priority),
            *([f"{view.latency_ms:.1f} ms" if view.latency_ms is not None else "-"] if called else []),
            "; ".join(_why(view, document.told_by)),
        ]
        for view in document.instances
    ]
    output.table(columns, rows)
    if any(_is_inner(view, nodes) for view in document.instances):
        output.note("a container's own address is reachable on its node only")
    if called:
        output.note(f"LATENCY is of {document.told_by}'s own calls")
    for orphan in document.orphans:
        by = f" by {orphan.author}" if orphan.author else ""
        output.line(
            Styled(orphan.target, "strong"),
            f"  no such instance at present; in maintenance{by}{f': {orphan.reason}' if orphan.reason else ''}",
        )
    if document.orphans:
        output.note("maintenance outlives what it is of; to end it: hmctl service maintain TARGET --off")


def _why(view: InstanceView, told_by: str) -> list[str]:
    from hmctl.actions.service import unwatched

    maintenance = f"in maintenance: {view.maintenance}" if view.maintenance is not None else ""
    failures = f"{plural(view.failures, 'call')} from {told_by} failed in a row" if view.failures else ""
    return [words for words in (view.reason, maintenance, failures, unwatched(view)) if words]


def _addresses(context: Context) -> set[str]:
    """Those of the nodes."""
    return {host.address for host in context.inventory(warn=False).hosts}


def _is_inner(view: InstanceView, nodes: Collection[str]) -> bool:
    """Whether its address is one of the bridge inside its node: other nodes have the same addresses for other containers."""
    return bool(view.address) and view.address not in nodes and not view.service.startswith("hypermesh/")


def _address(view: InstanceView) -> str:
    if not view.address:
        return "-"
    host = f"[{view.address}]" if ":" in view.address else view.address
    return f"{host}:{view.port}" if view.port else view.address


def _show_resolution(output: Output, document: Resolution, nodes: Collection[str]) -> None:
    from hmctl.actions.service import unwatched

    if not document.chosen:
        output.line(Styled(f"no instance of {document.service} is fit", "bad"))
    elif len(document.chosen) == 1:
        chosen = next(each.instance for each in document.candidates if each.instance.id == document.chosen[0])
        inner = f", on {chosen.node} only" if _is_inner(chosen, nodes) else ""
        output.line(Styled(chosen.id, "strong"), f"  {_address(chosen)}{inner}")
    else:
        for id, number in Counter(document.chosen).most_common():
            output.line(Styled(id, "strong"), f"  {number} of {len(document.chosen)}")
    output.line()
    rows: list[list[Cell]] = [
        [
            each.instance.id,
            Styled(str(each.instance.health), HEALTH_STYLE[each.instance.health]),
            "; ".join(filter(None, (each.why_not or "shares the traffic", unwatched(each.instance)))),
        ]
        for each in document.candidates
    ]
    output.table(["INSTANCE", "HEALTH", Column("", wraps=True)], rows)
