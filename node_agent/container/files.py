"""Secrets and configs as files for containers: in memory (tmpfs) only, one folder for an allocation, whole or not there.

What an allocation is made of never changes, so a folder that is there is right: a container that is started again needs no control node,
and neither does an agent. What a machine's restart took is laid anew before the container starts.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from hmcore.apps.secrets import Sort
from hmcore.apps.spec import Attachment, Source
from hmcore.errors import SecretError
from node_agent.container.creation import Wanted, file_folder

IN_MEMORY = ("tmpfs", "ramfs")
MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")  # a space or a line's end in a mount point
_PARTIAL = ".new-"  # begins the name of a folder that is not whole yet

log = logging.getLogger(__name__)


class Value(Protocol):
    """Bytes that do not show."""

    @property
    def data(self) -> bytes: ...


Fetch = Callable[[str, Sort, str, Source], Awaitable[Value]]


class LaidFiles:
    """See node_agent.container.executor.Files."""

    def __init__(
        self, folder: Path, *, wanted: Callable[[], Mapping[str, Wanted] | None], fetch: Fetch, mounts: Callable[[], str] = MOUNTS.read_text
    ) -> None:
        """`folder`: NodeFacts.files. `wanted`: this node's allocations; None while nobody knows. `fetch` gives a value, of an
        allocation, by its sort and name in the app and what the cluster keeps it as; it raises HyperMeshError."""
        self._folder = folder
        self._wanted = wanted
        self._fetch = fetch
        self._mounts = mounts

    async def lay_ready(self, allocation: str) -> None:
        """Raises HyperMeshError: the values cannot be had, or not be written."""
        self.sweep()
        files, app_sources = self._needed(allocation)
        if not files or self._is_laid(allocation, len(files)):
            return
        values: dict[tuple[Sort, str], Value] = {}
        for file in files:
            if (file.kind, file.source) not in values:
                values[file.kind, file.source] = await self._fetch(allocation, file.kind, file.source, app_sources[file.kind, file.source])
        self._require_memory()
        try:
            self._lay(allocation, [(file, values[file.kind, file.source].data) for file in files])
        except (OSError, OverflowError) as error:
            raise SecretError(f"{self._folder}: the files of {allocation} cannot be laid ready: {_reason(error)}") from error

    async def take_away(self, allocation: str) -> None:
        """Raises SecretError."""
        self._remove(self._folder / file_folder(allocation))
        self.sweep()

    def sweep(self) -> None:
        """Remove what was laid for allocations that are not here any more, or was begun by an agent that is gone. Raises SecretError."""
        wanted = self._wanted()
        if wanted is None or not self._folder.is_dir():
            return
        kept = {file_folder(allocation) for allocation in wanted}
        for found in self._folder.iterdir():
            if found.name not in kept:
                self._remove(found)

    def _needed(self, allocation: str) -> tuple[tuple[Attachment, ...], dict[tuple[Sort, str], Source]]:
        """The files, and what the cluster keeps them as. Raises SecretError."""
        found = (self._wanted() or {}).get(allocation)
        service = None if found is None else found.service
        if found is None or found.app is None or service is None:
            raise SecretError(f"{allocation} is not known here any more")
        files = service.container.files
        sources: dict[tuple[Sort, str], Source] = {("secret", name): source for name, source in found.app.secrets.items()}
        sources |= {("config", name): source for name, source in found.app.configs.items()}
        for file in files:
            if (file.kind, file.source) not in sources:
                raise SecretError(f"{allocation}: {found.allocation.app} has no {file.kind} {file.source}")
        return files, sources

    def _is_laid(self, allocation: str, count: int) -> bool:
        folder = self._folder / file_folder(allocation)
        return all((folder / str(number)).is_file() for number in range(count))

    def _lay(self, allocation: str, files: list[tuple[Attachment, bytes]]) -> None:
        """All, then the rename that shows them."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        final = self._folder / file_folder(allocation)
        beside = self._folder / f"{_PARTIAL}{final.name}"
        try:
            beside.mkdir(mode=0o700)
            for number, (file, value) in enumerate(files):
                _write(beside / str(number), file, value)
            self._remove(final)
            beside.rename(final)
        finally:
            self._remove(beside)
        log.info("%d files of secrets and configs are laid ready for %s", len(files), allocation)

    def _require_memory(self) -> None:
        """Raises SecretError where it would be written to a disk."""
        kind = filesystem_of(self._folder, self._mounts())
        if kind not in IN_MEMORY:
            raise SecretError(f"{self._folder} is on {kind or 'an unknown file system'}: secrets are written to memory only, a tmpfs")

    def _remove(self, path: Path) -> None:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise SecretError(f"{path} cannot be removed: {_reason(error)}") from error


def _write(path: Path, file: Attachment, value: bytes) -> None:
    """Its owner and mode are set before anything is in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        os.fchmod(descriptor, file.mode & 0o777)
        if (file.uid, file.gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, file.uid, file.gid)
        opened.write(value)


def filesystem_of(path: Path, mountinfo: str) -> str:
    """The kind of file system that an absolute path is, or would be, on, by proc(5)'s mountinfo; empty: it does not say. Pure, total."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) < 5 or not rest[0]:
            continue
        mounted = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        if (path == mounted or mounted in path.parents) and len(mounted.parts) >= best:  # of two on one place the later one counts
            best, kind = len(mounted.parts), rest[0]
    return kind


def _reason(error: OSError | OverflowError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
