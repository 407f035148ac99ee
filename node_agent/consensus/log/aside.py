"""A voter's directory is moved aside when its contents are wrong: kept for whoever wants to know why, and out of the way of new ones.

One is kept, `raft.diverged-INDEX`; its own time says when that was, which outlives the agent.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hmcore.errors import ConsensusError
from hmcore.files import sync_folder

_SUFFIX = ".diverged-"


def set_aside(directory: Path, index: int, now: float) -> Path:
    """Where it is now. `now`: Unix time. Nobody may have it open. Raises ConsensusError; the directory is then where it was."""
    place = directory.with_name(f"{directory.name}{_SUFFIX}{index}")
    try:
        for older in _found(directory):
            shutil.rmtree(older)
        os.rename(directory, place)
        os.utime(place, (now, now))
        sync_folder(directory.parent)
    except OSError as error:
        raise ConsensusError(f"{directory} cannot be moved aside: {error.strerror or error}", fix=f"ls -ld {directory}*") from error
    return place


def seconds_since(directory: Path, now: float) -> float | None:
    """Since the directory was set aside last; None if it never was."""
    try:
        times = [place.stat().st_mtime for place in _found(directory)]
    except OSError:  # it went while we looked
        return None
    return max(0.0, now - max(times)) if times else None


def _found(directory: Path) -> list[Path]:
    return sorted(directory.parent.glob(f"{directory.name}{_SUFFIX}*"))
