"""hmctl secret: what apps must know and nobody else: set, list, remove. Values go in, and come out in containers only."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmcore.apps.secrets import MOST_SECRET, Credentials, Sort, encode_credentials, registry_host
from hmcore.errors import UsageError
from hmctl.cli.context import Context, current, group
from hmctl.cli.status import ViaOption
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.text import Cell, Styled, size

if TYPE_CHECKING:
    from hmctl.actions.secrets import SecretCalls, SecretChange

app = group("Secrets and configs of apps, and credentials for registries: set, list, remove. Values are never shown.")

_REGISTRY = "hmctl secret set --registry HOST --username USER [FILE|-]"
_LIMIT = f"{MOST_SECRET >> 10} KiB"

ConfigOption = Annotated[bool, typer.Option("--config", help="A config: compose files find it under configs:, not secrets:.")]
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry", metavar="HOST", help="Credentials for this registry, as ghcr.io or docker.io; with no NAME.", show_default=False
    ),
]


@app.command("set")
def set_(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Its name, which compose files give with external: true.", show_default=False),
    ] = None,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-]",
            help=f"A file whose bytes are the value, or - for stdin, to its end; on a terminal it is asked for. {_LIMIT} at most.",
            show_default=False,
        ),
    ] = None,
    is_config: ConfigOption = False,
    registry: RegistryOption = None,
    username: Annotated[str | None, typer.Option("--username", "-u", metavar="USER", help="With --registry.", show_default=False)] = None,
    via: ViaOption = Via.AUTO,
) -> None:
    """Set a secret, sealed before it is replicated. Apps that use it get the new value when they are deployed again.

    The value is kept byte for byte, from stdin too: a newline that echo puts at its end is part of it (printf %s leaves it out). What an
    app's own compose file brings along needs no such command; it is called APP/NAME. For a registry: --registry ghcr.io -u robot
    [FILE|-], with the password or token in FILE, by stdin, or asked for.
    """
    context = current(ctx)
    sort, called, given = _meant(name, file, is_config=is_config, registry=registry)
    if (sort == "registry") is not bool(username):
        raise UsageError("--username and --registry belong together", fix=_REGISTRY)
    value = _value(given, "password or token" if username else called)
    if not value and sort != "config":
        raise UsageError("the value is empty", fix="name a file that holds it, or - for stdin")
    if sort == "secret" and given in (None, "-") and value.endswith(b"\n") and value.count(b"\n") == 1:
        context.output.note("the newline at the value's end is kept as a part of it; printf %s VALUE writes none")
    if username:
        value = encode_credentials(Credentials(username, _password(value)))
    done = context.run(_set(context, sort, called, value, username or "", via))

    def show() -> None:
        context.output.line(f"{_words(sort)} {called} {'is set' if done.changed else 'has that value already'}")
        if done.apps:
            plural = "uses" if len(done.apps) == 1 else "use"
            context.output.note(f"{', '.join(done.apps)} still {plural} another value: hmctl app deploy brings this one")

    context.output.result(done, show)


@app.command("ls")
def ls(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Only what is called so, and what the app of that name owns.", show_default=False)
    ] = "",
    via: ViaOption = Via.AUTO,
) -> None:
    """List what is kept: names, sizes, and the apps that use it. Never a value."""
    from hmctl.actions.secrets import listing

    context = current(ctx)
    found = listing(context.run(_calls(context, via).list()), name)
    columns: list[Column | str] = [
        "NAME",
        "KIND",
        Column("SIZE", right=True),
        "USED BY",
        Column("SET", spared=2),
        Column("BY", spared=1),
    ]
    rows: list[list[Cell]] = [
        [
            each.name,
            each.kind,
            Styled("lost: set it anew", "bad") if each.lost else size(each.size),
            ", ".join(each.apps) or "-",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each.set_at)),
            each.set_by,
        ]
        for each in found.secrets
    ]
    context.output.result(found, lambda: context.output.table(columns, rows) if rows else None)
    if not rows:
        context.output.note(f"nothing is called {name}" if name else "there are no secrets yet")


@app.command("rm")
def rm(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
    is_config: ConfigOption = False,
    registry: RegistryOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    via: ViaOption = Via.AUTO,
) -> None:
    """Remove one, for good: nobody can read it back. Refused while an app uses it."""
    from hmctl.actions.secrets import SecretChange, removable

    context = current(ctx)
    sort, called, _ = _meant(name, None, is_config=is_config, registry=registry)
    calls = _calls(context, via)
    kept = context.run(calls.list())
    if removable(kept, sort, called):
        context.output.confirm(f"Remove {_words(sort)} {called}? Its value cannot be read back.", yes=yes)
    else:
        option = {"secret": "", "config": " --config", "registry": " --registry"}
        for other in sorted({each.sort for each in kept.secrets if each.name == called}):
            context.output.note(f"there is a {other} of that name: hmctl secret rm{option[other]} {called}")
        for owned in sorted(each.name for each in kept.secrets if each.sort == sort and each.name.endswith(f"/{called}")):
            context.output.note(f"an app's own is called APP/NAME: there is {owned}")
    reply = context.run(calls.remove(sort, called))
    done = SecretChange(kind=sort, name=called, changed=reply.changed, index=reply.index)
    context.output.result(done, lambda: context.output.line(f"{_words(sort)} {called} {'is removed' if done.changed else 'was not there'}"))


def _calls(context: Context, via: Via) -> SecretCalls:
    from hmctl.actions.secrets import SecretCalls

    inventory = context.inventory(warn=False)
    return SecretCalls(inventory, context.store(inventory), via=via, say=context.output.note)


async def _set(context: Context, sort: Sort, name: str, value: bytes, note: str, via: Via) -> SecretChange:
    from hmctl.actions.secrets import SecretChange

    reply = await _calls(context, via).put(sort, name, value, note=note)
    return SecretChange(kind=sort, name=name, changed=reply.changed, index=reply.index, digest=reply.digest, apps=list(reply.apps))


def _meant(name: str | None, file: str | None, *, is_config: bool, registry: str | None) -> tuple[Sort, str, str | None]:
    """Sort, name and file. With --registry the first word is the file already. Raises UsageError."""
    from hmctl.actions.secrets import check_name

    if registry is not None:
        if is_config or file is not None:
            raise UsageError("credentials for a registry have no other name", fix=_REGISTRY)
        host = registry_host(registry)
        check_name("registry", host)
        return "registry", host, name
    if name is None:
        raise UsageError("which secret? There is no NAME", fix="hmctl secret set NAME [FILE|-]")
    sort: Sort = "config" if is_config else "secret"
    check_name(sort, name)
    return sort, name, file


def _value(given: str | None, what: str) -> bytes:
    """Its bytes, as they are. Raises UsageError for a file that cannot be read, and for more than is kept."""
    if given is None and sys.stdin.isatty():
        typed: str = typer.prompt(what, hide_input=True, confirmation_prompt=True, err=True)
        return typed.encode()
    value = _read(given)
    if len(value) > MOST_SECRET:
        raise UsageError(
            f"the value is too large: {_LIMIT} ({MOST_SECRET} bytes) is the limit", fix="a volume, or an image, for what is larger"
        )
    if not value:
        raise UsageError("the value is empty", fix=f"hmctl secret set {what} FILE, or by stdin")
    return value


def _read(given: str | None) -> bytes:
    """So much of it that it is seen to be too large."""
    if given in (None, "-"):
        return sys.stdin.buffer.read(MOST_SECRET + 1)
    assert given is not None
    try:
        with Path(given).open("rb") as file:
            return file.read(MOST_SECRET + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{given} cannot be read: {reason}", fix="name a file, or - for stdin") from None


def _password(value: bytes) -> str:
    """Without the line's end that editors and echo put behind it. Raises UsageError, without a word of it."""
    try:
        return value.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError("the password is no text (UTF-8)") from None


def _words(sort: Sort) -> str:
    return {"secret": "secret", "config": "config", "registry": "credentials for"}[sort]
