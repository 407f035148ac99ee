"""`hmctl lab`: real test hosts on this machine. Parses and prints; hmctl/lab does it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from hmcore.errors import LabError, UsageError
from hmctl.cli.completing import lab_hosts, lab_names
from hmctl.cli.context import DEFAULT_INVENTORY, VARIABLE, Context, current, group
from hmctl.lab.plan import Cgroups
from hmctl.text import Style, Styled, plural

app = group("Real test hosts on this machine: systemd, OpenSSH and Docker Engine of their own, each with its own address.")

Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Which lab; labs of different names run side by side.  [default: the one whose inventory is in use, else lab]",
        autocompletion=lab_names,
    ),
]
Node = Annotated[str, typer.Argument(metavar="NODE", help="A host of the lab: node1, node2 ...", autocompletion=lab_hosts)]
_COLOURS: Mapping[str, Style] = {"running": "good", "paused": "warning", "stopped": "bad"}


@app.command()
def up(
    ctx: typer.Context,
    nodes: Annotated[
        int | None, typer.Option("--nodes", "-n", min=1, help="How many hosts; a larger number adds some.  [default: 3]")
    ] = None,
    name: Name = None,
    inventory: Annotated[Path | None, typer.Option("--inventory", "-i", help="The inventory to write.  [default: NAME.yaml]")] = None,
    cgroups: Annotated[
        Cgroups | None,
        typer.Option(
            help="What the hosts see of cgroups: this machine's hierarchies, or version 2 alone, under systemd's driver, without the "
            "controllers that this machine uses in version 1. Decided when the lab is made.  [default: machine]"
        ),
    ] = None,
) -> None:
    """Bring up the lab and write its inventory. Again: mends what is broken, starts what is down, changes nothing else."""
    from hmctl.lab.home import chosen, directory
    from hmctl.lab.lab import Lab

    context = current(ctx)
    file = inventory or (Path(context.inventory_path) if context.inventory_path else None)
    name = chosen(directory(), name, file)  # not the file that $HMCTL_INVENTORY names: it says which to use, not which to write
    with context.output.progress() as progress:
        result = Lab(name, progress=progress).up(nodes, file, cgroups=cgroups)
    view = result.view
    if nodes is not None and nodes < len(view.hosts):
        context.output.note(f"the lab has {plural(len(view.hosts), 'host')}; hosts are never removed one by one, only by `hmctl lab down`")
    if not result.inventory_written:
        context.output.warn(
            f"{view.inventory} was edited since `lab up` wrote it: left as it is", fix="delete it and run lab up again, to have it anew"
        )

    def human() -> None:
        shown = os.path.relpath(view.inventory)
        shown = view.inventory if shown.startswith("..") else shown
        context.output.line(Styled(f"{plural(len(view.hosts), 'host')} up", "good"), f", inventory {shown}. Next: hmctl -i {shown} deploy")

    context.output.result(view, human)


@app.command()
def down(ctx: typer.Context, name: Name = None) -> None:
    """Remove the lab and all that is left of it, the CA of its cluster included. The base image is kept."""
    from hmctl.lab import records, state
    from hmctl.lab.home import directory, others
    from hmctl.lab.lab import Lab

    context = current(ctx)
    output, lab = context.output, Lab(_meant(context, name))
    try:
        design = state.load(lab.folder)
    except LabError:  # damaged: it is removed all the same
        design = None
        output.warn(
            f"which cluster the lab {lab.name} carried is not known any more: what hmctl keeps of it stays", fix="hmctl lab ls says why"
        )
    with output.progress() as progress:
        was_there = Lab(lab.name, progress=progress).down()
    if not was_there:
        there_are = others(directory())
        output.note(f"there is no lab {lab.name}: nothing to do{f' ({there_are} names another)' if there_are else ''}")
        return
    output.note(f"the lab {lab.name!r} and its hosts are gone")
    for kept in records.forget(design, records.data_folders(os.environ)) if design else ():
        if kept.why is None:
            output.note(f"with them went its cluster's CA and what else hmctl kept of it, in {kept.folder}")
        else:
            output.warn(f"{kept.folder} stays: {kept.why}", fix=f"if nothing else needs it: rm -r {shlex.quote(str(kept.folder))}")


@app.command("ls")
def list_labs(ctx: typer.Context) -> None:
    """The labs of this machine and their hosts."""
    from hmctl.lab.home import all_labs, directory
    from hmctl.lab.lab import Lab

    output = current(ctx).output
    root = directory()
    views = []
    for name in all_labs(root):
        try:
            views.append(Lab(name, root=root).view())
        except LabError as error:  # a damaged one must not hide the others
            output.error(error)

    def human() -> None:
        if not views:
            output.line("no labs; `hmctl lab up` makes one")
            return
        rows = [
            (view.name, host.name, host.address, Styled(host.state, _COLOURS[host.state]), view.inventory)
            for view in views
            for host in view.hosts
        ]  # fmt: skip
        output.table(["LAB", "HOST", "ADDRESS", "STATE", "INVENTORY"], rows)
        for view in views:
            if view.partition:
                output.line(f"{view.name} is partitioned: {' / '.join(','.join(side) for side in view.partition)}")

    output.result({"labs": views}, human)


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec_(
    ctx: typer.Context,
    node: Node,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="The command and its arguments, passed on as they are.")],
    name: Name = None,
) -> None:
    """Run a command in a host, as root. Its input, output and exit code are those of the command."""
    from hmctl.lab import host
    from hmctl.lab.lab import Lab

    words = command[1:] if command[0] == "--" else command
    if command[0] != "--" and command[0].startswith("-"):
        raise UsageError(f"{command[0]} is no command; options stand before the host", fix="hmctl lab exec --name LAB NODE -- CMD ...")
    argv = Lab(_there(current(ctx), name, "exec", f"{node} -- {shlex.join(words)}")).enter(node, words)
    sys.stdout.flush()
    os.execve(argv[0], argv, host.environment(os.environ.get("TERM")))  # noqa: S606  becomes it: nothing of ours in between


@app.command()
def kill(ctx: typer.Context, node: Node, name: Name = None) -> None:
    """Crash a host, as if its power failed."""
    from hmctl.lab.lab import Lab

    context = current(ctx)
    ran = Lab(_there(context, name, "kill", node)).kill(node)
    context.output.note(f"{node} crashed" if ran else f"{node} was down already")


@app.command()
def stop(ctx: typer.Context, node: Node, name: Name = None) -> None:
    """Shut a host down in order."""
    from hmctl.lab.lab import Lab

    output = current(ctx).output
    if Lab(_there(current(ctx), name, "stop", node)).stop(node):
        output.note(f"{node} is shut down")
    else:
        output.warn(f"{node} did not shut down in time and was cut off")


@app.command()
def start(ctx: typer.Context, node: Node, name: Name = None) -> None:
    """Start a host that was stopped or killed, and wait until it answers."""
    from hmctl.lab.lab import Lab

    lab = _there(current(ctx), name, "start", node)
    with current(ctx).output.progress() as progress:
        Lab(lab, progress=progress).start(node)


@app.command()
def partition(
    ctx: typer.Context,
    groups: Annotated[list[str], typer.Argument(metavar="A,B / C", help="The sides, with / between. Hosts not named keep all links.")],
    name: Name = None,
) -> None:
    """Cut the network between groups of hosts. This machine still reaches all of them."""
    from hmctl.lab.lab import Lab
    from hmctl.lab.plan import split_groups

    sides = split_groups(groups)
    Lab(_there(current(ctx), name, "partition", " ".join(groups))).partition(sides)
    current(ctx).output.note(f"cut: {' / '.join(','.join(side) for side in sides)}")


@app.command()
def heal(ctx: typer.Context, name: Name = None) -> None:
    """Undo a partition."""
    from hmctl.lab.lab import Lab

    Lab(_there(current(ctx), name, "heal")).heal()
    current(ctx).output.note("all links work again")


def _meant(context: Context, name: str | None) -> str:
    """The lab of this command line, whether there is one or not."""
    from hmctl.lab.home import chosen, directory

    file = context.inventory_path or context.environ.get(VARIABLE) or DEFAULT_INVENTORY
    return chosen(directory(), name, Path(file))


def _there(context: Context, name: str | None, verb: str, words: str = "") -> str:
    """The same for what needs a lab that exists. Raises LabError with the command, `verb` and `words`, that names one."""
    from hmctl.lab.home import all_labs, directory
    from hmctl.lab.plan import check_name

    lab, known = check_name(_meant(context, name)), all_labs(directory())
    if lab in known or not known:
        return lab
    more = f" (or {', '.join(known[1:])})" if len(known) > 1 else ""
    raise LabError(f"there is no lab {lab!r} on this machine", fix=f"hmctl lab {verb} --name {known[0]} {words}".rstrip() + more)
