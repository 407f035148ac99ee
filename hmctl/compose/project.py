"""A resolved set of compose files: what load.py makes, and convert.py takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmcore.config.problems import Path as Where
from hmcore.errors import Problem


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: the file as its reader knows it, and the line, from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Project:
    """All files merged, interpolated, `extends` and `include` carried out, services of other profiles left out.

    `value`: the Compose tree (services, volumes, networks, secrets, configs, x-...), each part as one of the forms that the specification
    allows: short forms are convert.py's to read. Paths of the operator's machine are absolute; `env_file` is read already and stands in
    `environment`. `places`: of every part that came from a file. `warnings`: what is odd but can be used.
    `local`: those of the paths in it that were written relative to a file, or with `~`, so that no node has them (a mount in the short form
    is one itself).
    `small_files`: of the paths that are mounted and `local`, those of single files that could be configs instead.
    `secrets`: the contents of those that come from a variable (`environment: NAME`); never shown, never part of `value`.
    """

    name: str
    value: Mapping[str, Any]
    folder: Path
    places: Mapping[Where, Place] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    local: Collection[Where] = frozenset()
    small_files: Collection[str] = frozenset()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def place(self, where: Where) -> Place | None:
        """Of a part, or of what it is a part of."""
        for length in range(len(where), -1, -1):
            if (found := self.places.get(where[:length])) is not None:
                return found
        return None
