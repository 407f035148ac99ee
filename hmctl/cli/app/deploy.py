"""hmctl app deploy, config: compose files, resolved; as a plan, then carried out and followed, or just shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.app.options import PATIENCE, PatienceOption, WaitOption, YesOption, carry_out, look, refuse_clashes
from hmctl.cli.app.waiting import settle, still
from hmctl.cli.context import Context, current
from hmctl.cli.status import ViaOption
from hmctl.client import Via
from hmctl.output import Output
from hmctl.text import Style, Styled, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hmcore.apps.spec import AppSpec
    from hmctl.actions.apps.plan import Plan
    from hmctl.actions.apps.view import Seen
    from hmctl.compose.app import App
    from hmctl.compose.difference import Change

SIGNS: dict[str, tuple[str, Style]] = {
    "created": ("+", "good"),
    "removed": ("-", "bad"),
    "replaced": ("~", "warning"),
    "changed": ("~", "accent"),
    "unchanged": (" ", "dim"),
}
WORDS = {"created": "", "removed": "removed", "replaced": "new containers", "changed": "no new containers", "unchanged": "unchanged"}

FilesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A compose file; - is stdin. May be repeated: later ones override.  "
        "[default: as COMPOSE_FILE says, else compose.yaml, with compose.override.yaml]",
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="What the app is called.  [default: as the file says, else its folder]", show_default=False
    ),
]
EnvFilesOption = Annotated[
    list[str] | None,
    typer.Option("--env-file", metavar="FILE", help="Variables for the files, instead of .env. May be repeated.", show_default=False),
]
ProfilesOption = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="PROFILE", help="Services of this profile, too; * for all. May be repeated.", show_default=False),
]
IgnoreOption = Annotated[
    bool, typer.Option("--ignore-unsupported", help="Leave out what is not supported, with a warning, instead of refusing.")
]


def deploy(
    ctx: typer.Context,
    files: FilesOption = None,
    name: NameOption = None,
    env_files: EnvFilesOption = None,
    profiles: ProfilesOption = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why, for whoever reads its history.", show_default=False)] = "",
    ignore_unsupported: IgnoreOption = False,
    wait: WaitOption = True,
    timeout: PatienceOption = PATIENCE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change; nothing is sent to the nodes.")] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="With --dry-run: exit 10 when changes are pending.")
    ] = False,
    yes: YesOption = False,
    via: ViaOption = Via.AUTO,
) -> int:
    """Make an app what its compose files say: shows what would change, asks, and follows the rollout until all replicas are healthy.

    Deploying what is there already changes nothing; what is on its way there is waited for. Ctrl-C ends the watching only. Exit code 1: its
    rollout is paused, was taken back, or takes longer than --timeout; or it is healthy, and no node answers at a port that it publishes.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from hmctl.actions.report import DONE, PENDING

    context = current(ctx)
    app = _resolved(context, files, name, env_files, profiles, ignore_unsupported=ignore_unsupported)
    with TemporaryDirectory(prefix="hmctl-app-") as place:
        return _deploy(
            context,
            app,
            Path(place),
            note,
            via,
            wait=wait,
            timeout=timeout,
            yes=yes,
            dry_run=dry_run,
            pending=PENDING if detailed_exitcode else DONE,
        )


def _deploy(
    context: Context, app: App, place: Path, note: str, via: Via, *, wait: bool, timeout: float, yes: bool, dry_run: bool, pending: int
) -> int:
    from hmcore.apps.calls import DEPLOY, DeployRequest
    from hmctl.actions.apps.calls import new_request, planned
    from hmctl.actions.apps.plan import deployable, plan, shared_volumes
    from hmctl.actions.apps.preparing import bring, prepare
    from hmctl.actions.apps.progress import Goal

    inventory, output = context.inventory(warn=False), context.output
    store = context.store(inventory)
    seen = look(context, app.name, via)
    present = None if (before := deployable(seen, app.name)) is None else seen.present(before).spec
    refuse_clashes(context, app.name, present, app.converted.spec, via)  # before anything is built
    with output.progress() as rows:
        preparing = prepare(app, inventory, store, place, present=present, via=via, rows=rows, warn=output.warn, leader=seen.led_by)
        prepared = context.run(preparing)
    wanted = plan(seen, app.name, prepared.spec)
    if not wanted.changed:
        return _unchanged(context, seen, wanted, via, wait=wait and not dry_run, timeout=timeout)
    if not dry_run:
        show_plan(output, wanted.name, wanted.expect, wanted.changes)
    for words in shared_volumes(wanted):
        output.warn(words)
    if dry_run:
        document = planned(wanted.name, seen.reply.index, wanted.expect + 1, wanted.changes)
        output.result(document, lambda: show_plan(output, wanted.name, wanted.expect, wanted.changes, result=True))
        return pending
    output.confirm(f"Deploy {wanted.name}?", yes=yes)
    with output.progress() as rows:
        spec = context.run(bring(prepared, inventory, store, via=via, rows=rows, say=output.note))
    request = DeployRequest(id=new_request(), name=wanted.name, spec=spec, expect=wanted.expect, note=note)
    reply = carry_out(context, DEPLOY, request, wanted.name, via, seen)
    code = settle(context, Goal(wanted.name, reply.revision), reply, via, wait=wait, timeout=timeout, plan=wanted.changes)
    if wait and not code:
        _check_ports(context, spec, via)
    return code


def config(
    ctx: typer.Context,
    files: FilesOption = None,
    name: NameOption = None,
    env_files: EnvFilesOption = None,
    profiles: ProfilesOption = None,
    ignore_unsupported: IgnoreOption = False,
) -> None:
    """Show the one file that compose files come to: merged, and with variables filled in. Asks no cluster.

    It can be deployed in their place, here and with Docker Compose, in any form (-o yaml, -o json): a $ is written $$. With
    --ignore-unsupported it is without what is left out. Values of the environment are shown as they are, secrets among them.
    """
    from hmctl.compose.show import as_document, as_file

    context = current(ctx)
    found = _resolved(context, files, name, env_files, profiles, ignore_unsupported=ignore_unsupported)
    counted = found.converted.counted
    context.output.result(as_document(counted), lambda: context.output.raw(as_file(counted).encode()))


def _resolved(
    context: Context,
    files: Sequence[str] | None,
    name: str | None,
    env_files: Sequence[str] | None,
    profiles: Sequence[str] | None,
    *,
    ignore_unsupported: bool,
) -> App:
    """Says what is odd about the files."""
    from hmctl.actions.apps.deploying import resolve

    resolved = resolve(
        files or (),
        name=name,
        env_files=env_files or (),
        environment=context.environ,
        profiles=profiles or (),
        ignore_unsupported=ignore_unsupported,
    )
    for warning in resolved.converted.warnings:
        context.output.warn(str(warning))
    return resolved


def show_plan(output: Output, name: str, before: int, changes: tuple[Change, ...], *, result: bool = False) -> None:
    """What becomes of each service: the `result`, or said on the way to it."""
    say = output.line if result else output.note
    say(Styled(name, "strong"), f"  generation {before} -> {before + 1}" if before else "  a new app")
    for change in changes:
        sign, style = SIGNS[change.kind]
        service = Styled(printable(change.service), "dim" if change.kind == "unchanged" else None)
        say(Styled(f"  {sign} ", style), service, f"  {WORDS[change.kind]}".rstrip())
        for detail in (*change.because, *change.settings):
            say(f"      {detail.words}")
    if all(change.kind == "unchanged" for change in changes):
        say("  what no service has by itself changes: volumes, networks, secrets or configs")


def _check_ports(context: Context, spec: AppSpec, via: Via) -> None:
    """It runs; that does not mean that every node answers at its ports. Raises HyperMeshError where none does."""
    from hmctl.actions.apps import answering

    if answering.publishes(spec):
        inventory = context.inventory(warn=False)
        nodes = context.run(answering.reports(inventory, context.store(inventory), via))
        for trouble in answering.troubles(nodes):
            context.output.warn(trouble.words, fix=trouble.fix)
        if (error := answering.unanswered(spec, nodes)) is not None:
            raise error


def _unchanged(context: Context, seen: Seen, wanted: Plan, via: Via, *, wait: bool, timeout: float) -> int:
    """What another command has begun is waited for as if this one had: whoever lost the connection asks again."""
    from hmcore.api import ChangeReply
    from hmctl.actions.apps.plan import goes_on
    from hmctl.actions.apps.progress import Goal

    app = seen.app(wanted.name)
    reply = ChangeReply(index=seen.reply.index, changed=False, revision=wanted.expect)
    goal = Goal(wanted.name, wanted.expect)
    if wait and goes_on(app):
        context.output.note(f"{wanted.name} is as the file says, and on its way there")
        code = settle(context, goal, reply, via, wait=True, timeout=timeout, plan=wanted.changes, goes_on=True)
        if not code:
            _check_ports(context, wanted.spec, via)
        return code
    code = still(context, app, f"{wanted.name} is as the file says")
    return settle(context, goal, reply, via, wait=False, timeout=0.0, plan=wanted.changes) or code
