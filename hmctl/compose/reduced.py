"""A project without what is left out of it (--ignore-unsupported): what counts of it, and could be deployed in its place. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hmcore.config.problems import Path
from hmctl.compose.parts.part import GONE
from hmctl.compose.project import Project


def reduced(project: Project, left_out: Mapping[Path, Any]) -> Project:
    """`left_out`: see Notes. The result knows no places: parts of it may stand elsewhere than they did."""
    if not left_out:
        return project
    return replace(project, value=_reduced(project.value, (), left_out, _above(left_out)), places={}, local=frozenset())


def _above(left_out: Mapping[Path, Any]) -> set[Path]:
    """Of what something is left out."""
    return {path[:length] for path in left_out for length in range(len(path))}


def _reduced(value: Any, path: Path, left_out: Mapping[Path, Any], above: set[Path]) -> Any:
    if path in left_out:
        return left_out[path]
    if path not in above:
        return value
    match value:
        case dict():
            found = {key: _reduced(part, (*path, key), left_out, above) for key, part in value.items()}
            return {key: part for key, part in found.items() if part is not GONE}
        case list() | tuple():
            parts = [_reduced(part, (*path, index), left_out, above) for index, part in enumerate(value)]
            return [part for part in parts if part is not GONE]
        case _:
            return value
