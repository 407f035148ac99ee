"""Secrets and configs: which of them a service gets as files, where they come from, and what of them must be uploaded. Pure.

Nothing is read here. What is the app's own is kept in the cluster as `APP/NAME`; what is external, or has a name, under that name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hmcore.apps.spec import Attachment, Source
from hmctl.compose.parts.names import PATH, SECRET, VARIABLE
from hmctl.compose.parts.part import Fields, Part

Kind = Literal["secret", "config"]
_PLACES: Mapping[Kind, str] = {"secret": "/run/secrets", "config": "/"}
_WRITABLE = 0o222
_MOST_ID = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class Content:
    """Of a secret or a config of the app: to be uploaded as `name`. One of: `file`, a path of the operator's machine; `variable`, one of
    their environment; `text`, of a config, from the compose file."""

    kind: Kind
    name: str
    file: str = ""
    variable: str = ""
    text: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """`content`: None, if the cluster has it already."""

    source: Source
    content: Content | None = None


def origins_of(part: Part, kind: Kind, app: str) -> dict[str, Origin]:
    """Of all secrets, or all configs, at the top level of the file."""
    found: dict[str, Origin] = {}
    for name, entry in part.mapping().items():
        if not SECRET.holds(name):
            entry.wrong(f"cannot be the name of a {kind}", SECRET.says)
        elif (origin := _origin(entry, kind, app, name)) is not None:
            found[name] = origin
    return found


def files_of(part: Part, kind: Kind, defined: Mapping[str, object]) -> dict[Attachment, Part]:
    """Of a service. `defined`: what the top level of the file has, be it right or wrong."""
    found: dict[Attachment, Part] = {}
    for entry in part.entries():
        attachment = _long(entry, kind) if isinstance(entry.value, Mapping) else _attachment(entry, kind, entry.text())
        if attachment is None:
            continue
        if attachment.source not in defined:
            hint = f"{kind}s: {{{attachment.source}: ...}} at the top level; external: true, if the cluster has it already"
            entry.wrong(f"there is no {kind} {attachment.source} in this file", hint)
        else:
            found.setdefault(attachment, entry)
    return found


def external_name(fields: Fields, name: str) -> str | None:
    """How what is `external` is called; None if it is not. The old form has the name in it."""
    part, called = fields["external"], fields["name"].text()
    if isinstance(part.value, Mapping):
        return part.of("external")["name"].text() or called or name
    return (called or name) if part.boolean() else None


def _origin(entry: Part, kind: Kind, app: str, name: str) -> Origin | None:
    fields = entry.of(kind)
    if (external := external_name(fields, name)) is not None:
        for other in fields.given("file", "environment", "content"):
            fields[other].wrong("what is external comes from the cluster", f"either external: or {other}:")
        return Origin(Source(name=external)) if _is_name(fields, external) else None
    kept = fields["name"].text() or f"{app}/{name}"
    if fields.given("name") and not _is_name(fields, kept):
        return None
    ways = fields.given("file", "environment", "content")
    if len(ways) != 1:
        what = "comes from nowhere" if not ways else f"comes from {' and '.join(ways)}"
        choices = "file:, environment:" + (", content:" if kind == "config" else "")
        entry.wrong(f"{what}", f"one of {choices}, or external: true")
        return None
    match ways[0]:
        case "file":
            content = Content(kind, kept, file=fields["file"].text(PATH))
        case "environment":
            content = Content(kind, kept, variable=fields["environment"].text(VARIABLE))
        case _:
            content = Content(kind, kept, text=fields["content"].text())
    return Origin(Source(name=kept), content)


def _is_name(fields: Fields, name: str) -> bool:
    if SECRET.holds(name):
        return True
    fields["name"].wrong("cannot be a name in the cluster", SECRET.says)
    return False


def _long(entry: Part, kind: Kind) -> Attachment | None:
    fields = entry.of("service.secrets" if kind == "secret" else "service.configs")
    source = fields["source"].text(SECRET)
    if not source:
        if not fields.given("source"):
            entry.wrong("has no source", f"source: the name of a {kind}")
        return None
    ids = fields["uid"].whole(0, _MOST_ID), fields["gid"].whole(0, _MOST_ID)
    return _attachment(entry, kind, source, fields["target"].text(), *ids, fields["mode"].permissions(0o444))


def _attachment(entry: Part, kind: Kind, source: str, target: str = "", uid: int = 0, gid: int = 0, mode: int = 0o444) -> Attachment | None:
    """Whoever has it may not write to it, whatever the mode says (as the specification has it)."""
    if not SECRET.holds(source):
        if isinstance(entry.value, str | None):
            entry.wrong(f"is the name of no {kind}", SECRET.says)
        return None
    path = posixpath.normpath(posixpath.join(_PLACES[kind], target or source)).replace("//", "/")
    if not PATH.holds(path) or path == "/" or ".." in target.split("/"):
        entry.wrong("says not where the file is", "target: a name, or an absolute path")
        return None
    return Attachment(kind=kind, source=source, target=path, uid=uid, gid=gid, mode=mode & ~_WRITABLE)
