"""The life of one host: boot, ready, crash, shut down. systemd-nspawn runs detached; the host's cgroup says whether it lives."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmcore.errors import LabError
from hmctl.lab import cgroups, network, shell
from hmctl.lab.cgroups import Hierarchy, HostCgroup
from hmctl.lab.disk import ENGINE_FOLDERS, Disk
from hmctl.lab.plan import DEFAULT_NAME, Cgroups, Names
from hmctl.lab.state import LabState

READY_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
_TIDY_TIMEOUT = 5.0  # for systemd-nspawn, after its host died
_DEATH_TIMEOUT = 20.0  # for the kernel, after SIGKILL
_POLL = 0.02
_POWEROFF = signal.SIGRTMIN + 4  # systemd(1): start poweroff.target
# What a root shell of the host would have. Ours (proxies, virtual environments) is not the host's business.
_ENVIRONMENT = {"PATH": shell.SYSTEM_PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash", "LANG": "C.UTF-8"}

# What tells systemd-nspawn which cgroup hierarchies to show inside (ENVIRONMENT.md of systemd); without it, those of this machine.
_NSPAWN: Mapping[Cgroups, Mapping[str, str]] = {
    Cgroups.MACHINE: {},
    Cgroups.UNIFIED: {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
}

# Makes itself a member of the host's cgroups, then becomes the given command.
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'
# Mounts what a host needs in a mount namespace that ends with the host: nothing to unmount, whatever happens. The BPF file system is the
# host's own, so that what it pins is gone after a reboot, as on any machine.
_MOUNT = """set -e
image=$1 folder=$2; shift 2
mount -t overlay overlay -o "lowerdir=$image,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
mount -t bpf bpf "$folder/bpf"
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
watchers=/proc/sys/fs/inotify/max_user_instances
[ "$(cat $watchers)" -ge 1024 ] || echo 1024 > $watchers
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """One host of a lab: where it lives on this machine."""

    state: LabState
    node: str
    disk: Disk
    cgroup: HostCgroup

    @classmethod
    def of(cls, state: LabState, node: str, folder: Path, images: Path, hierarchies: tuple[Hierarchy, ...]) -> Machine:
        return cls(state, node, Disk(folder / node, images / state.image), HostCgroup(Names(state.name).host(node), hierarchies))

    @property
    def init(self) -> int | None:
        """The id of the host's process 1, or None while it does not run."""
        return self.cgroup.init()

    @property
    def console(self) -> Path:
        return self.disk.folder / "console.log"

    def boot(self, authorized_key: str) -> None:
        """Start it from its disk, removing whatever an interrupted attempt left. Returns at once: see wait_ready."""
        self.clear()
        self.disk.prepare(self.node, authorized_key, os.uname().release)
        network.connect(self.state, self.node)
        self.cgroup.create()
        nspawn = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--settings=no", "--console=read-only",
            f"--machine={self.cgroup.name}", f"--hostname={self.node}", f"--directory={self.disk.folder / 'root'}",
            f"--network-namespace-path=/run/netns/{self.cgroup.name}", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            "--capability=all", "--system-call-filter=@keyring bpf perf_event_open",
            f"--bind={self.disk.folder / 'bpf'}:/sys/fs/bpf", "--bind=/sys/kernel/tracing", "--bind=/sys/kernel/security",
            *(f"--bind={self.disk.folder / name}:/var/lib/{name}" for name in ENGINE_FOLDERS), "--boot",
        ]  # fmt: skip
        mounted = [
            "unshare",
            "--mount",
            "--propagation",
            "slave",
            "--",
            "sh",
            "-c",
            _MOUNT,
            "boot",
            str(self.disk.image),
            str(self.disk.folder),
        ]
        with self.console.open("wb") as console:
            # --fork orphans it: it outlives us and is nobody's zombie.
            subprocess.run(
                ["setsid", "--fork", *_as_member(self.cgroup.join_files(), [*mounted, *nspawn])],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, cwd="/", timeout=10, check=True,
                env={"PATH": shell.SYSTEM_PATH, "LC_ALL": "C.UTF-8", **_NSPAWN[self.state.cgroups]},
            )  # fmt: skip

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Until sshd and Docker answer. Raises LabError with the end of the console's output if the host dies or takes too long."""
        deadline = time.monotonic() + timeout
        appeared = False
        while not (self._ssh_answers() and self._docker_answers()):
            appeared = appeared or self.cgroup.populated()
            if appeared and not self.cgroup.populated():
                raise LabError(f"the host died while it booted: {self._last_words()}", host=self.node, fix=f"look into {self.console}")
            if time.monotonic() > deadline:
                missing = "sshd" if not self._ssh_answers() else "Docker"
                raise LabError(
                    f"{missing} does not answer after {timeout:g} s: {self._last_words()}", host=self.node, fix=f"look into {self.console}"
                )
            time.sleep(_POLL)

    def is_ready(self) -> bool:
        """Whether it runs, is cabled, and answers."""
        return self.init is not None and network.is_cabled(self.state, self.node) and self._ssh_answers() and self._docker_answers()

    def crash(self) -> bool:
        """Power loss: process 1 dies, and with it, at once, all others. The disk stays. False if it was down."""
        ran = self.init is not None
        self.clear()
        return ran

    def shut_down(self, timeout: float = STOP_TIMEOUT) -> bool:
        """Ask it to power off. False if it did not within `timeout` seconds and was cut off."""
        if self.cgroup.frozen():
            self.cgroup.freeze(False)
        self._signal(_POWEROFF)
        by_itself = self.cgroup.wait_empty(timeout)
        self.clear()
        return by_itself

    def clear(self) -> None:
        """Whatever state it is in: no processes, cgroups, network or run-time files of it remain; the disk does."""
        died = self._signal(signal.SIGKILL)  # takes all in the host with it, while systemd-nspawn outside lives on to tidy up
        if self.cgroup.frozen():
            self.cgroup.freeze(False)
        self.cgroup.wait_empty(_TIDY_TIMEOUT if died else 0.0)
        self.cgroup.kill(_DEATH_TIMEOUT)
        self.cgroup.remove(_DEATH_TIMEOUT)
        network.disconnect(self.state.name, self.node)
        for folder in ("propagate", "unix-export"):  # systemd-nspawn leaves them when it is killed itself
            shutil.rmtree(f"/run/systemd/nspawn/{folder}/{self.cgroup.name}", ignore_errors=True)

    def pause(self, paused: bool) -> None:
        """Freeze all its processes, or let them go on. Raises LabError if it does not run."""
        if self.init is None:
            raise self._not_running()
        self.cgroup.freeze(paused)

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside: all namespaces, root directory and cgroups of the host's process 1.

        Needs nothing to answer in there. Standard streams and exit code are the command's own. Raises LabError if the host is down.
        """
        init = self.init
        if init is None:
            raise self._not_running()
        inside = ["nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--", *argv]
        files = cgroups.join_files(self.cgroup.hierarchies, Path(f"/proc/{init}/cgroup").read_text())
        return _as_member(files, inside)

    def _not_running(self) -> LabError:
        named = "" if self.state.name == DEFAULT_NAME else f" --name {self.state.name}"
        return LabError("the host does not run", host=self.node, fix=f"hmctl lab start {self.node}{named}")

    def _signal(self, number: int) -> bool:
        """Signal process 1, and surely no other: the descriptor is opened, then membership is asked again. False if there is none."""
        pid = self.init
        if pid is None:
            return False
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            alive = self.init == pid
            if alive:
                signal.pidfd_send_signal(descriptor, number)
            return alive
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)

    def _ssh_answers(self) -> bool:
        try:
            with socket.create_connection((str(self.state.address(self.node)), 22), timeout=1.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _docker_answers(self) -> bool:
        init = self.init
        if init is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2.0)
                connection.connect(f"/proc/{init}/root/run/docker.sock")
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.0 200")
        except OSError:
            return False

    def _last_words(self) -> str:
        lines = self.console.read_text(errors="replace").strip().splitlines() if self.console.exists() else []
        return lines[-1].strip() if lines else "the console is silent"


def environment(term: str | None) -> dict[str, str]:
    """What a command inside sees."""
    return {**_ENVIRONMENT, **({"TERM": term} if term else {})}


def _as_member(files: Sequence[str], argv: Sequence[str]) -> list[str]:
    return ["/bin/sh", "-c", _JOIN, "hmctl-lab", str(len(files)), *files, *argv]
