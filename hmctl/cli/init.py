"""hmctl init: write an inventory for hosts that are reachable over SSH. Touches no host."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from hmcore.errors import UsageError
from hmctl.cli.context import DEFAULT_INVENTORY, VARIABLE, current
from hmctl.text import plural


def command(
    ctx: typer.Context,
    hosts: Annotated[list[str], typer.Argument(metavar="HOST", help="user@host:port; ranges such as root@10.0.0.[1-5].")],
    preset: Annotated[str, typer.Option(help="development, balanced, high-performance or high-reliability.")] = "balanced",
    name: Annotated[str, typer.Option(help="What people call the cluster.")] = "hypermesh",
    control: Annotated[
        int | None, typer.Option(metavar="K", help="How many of the hosts are control nodes.  [default: 3, or 1 of fewer than three hosts]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Write cluster.yaml (or what -i names) for hosts that you reach over SSH.

    The file gets a random cluster id and explicit roles; read it, then: hmctl deploy
    """
    from hmctl import files
    from hmctl.actions import init

    context = current(ctx)
    found_unasked = context.environ.get(VARIABLE) or DEFAULT_INVENTORY
    file = context.inventory_path or found_unasked
    by_variable = context.inventory_path is None and bool(context.environ.get(VARIABLE))
    if file != "-" and not force and Path(file).exists():  # known before anything about the hosts is said
        raise _there_already(file, by_variable=by_variable)
    planned = init.plan_hosts(hosts, preset=preset, control=control)
    text = init.compose(planned, id=init.new_cluster_id(), name=name, preset=preset)
    inventory, warnings = init.check(text, file)
    for warning in warnings:
        context.output.warn(warning.message, fix=warning.hint)
    if file == "-":
        context.output.line(text.rstrip("\n"))
        return
    path = Path(file)
    replaced = _id_of(path) if force else None
    try:
        if force:
            files.write(path, text.encode(), mode=0o644)
        else:
            files.create(path, text.encode(), mode=0o644)
    except UsageError:  # it appeared only now
        raise _there_already(file, by_variable=by_variable) from None
    except FileNotFoundError:
        raise UsageError(f"there is no folder {path.parent} for {file}", fix=f"mkdir -p {quote(str(path.parent))}") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}", fix="-i FILE names one in a folder where you may write") from None
    if replaced is not None:
        context.output.warn(f"the file that was there had the id {replaced}: put it back if that cluster runs on these hosts")

    def human() -> None:
        roles = f"{len(inventory.control_hosts)} control, {plural(len(inventory.worker_hosts), 'worker')}"
        named = f" (named by ${VARIABLE})" if by_variable else ""
        context.output.line(f"Wrote {file}{named}: {plural(len(inventory.hosts), 'host')} ({roles}), preset {preset}.")
        context.output.line(f"Next: hmctl {f'-i {quote(file)} ' if file != found_unasked else ''}deploy")

    nodes = [{"name": host.name, "address": host.address, "role": str(host.role)} for host in inventory.hosts]
    context.output.result({"file": file, "id": inventory.id, "name": inventory.name, "preset": preset, "hosts": nodes}, human)


def _there_already(file: str, *, by_variable: bool) -> UsageError:
    if by_variable:  # perhaps of another cluster, from hours ago: nothing that one should be invited to overwrite
        fix = f"`unset {VARIABLE}` to write {DEFAULT_INVENTORY}, or -i FILE; --force overwrites {file}"
        return UsageError(f"{file}, which ${VARIABLE} names, exists already; nothing was written", fix=fix)
    return UsageError(f"{file} exists already; nothing was written", fix="--force overwrites it, -i FILE writes another")


def _id_of(path: Path) -> str | None:
    """The cluster id in the file that is about to be overwritten, if it has one."""
    from hmcore.config import yaml12
    from hmcore.errors import ConfigError

    try:
        value = yaml12.parse(path.read_bytes(), str(path)).value
    except (OSError, ConfigError):
        return None
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
