"""The maps: what they are, and what lies in them. The mirror of programs/hm.h; change both, and `LAYOUT` with them.

Read by the agent and by the loader, which is run by the system's own Python: the standard library alone, and nothing newer than 3.8.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

from node_agent.security import kernel

LAYOUT = 3  # of the maps' contents, and of what is attached to the tracepoint for good: another one gets maps and links of its own
ROOT = "/sys/fs/bpf/hypermesh"
MODES = {"audit": 1, "enforce": 2}

RING_BYTES = 1 << 20  # what RATE and BURST allow of both kinds, and a second more: full only when the agent does not keep up
FLOWS_MOST, FLOWS_LEAST = 16384, 2048
FLOWS_MEMORY = 64 << 20  # bytes that the flows may take: every entry has a value for each CPU

RATE = 2000  # events a second that the whole machine may send, of each kind
BURST = 2000


@dataclass(frozen=True)
class MapSpec:
    name: str
    kind: int
    key: int
    value: int
    entries: int
    flags: int = 0


def specs(cpus: int) -> tuple[MapSpec, ...]:
    """All maps, for a machine that may come to have `cpus` CPUs."""
    flows = max(FLOWS_LEAST, min(FLOWS_MOST, FLOWS_MEMORY // (FLOW.size * cpus)))
    return (
        MapSpec("cfg", kernel.ARRAY, 4, CFG.size, 1),
        MapSpec("acting", kernel.PROG_ARRAY, 4, 4, 1),
        MapSpec("totals", kernel.PERCPU_ARRAY, 4, TOTALS.size, 1),
        MapSpec("buckets", kernel.PERCPU_ARRAY, 4, 16, 2),
        MapSpec("flows", kernel.LRU_PERCPU_HASH, KEY.size, FLOW.size, flows),
        MapSpec("owners", kernel.SK_STORAGE, 4, 8, 0, flags=0x1 | 0x200),  # BPF_F_NO_PREALLOC, BPF_F_CLONE: accepted sockets inherit
        MapSpec("events", kernel.RINGBUF, 0, 0, RING_BYTES),
    )


def pins(node: str, root: str = ROOT, layout: int = LAYOUT) -> str:
    """The directory of this layout's pins."""
    return f"{root}/{node}/v{layout}"


def possible_cpus(text: str | None = None) -> int:
    """How many values a per-CPU map's entry has, from /sys/devices/system/cpu/possible (`0-3`, `0,2-5`)."""
    if text is None:
        with open("/sys/devices/system/cpu/possible") as file:
            text = file.read()
    return 1 + int(text.strip().replace("-", ",").split(",")[-1])


def owners_btf() -> bytes:
    """Types of the map `owners`: socket storage is not made without them. Two integers: type 1 of 4 bytes, type 2 of 8."""
    names = b"\0int\0long\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, (1 << 24) | 32) + struct.pack("<IIII", 5, 1 << 24, 8, 64)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names


# --- what lies in them

CFG = struct.Struct("<QIIII32s")
KEY = struct.Struct("<Q16sII")
FLOW = struct.Struct("<6Q")
TOTALS = struct.Struct("<10Q")
EXEC = struct.Struct("<IIQQII16s128s")
TCP = struct.Struct("<IIQQ16s16sHHBBBB")
EXEC_KIND, TCP_KIND = 1, 2


@dataclass(frozen=True)
class Cfg:
    """`level`: the parent's depth in the kernel's own tree, which the programs find out themselves. `digest`: of what was loaded."""

    parent: int
    level: int
    mode: int
    rate: int
    burst: int
    digest: bytes

    def encode(self) -> bytes:
        return CFG.pack(self.parent, self.level, self.mode, self.rate, self.burst, self.digest)


def parse_cfg(raw: bytes) -> Cfg:
    return Cfg(*CFG.unpack(raw))


@dataclass(frozen=True)
class RawFlow:
    """What one container (by its cgroup) and one peer exchanged, seen from the container. Bytes are those of IP packets."""

    cgroup: int
    peer: str
    protocol: int
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    connections_in: int
    connections_out: int


@dataclass(frozen=True)
class Totals:
    """Of all our containers since the node started; never goes back, also over restarts of the agent.

    Events that nobody could be told of: `events_limited` because the rate did not allow them, by design; `events_overrun` because the ring
    buffer was full, for the agent did not keep up.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    connections_in: int = 0
    connections_out: int = 0
    execs: int = 0
    events: int = 0
    events_limited: int = 0
    events_overrun: int = 0

    @property
    def events_lost(self) -> int:
        return self.events_limited + self.events_overrun


@dataclass(frozen=True)
class ExecRecord:
    """A container's process became another program. `pid` is the kernel's own number, `time` monotonic nanoseconds."""

    cgroup: int
    time: int
    pid: int
    uid: int
    comm: str
    filename: str


@dataclass(frozen=True)
class TcpRecord:
    """A container's TCP connection changed its state (tcp(7)'s numbers, as in `TCP_STATES`)."""

    cgroup: int
    time: int
    family: int
    local: str
    local_port: int
    peer: str
    peer_port: int
    old: int
    new: int


Record = Union[ExecRecord, TcpRecord]  # noqa: UP007 -- evaluated, maybe by an older Python than ours

TCP_STATES = {
    1: "established",
    2: "syn-sent",
    3: "syn-received",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    7: "closed",
    8: "close-wait",
    9: "last-ack",
    10: "listen",
    11: "closing",
    12: "new-syn-received",
}


def address(raw: bytes) -> str:
    """An address as people write it; IPv4 is kept mapped into IPv6."""
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return f"{raw[12]}.{raw[13]}.{raw[14]}.{raw[15]}"
    return str(ipaddress.IPv6Address(raw))


def _sum(row: struct.Struct, raw: bytes) -> list[int]:
    return [sum(column) for column in zip(*row.iter_unpack(raw))]  # noqa: B905 -- an older Python knows no `strict`; rows are equally long


def parse_flow(key: bytes, values: bytes) -> RawFlow:
    """`values`: those of all CPUs."""
    cgroup, peer, protocol, _ = KEY.unpack(key)
    return RawFlow(cgroup, address(peer), protocol, *_sum(FLOW, values))


def parse_totals(values: bytes) -> Totals:
    return Totals(*_sum(TOTALS, values))


def parse_record(raw: bytes) -> Record | None:
    """None for what this agent does not know: a newer one's programs may still be there for a moment."""
    if len(raw) < 4:
        return None
    kind = int.from_bytes(raw[:4], "little")
    if kind == EXEC_KIND and len(raw) >= EXEC.size:
        _, pid, time, cgroup, uid, size, comm, name = EXEC.unpack_from(raw)
        return ExecRecord(cgroup, time, pid, uid, _text(comm.split(b"\0", 1)[0]), _text(name[: min(size, len(name))]))
    if kind == TCP_KIND and len(raw) >= TCP.size:
        _, family, time, cgroup, local, peer, local_port, peer_port, old, new, _, _ = TCP.unpack_from(raw)
        return TcpRecord(cgroup, time, family, address(local), local_port, address(peer), peer_port, old, new)
    return None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


# --- what is pinned beside the maps


@dataclass(frozen=True)
class Hook:
    """A place in the kernel, and our program for it. `attach` is an `enum bpf_attach_type`."""

    program: str
    attach: int


HOOKS = (
    Hook("hm_ingress", kernel.CGROUP_INGRESS),
    Hook("hm_egress", kernel.CGROUP_EGRESS),
    Hook("hm_tcp", kernel.CGROUP_SOCK_OPS),
)
TRACEPOINT_PROGRAM = "hm_exec"  # attached once, and stays; it goes on with whatever program `acting` holds
EXEC_PROGRAM = "hm_exec_acts"


def link_name(program: str) -> str:
    return f"link_{program}"  # bpffs allows no dots


def pinned_names() -> set[str]:
    """All that is pinned in our directory when everything works."""
    return {spec.name for spec in specs(1)} | {link_name(hook.program) for hook in HOOKS} | {link_name(TRACEPOINT_PROGRAM)}


def strays(names: Sequence[str]) -> Iterator[str]:
    """Of the names in our directory, those that belong to no map or link of ours."""
    kept = pinned_names()
    return (name for name in names if name not in kept)


def sources(directory: str) -> str:
    """The programs as one text, in a fixed order: the header first."""
    texts = []
    for name in ["hm.h", *sorted(name for name in os.listdir(directory) if name.endswith(".c"))]:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            texts.append(file.read())
    return "\n".join(texts)
