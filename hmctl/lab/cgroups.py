"""A cgroup of its own for every host, in every hierarchy that this machine has mounted: version 2 alone, or beside version 1 ("hybrid").

Membership is also how a lab knows its processes: the kernel keeps it, so a crash of hmctl cannot lose it, and no process can be
mistaken for another one as with recorded ids. Tools that look only at the version 2 tree see each host apart from the others.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hmcore.errors import LabError

PROC = Path("/proc")
_WANTED = ("cpu", "cpuset", "io", "memory", "pids")  # what systemd and Docker use
_POLL = 0.01  # seconds between looks at a cgroup that empties


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup hierarchy: its mount point, version, and options (a v1 hierarchy's controllers)."""

    mount: Path
    version: int
    options: frozenset[str]


def parse_mounts(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The hierarchies in /proc/self/mountinfo (proc(5)), one for each set of controllers; version 2 first: a launcher that joins it
    first can be found in it, and killed there, from then on."""
    found: dict[object, Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not separator or len(fields) < 6 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2") or fields[3] != "/":
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        options = frozenset(kind[2].split(",")) - {"rw", "ro"} if version == 1 else frozenset()
        mount = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4]))
        found.setdefault((version, options), Hierarchy(mount, version, options))
    return tuple(sorted(found.values(), key=lambda h: h.version != 2))


def join_files(found: tuple[Hierarchy, ...], membership: str) -> list[str]:
    """The files to write to in order to become a member of the same cgroups as a process whose /proc/PID/cgroup is `membership`."""
    files = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        wanted = frozenset(filter(None, controllers.split(",")))
        files += [f"{h.mount}{path}/cgroup.procs" for h in found if (h.version == 1) == bool(wanted) and wanted <= h.options]
    return files


def hierarchies() -> tuple[Hierarchy, ...]:
    """Those of this machine. Raises LabError if there is none that we could use."""
    found = parse_mounts(Path("/proc/self/mountinfo").read_text())
    if not any(h.version == 2 for h in found):
        raise LabError("no cgroup2 hierarchy is mounted on this machine", fix="mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    return found


def names(found: tuple[Hierarchy, ...]) -> set[str]:
    """All top-level cgroups that look like a lab host's, in any hierarchy."""
    return {entry.name for h in found for entry in h.mount.glob("hm-*") if entry.is_dir()}


@dataclass(frozen=True, slots=True)
class HostCgroup:
    """The cgroups of one host; `name` is the same in every hierarchy."""

    name: str
    hierarchies: tuple[Hierarchy, ...]

    @property
    def tree(self) -> Path:
        """The one in the version 2 hierarchy, where membership is asked."""
        return next(h.mount for h in self.hierarchies if h.version == 2) / self.name

    def create(self) -> None:
        """Make it everywhere, with every controller that the machine can give."""
        for hierarchy in self.hierarchies:
            path = hierarchy.mount / self.name
            if hierarchy.version == 2:
                self._enable(hierarchy.mount)
            path.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.options:  # a version 1 cpuset starts empty and then accepts no process
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (path / file).write_text((hierarchy.mount / file).read_text())

    @staticmethod
    def _enable(root: Path) -> None:
        available = (root / "cgroup.controllers").read_text().split()
        enabled = (root / "cgroup.subtree_control").read_text().split()
        for controller in _WANTED:
            if controller in available and controller not in enabled:
                with contextlib.suppress(OSError):  # the kernel can refuse one (cpu, beside real-time processes): a host runs without it
                    (root / "cgroup.subtree_control").write_text(f"+{controller}")

    def join_files(self) -> list[str]:
        """A process that writes its id (or 0) to all of these becomes a member."""
        return [str(h.mount / self.name / "cgroup.procs") for h in self.hierarchies]

    def pids(self) -> Iterator[int]:
        """All members, those of cgroups below included."""
        for folder, _, _ in os.walk(self.tree):
            try:
                yield from map(int, (Path(folder) / "cgroup.procs").read_text().split())
            except OSError:  # removed meanwhile, or a threaded one
                continue

    def init(self) -> int | None:
        """The host's process 1, by its id out here: the only member exactly one PID namespace down that is number 1 there."""
        for pid in self.pids():
            try:
                status = (PROC / str(pid) / "status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            match = re.search(r"^NSpid:\t(.*)$", status, re.M)
            if match and match[1].split()[1:] == ["1"] and not re.search(r"^State:\t[ZX]", status, re.M):
                return pid
        return None

    def populated(self) -> bool:
        try:
            return "populated 1" in (self.tree / "cgroup.events").read_text()
        except FileNotFoundError:
            return False

    def frozen(self) -> bool:
        try:
            return "frozen 1" in (self.tree / "cgroup.events").read_text()
        except FileNotFoundError:
            return False

    def freeze(self, frozen: bool, timeout: float = 10.0) -> None:
        """Freeze or thaw all members. Raises LabError if one is still moving after `timeout` seconds."""
        (self.tree / "cgroup.freeze").write_text("1" if frozen else "0")
        if not _wait(lambda: self.frozen() == frozen, timeout):
            raise LabError(f"processes of {self.name} do not {'freeze' if frozen else 'thaw'} within {timeout:g} s")

    def wait_empty(self, timeout: float) -> bool:
        """Whether the last process has gone within `timeout` seconds."""
        return _wait(lambda: not self.populated(), timeout)

    def kill(self, timeout: float) -> None:
        """SIGKILL for all members at once. Raises LabError if they are not gone within `timeout` seconds."""
        try:
            (self.tree / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            if not self.tree.exists():
                return
            raise LabError("this machine's kernel is too old for the lab: it needs Linux 5.14 (cgroup.kill)") from None
        if not self.wait_empty(timeout):
            raise LabError(f"processes {', '.join(map(str, self.pids()))} of {self.name} do not die: they hang in the kernel")

    def remove(self, timeout: float) -> None:
        """Remove the (empty) cgroups and all below them. Raises LabError if that is not possible within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        for hierarchy in self.hierarchies:
            while True:
                try:
                    _remove_tree(hierarchy.mount / self.name)
                    break
                except OSError as error:  # EBUSY: the kernel takes a moment to forget the dead; or an orphaned launcher joined just now
                    self.kill(timeout)
                    if time.monotonic() > deadline:
                        raise LabError(f"cannot remove cgroup {hierarchy.mount / self.name}: {error.strerror}") from error
                    time.sleep(_POLL)


def _wait(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _remove_tree(path: Path) -> None:
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
