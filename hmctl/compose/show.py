"""The resolved file, for `hmctl app config`: one compose file instead of many, which reads as what they came to. Pure."""

from __future__ import annotations

from typing import Any

from hmcore.config import yaml_writing
from hmctl.compose.project import Project

_LONGEST_INTEGER = 4096  # bits; Python refuses to print much longer ones


def resolved(project: Project) -> dict[str, Any]:
    """As plain data, values as they are. Parts that are empty are left out. Contents of secrets are not in a Project's value."""
    plain = _plain(project.value)
    parts = plain if isinstance(plain, dict) else {}
    return {"name": project.name, **{key: part for key, part in parts.items() if key != "name" and part not in ({}, [], None)}}


def as_document(project: Project) -> dict[str, Any]:
    """The same to be written to a file, of whatever form: whoever reads that puts in variables, so each $ is doubled."""
    doubled: dict[str, Any] = _doubled(resolved(project))
    return doubled


def as_file(project: Project) -> str:
    """As YAML, for people and for Compose."""
    return yaml_writing.dump(as_document(project))


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {_text(str(_plain(key))): _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case str():
            return _text(value)
        case int() if value.bit_length() > _LONGEST_INTEGER:
            return f"{value:#x}"
        case _:
            return value


def _text(value: str) -> str:
    """What an environment has that is no UTF-8 can be neither sent nor printed."""
    return value.encode(errors="replace").decode()


def _doubled(value: Any) -> Any:
    """Of values; keys have no variables."""
    match value:
        case dict():
            return {key: _doubled(part) for key, part in value.items()}
        case list():
            return [_doubled(part) for part in value]
        case str():
            return value.replace("$", "$$")
        case _:
            return value
