"""A real directory whose disk can be made to fail."""

from __future__ import annotations

import errno
from pathlib import Path

from node_agent.consensus.log.disk import Directory, File


class Cramped(Directory):
    """`error` makes every write stop halfway with that errno, until it is None again; `sync_error` makes every sync fail."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.error: int | None = None
        self.sync_error: int | None = None

    def create(self, name: str) -> File:
        return _Cramped(self, super().create(name))

    def open(self, name: str) -> File:
        return _Cramped(self, super().open(name))


class _Cramped:
    def __init__(self, disk: Cramped, file: File) -> None:
        self._disk = disk
        self._file = file

    def append(self, data: bytes) -> None:
        if self._disk.error is not None:
            self._file.append(data[: len(data) // 2])
            raise OSError(self._disk.error, errno.errorcode[self._disk.error])
        self._file.append(data)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def sync(self) -> None:
        if self._disk.sync_error is not None:
            raise OSError(self._disk.sync_error, errno.errorcode[self._disk.sync_error])
        self._file.sync()

    def close(self) -> None:
        self._file.close()
