"""The contents of an app's own secrets and configs, as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hmcore.apps.secrets import MOST_SECRET
from hmcore.config.problems import spell
from hmcore.errors import ConfigError, Problem
from hmctl.compose.parts.files import Content, Kind
from hmctl.compose.project import Project
from hmctl.compose.sources import Read, from_disk

Key = tuple[Kind, str]  # and its name in the app


def contents_of(project: Project, wanted: Mapping[Key, Content], *, read: Read = from_disk, most: int = MOST_SECRET) -> dict[Key, bytes]:
    """`wanted`: see Converted.contents. Raises ConfigError with each that cannot be had, at its line, and without a word of what it is."""
    found: dict[Key, bytes] = {}
    problems: list[Problem] = []
    for key, content in wanted.items():
        value = _bytes(project, key, content, read)
        if isinstance(value, bytes) and len(value) > most:
            value = f"is larger than {most >> 10} KiB", "a volume, or an image, for what is larger"
        if isinstance(value, bytes):
            found[key] = value
        else:
            problems.append(_problem(project, key, content, *value))
    if problems:
        raise ConfigError(tuple(problems))
    return found


def _bytes(project: Project, key: Key, content: Content, read: Read) -> bytes | tuple[str, str]:
    """Or what is wrong with it, and what to do."""
    if content.text is not None:
        return _encoded(content.text)
    if content.variable:
        value = project.secrets.get(key[1]) if key[0] == "secret" else None
        return _encoded(value) if value is not None else (f"the variable {content.variable} is not set", f"export {content.variable}=...")
    try:
        return read(Path(content.file))
    except OSError as error:
        return f"{content.file} cannot be read: {error.strerror or error}", "a file of this machine, relative to the compose file"


def _encoded(text: str) -> bytes | tuple[str, str]:
    """The very bytes that the environment had, also where they are no UTF-8."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return "holds half a character", "a file of this machine, for what is no text"


def _problem(project: Project, key: Key, content: Content, message: str, hint: str) -> Problem:
    field = "environment" if content.variable else "content" if content.text is not None else "file"
    where = (f"{key[0]}s", key[1], field)
    place = project.place(where)
    return Problem(place.file if place else str(project.folder), place.line if place else None, spell(where), message, hint)
