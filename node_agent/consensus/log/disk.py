"""The few file operations that journal and snapshots are made of. The simulation puts a disk that forgets behind the same protocol."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hmcore.errors import ConsensusError, StorageDamaged, StorageFailed, StorageFull
from hmcore.files import sync_folder

TEMPORARY = ".new"  # suffix of a file that is being written and replaces its namesake by a rename
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class File(Protocol):
    """A file open for appending. What was appended or cut survives a power loss only after `sync`."""

    def append(self, data: bytes) -> None: ...
    def truncate(self, size: int) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class Disk(Protocol):
    """A directory of files. Creations, renames and removals survive a power loss only after `sync_directory`. Raises OSError."""

    def path(self, name: str) -> str: ...
    def read(self, name: str) -> bytes | None: ...
    def create(self, name: str) -> File: ...
    def open(self, name: str) -> File: ...
    def rename(self, old: str, new: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def sync_directory(self) -> None: ...
    def close(self) -> None: ...


class Replacement:
    """New content for file `name`: after a crash there is the old or the new, never a mixture. Raises OSError, and is of no use then."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._name = name
        self._file = disk.create(name + TEMPORARY)

    def append(self, content: bytes) -> None:
        self._or_nothing(lambda: self._file.append(content))

    def sync(self) -> None:
        """Lest `commit` waits for all of it at once."""
        self._or_nothing(self._file.sync)

    def commit(self) -> None:
        """Puts it in the file's place, durably."""
        self.sync()
        self._file.close()
        self._disk.rename(self._name + TEMPORARY, self._name)
        self._disk.sync_directory()

    def abandon(self) -> None:
        self._file.close()
        self._disk.remove(self._name + TEMPORARY)  # gives the room back

    def _or_nothing(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError:
            self.abandon()
            raise


def replace(disk: Disk, name: str, content: bytes) -> None:
    """Put `content` in the place of file `name`, atomically and durably. Raises OSError."""
    replacement = Replacement(disk, name)
    replacement.append(content)
    replacement.commit()


def storage_error(error: OSError, path: str) -> ConsensusError:
    """What a failed operation means: a full disk can be waited out; after any other error nobody knows what the disk holds."""
    if error.errno in _FULL:
        return StorageFull(f"no room to write {path}: {error.strerror}", fix="make room on that file system; the node goes on by itself")
    return StorageFailed(f"the disk fails at {path}: {error.strerror or error}", fix=f"check the disk of {os.path.dirname(path)}")


def damaged(path: str, offset: int, message: str) -> StorageDamaged:
    return StorageDamaged(f"{message}; this node must be re-seeded from its peers", path=path, offset=offset, fix="hmctl raft reseed NODE")


class _AppendOnly:
    def __init__(self, path: Path, flags: int, on_sync: Callable[[float], None]) -> None:
        self._on_sync = on_sync
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        began = time.perf_counter()
        os.fdatasync(self._fd)
        self._on_sync(time.perf_counter() - began)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _make_durably(directory: Path) -> None:
    """A directory whose own entry a power loss forgets is an empty disk, whatever was synced inside."""
    if directory.is_dir():
        return
    _make_durably(directory.parent)
    directory.mkdir(mode=0o700)
    sync_folder(directory.parent)


class Directory:
    """A real directory, made if missing, and locked: two agents on one journal would ruin it."""

    def __init__(self, directory: Path, on_sync: Callable[[float], None] = lambda seconds: None) -> None:
        """`on_sync` hears how many seconds each `sync` of a file took."""
        self._directory = directory
        self._on_sync = on_sync
        try:
            _make_durably(directory)
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConsensusError(f"{directory} cannot be used: {error.strerror or error}", fix=f"ls -ld {directory}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConsensusError(f"{directory} is in use by another agent", fix="systemctl status hypermesh-agent") from None

    def path(self, name: str) -> str:
        return str(self._directory / name)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, name: str) -> File:
        return _AppendOnly(self._directory / name, os.O_CREAT | os.O_TRUNC, self._on_sync)

    def open(self, name: str) -> File:
        return _AppendOnly(self._directory / name, 0, self._on_sync)

    def rename(self, old: str, new: str) -> None:
        os.rename(self._directory / old, self._directory / new)

    def remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)

    def sync_directory(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)  # gives the lock back
            self._fd = -1
