"""Whether there is room left on the disk that the journal lies on."""

from __future__ import annotations

import shutil
from pathlib import Path

LOW_DISK_SHARE = 0.05
LOW_DISK_BYTES = 1 << 30  # both: five percent of a large disk is plenty


def low_disk(directory: Path) -> str | None:
    """Why the disk makes the node degraded, in words that stay the same while it does."""
    try:
        usage = shutil.disk_usage(directory)
    except OSError as error:
        return f"{directory} cannot be read: {error.strerror}"
    if usage.free < LOW_DISK_BYTES and usage.free < usage.total * LOW_DISK_SHARE:
        return f"the disk of {directory} is nearly full (under {LOW_DISK_SHARE:.0%} and 1 GB free)"
    return None
