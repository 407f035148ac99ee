"""A disk in memory that forgets: what was not synced survives a power loss only in part, and a torn write ends early or in zeros.

What a process that is killed has not synced is still there for the next one, but a power loss after that can take it all the same. After
a sync that failed the pages count as written, as Linux has it: they are read as before, and no later sync writes them.
"""

from __future__ import annotations

import errno
import random


class Crash(BaseException):
    """The machine stops here and now. A BaseException, so that nothing handles it by mistake."""


class _Inode:
    """`pending` are the changes since the last sync; an int cuts the file, bytes are appended."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = bytearray()
        self.pending: list[bytes | int] = []


class SimDisk:
    """Implements node_agent.consensus.log.disk.Disk. `full` makes every write fail halfway; `failing` makes the next sync fail;
    `lying` makes sync do nothing.

    `may_crash` is asked before each operation and raises Crash when it pleases.
    """

    def __init__(self, rnd: random.Random, *, lying: bool = False) -> None:
        self.rnd = rnd
        self.lying = lying
        self.full = False
        self.failing = False  # the next sync fails for good
        self.latency = 0.0  # seconds that a sync takes
        self.waited = 0.0  # for syncs, since somebody last set this to zero
        self.dead = False
        self.crashy = 0.0
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._pending_names: list[tuple[str, _Inode | None]] = []  # name -> inode, or gone

    # --- the machine's fate

    def crash(self) -> None:
        """Keep what a power loss would leave."""
        for inode in {id(inode): inode for inode in [*self._names.values(), *self._durable_names.values()]}.values():
            self._lose(inode)
        for name, inode in self._pending_names[: self.rnd.randint(0, len(self._pending_names))]:
            _put(self._durable_names, name, inode)
        self._pending_names = []
        self._names = dict(self._durable_names)
        self.dead = self.full = self.failing = False

    def kill(self) -> None:
        """Only the process ends: what it wrote is still in memory."""
        self.dead = False

    def _lose(self, inode: _Inode) -> None:
        kept = self.rnd.randint(0, len(inode.pending))
        for change in inode.pending[:kept]:
            _change(inode.durable, change)
        if kept < len(inode.pending) and isinstance(torn := inode.pending[kept], bytes):
            part = torn[: self.rnd.randint(0, len(torn))]
            zeros = bytes(self.rnd.choice((0, 0, len(torn) - len(part))))
            _change(inode.durable, part + zeros)
        inode.pending = []
        inode.content = bytearray(inode.durable)

    def wipe(self) -> None:
        self._names, self._durable_names, self._pending_names = {}, {}, []

    def step(self) -> None:
        if self.dead:
            raise Crash
        if self.crashy and self.rnd.random() < self.crashy:
            self.dead = True
            raise Crash

    def settle(self) -> None:
        """What a lying disk does in its own time."""
        for inode in self._names.values():
            _flush(inode)

    # --- Disk

    def path(self, name: str) -> str:
        return f"/sim/{name}"

    def read(self, name: str) -> bytes | None:
        self.step()
        inode = self._names.get(name)
        return None if inode is None else bytes(inode.content)

    def create(self, name: str) -> SimFile:
        self.step()
        inode = _Inode()
        self._names[name] = inode
        self._pending_names.append((name, inode))
        return SimFile(self, inode)

    def open(self, name: str) -> SimFile:
        self.step()
        return SimFile(self, self._names[name])

    def rename(self, old: str, new: str) -> None:
        self.step()
        inode = self._names.pop(old)
        self._names[new] = inode
        self._pending_names += [(new, inode), (old, None)]

    def remove(self, name: str) -> None:
        self.step()
        if self._names.pop(name, None) is not None:
            self._pending_names.append((name, None))

    def sync_directory(self) -> None:
        self.step()
        if not self.lying:
            for name, inode in self._pending_names:
                _put(self._durable_names, name, inode)
            self._pending_names = []

    def close(self) -> None:
        pass


class SimFile:
    def __init__(self, disk: SimDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def append(self, data: bytes) -> None:
        self._disk.step()
        if self._disk.full:
            self._change(data[: self._disk.rnd.randint(0, len(data) - 1)])
            raise OSError(errno.ENOSPC, "No space left on device")
        self._change(data)

    def truncate(self, size: int) -> None:
        self._disk.step()
        self._change(size)

    def _change(self, change: bytes | int) -> None:
        _change(self._inode.content, change)
        self._inode.pending.append(change)

    def sync(self) -> None:
        self._disk.step()
        self._disk.waited += self._disk.latency
        if self._disk.failing:
            self._disk.failing = False
            self._inode.pending = []
            raise OSError(errno.EIO, "Input/output error")
        if not self._disk.lying:
            _flush(self._inode)
            self._disk.step()

    def close(self) -> None:
        pass


def _flush(inode: _Inode) -> None:
    for change in inode.pending:
        _change(inode.durable, change)
    inode.pending = []


def _change(content: bytearray, change: bytes | int) -> None:
    if isinstance(change, bytes):
        content += change
    else:
        del content[change:]


def _put(names: dict[str, _Inode], name: str, inode: _Inode | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode
