"""The security layer as a component: eBPF programs at our containers' common cgroup, and what they count.

The programs live in the kernel by their pins, not by the agent: they go on counting while it is away. Loading them is the business of a
process of its own (loader.py); it is run only when what is in the kernel is not what should be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from hmcore.config.settings import Security
from hmcore.errors import LayerDown, LayerMissing
from hmcore.records import SecurityReport
from node_agent.security import links, maps, placement
from node_agent.security.kernel import Bpf, KernelRefused
from node_agent.security.maps import RawFlow, Record, Totals
from node_agent.security.monitor import Monitor, load_library

T = TypeVar("T")

PYTHON = "/usr/bin/python3"  # the system's own: bcc comes with it, and with no other
PROGRAMS = Path(__file__).with_name("programs")
LOADER = Path(__file__).with_name("loader.py")
LOADER_TIMEOUT = 30.0  # seconds; it takes one when the machine is not busy
READ_TIMEOUT = 5.0
_SEEN_MOST = 4096  # containers whose cgroups are remembered, gone ones included

log = logging.getLogger(__name__)


class SecurityLayer:
    """See node_agent.platform.lifecycle.Component."""

    name = "security"

    def __init__(
        self,
        settings: Security,
        *,
        node: str,
        on_records: Callable[[list[Record]], None] = lambda records: None,
        running: Callable[[], frozenset[str]] = frozenset,
        on_unwatched: Callable[[], None] = lambda: None,
        root: Path = Path(maps.ROOT),
        programs: Path = PROGRAMS,
    ) -> None:
        """`on_records` gets what the ring buffer brought. `running`: our running containers by id, as Docker told last. `on_unwatched` is
        called when `unwatched` says something else. `root`: where the pins lie."""
        self._mode = settings.mode
        self._node = node
        self._root = root
        self._programs = programs
        self._pins = Path(maps.pins(node, str(root)))
        self._monitor = Monitor(self._received)
        self._on_records = on_records
        self._running = running
        self._on_unwatched = on_unwatched
        self._outside: frozenset[str] = frozenset()
        self._unwatched: Mapping[str, str] = {}
        self._bpf: Bpf | None = None
        self._parent: Path | None = None
        self._digest = b""
        self._cpus = 0
        self._fds: dict[str, int] = {}
        self._totals = Totals()
        self._flows = 0
        self._working = 0  # programs, as they were seen last
        self._seen: Mapping[int, str] = {}

    @property
    def serving(self) -> bool:
        """With the mode `off` there is nothing to do."""
        return self._mode != "off"

    # --- life

    async def initialize(self) -> None:
        """Have the programs in the kernel and read their maps. Raises LayerMissing or LayerDown, with what mends it."""
        with _refusals_told():
            await self._initialize()

    async def _initialize(self) -> None:
        if self._mode == "off":
            links.detach(self._root / self._node)
            return
        load_library()
        self._bpf = bpf = Bpf()
        self._cpus = maps.possible_cpus()
        self._parent = await asyncio.to_thread(self._place)
        self._digest = await asyncio.to_thread(
            links.fingerprint, self._programs, release=os.uname().release, mode=self._mode, cpus=self._cpus
        )
        reason = self._shortcoming()
        if reason is not None:
            log.info("loading programs into the kernel: %s", reason)
            await self._load()
            reason = self._shortcoming()
            if reason is not None:
                raise LayerDown(f"loaded, and yet: {reason}", fix="bpftool link; journalctl -u hypermesh-agent")
        self._fds = {name: bpf.get(str(self._pins / name)) for name in ("totals", "flows", "events")}
        self._monitor.open(self._fds["events"])
        self.cgroups()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def check(self) -> LayerDown | None:
        """What is not counted although it should be. Raises LayerDown when something has to be loaded again: the parent cgroup was removed,
        or a pin."""
        if self._mode == "off":
            return None
        with _refusals_told():
            reason = self._shortcoming()
        if reason is not None:
            raise LayerDown(f"the programs do not work any more, and are being loaded again: {reason}")
        self._flows = await self._read_flows(lambda bpf, fd: bpf.count(fd, maps.KEY.size, maps.FLOW.size * self._cpus, maps.FLOWS_MOST))
        return self._strangers()

    def _strangers(self) -> LayerDown | None:
        """Containers of ours that run elsewhere: nothing of theirs is counted. What Docker told may be older than what the directories say,
        hence only who was outside the last time, too."""
        assert self._parent is not None
        running = self._running()
        outside = running - set(self.cgroups().values())
        lasting, self._outside = outside & self._outside, outside
        before, why = self._unwatched, f"outside {placement.option(self._parent)} (--cgroup-parent)"
        self._unwatched = dict.fromkeys(sorted(lasting), why)
        if self._unwatched != before:
            self._on_unwatched()
        if not lasting:
            return None
        return LayerDown(
            f"{len(lasting)} of {len(running)} containers run outside {placement.option(self._parent)} and are not counted",
            fix=f"make them anew: {placement.advice(self._parent)}",
        )

    async def stop(self) -> None:
        """The programs stay: they count on."""
        self._monitor.close()
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)

    # --- what the others ask

    def report(self) -> SecurityReport | None:
        """None while there is nothing to tell: not initialized, or without what it needs."""
        if self._mode == "off":
            return SecurityReport(mode=self._mode)
        if not self._fds or self._parent is None:
            return None
        totals = self.totals()
        return SecurityReport(
            mode=self._mode,
            programs=self._working,
            loaded=self._digest.hex()[:16],
            cgroup=str(self._parent),
            flows=self._flows,
            events=totals.events,
            events_lost=totals.events_lost,
            events_overrun=totals.events_overrun,
        )

    def unwatched(self) -> Mapping[str, str]:
        """Our running containers, by id, that the programs do not see, and why; as the last checks found."""
        return self._unwatched

    async def flows(self) -> list[RawFlow]:
        """What the kernel keeps: the flows that had packets lately, some thousands. Raises LayerDown while nothing is loaded."""
        size = maps.FLOW.size * self._cpus
        return await self._read_flows(
            lambda bpf, fd: [maps.parse_flow(*row) for row in bpf.lookup_all(fd, maps.KEY.size, size, maps.FLOWS_MOST)]
        )

    async def _read_flows(self, use: Callable[[Bpf, int], T]) -> T:
        """`use` of the map, beside the event loop: it may have thousands of entries. Raises LayerDown."""
        bpf, path = self._bpf, str(self._pins / "flows")
        if bpf is None or "flows" not in self._fds:
            raise LayerDown("the security layer is not up")
        with _refusals_told():
            async with asyncio.timeout(READ_TIMEOUT):
                return await asyncio.to_thread(_with_map, bpf, path, use)

    def totals(self) -> Totals:
        """Counters since the node started; the last known ones while nothing can be read."""
        if self._bpf is not None and "totals" in self._fds:
            with contextlib.suppress(KernelRefused):  # `check` tells why
                self._totals = maps.parse_totals(self._bpf.lookup(self._fds["totals"], bytes(4), maps.TOTALS.size * self._cpus))
        return self._totals

    def cgroups(self) -> Mapping[int, str]:
        """Container ids by cgroup id; also of containers that are gone, as far as remembered."""
        if self._parent is not None:
            self._seen = placement.remembered(self._seen, dict(placement.containers(self._parent)), _SEEN_MOST)
        return self._seen

    def _received(self, records: list[Record]) -> None:
        if any(record.cgroup not in self._seen for record in records):
            self.cgroups()
        self._on_records(records)

    # --- loading

    def _place(self) -> Path:
        """The parent cgroup, made if need be."""
        mounts = placement.parse_mounts(Path("/proc/self/mountinfo").read_text())
        if not placement.has_bpffs(mounts, self._root.parent):
            raise LayerDown(f"no bpf file system is mounted at {self._root.parent}", fix=f"mount -t bpf bpf {self._root.parent}")
        parent = placement.parent(mounts, systemd=Path("/run/systemd/system").is_dir())
        if parent is None:
            raise LayerMissing("no cgroup2 hierarchy is mounted", fix="mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        try:
            parent.mkdir(exist_ok=True)
        except OSError as error:
            raise LayerDown(f"{parent} cannot be made: {error.strerror}", fix=f"mkdir {parent}") from error
        return parent

    def _shortcoming(self) -> str | None:
        assert self._bpf is not None
        assert self._parent is not None
        try:
            parent = self._parent.stat().st_ino
        except FileNotFoundError:
            return f"{self._parent} was removed"
        found = links.observe(self._bpf, self._pins)
        self._working = links.working(found, parent)
        return links.shortcoming(found, parent, self._digest)

    async def _load(self) -> None:
        request = {
            "node": self._node,
            "cgroup": str(self._parent),
            "mode": self._mode,
            "digest": self._digest.hex(),
            "programs": str(self._programs),
            "root": str(self._root),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                PYTHON,
                "-I",
                str(LOADER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            )
        except OSError as error:
            raise LayerMissing(f"{PYTHON} cannot be run: {error.strerror}", fix="apt-get install python3 python3-bpfcc") from error
        try:
            async with asyncio.timeout(LOADER_TIMEOUT):
                out, said = await process.communicate(json.dumps(request).encode())
        except TimeoutError as error:
            raise LayerDown(
                f"the loader took more than {LOADER_TIMEOUT:g} s", fix="systemctl restart hypermesh-agent, when the machine is less busy"
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        judge(out, said, process.returncode or 0)


@contextlib.contextmanager
def _refusals_told() -> Iterator[None]:
    """What the kernel refuses, a pin that is gone for instance, means that the layer is down: it is then brought up again."""
    try:
        yield
    except KernelRefused as error:
        fix = None if error.errno == errno.ENOENT else "zgrep BPF /proc/config.gz; cat /sys/kernel/security/lockdown"
        raise LayerDown(f"the kernel refused: {error.strerror}", fix=fix) from error


def _with_map(bpf: Bpf, path: str, use: Callable[[Bpf, int], T]) -> T:
    fd = bpf.get(path)  # a descriptor of its own, whatever becomes of the layer meanwhile
    try:
        return use(bpf, fd)
    finally:
        os.close(fd)


def judge(out: bytes, said: bytes, status: int) -> None:
    """What the loader's answer means. Raises LayerMissing or LayerDown, with the fix that it names. Pure."""
    try:
        answer = json.loads(out)
    except (ValueError, RecursionError):
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    if answer.get("ok") is True and status == 0:
        return
    fix = str(answer.get("fix") or "journalctl -u hypermesh-agent")
    if "missing" in answer:
        raise LayerMissing(str(answer["missing"]), fix=fix)
    if "down" in answer:
        raise LayerDown(str(answer["down"]), fix=fix)
    words = said.decode("utf-8", "replace").strip().splitlines()
    how = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
    raise LayerDown(f"the loader {how}{': ' + words[-1] if words else ''}", fix=fix)
