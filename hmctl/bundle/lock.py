"""What goes into a release: our own requirements for the agent, as the installed package states them, at the versions installed here.

So there is no second list to keep, an operator's nodes run what the operator's own installation was tested with, and the same
installation builds the same release again.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGE = "hypermesh"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True, slots=True)
class Lock:
    """`requirements` are asked for; `constraints` fix the versions of whatever they bring along, as far as it is installed here."""

    version: str  # ours
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]

    def describe(self) -> str:
        return "\n".join((f"{PACKAGE} {self.version}", *self.requirements, "--", *self.constraints))


def read_lock() -> Lock:
    """From this installation's metadata; from pyproject.toml in a checkout, whose installed metadata may be older than the code."""
    version, lines = _checkout(Path(__file__).parents[2] / "pyproject.toml") or (
        metadata.version(PACKAGE),
        metadata.requires(PACKAGE) or [],
    )
    requirements = tuple(sorted(select(lines, extra="agent")))
    return Lock(version, requirements, tuple(pins(requirements, _installed)))


def _checkout(project: Path) -> tuple[str, list[str]] | None:
    """Version and requirements (as metadata states them) of the checkout that `project` describes; None when it is none of ours."""
    try:
        document = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        if document["name"] != PACKAGE:
            return None
        agent = [f"{line}; extra == 'agent'" for line in document["optional-dependencies"]["agent"]]
        return document["version"], [*document["dependencies"], *agent]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None


def select(lines: Iterable[str], extra: str) -> list[str]:
    """The requirements of the package itself and of `extra`, their other markers kept: the target's Python evaluates those."""
    chosen = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        wanted = _EXTRA.search(marker)
        if wanted is None:
            chosen.append(line.strip())
        elif wanted[1] == extra:
            clauses = [clause.strip() for clause in marker.strip().split(" and ")]
            rest = " and ".join(clause for clause in clauses if not _EXTRA.fullmatch(clause.strip("() ")))
            chosen.append(f"{requirement.strip()}; {rest}" if rest else requirement.strip())
    return chosen


def pins(requirements: Iterable[str], installed: Installed) -> list[str]:
    """`name==version` for everything reachable from `requirements` that is installed here."""
    found: dict[str, str] = {}
    waiting = [name for line in requirements if (name := _normal(line))]
    while waiting:
        name = waiting.pop()
        if name in found or (known := installed(name)) is None:
            continue
        version, needs = known
        found[name] = version
        waiting += [need for line in needs if not _EXTRA.search(line) and (need := _normal(line))]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _normal(requirement: str) -> str:
    match = _NAME.match(requirement.strip())
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


class Installed:
    """Version and requirements of an installed distribution; None when it is not installed. A table serves as well, for tests."""

    def __init__(self, table: Mapping[str, tuple[str, tuple[str, ...]]] | None = None) -> None:
        self._table = table

    def __call__(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        if self._table is not None:
            return self._table.get(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return None
        return distribution.version, tuple(distribution.requires or ())


_installed = Installed()
