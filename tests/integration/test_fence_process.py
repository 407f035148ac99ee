"""The fence as a process of its own, against real processes in cgroups named as Docker names them; without Docker, and without an agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node_agent.container.fencing.fence import LEASE, watched
from node_agent.container.fencing.gates import Gates, gate_name
from node_agent.container.fencing.killing import unified_tree
from node_agent.container.fencing.lease import Lease, boot_clock, boot_id, encode

REPO = Path(__file__).parents[2]
DB, WEB = "shop/db.1.7", "shop/web.1.1"
ONE, TWO = "1" * 64, "2" * 64
KILL = 0.9  # seconds: what conflicts.py leaves for it at least
MOST = 64  # processes at once in all cgroups of a test

TREE = unified_tree(Path("/proc/self/mounts").read_text())
# In CI they run, and fail where they cannot.
pytestmark = pytest.mark.skipif((os.geteuid() != 0 or TREE is None) and not os.environ.get("CI"), reason="cgroups are root's to make")

FORKS = "import os, time\nwhile True:\n    if os.fork():\n        time.sleep(0.002)\n        os._exit(0)\n"
IGNORES = "import signal, time\nfor n in (1, 2, 15):\n    signal.signal(n, signal.SIG_IGN)\ntime.sleep(120)\n"
STARTS = """
import os, sys, time
procs, gate, told, before, between = sys.argv[1:]
time.sleep(float(before))
open(procs, "w").write("0")      # as runc: first into the container's cgroup,
try:
    os.close(os.open(gate, os.O_RDONLY))  # then its mounts,
except FileNotFoundError:
    sys.exit(3)
time.sleep(float(between))
end = time.monotonic() + 20
with open(told, "a") as file:    # and then it is let loose
    while time.monotonic() < end:
        file.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME)}\\n")
        file.flush()
        time.sleep(0.001)
"""
AGENT = """
import asyncio, sys
from pathlib import Path
from hmcore.apps.calls import LeaseReply
from node_agent.container.fencing.keeper import Keeper

async def ask(request):
    return LeaseReply(index=5, seconds=2.5)

async def main():
    keeper = Keeper(Path(sys.argv[1]), ask, lease=2.5, known=lambda: 5, on_change=lambda: None)
    keeper.need(True)
    await keeper.run()

asyncio.run(main())
"""


class Groups:
    """cgroups of containers, below one of this test's own; `limited` bounds what is in them."""

    def __init__(self, name: str) -> None:
        assert TREE is not None
        self.root = TREE / name
        self.limited = Path("/sys/fs/cgroup/pids") / name
        self.started: list[subprocess.Popen[bytes]] = []
        (self.root / "docker").mkdir(parents=True)
        if self.limited.parent.is_dir():
            self.limited.mkdir()
            (self.limited / "pids.max").write_text(str(MOST))
        else:
            (self.root / "pids.max").write_text(str(MOST))

    def of(self, container: str) -> Path:
        """Docker's, with cgroupfs."""
        path = self.root / "docker" / container
        path.mkdir(exist_ok=True)
        return path

    def run(self, code: str, *groups: Path, arguments: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        joined = [
            *groups,
            *([self.limited] if self.limited.is_dir() and not any(self.limited in group.parents for group in groups) else []),
        ]

        def join() -> None:
            for group in joined:
                (group / "cgroup.procs").write_text("0")

        process = subprocess.Popen([sys.executable, "-c", code, *arguments], preexec_fn=join, start_new_session=True)
        self.started.append(process)
        return process

    def populated(self, group: Path) -> bool:
        return bool((group / "cgroup.procs").read_text().split())

    def clean_up(self) -> None:
        (self.root / "cgroup.kill").write_text("1")
        for process in self.started:
            process.kill()
            process.wait(10)
        for top in (self.root, self.limited):
            for folder in sorted(top.rglob("*/"), reverse=True) if top.is_dir() else ():
                if folder.is_dir():
                    wait_until(lambda folder=folder: _gone(folder), 10)  # type: ignore[misc]
            if top.is_dir():
                wait_until(lambda top=top: _gone(top), 10)  # type: ignore[misc]


def _gone(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


@pytest.fixture
def groups() -> Iterator[Groups]:
    made = Groups(f"hm-fence-test-{os.getpid()}-{time.monotonic_ns()}")
    try:
        yield made
    finally:
        made.clean_up()


class Bench:
    def __init__(self, root: Path) -> None:
        self.root, self.gates = root, Gates(root)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.fence = self.start_fence()

    def start_fence(self) -> subprocess.Popen[bytes]:
        return self._run("-m", "node_agent.container.fencing", str(self.root))

    def start_agent(self) -> subprocess.Popen[bytes]:
        agent = self._run("-c", AGENT, str(self.root))
        wait_until(lambda: (self.root / LEASE).exists())
        return agent

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen([sys.executable, "-P", *arguments], env=environment)
        self.processes.append(process)
        return process

    def watched(self) -> bool:
        return watched(self.root, boot_id(), boot_clock())

    def lease(self, seconds: float) -> float:
        until = boot_clock() + seconds
        beside = self.root / "lease.new"
        beside.write_bytes(encode(Lease(boot_id(), until)))
        beside.replace(self.root / LEASE)
        return until

    def admit(self, allocation: str, container: str) -> None:
        self.gates.open(allocation)
        self.gates.list(allocation, container)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    try:
        wait_until(made.watched)
        yield made
    finally:
        made.stop()


def test_all_of_a_container_dies_at_the_end_of_the_lease_not_before_and_nobody_else(bench: Bench, groups: Groups) -> None:
    end = bench.lease(1.5)
    bench.admit(DB, ONE)
    (groups.of(ONE) / "init.scope").mkdir()
    inside = [groups.run(code, groups.of(ONE)) for code in (FORKS, IGNORES)] + [groups.run(IGNORES, groups.of(ONE) / "init.scope")]
    stopped = groups.run(IGNORES, groups.of(ONE))
    stopped.send_signal(signal.SIGSTOP)
    others = [groups.run(IGNORES, groups.of(TWO)), groups.run(IGNORES)]
    while boot_clock() < end - 0.05:
        assert all(process.poll() is None for process in (*inside[1:], stopped))
        time.sleep(0.01)
    for process in (*inside[1:], stopped):
        assert process.wait(5) == -signal.SIGKILL
    wait_until(lambda: not groups.populated(groups.of(ONE)), 5)
    assert end <= boot_clock() < end + KILL
    assert [process.poll() for process in others] == [None, None]
    assert bench.fence.poll() is None


def test_in_the_version_1_trees_too(bench: Bench, groups: Groups) -> None:
    if not groups.limited.is_dir():
        pytest.skip("this machine has no version 1 trees")
    bench.lease(60.0)
    bench.admit(DB, ONE)
    group = groups.limited / ONE
    group.mkdir()
    process, forks = groups.run(IGNORES, group), groups.run(FORKS, group)
    wait_until(lambda: forks.poll() is not None)
    end = bench.lease(0.3)
    assert process.wait(5) == -signal.SIGKILL
    wait_until(lambda: not groups.populated(group), 5)
    assert boot_clock() < end + KILL


def test_what_is_paused_dies_as_well(bench: Bench, groups: Groups) -> None:
    bench.lease(0.5)
    bench.admit(DB, ONE)
    process = groups.run(IGNORES, groups.of(ONE))
    (groups.of(ONE) / "cgroup.freeze").write_text("1")
    assert process.wait(5) == -signal.SIGKILL


def test_a_fence_that_was_killed_does_after_its_restart_what_it_missed(bench: Bench, groups: Groups) -> None:
    end = bench.lease(0.5)
    bench.admit(DB, ONE)
    process = groups.run(IGNORES, groups.of(ONE))
    bench.fence.kill()
    bench.fence.wait(10)
    wait_until(lambda: boot_clock() > end + 0.2)
    assert process.poll() is None
    bench.start_fence()
    assert process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_with_its_agent_a_container_ends_whether_that_is_dead_or_stands_still(bench: Bench, groups: Groups, number: signal.Signals) -> None:
    agent = bench.start_agent()
    bench.admit(DB, ONE)
    process = groups.run(IGNORES, groups.of(ONE))
    end = boot_clock() + 4.0
    while boot_clock() < end:
        assert process.poll() is None, "while its agent renews the lease, it lives"
        time.sleep(0.02)
    agent.send_signal(number)
    at = boot_clock()
    assert process.wait(10) == -signal.SIGKILL
    assert boot_clock() < at + 2.5 + KILL


def test_whenever_docker_gets_round_to_starting_it_nothing_runs_after_the_lease(bench: Bench, groups: Groups, tmp_path: Path) -> None:
    """Two dozen starts round the end of the lease: each is in time, finds its gate shut, or dies at once."""
    bench.lease(60.0)
    bench.admit(DB, ONE)
    told, gate = tmp_path / "told", tmp_path / "open" / gate_name(DB)
    procs = str(groups.of(ONE) / "cgroup.procs")
    starts = [
        groups.run(STARTS, arguments=(procs, str(gate), str(told), f"{0.08 * number:.2f}", "0.01" if number % 2 else "0.2"))
        for number in range(24)
    ]
    wait_until(told.exists)
    end = bench.lease(0.6)
    codes = [start.wait(30) for start in starts]
    assert set(codes) == {-signal.SIGKILL, 3}, "some were in time, and others were not"
    assert max(float(line) for line in told.read_text().splitlines()) < end + KILL
    assert not groups.populated(groups.of(ONE))


def test_it_stops_when_it_is_told_to_and_leaves_what_runs_alone(bench: Bench, groups: Groups) -> None:
    bench.lease(60.0)
    bench.admit(DB, ONE)
    process = groups.run(IGNORES, groups.of(ONE))
    bench.fence.send_signal(signal.SIGTERM)
    assert bench.fence.wait(5) == 0
    assert process.poll() is None
