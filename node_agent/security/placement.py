"""Where our containers' cgroups lie: one parent above all of them, in the version 2 tree. Pure but for `containers`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "hypermesh"
TREE = Path("/sys/fs/cgroup")
_CONTAINER = re.compile(r"(?:docker-)?([0-9a-f]{64})(?:\.scope)?")


@dataclass(frozen=True, slots=True)
class Mount:
    point: Path
    kind: str


def parse_mounts(mountinfo: str) -> tuple[Mount, ...]:
    """Of /proc/self/mountinfo (proc(5)), the mounts of a file system's root, in their order; a later one may cover an earlier one."""
    found = []
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if separator and len(fields) >= 5 and kind:
            found.append(Mount(Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])), kind[0]))
    return tuple(found)


def parent(mounts: tuple[Mount, ...], *, systemd: bool) -> Path | None:
    """The parent of our containers, by the driver that Docker chooses by itself: systemd's if the version 2 tree is what lies at
    /sys/fs/cgroup (and systemd runs), whatever else is mounted elsewhere, else cgroupfs. None: there is no version 2 tree."""
    seen = {mount.point: mount.kind for mount in mounts}  # of two at one place, the later one
    if seen.get(TREE) == "cgroup2":
        return TREE / (f"{NAME}.slice" if systemd else NAME)
    points = [point for point, kind in seen.items() if kind == "cgroup2"]
    return points[0] / NAME if points else None


def option(parent: Path) -> str:
    """How Docker's option --cgroup-parent names it: the slice, or the path within the tree."""
    return parent.name if parent.suffix == ".slice" else f"/{parent.name}"


def for_driver(parent: Path | None, driver: str) -> str:
    """The option for a Docker whose driver (`docker info`) is `driver`: systemd's takes a slice and nothing else, cgroupfs a path."""
    if driver == "systemd":
        return parent.name if parent is not None and parent.suffix == ".slice" else f"{NAME}.slice"
    return "" if parent is None else f"/{parent.name}"


def here() -> Path | None:
    """The parent on this machine."""
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    return parent(mounts, systemd=Path("/run/systemd/system").is_dir())


def advice(parent: Path) -> str:
    """How to start a container below the parent. Told to use cgroupfs all the same, Docker takes a slice's name for a path within its own
    cgroup, and systemd's driver refuses the path."""
    spelt_out = f" (/{parent.name}, if `docker info` names cgroupfs)" if parent.suffix == ".slice" else ""
    return f"docker run --cgroup-parent={option(parent)} ...{spelt_out}"


def has_bpffs(mounts: tuple[Mount, ...], point: Path) -> bool:
    """Whether what is to be seen at `point` is a bpf file system."""
    at = [mount.kind for mount in mounts if mount.point == point]
    return bool(at) and at[-1] == "bpf"


def container_id(directory: str) -> str | None:
    """The container whose cgroup has this name: with the cgroupfs driver its id, with systemd's a scope."""
    found = _CONTAINER.fullmatch(directory)
    return found[1] if found else None


def containers(parent: Path) -> Iterator[tuple[int, str]]:
    """The containers' cgroup ids (in the version 2 tree: inode numbers) and ids, as they are now."""
    try:
        entries = list(parent.iterdir())
    except FileNotFoundError:
        return
    for entry in entries:
        name = container_id(entry.name)
        if name is not None:
            try:
                yield entry.stat().st_ino, name
            except FileNotFoundError:  # gone meanwhile
                continue


def remembered(seen: Mapping[int, str], living: Mapping[int, str], most: int) -> Mapping[int, str]:
    """The containers of `seen` and those that live. Of more than `most`, those that have been gone longest are forgotten; a living one
    never is, however long it has lived. Another mapping each time: others may still read the one before."""
    gone = [(cgroup, name) for cgroup, name in seen.items() if cgroup not in living]
    return {**dict(gone[len(gone) - max(0, min(len(gone), most - len(living))) :]), **living}
