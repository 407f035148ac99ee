"""Containers' /etc/resolv.conf as files: one for an allocation, written before each start, as Docker does with its own.

A file that others mount is never changed but replaced: whoever runs goes on with what was there at his start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from hmcore.errors import HyperMeshError, LayerDown
from node_agent.container.creation import NodeFacts, Wanted, file_folder, resolvconf_path
from node_agent.container.resolvconf import content, is_ours, is_stub

NODES_OWN = Path("/etc/resolv.conf")
RESOLVED = Path("/run/systemd/resolve/resolv.conf")  # what systemd-resolved goes by
_PARTIAL = ".new-"  # begins the name of a file that is not whole yet


class LaidResolvConf:
    """See node_agent.container.executor.Files."""

    def __init__(
        self,
        folder: Path,
        *,
        facts: Callable[[], NodeFacts | None],
        wanted: Callable[[], Mapping[str, Wanted] | None],
        own: Path = NODES_OWN,
        resolved: Path = RESOLVED,
    ) -> None:
        """`folder`: NodeFacts.resolvers. `facts`: None while the node is not ready for containers. `wanted`: this node's allocations; None
        while nobody knows."""
        self._folder = folder
        self._facts = facts
        self._wanted = wanted
        self._own = own
        self._resolved = resolved

    async def lay_ready(self, allocation: str) -> None:
        """Raises HyperMeshError."""
        found = (self._wanted() or {}).get(allocation)
        service = None if found is None else found.service
        if service is None:
            return
        facts = self._facts()
        if facts is None:
            raise LayerDown("this node is not ready for containers: where they find names is not known")
        if not is_ours(service.container, facts.dns):
            return
        path = Path(resolvconf_path(facts, allocation))
        data = content(service.container, facts.dns, self._nodes()).encode()
        try:
            if not _holds(path, data):
                _replace(path, data)
        except OSError as error:
            raise HyperMeshError(f"{path} cannot be written: {error.strerror}") from error

    async def take_away(self, allocation: str) -> None:
        """Also what was laid for allocations that are not here any more, or was begun by an agent that is gone. Raises HyperMeshError."""
        if not self._folder.is_dir():
            return
        wanted = self._wanted()
        kept = None if wanted is None else {file_folder(each) for each in wanted}
        gone = file_folder(allocation)
        try:
            for found in self._folder.iterdir():
                if found.name == gone or (kept is not None and found.name not in kept):
                    found.unlink(missing_ok=True)
        except OSError as error:
            raise HyperMeshError(f"{self._folder} cannot be cleared: {error.strerror}") from error

    def _nodes(self) -> str:
        """The node's own file; empty where it has none."""
        text = _read(self._own)
        return (_read(self._resolved) or text) if is_stub(text) else text


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # then nothing is known of search domains, as without the file
        return ""


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except FileNotFoundError:
        return False


def _replace(path: Path, data: bytes) -> None:
    """Readable by all: containers have users of their own."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = path.with_name(f"{_PARTIAL}{path.name}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as opened:
        os.fchmod(descriptor, 0o644)
        opened.write(data)
    beside.rename(path)
