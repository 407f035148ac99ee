"""Files that are never half written: beside, then renamed; and never readable by others for a moment."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from hmcore.errors import UsageError
from hmcore.files import sync_folder


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write `content` to `path`, whatever was there. After a crash it holds the old content or the new, on disk."""
    beside = _beside(path, content, mode)
    try:
        os.replace(beside, path)
    except OSError:
        beside.unlink()
        raise
    sync_folder(path.parent)


def create(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """The same for a file that must not exist yet. Raises UsageError if it does, even if it appeared only now."""
    beside = _beside(path, content, mode)
    try:
        os.link(beside, path)  # fails where rename would overwrite
    except FileExistsError:
        raise UsageError(f"{path} exists already") from None
    finally:
        beside.unlink()
    sync_folder(path.parent)


def private_folder(path: Path) -> None:
    """Make `path` and what is above it, for its owner only."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _beside(path: Path, content: bytes, mode: int) -> Path:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        beside.unlink()
        raise
    return beside
