"""What of ours is in the kernel, judged from its pins: the decision whether anything has to be loaded."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from node_agent.security import kernel, maps
from node_agent.security.kernel import Bpf, KernelRefused, LinkInfo

_LINK_INFO = 80  # bytes of struct bpf_link_info


@dataclass(frozen=True, slots=True)
class Standing:
    """What is pinned. `links`: by program, None where nothing is pinned."""

    cfg: maps.Cfg | None
    names: frozenset[str]
    links: dict[str, LinkInfo | None]


def shortcoming(found: Standing, parent: int, digest: bytes) -> str | None:
    """Why the programs must be loaded; None when all of them work as `digest` and the parent cgroup want it. Pure."""
    if found.cfg is None:
        return "nothing is loaded"
    if found.cfg.parent != parent:
        return "the parent cgroup is another one than before"
    if found.cfg.digest != digest:
        return "other programs or another mode are loaded"
    for hook in maps.HOOKS:
        link = found.links.get(hook.program)
        if link is None:
            return f"{hook.program} is not attached"
        if link.cgroup != parent:
            return f"{hook.program} is attached to a cgroup that is gone"
    if found.links.get(maps.TRACEPOINT_PROGRAM) is None:
        return f"{maps.TRACEPOINT_PROGRAM} is not attached"
    missing = {spec.name for spec in maps.specs(1)} - found.names
    if missing:
        return f"the map {min(missing)} is gone"
    if any(maps.strays(sorted(found.names))):
        return "something that is not ours is pinned beside it"
    return None


def working(found: Standing, parent: int) -> int:
    """How many of our programs act below the parent: each counts once, for a link holds one. Pure."""
    if found.cfg is None or found.cfg.parent != parent:
        return 0
    hooks = sum(link is not None and link.cgroup == parent for link in (found.links.get(hook.program) for hook in maps.HOOKS))
    return hooks + (found.links.get(maps.TRACEPOINT_PROGRAM) is not None)


def observe(bpf: Bpf, directory: Path) -> Standing:
    """Raises KernelRefused when the kernel does not even let us look."""
    try:
        names = frozenset(os.listdir(directory))
    except FileNotFoundError:
        names = frozenset()
    cfg = _cfg(bpf, directory / "cfg") if "cfg" in names else None
    pins = {program: maps.link_name(program) for program in [*(hook.program for hook in maps.HOOKS), maps.TRACEPOINT_PROGRAM]}
    return Standing(cfg, names, {program: _link(bpf, directory / name) for program, name in pins.items() if name in names})


def fingerprint(programs: Path, *, release: str, mode: str, cpus: int) -> bytes:
    """Digest of all that decides what is loaded, but for the parent cgroup, which is asked for by itself. Headers are left out: that they
    go away later does not matter to programs that work."""
    code = [Path(__file__).with_name(name).read_bytes() for name in ("loader.py", "maps.py", "kernel.py")]
    parts = [maps.sources(str(programs)).encode(), *code, release.encode(), mode.encode(), str(cpus).encode()]
    return sha256(b"\0".join(sha256(part).digest() for part in parts)).digest()


def detach(root: Path) -> None:
    """Take everything of ours below `root` out of the kernel: a pin is all that holds it."""
    for folder, folders, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in folders:
            os.rmdir(os.path.join(folder, name))
    if root.is_dir():
        root.rmdir()


def _link(bpf: Bpf, path: Path) -> LinkInfo | None:
    with _opened(bpf, path) as fd:
        return None if fd is None else kernel.parse_link_info(bpf.info(fd, _LINK_INFO))


def _cfg(bpf: Bpf, path: Path) -> maps.Cfg | None:
    with _opened(bpf, path) as fd:
        return None if fd is None else maps.parse_cfg(bpf.lookup(fd, bytes(4), maps.CFG.size))


class _opened:
    """The descriptor of a pinned object for a moment; None if it is gone."""

    def __init__(self, bpf: Bpf, path: Path) -> None:
        self._bpf = bpf
        self._path = path
        self._fd: int | None = None

    def __enter__(self) -> int | None:
        try:
            self._fd = self._bpf.get(str(self._path))
        except KernelRefused as error:
            if error.errno != errno.ENOENT:
                raise
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
