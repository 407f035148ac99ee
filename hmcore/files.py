"""Files and folders that outlive a loss of power."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """What was made, renamed or removed in it stays so. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the file holds; what `make` gives, which is written to it, if there is none. Readable by its owner alone, and never half
    written. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return path.read_bytes()
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(made := make())
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)
    sync_folder(path.parent)
    return made
