"""Kill all processes of containers, by nothing but their ids: no Docker. Standard library only.

Docker puts a container's id into the name of its cgroup, with either driver and in both versions of the tree (`/docker/ID`,
`/system.slice/docker-ID.scope`), so that every process tells its container in /proc/PID/cgroup (cgroups(7)).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

ROUNDS = 50  # looks at all processes in one go: whoever forks as fast as we kill is met again in the next
_PART = re.compile(r"(?:[a-z]+-)?([0-9a-f]{64})(?:\.scope)?")


class Killer:
    """`proc`: where the processes are; `tree`: where the version 2 cgroup tree is, None: nowhere."""

    def __init__(self, proc: Path = Path("/proc"), tree: Path | None = None) -> None:
        self._proc = proc
        self._tree = tree

    def kill(self, containers: Collection[str]) -> tuple[int, bool]:
        """How many processes were met, and whether none is left, as of the last look. Those that cannot be ended now (they wait for a disk,
        or are frozen) will have died before they run any further."""
        met: set[int] = set()
        for _ in range(ROUNDS if containers else 0):
            found = list(self._processes(containers))
            if not found:
                return len(met), True
            for path in {path for _, path in found if path}:
                self._kill_group(path)
            for pid, _ in found:
                self._kill_process(pid, containers)
            if met.issuperset(pid for pid, _ in found):
                break  # they have been told already, and take their time
            met.update(pid for pid, _ in found)
        return len(met), not any(self._processes(containers))

    def _processes(self, containers: Collection[str]) -> Iterator[tuple[int, str]]:
        """Each with its container's path in the version 2 tree; empty: it is in none."""
        for name in os.listdir(self._proc):
            if name.isdigit():
                paths = owned(self._cgroups(int(name)), containers)
                if paths and not self._is_dead(name):
                    yield int(name), paths.get("", "")

    def _cgroups(self, pid: int) -> str:
        try:
            return (self._proc / str(pid) / "cgroup").read_text(errors="replace")
        except OSError:  # it has ended
            return ""

    def _is_dead(self, name: str) -> bool:
        """It has ended, and nobody has asked how: whoever should may hang (proc_pid_stat(5))."""
        try:
            return (self._proc / name / "stat").read_bytes().rpartition(b")")[2].split()[:1] in ([b"Z"], [b"X"])
        except OSError:
            return True

    def _kill_group(self, path: str) -> None:
        """All of it at once, also what is being forked: cgroup.kill, since Linux 5.14."""
        if self._tree is None:
            return
        with contextlib.suppress(OSError):  # it is gone, or the kernel is older: its processes are killed one by one
            (self._tree / path.lstrip("/") / "cgroup.kill").write_text("1")

    def _kill_process(self, pid: int, containers: Collection[str]) -> None:
        """By a descriptor: the number may be another's by now."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if owned(self._cgroups(pid), containers):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


def owned(cgroups: str, containers: Collection[str]) -> dict[str, str]:
    """Of a process, by /proc/PID/cgroup: the paths of these containers' cgroups that it is in, by the trees' names (version 2: empty).
    Pure."""
    found: dict[str, str] = {}
    for line in cgroups.splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        parts = fields[2].split("/")
        for position, part in enumerate(parts):
            match = _PART.fullmatch(part)
            if match is not None and match[1] in containers:
                found[fields[1]] = "/".join(parts[: position + 1])
                break
    return found


def unified_tree(mounts: str) -> Path | None:
    """Where the version 2 tree is mounted, by /proc/self/mounts. Pure."""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) >= 3 and fields[2] == "cgroup2":
            return Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[1]))
    return None
