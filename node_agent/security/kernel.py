"""bpf(2) by system call: maps, pinned objects and links. Shared by the agent and the loader, which is run by the system's own Python:
the standard library alone, and nothing newer than Python 3.8."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NUMBERS = {"x86_64": (321, 298), "aarch64": (280, 241), "riscv64": (280, 241)}  # bpf, perf_event_open

# enum bpf_cmd
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, OBJ_PIN, OBJ_GET, INFO, BTF_LOAD, MAP_BATCH, LINK_CREATE, LINK_UPDATE = (
    0,
    1,
    2,
    6,
    7,
    15,
    18,
    24,
    28,
    29,
)
# enum bpf_map_type
ARRAY, PROG_ARRAY, PERCPU_ARRAY, LRU_PERCPU_HASH, SK_STORAGE, RINGBUF = 2, 3, 6, 10, 24, 27
# enum bpf_attach_type
CGROUP_INGRESS, CGROUP_EGRESS, CGROUP_SOCK_OPS, PERF_EVENT = 0, 1, 3, 41
# enum bpf_link_type
LINK_CGROUP, LINK_PERF_EVENT = 3, 7

_ATTR = 128  # bytes of `union bpf_attr` that are used here
_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8


class KernelRefused(OSError):
    """The kernel said no. `errno` says why; the message, what was asked."""


def refusal(what: str, number: int) -> KernelRefused:
    return KernelRefused(number, f"{what}: {os.strerror(number)}")


def numbers() -> tuple[int, int]:
    """The numbers of bpf and perf_event_open on this architecture."""
    try:
        return NUMBERS[platform.machine()]
    except KeyError:
        raise refusal(f"bpf on {platform.machine()}", errno.ENOSYS) from None


class Bpf:
    """The system call. One per user: it holds the C library."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        self._bpf, self._perf = numbers()

    def call(self, command: int, attributes: bytes, what: str) -> int:
        """Raises KernelRefused."""
        return self._call(command, ctypes.create_string_buffer(attributes, _ATTR), what)

    def _call(self, command: int, buffer: ctypes.Array[ctypes.c_char], what: str) -> int:
        result = int(self._libc.syscall(self._bpf, command, buffer, _ATTR))
        if result < 0:
            raise refusal(what, ctypes.get_errno())
        return result

    # --- pinned objects

    def get(self, path: str) -> int:
        """The object that is pinned at `path`, as a new descriptor."""
        name = ctypes.create_string_buffer(os.fsencode(path))
        return self.call(OBJ_GET, struct.pack("<QII", ctypes.addressof(name), 0, 0), path)

    def pin(self, fd: int, path: str) -> None:
        name = ctypes.create_string_buffer(os.fsencode(path))
        self.call(OBJ_PIN, struct.pack("<QII", ctypes.addressof(name), fd, 0), f"pin {path}")

    def info(self, fd: int, size: int) -> bytes:
        """`struct bpf_map_info`, `bpf_link_info` or `bpf_prog_info`, its first `size` bytes."""
        answer = ctypes.create_string_buffer(size)
        self.call(INFO, struct.pack("<IIQ", fd, size, ctypes.addressof(answer)), "ask about an object")
        return answer.raw

    # --- maps

    def create_map(
        self, kind: int, key: int, value: int, entries: int, name: str, flags: int = 0, btf: tuple[int, int, int] = (0, 0, 0)
    ) -> int:
        head = struct.pack("<IIIIIII", kind, key, value, entries, flags, 0, 0)
        return self.call(MAP_CREATE, head + struct.pack("<16sIIII", name.encode(), 0, *btf), f"make the map {name}")

    def load_btf(self, blob: bytes) -> int:
        data = ctypes.create_string_buffer(blob, len(blob))
        return self.call(BTF_LOAD, struct.pack("<QQIIII", ctypes.addressof(data), 0, len(blob), 0, 0, 0), "load type information")

    def lookup(self, fd: int, key: bytes, size: int) -> bytes:
        keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
        self.call(MAP_LOOKUP, struct.pack("<IIQQQ", fd, 0, ctypes.addressof(keys), ctypes.addressof(values), 0), "read a map")
        return values.raw

    def update(self, fd: int, key: bytes, value: bytes) -> None:
        keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        self.call(MAP_UPDATE, struct.pack("<IIQQQ", fd, 0, ctypes.addressof(keys), ctypes.addressof(values), 0), "write a map")

    def lookup_all(self, fd: int, key: int, value: int, most: int) -> list[tuple[bytes, bytes]]:
        """All entries of a hash map, at most `most`. `value`: bytes that one entry's value takes (of a per-CPU map: of all CPUs)."""
        found: list[tuple[bytes, bytes]] = []
        for count, keys, values in self._batches(fd, key, value, most):
            all_keys, all_values = keys.raw, values.raw
            found += [(all_keys[i * key : (i + 1) * key], all_values[i * value : (i + 1) * value]) for i in range(count)]
        return found[:most]

    def count(self, fd: int, key: int, value: int, most: int) -> int:
        """How many entries `lookup_all` would find: the kernel copies them, but nobody looks at them."""
        return min(most, sum(count for count, _, _ in self._batches(fd, key, value, most)))

    def _batches(
        self, fd: int, key: int, value: int, most: int
    ) -> Iterator[tuple[int, ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]]:
        """Number, keys and values of some entries at a time, until there were `most` or all; the buffers are used again."""
        found = 0
        chunk = max(1, min(most, (1 << 20) // (key + value)))
        keys, values = ctypes.create_string_buffer(chunk * key), ctypes.create_string_buffer(chunk * value)
        # The position is opaque: a bucket's number for hash maps.
        position, after = ctypes.create_string_buffer(max(key, 8)), ctypes.create_string_buffer(max(key, 8))
        first = True
        while found < most:
            start = 0 if first else ctypes.addressof(position)
            head = struct.pack("<QQQQ", start, ctypes.addressof(after), ctypes.addressof(keys), ctypes.addressof(values))
            attributes = ctypes.create_string_buffer(head + struct.pack("<IIQQ", chunk, fd, 0, 0), _ATTR)
            ended = False
            try:
                self._call(MAP_BATCH, attributes, "read a map")
            except KernelRefused as error:
                if error.errno == errno.ENOSPC and chunk < most:  # one bucket holds more than fits
                    chunk *= 2
                    keys, values = ctypes.create_string_buffer(chunk * key), ctypes.create_string_buffer(chunk * value)
                    continue
                if error.errno != errno.ENOENT:
                    raise
                ended = True  # that was the last of them
            (count,) = struct.unpack_from("<I", attributes.raw, 32)
            found += count
            yield count, keys, values
            if ended:
                break
            position, after, first = after, position, False

    # --- links

    def link(self, program: int, target: int, attach: int) -> int:
        return self.call(LINK_CREATE, struct.pack("<IIII", program, target, attach, 0), "attach a program")

    def relink(self, link: int, program: int) -> None:
        """Put `program` in the place of the one that the link holds, in one step."""
        self.call(LINK_UPDATE, struct.pack("<IIII", link, program, 0, 0), "replace a program")

    def tracepoint(self, number: int) -> int:
        """A perf event for the tracepoint; a program linked to it sees it on all CPUs."""
        # struct perf_event_attr: type, size, config, sample_period, sample_type, read_format, flags, wakeup_events
        attributes = ctypes.create_string_buffer(struct.pack("<IIQQQQQI", _PERF_TYPE_TRACEPOINT, 112, number, 1, 0, 0, 0, 1), 112)
        fd = int(self._libc.syscall(self._perf, attributes, -1, 0, -1, _PERF_FLAG_FD_CLOEXEC))
        if fd < 0:
            raise refusal("open a tracepoint", ctypes.get_errno())
        return fd


@dataclass(frozen=True)
class LinkInfo:
    """`cgroup`: the id of the cgroup that a cgroup link is attached to; 0 once that was removed."""

    kind: int
    program: int
    cgroup: int
    attach: int


def parse_link_info(raw: bytes) -> LinkInfo:
    """The head of `struct bpf_link_info`; of a cgroup's also where it is attached."""
    kind, _, program = struct.unpack_from("<III", raw, 0)
    cgroup, attach = struct.unpack_from("<QI", raw, 16) if kind == LINK_CGROUP else (0, 0)
    return LinkInfo(kind, program, cgroup, attach)
