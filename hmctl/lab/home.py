"""Where labs live on this machine, and which there are."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from hmcore.errors import LabError, UsageError
from hmctl.lab import state
from hmctl.lab.plan import DEFAULT_NAME
from hmctl.lab.state import LabState

DIRECTORY_VARIABLE = "HYPERMESH_LAB_DIR"
DEFAULT_DIRECTORY = Path("/var/lib/hypermesh-lab")


def directory(environ: dict[str, str] | os._Environ[str] = os.environ) -> Path:
    """Where labs and the base image live. Raises UsageError for a path that mount options could not carry."""
    path = Path(environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY)
    if not path.is_absolute() or re.search(r"[\s,:\\\"'$]", str(path)):
        raise UsageError(
            f"{DIRECTORY_VARIABLE} must be an absolute path without spaces, commas, colons, quotes and backslashes, not {str(path)!r}"
        )
    return path


def folder(root: Path, name: str) -> Path:
    """The folder of one lab, whether there is such a lab or not."""
    return root / "labs" / name


def images(root: Path) -> Path:
    """The folder of the base images, which labs share."""
    return root / "base"


def all_labs(root: Path) -> list[str]:
    """The labs that have a directory under `root`, by name."""
    return sorted(file.parent.name for file in (root / "labs").glob(f"*/{state.FILE}"))


def chosen(root: Path, named: str | None, file: Path | None) -> str:
    """The lab that is meant: the named one; else the one that wrote `file`, the inventory in use; else the one of the default name."""
    if named is not None:
        return named
    if file is not None and (wrote := next((lab.name for lab in designs(root) if str(file.absolute()) in lab.written), None)):
        return wrote
    return DEFAULT_NAME


def others(root: Path) -> str:
    """What names the labs that there are: for who named none, or another."""
    return " or ".join(f"--name {name}" for name in all_labs(root))


def designs(root: Path) -> list[LabState]:
    """All labs' designs; a damaged one is left out here and reported by its own commands."""
    found = []
    for name in all_labs(root):
        with contextlib.suppress(LabError):
            design = state.load(folder(root, name))
            found += [design] if design else []
    return found
