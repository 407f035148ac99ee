"""A kernel for the loader that keeps what it is given, as the real one would: objects live as long as a pin or a living process holds them,
and attached programs count, each by the maps that it was made with. The process that asks can be made to end before any of its steps."""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node_agent.security import kernel, loader, maps

FIRST = 1 << 20  # of our descriptors: no real one is as large


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


@dataclass
class Map:
    spec: tuple[int, int, int, int]  # kind, key, value, entries
    value: bytes = b""  # of the only entry of an array
    acting: Program | None = None  # of an array of programs: its only entry, which goes when nobody has the array pinned or open
    counted: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Program:
    name: str
    cfg: Map
    totals: Map
    goes_on_with: Map | None = None  # the array of programs; of what is attached to the tracepoint


@dataclass
class Link:
    program: Program
    cgroup: int  # the inode; 0: a tracepoint's
    attach: int


class Kernel:
    """What outlives processes. `pins`: numbers of objects by path, and None of directories: a file system that costs no time."""

    def __init__(self) -> None:
        self.pins: dict[str, int | None] = {}
        self._objects: dict[int, object] = {}
        self._held: dict[int, int] = {}  # by descriptor, of the only process that there is
        self._next = itertools.count(FIRST)

    # --- for processes

    def hold(self, made: object) -> int:
        number = next(self._next)
        self._objects[number] = made
        return self.hold_again(number)

    def hold_again(self, number: int) -> int:
        fd = next(self._next)
        self._held[fd] = number
        return fd

    def at(self, fd: int) -> Any:
        return self._objects[self._held[fd]]

    def number(self, fd: int) -> int:
        return self._held[fd]

    def close(self, fd: int) -> None:
        del self._held[fd]

    def ended(self) -> None:
        """The process is gone, and what it alone held."""
        self._held.clear()
        kept = {number: self._objects[number] for number in set(self.pinned().values())}
        for number, made in self._objects.items():
            if isinstance(made, Map) and number not in kept:
                made.acting = None
        self._objects = kept

    # --- for tests

    def pinned(self) -> dict[str, int]:
        return {path: number for path, number in self.pins.items() if number is not None}

    def pin_at(self, path: str) -> Any:
        return self._objects[self.pinned()[path]]

    def _links(self, cgroup: int) -> list[Link]:
        alive = {*self.pinned().values()} | set(self._held.values())
        found = (made for number, made in self._objects.items() if number in alive and isinstance(made, Link))
        return [link for link in found if link.cgroup in (0, cgroup)]

    def attached(self, cgroup: int) -> Counter[str]:
        """Programs at this cgroup's hooks and at the tracepoint, however they come to be held there."""
        return Counter(link.program.name for link in self._links(cgroup))

    def happens(self, cgroup: int) -> Counter[str]:
        """A packet goes each way, a connection changes and a program begins, of a container below this cgroup. Who counted it."""
        acting = []
        for link in self._links(cgroup):
            program = link.program.goes_on_with.acting if link.program.goes_on_with else link.program
            if program is not None and maps.parse_cfg(program.cfg.value).parent == cgroup:
                program.totals.counted[program.name] += 1
                acting.append(program.name)
        return Counter(acting)


class Process:
    """One loader: what it calls instead of the kernel and of os. Ends before step `dies_before` (the first is 0)."""

    def __init__(
        self, kernel_: Kernel, before_step: Callable[[], None] = lambda: None, dies_before: int | None = None, refused: bool = False
    ) -> None:
        self.kernel = kernel_
        self.steps = 0
        self._before_step = before_step
        self._dies_before = dies_before
        self._refused = refused
        self._files: list[int] = []

    def step(self) -> None:
        self._before_step()
        if self.steps == self._dies_before:
            raise Killed
        self.steps += 1

    def end(self) -> None:
        """Closes what the process had open, as its end does: the lock, too."""
        self.kernel.ended()
        for fd in self._files:
            os.close(fd)
        self._files.clear()

    # --- os

    def __getattr__(self, name: str) -> Any:
        """All of os that nothing has to be known of."""
        return getattr(os, name)

    def open(self, path: str, flags: int) -> int:
        self._files.append(os.open("/" if path in self.kernel.pins else path, flags))
        return self._files[-1]

    def close(self, fd: int) -> None:
        self.kernel.close(fd)

    def listdir(self, path: str | Path) -> list[str]:
        if str(path) not in self.kernel.pins:
            raise FileNotFoundError(errno.ENOENT, str(path))
        return [os.path.basename(each) for each in self.kernel.pins if os.path.dirname(each) == str(path)]

    def makedirs(self, path: str, mode: int, exist_ok: bool) -> None:
        self.step()
        self.kernel.pins |= {path: None, os.path.dirname(path): None}

    def unlink(self, path: str) -> None:
        self.step()
        if path not in self.kernel.pins:
            raise FileNotFoundError(errno.ENOENT, path)
        del self.kernel.pins[path]

    def rmdir(self, path: str) -> None:
        self.step()
        if self.listdir(path):
            raise OSError(errno.ENOTEMPTY, path)
        del self.kernel.pins[path]

    # --- kernel.Bpf

    def get(self, path: str) -> int:
        self.step()
        number = self.kernel.pins.get(path)
        if number is None:
            raise kernel.refusal(path, errno.ENOENT)
        return self.kernel.hold_again(number)

    def pin(self, fd: int, path: str) -> None:
        self.step()
        if path in self.kernel.pins:
            raise kernel.refusal(path, errno.EEXIST)
        self.kernel.pins[path] = self.kernel.number(fd)

    def info(self, fd: int, size: int) -> bytes:
        self.step()
        match self.kernel.at(fd):
            case Map(spec=spec):
                kind, *rest = spec
                raw = struct.pack("<IIIII", kind, self.kernel.number(fd), *rest)
            case Link(_, cgroup, attach):
                raw = struct.pack("<III4xQI", kernel.LINK_CGROUP if cgroup else kernel.LINK_PERF_EVENT, 1, 1, cgroup, attach)
        return raw[:size].ljust(size, b"\0")

    def create_map(self, kind: int, key: int, value: int, entries: int, name: str, flags: int, btf: tuple[int, int, int]) -> int:
        self.step()
        return self.kernel.hold(Map((kind, key, value, entries), bytes(value)))

    def load_btf(self, blob: bytes) -> int:
        self.step()
        return self.kernel.hold(blob)

    def lookup(self, fd: int, key: bytes, size: int) -> bytes:
        self.step()
        found: bytes = self.kernel.at(fd).value
        return found[:size]

    def update(self, fd: int, key: bytes, value: bytes) -> None:
        self.step()
        there: Map = self.kernel.at(fd)
        if there.spec[0] == kernel.PROG_ARRAY:
            there.acting = self.kernel.at(int.from_bytes(value, "little"))
        else:
            there.value = value

    def tracepoint(self, number: int) -> int:
        self.step()
        return self.kernel.hold("a perf event")

    def link(self, program: int, target: int, attach: int) -> int:
        self.step()
        cgroup = 0 if attach == kernel.PERF_EVENT else os.fstat(target).st_ino
        return self.kernel.hold(Link(self.kernel.at(program), cgroup, attach))

    def relink(self, link: int, program: int) -> None:
        self.step()
        there: Link = self.kernel.at(link)
        if not there.cgroup:
            raise kernel.refusal("a tracepoint's link keeps its program", errno.EINVAL)
        there.program = self.kernel.at(program)

    # --- instead of the compiler

    def build(self, directory: str, fds: dict[str, int]) -> dict[str, int]:
        self.step()
        if self._refused:
            raise loader.Refused("down", "the verifier does not like it", "another kernel")
        names = [hook.program for hook in maps.HOOKS] + [maps.EXEC_PROGRAM]
        cfg, totals, acting = (self.kernel.at(fds[name]) for name in ("cfg", "totals", "acting"))
        programs = [Program(name, cfg, totals) for name in names] + [Program(maps.TRACEPOINT_PROGRAM, cfg, totals, acting)]
        return {program.name: self.kernel.hold(program) for program in programs}
