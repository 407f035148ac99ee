"""What a shell offers when TAB is pressed: the inventory's nodes, labs and their hosts, checks, kinds of events, the cluster's apps.

Never an error: a shell shows none.
"""

from __future__ import annotations

import os
from pathlib import Path

import typer

from hmcore.errors import HyperMeshError
from hmctl.cli.context import DEFAULT_INVENTORY, VARIABLE, Context
from hmctl.output import Output

SOON = 1.0  # seconds: whoever pressed TAB waits


def inventory_nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names in the inventory that this command line would use."""
    context = Context(ctx.find_root().params.get("inventory"), Output(), False, os.environ)
    try:
        if context.inventory_file() == "-":  # stdin is the shell's
            return []
        names = [host.name for host in context.inventory(warn=False).hosts]
    except (HyperMeshError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def check_names(incomplete: str) -> list[str]:
    """The health checks that can be muted."""
    from hmcore.health import CHECKS

    return [name for name in CHECKS if name.startswith(incomplete)]


def event_kinds(incomplete: str) -> list[str]:
    """Kinds of events and their families; after a comma, one more."""
    from hmctl.actions.events import FAMILIES, NODE_KINDS

    before, comma, begun = incomplete.rpartition(",")
    kinds = [*NODE_KINDS, *FAMILIES, *(f"{family}.{rest}" for family, each in FAMILIES.items() for rest in each)]
    return [f"{before}{comma}{kind}" for kind in kinds if kind.startswith(begun)]


def lab_names(incomplete: str) -> list[str]:
    """The labs of this machine."""
    from hmctl.lab.home import all_labs, directory

    try:
        return [name for name in all_labs(directory()) if name.startswith(incomplete)]
    except (HyperMeshError, OSError):
        return []


def lab_hosts(ctx: typer.Context, incomplete: str) -> list[str]:
    """The hosts of the lab that --name means."""
    from hmctl.lab import state
    from hmctl.lab.home import chosen, directory, folder

    named = ctx.find_root().params.get("inventory") or os.environ.get(VARIABLE) or DEFAULT_INVENTORY
    try:
        lab = state.load(folder(directory(), chosen(directory(), ctx.params.get("name"), Path(named))))
    except (HyperMeshError, OSError):
        return []
    return [node for node in lab.nodes if node.startswith(incomplete)] if lab else []


def app_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The cluster's apps."""
    return [name for name in _apps(ctx) if name.startswith(incomplete)]


def app_targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Apps; once a slash is typed, the services of one."""
    found = _apps(ctx)
    if "/" not in incomplete:
        return [name for name in found if name.startswith(incomplete)]
    targets = [f"{name}/{service}" for name, services in found.items() for service in services]
    return [target for target in targets if target.startswith(incomplete)]


def scaled_services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Services, and the = behind which their number stands."""
    found = [f"{name}/{service}=" for name, services in _apps(ctx).items() for service in services]
    return [target for target in found if target.startswith(incomplete)]


def image_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The cluster's images."""
    from hmctl.actions.images import listed
    from hmctl.client import Via

    context = Context(ctx.find_root().params.get("inventory"), Output(), False, os.environ)

    async def ask() -> list[str]:
        inventory = context.inventory(warn=False)
        reply = await listed(inventory, context.store(inventory), via=Via.QUIC, timeout=SOON)
        return [image.name for image in reply.images if image.name.startswith(incomplete)]

    try:
        return [] if context.inventory_file() == "-" else context.run(ask())  # stdin is the shell's
    except (HyperMeshError, OSError):
        return []


def _apps(ctx: typer.Context) -> dict[str, list[str]]:
    """Services by app. A cluster that does not answer soon has none."""
    from hmctl.actions.agents import Agents
    from hmctl.actions.apps.calls import read
    from hmctl.client import Access, Via

    context = Context(ctx.find_root().params.get("inventory"), Output(), False, os.environ)

    async def ask() -> dict[str, list[str]]:
        inventory = context.inventory(warn=False)
        access = Access.of(context.store(inventory), Via.QUIC)
        async with Agents(inventory.hosts, access, via=Via.QUIC, timeout=SOON) as agents:
            seen = await read(agents)
        return {app.name: sorted(seen.present(app).spec.services) for app in seen.reply.apps}

    try:
        return {} if context.inventory_file() == "-" else context.run(ask())  # stdin is the shell's
    except (HyperMeshError, OSError):
        return {}
