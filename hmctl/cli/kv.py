"""hmctl kv: values under keys that the cluster remembers: put, get, list, remove, and watch them change."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from hmcore.errors import HyperMeshError, InvalidRequest, NotAsExpected, UsageError
from hmcore.store import MOST_VALUE, why_no_key
from hmctl.cli.context import Context, current, group
from hmctl.cli.status import TimeoutOption, ViaOption
from hmctl.client import Via
from hmctl.columns import Column
from hmctl.text import Cell, Style, Styled

if TYPE_CHECKING:
    from hmcore.api import ChangeReply, Method
    from hmcore.watch import Entry
    from hmctl.actions.agents import Agents
    from hmctl.actions.keys import KeyChange, KeyEvent
    from hmctl.actions.watching import Anew

T = TypeVar("T")
Req = TypeVar("Req")

app = group("Values under keys, which the cluster remembers: put, get, list, remove, and watch them change.")

STYLES: dict[str, Style] = {"put": "good", "present": "dim", "deleted": "warning", "resync": "warning"}
_LIMIT = f"{MOST_VALUE >> 10} KiB"
_LONGEST = 60  # characters of a value in a line of `watch`

KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="Letters, digits and _ . : @ + = , - /, and neither . nor .. between the /.")
]
PrefixArgument = Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only keys that begin with it.", show_default=False)]
ExpectOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="REVISION",
        help="Only if the key was changed last by this revision, as get -o json tells it; 0: only if there is no such key.",
        show_default=False,
    ),
]
ConsistentOption = Annotated[
    bool, typer.Option("--consistent", help="What is true now, confirmed by a majority; an error when nobody can tell.")
]


@app.command("put")
def put(
    ctx: typer.Context,
    key: KeyArgument,
    value: Annotated[
        str | None,
        typer.Argument(
            metavar="[VALUE]",
            help=f"The value; @FILE: a file's bytes; - or nothing: stdin, to its end. {_LIMIT} at most.",
            show_default=False,
        ),
    ] = None,
    expect: ExpectOption = None,
    via: ViaOption = Via.AUTO,
) -> None:
    """Put a value under a key. It is there on every control node's disk that counts when the command ends.

    A value that itself begins with @, or is a single -, comes by stdin: printf @x | hmctl kv put KEY -. One that begins with - comes
    behind --: hmctl kv put KEY -- -5.
    """
    from hmcore.store import PUT_KEY, PutKeyRequest

    _checked(key)
    context = current(ctx)
    request = PutKeyRequest(id=_request_id(), key=key, value=_bytes_of(key, value), expect=expect)
    done = _change(context, PUT_KEY, request, key, via)
    context.output.result(done, lambda: context.output.line(f"{key} {'is put' if done.changed else 'has that value already'}"))


@app.command("get")
def get(
    ctx: typer.Context,
    key: KeyArgument,
    consistent: ConsistentOption = False,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> None:
    """Print the value under a key, byte for byte and nothing else. Exit code 1: there is no such key."""
    from hmctl.actions import keys

    _checked(key)
    context = current(ctx)
    reply = context.run(_asking(context, lambda agents: keys.get(agents, key, consistent=consistent), via, timeout))
    item = reply.item
    if item is None:
        raise HyperMeshError(f"there is no key {key}", fix="hmctl kv ls")
    context.output.result(keys.view_of(key, reply.index, item), lambda: context.output.raw(item.value))


@app.command("ls")
def ls(
    ctx: typer.Context,
    prefix: PrefixArgument = "",
    consistent: ConsistentOption = False,
    via: ViaOption = Via.AUTO,
    timeout: TimeoutOption = None,
) -> None:
    """List the keys: sizes, and the revisions that created and changed them. All of one moment, however many they are."""
    from hmctl.actions import keys

    context = current(ctx)
    found = context.run(_asking(context, lambda agents: keys.ls(agents, prefix, consistent=consistent), via, timeout))
    columns: list[Column | str] = [
        "KEY",
        Column("SIZE", right=True),
        Column("CREATED", right=True, spared=1),
        Column("CHANGED", right=True),
    ]
    rows = [[each.key, str(each.size), str(each.created), str(each.changed)] for each in found.keys]
    context.output.result(found, lambda: context.output.table(columns, rows) if rows else None)
    if not rows:
        context.output.note("no key begins so" if prefix else "there are no keys yet")


@app.command("rm")
def rm(ctx: typer.Context, key: KeyArgument, expect: ExpectOption = None, via: ViaOption = Via.AUTO) -> None:
    """Remove one key. It does not ask, as it removes just what it names; --expect makes sure that it is what you saw."""
    from hmcore.store import DELETE_KEY, DeleteKeyRequest

    _checked(key)
    context = current(ctx)
    done = _change(context, DELETE_KEY, DeleteKeyRequest(id=_request_id(), key=key, expect=expect), key, via)
    context.output.result(done, lambda: context.output.line(f"{key} {'is removed' if done.changed else 'was not there'}"))


@app.command("watch")
def watch(
    ctx: typer.Context,
    prefix: PrefixArgument = "",
    since: Annotated[
        int | None,
        typer.Option(min=0, metavar="INDEX", help="Begin behind this log index instead of now.", show_default=False),
    ] = None,
    via: ViaOption = Via.AUTO,
) -> int:
    """Show what changes, until Ctrl-C: each change once, also when nodes fail on the way.

    Where changes are not known any more (too long ago), it says so and shows what there is.
    """
    context = current(ctx)
    return context.run_until_interrupted(_watch(context, prefix, since, via))


async def _watch(context: Context, prefix: str, since: int | None, via: Via) -> int:
    from hmctl.actions.agents import Agents
    from hmctl.actions.keys import KEYS, events_of
    from hmctl.actions.watching import Watching
    from hmctl.client import Access

    inventory, output = context.inventory(warn=False), context.output

    def show(news: Entry | Anew) -> None:
        for event in events_of(news):
            output.item(event, *_line(event))

    def tell(node: str, said: HyperMeshError | str) -> None:
        if isinstance(said, HyperMeshError):
            output.warn(f"{node}: {said.message}", fix=said.fix)
        else:
            output.note(f"{node} {said}")

    access = Access.of(context.store(inventory), via)
    async with Agents(inventory.hosts, access, via=via, standing=True) as agents:
        watching = Watching(agents, KEYS, prefix, show=show, tell=tell)
        await watching.follow(await watching.now() if since is None else since)
    return 0


def _line(event: KeyEvent) -> list[Cell]:
    kind = Styled(f"{event.kind:<7}", STYLES[event.kind])
    if event.kind == "resync":
        return [f"{event.index:>8}  ", kind, "  what changed before is not known any more; this is what there is:"]
    shown = "" if event.size is None else f"{event.size} bytes" if event.value is None else event.value
    cut = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
    return [f"{event.index:>8}  ", kind, f"  {event.key}", *([Styled(f"  {cut}", "dim")] if cut else [])]


async def _asking(context: Context, ask: Callable[[Agents], Awaitable[T]], via: Via, timeout: float | None) -> T:
    from hmctl.actions.agents import Agents
    from hmctl.client import Access

    inventory = context.inventory(warn=False)
    async with Agents(inventory.hosts, Access.of(context.store(inventory), via), via=via, timeout=timeout) as agents:
        return await ask(agents)


def _checked(key: str) -> None:
    if (why := why_no_key(key)) is not None:
        raise UsageError(why, fix="hmctl kv put --help")


def _bytes_of(key: str, value: str | None) -> bytes:
    """Raises UsageError for a file that cannot be read, for more than a value may hold, and where nothing comes by stdin."""
    if value is None and sys.stdin.isatty():
        raise UsageError("which value? stdin is a terminal", fix="hmctl kv put KEY VALUE, or KEY @FILE, or KEY - to type it")
    found = _given(key, value)
    if len(found) > MOST_VALUE:
        raise UsageError(
            f"the value is too large: {_LIMIT} ({MOST_VALUE} bytes) is the limit of a value", fix="put it in parts, under several keys"
        )
    return found


def _given(key: str, value: str | None) -> bytes:
    """The value, or so much of it that it is seen to be too large."""
    if value in (None, "-"):
        return sys.stdin.buffer.read(MOST_VALUE + 1)
    assert value is not None
    if not value.startswith("@"):
        return value.encode()
    by_stdin = f"name a file; if {value} itself is the value: printf %s {shlex.quote(value)} | hmctl kv put {key} -"
    if value == "@":
        raise UsageError("behind the @ stands no file's name", fix=by_stdin)
    try:
        with Path(value[1:]).open("rb") as file:
            return file.read(MOST_VALUE + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{value[1:]} cannot be read: {reason}", fix=by_stdin) from None  # it would say the same once more


def _request_id() -> str:
    from hmctl.actions.change import request_id

    return f"{request_id()}:1"  # a session of one request: it is told from all others as long as a retry may come


def _change(context: Context, method: Method[Req, ChangeReply], request: Req, key: str, via: Via) -> KeyChange:
    from hmctl.actions.change import change
    from hmctl.actions.keys import KeyChange

    inventory = context.inventory(warn=False)
    look = f"hmctl kv get --consistent {key}"
    doing = change(inventory, context.store(inventory), method, request, via=via, say=context.output.note, look=look)
    try:
        reply = context.run(doing)
    except NotAsExpected as error:  # the node that says so is not at fault
        raise NotAsExpected(error.message, fix=f"hmctl kv get {key} -o json") from error
    except InvalidRequest as error:
        raise type(error)(error.message, fix=error.fix) from error
    return KeyChange(key=key, changed=reply.changed, index=reply.index, revision=reply.revision)
