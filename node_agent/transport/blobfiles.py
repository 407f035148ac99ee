"""Files of the store of content, and what their failures mean. Blocking: blobs.py calls it in threads."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from hmcore.errors import BlobError, BlobMissing, BlobStoreFull
from node_agent.transport.partial import whole_marks, write_marks


def failure(error: OSError, where: Path) -> BlobError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BlobStoreFull(f"no room on the disk of {where}: {error.strerror}", fix="docker system prune, or hmctl image rm")
    if error.errno == errno.ENOENT:
        return BlobMissing(f"{error.filename or where} is gone")
    return BlobError(f"{error.filename or where}: {error.strerror or error}")


def examine(path: Path, digest: str) -> bool:
    try:
        marks, good = whole_marks(path, digest)
    except FileNotFoundError:
        marks, good = b"", False
    if good:
        write_marks(path, marks)
    else:
        remove(path)
    return good


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".marks").unlink(missing_ok=True)


def size_of(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def modified(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
