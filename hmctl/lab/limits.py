"""What the machine's kernel grants to all hosts of all labs together: every host is a whole system, and the defaults are made for one."""

from __future__ import annotations

from pathlib import Path

from hmcore.errors import LabError

# A host takes 7 inotify instances (systemd, journald, dbus, dockerd ...), counted for root on the whole machine; the default is 128.
INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
WANTED = 4096


def ensure(limit: Path = INOTIFY_INSTANCES, wanted: int = WANTED) -> bool:
    """Raise the machine's limit if it is lower; it is never lowered again. Returns whether it was. Raises LabError if it cannot be."""
    try:
        if int(limit.read_text()) >= wanted:
            return False
        limit.write_text(f"{wanted}\n")
    except (OSError, ValueError) as error:
        raise LabError(f"{limit} cannot be raised to {wanted}: {error}", fix=f"sysctl fs.inotify.max_user_instances={wanted}") from error
    return True
