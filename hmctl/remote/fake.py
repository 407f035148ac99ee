"""A host in memory, for tests: it understands the scripts that phases run, and answers questions about itself as a real one would.

`Machine` is the host; it outlives connections. `FakeRemote` is one connection to it. A fuse cuts a connection after so many commands,
before or after the last one took effect: what a lost network, a killed hmctl or a pulled plug look like from here.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hmcore import pki
from hmcore.config.agent import parse_agent_config
from hmcore.errors import Unreachable
from hmcore.records import Role
from hmctl import layout
from hmctl.remote.base import Completed

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

KERNEL = "6.1.0"
_MARK = "==== hypermesh facts: "


@dataclass(slots=True)
class Fuse:
    """Blows at the command number `after` (from 0); `effective`: that command still does its work, only nobody hears of it."""

    after: int
    effective: bool
    error: Callable[[], BaseException] = lambda: Unreachable("the connection was lost")


@dataclass(slots=True)
class Machine:
    """A host: what is on it. Paths as in hmctl/layout.py."""

    name: str
    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    releases: set[str] = field(default_factory=set)
    partial: bool = False
    current: str | None = None
    key: bytes | None = None
    journal: bool = False
    active: bool = False
    enabled: bool = False
    stale: bool = False  # systemd has not read the unit that is on disk
    started: dict[str, str] = field(default_factory=dict)
    started_release: str | None = None
    starts: int = 0
    holder: object | None = None  # who holds the lock
    docker: str = "running"
    packages: set[str] = field(default_factory=lambda: {"docker.io", "nftables", "linux-headers-amd64"})
    unknown: set[str] = field(default_factory=set)  # what no package list knows
    bcc: bool = True  # whether its Python can load BPF programs
    python: str = "3.11.2"
    clock_offset: float = 0.0
    free_kb: int = 50_000_000
    machine_id: str = ""
    port_holder: str | None = None
    root: bool = True
    rejects: bytes | None = None  # an agent whose configuration holds this does not come up
    fails: dict[str, str] = field(default_factory=dict)  # script name -> what it says before it ends with 1
    running: bytes | None = None  # the configuration that the agent was started with
    aside: int = 0  # how often its log was set aside
    before_aside: Callable[[], None] = lambda: None  # may object
    log: list[str] = field(default_factory=list)  # the names of the scripts that took effect

    def fingerprint(self) -> str:
        """One word for all that deploy may change."""
        what = (sorted(self.files.items()), sorted(self.releases), self.current)
        return hashlib.sha256(repr(what).encode()).hexdigest()

    def directories(self) -> list[str]:
        owned = {layout.OPT: self.releases or self.partial or self.current, layout.STATE: self.journal, layout.ETC: self.key}
        return [path for path, there in owned.items() if there or any(name.startswith(f"{path}/") for name in self.files)]


class FakeProcess:
    """A lock that is held, until it is killed."""

    def __init__(self, machine: Machine, answer: bytes, status: int, said: str) -> None:
        self._machine = machine
        self._done = Completed(status, b"", said)
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(answer)
        self.stdout.feed_eof()
        self.stdin = _Nowhere()

    async def wait(self, *, timeout: float) -> Completed:
        return self._done

    def kill(self) -> None:
        if self._machine.holder is self:
            self._machine.holder = None


class _Nowhere:
    def write(self, data: bytes) -> None:
        """Taken, and forgotten."""

    async def drain(self) -> None:
        """There is always room."""

    def write_eof(self) -> None:
        """Nobody waits for it."""

    def close(self) -> None:
        """Nothing is held."""


class FakeRemote:
    def __init__(self, host: Host, machine: Machine, fuse: Fuse | None = None) -> None:
        self.host = host
        self.machine = machine
        self.commands = 0
        self._fuse = fuse

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Path | None = None,
        sudo: bool = False,
        timeout: float,
        sent: Callable[[int], None] | None = None,
    ) -> Completed:
        content = _content(stdin)
        if sent is not None:
            sent(len(content))
        return self._burn(lambda: self._carry_out(list(argv), content))

    async def open_process(self, argv: Sequence[str], *, sudo: bool = False, timeout: float) -> FakeProcess:
        if argv[:2] != ["sh", "-c"] or argv[3] != "hm-lock":
            raise AssertionError(f"a host in memory cannot talk with {argv[:4]}")
        machine = self.machine
        if machine.holder is not None:
            return FakeProcess(machine, b"", 75, "hmctl deploy by somebody else")
        process = FakeProcess(machine, f"locked {machine.fingerprint()}\n".encode(), 0, "")
        machine.holder = process
        return process

    def _burn(self, effect: Callable[[], Completed]) -> Completed:
        fuse, number = self._fuse, self.commands
        self.commands += 1
        if fuse is None or number < fuse.after:
            return effect()
        if number == fuse.after and fuse.effective:
            effect()
        raise fuse.error()

    def _carry_out(self, argv: list[str], stdin: bytes) -> Completed:
        if argv == ["sh", "-s"]:
            return (
                Completed(0, facts(self.machine).encode(), "") if self.machine.root else Completed(1, b"", "sudo: a password is required")
            )
        name, arguments = (argv[3], argv[4:]) if argv[:2] == ["sh", "-c"] else (argv[0], argv[1:])
        if name == layout.WRAPPER:
            name, arguments = f"hm-{arguments[0]}", arguments[1:]
        if name == "hm-start" and self.machine.rejects and self.machine.rejects in self.machine.files[layout.CONFIG]:
            self.machine.active = False
            return Completed(1, b"", "node_agent: it cannot do with that")
        if name in self.machine.fails:
            self.machine.active &= name != "hm-start"
            self.machine.partial |= name == "hm-unpack"
            return Completed(1, b"", self.machine.fails[name])
        self.machine.log.append(name)
        answer = getattr(self, f"_{name.replace('-', '_')}")(arguments, stdin)
        return Completed(0, answer or b"", "")

    def _hm_put(self, arguments: list[str], stdin: bytes) -> None:
        self.machine.files[arguments[0]] = stdin
        if arguments[0] == layout.UNIT_FILE:
            self.machine.stale = True

    def _hm_keep(self, arguments: list[str], stdin: bytes) -> None:
        self.machine.files[arguments[1]] = self.machine.files[arguments[0]]

    def _hm_check_config(self, arguments: list[str], stdin: bytes) -> None:
        parse_agent_config(stdin, "stdin")

    def _hm_last_words(self, arguments: list[str], stdin: bytes) -> bytes:
        return b"these were\nits last words\n"

    def _hm_packages(self, arguments: list[str], stdin: bytes) -> bytes:
        listed, tried, _, *wanted = arguments
        machine = self.machine
        names = [name for name in wanted if name not in machine.unknown]
        lacks = [name for name in wanted if name in machine.unknown]
        machine.packages |= {"linux-headers-amd64" if name == "linux-headers" else name for name in names}
        for path, lines in ((listed, names), (tried, [f"{KERNEL} {name}" for name in lacks if name != "docker.io"])):
            if lines:
                machine.files[path] = machine.files.get(path, b"") + "".join(f"{line}\n" for line in lines).encode()
        if "docker.io" in names:
            machine.docker = "running"
        machine.bcc |= "python3-bpfcc" in names
        return "".join(f"lacks {name} E: Unable to locate package {name}\n" for name in lacks).encode()

    def _hm_unpack(self, arguments: list[str], stdin: bytes) -> None:
        self.machine.releases.add(arguments[1])
        self.machine.partial = False

    def _hm_discard(self, arguments: list[str], stdin: bytes) -> None:
        self.machine.partial = False

    def _hm_request(self, arguments: list[str], stdin: bytes) -> bytes:
        self.machine.key = self.machine.key or pki.create_key()
        return pki.create_request(self.machine.key, pki.Identity(arguments[2], pki.Kind.NODE, arguments[3]))

    def _hm_switch(self, arguments: list[str], stdin: bytes) -> None:
        self.machine.current = arguments[2]
        self.machine.releases &= {arguments[2], arguments[3]}

    def _hm_fence(self, arguments: list[str], stdin: bytes) -> None:
        """It has no life of its own here."""

    def _hm_unfence(self, arguments: list[str], stdin: bytes) -> None:
        """Nothing runs here that would have to end."""

    def _hm_unrun(self, arguments: list[str], stdin: bytes) -> None:
        """No app has any container here."""
        self.machine.active = False

    def _hm_start(self, arguments: list[str], stdin: bytes) -> None:
        machine = self.machine
        machine.active, machine.running = True, machine.files[layout.CONFIG]
        machine.journal |= parse_agent_config(machine.running, layout.CONFIG).role is Role.CONTROL
        machine.starts += 1
        machine.started = {path: hashlib.sha256(machine.files[path]).hexdigest() for path in layout.READ_AT_START}
        machine.started_release = machine.current

    def _hm_aside(self, arguments: list[str], stdin: bytes) -> bytes:
        machine = self.machine
        machine.active = False
        if not machine.journal:
            return b""
        machine.before_aside()
        machine.journal, machine.aside = False, machine.aside + 1
        return f"{layout.JOURNAL}.aside-{machine.aside}\n".encode()

    def _systemctl(self, arguments: list[str], stdin: bytes) -> None:
        if "daemon-reload" in arguments:
            self.machine.stale = False
        if "enable" in arguments:
            self.machine.enabled = True

    def _hm_remove(self, arguments: list[str], stdin: bytes) -> None:
        machine = self.machine
        machine.files.clear()
        machine.releases.clear()
        machine.started.clear()
        machine.partial = machine.journal = machine.active = machine.enabled = machine.stale = False
        machine.current = machine.key = machine.started_release = machine.running = None

    def _hm_purge(self, arguments: list[str], stdin: bytes) -> None:
        self.machine.packages -= set(arguments)


def _content(stdin: bytes | Path | None) -> bytes:
    return stdin.read_bytes() if isinstance(stdin, Path) else stdin or b""


def facts(machine: Machine) -> str:
    """What the facts script would print there."""
    unit = "unit" if layout.UNIT_FILE in machine.files else ""
    names = {"config": layout.CONFIG, "ca": layout.CA, "certificate": layout.CERTIFICATE, "unit": layout.UNIT_FILE}
    names |= {
        "wrapper": layout.WRAPPER,
        "slice": layout.SLICE_FILE,
        "fence": layout.FENCE_FILE,
        "packages": layout.PACKAGES,
        "tried": layout.TRIED,
    }
    agent = [f"file_{name}={b64encode(machine.files[path]).decode()}" for name, path in names.items() if path in machine.files]
    agent += ["key=yes"] * bool(machine.key) + ["journal=yes"] * machine.journal
    agent += [f"present={path}" for path in machine.directories()]
    agent += [f"release={digest}" for digest in machine.releases] + [f"release=.{'0' * 64}.partial"] * machine.partial
    agent += [f"current=releases/{machine.current}" if machine.current else "current="]
    agent += [f"LoadState={'loaded' if unit else 'not-found'}", f"ActiveState={'active' if machine.active else 'inactive'}"]
    agent += [
        f"UnitFileState={'enabled' if machine.enabled else ''}",
        f"NeedDaemonReload={'yes' if machine.stale and machine.active else 'no'}",
    ]
    agent += [f"MainPID={1000 if machine.active else 0}", f"fingerprint={machine.fingerprint()}"]
    agent += [f"started={digest}  {path}" for path, digest in machine.started.items()]
    agent += [f"started=releases/{machine.started_release}"] * bool(machine.started_release)
    python = (
        [f"executable=/usr/bin/python3\nversion={machine.python}\nlibc=glibc-2.36\nbcc={'yes' if machine.bcc else ''}"]
        if machine.python
        else []
    )
    holder = f'udp UNCONN 0 0 0.0.0.0:7443 0.0.0.0:* users:(("{machine.port_holder}",pid=77,fd=3))' if machine.port_holder else ""
    system = f"uid=0\nmachine_id={machine.machine_id or machine.name * 4}\nhostname={machine.name}\nkernel={KERNEL}\narch=x86_64\n"
    system += f"memory_kb=8000000\navailable_kb=4000000\nsystemd=yes\nos_ID=debian\naddress={machine.address}"
    disk = f"/dev/vda 100 50 {machine.free_kb} 50% /"
    sections = {
        "began": f"time={time.time() + machine.clock_offset}",
        "system": system,
        "runtime": "\n".join([*python, f"docker={machine.docker}", "docker_version=24.0.7"]),
        "kernel": "cgroup2=/sys/fs/cgroup\nbpffs=/sys/fs/bpf\nheaders=/lib/modules/6.1.0/build\nbpftool=/usr/sbin/bpftool",
        "disks": "\n".join([disk] * 3),
        "ports": holder,
        "packages": "manager apt\n" + "\n".join(f"ii  {name}" for name in sorted(machine.packages)),
        "agent": "\n".join(agent),
        "ended": f"time={time.time() + machine.clock_offset}",
    }
    return "\n".join(f"\n{_MARK}{name}\n{body}" for name, body in sections.items()) + "\n"
