"""The gates of exclusive containers: a file for each allocation, which its containers mount, and which lists them.

`open/` has the gates through which containers may be started, `shut/` those that the fence has closed. Docker does not start a container
whose gate is not in `open/`, for it cannot mount it; and a process is in its container's cgroup before its mounts are made. So whatever was
asked of Docker, and whenever it gets round to it: once a gate is shut, what has passed is found by the cgroup and nothing else passes.
Opened by the agent alone, shut by the fence (or the agent). Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

CONTAINER = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_.@-]{0,250}")
_MOST = 1_048_576  # bytes of a gate that are read: some thousand containers of one allocation


def gate_name(allocation: str) -> str:
    """The file's. Raises ValueError for what is no allocation's id."""
    name = allocation.replace("/", "@")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{allocation!r} is no allocation's id")
    return name


class Gates:
    """Below `root`. Raises OSError where the file system does."""

    def __init__(self, root: Path) -> None:
        self._open, self._shut = root / "open", root / "shut"

    def prepare(self) -> None:
        for folder in (self._open, self._shut):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)  # containers with users of their own mount what is in it

    def open(self, allocation: str) -> None:
        """Let containers of it be started. What it lists it goes on listing."""
        name = gate_name(allocation)
        self.prepare()
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._shut / name, self._open / name)
            return
        os.close(os.open(self._open / name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))

    def list(self, allocation: str, container: str) -> None:
        """Before it is started. Raises FileNotFoundError if the gate is not open."""
        if not CONTAINER.fullmatch(container):
            raise ValueError(f"{container!r} is no container's id")
        path = self._open / gate_name(allocation)
        if container not in _ids(path):
            with path.open("r+b") as gate:
                gate.seek(0, os.SEEK_END)
                gate.write(f"{container}\n".encode())

    def remove(self, allocation: str, container: str) -> None:
        """That container is there no more. With the last one its gate goes."""
        name = gate_name(allocation)
        for folder in (self._open, self._shut):
            _strike(folder / name, container)

    def shut(self) -> bool:
        """All gates. Whether one was open."""
        found = _names(self._open)
        for name in found:
            with contextlib.suppress(FileNotFoundError):  # the agent took it away
                os.rename(self._open / name, self._shut / name)
        return bool(found)

    def listed(self, *, shut: bool) -> frozenset[str]:
        """Ids of the containers of all gates that are shut, or open."""
        folder = self._shut if shut else self._open
        return frozenset(id for name in _names(folder) for id in _ids(folder / name))

    @property
    def any(self) -> bool:
        return bool(_names(self._open) or _names(self._shut))


def _strike(path: Path, container: str) -> None:
    """In place: a file written anew could open a gate that was shut meanwhile, and the others must stand in it at every moment."""
    try:
        with path.open("r+b") as gate:
            content = gate.read(_MOST)
            at = content.find(container.encode())
            if at >= 0:
                gate.seek(at)
                gate.write(b"-" * len(container))
    except FileNotFoundError:
        return
    if not _ids(path):
        path.unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return []


def _ids(path: Path) -> list[str]:
    try:
        with path.open("rb") as gate:
            content = gate.read(_MOST)
    except FileNotFoundError:
        return []
    return [line for line in content.decode(errors="replace").splitlines() if CONTAINER.fullmatch(line)]
