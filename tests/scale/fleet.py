"""A fleet of simulated hosts in a network of its own, and the real `hmctl` run against it, watched from outside.

The network is a namespace of its own in which all of 10.76.0.0/16 is local: hosts are written and reached as anywhere else (SSH on port 22,
agents on 7443), many fleets can run side by side, and no other process of the machine can reach them.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncssh
from control import ask_now

from hmcore import pki
from hmcore.config.agent import agent_config_for, dump_agent_config
from hmcore.config.inventory import Inventory, load_inventory
from hmctl.bundle.build import Target
from hmctl.bundle.store import Release, ReleaseStore
from hmctl.state import OperatorStore

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HMCTL = ROOT / ".venv" / "bin" / "hmctl"
CLUSTER = "hm-scale12345"
SMALL = 200_000  # bytes of a release that stands for the real one where its size is not the point
NETWORK = "ip link set lo up; ip route add local 10.76.0.0/16 dev lo; echo up; exec cat"
READY = 30.0  # seconds
SILENCE = "nft 'add table inet off; add chain inet off in {{ type filter hook input priority 0; }}; add rule inet off in ip daddr {} drop'"


@dataclass(frozen=True)
class Run:
    """One run of hmctl as a process. `wall`, `cpu` (user and system) in seconds, `memory`: the most it ever held, in MB."""

    status: int
    stdout: str
    stderr: str
    wall: float
    cpu: float
    memory: float
    files: int  # most file descriptors open at once, as seen every few milliseconds

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)


def inventory_text(count: int, settings: str = "") -> str:
    """Three control nodes and workers, in ranges as a person would write them, with a network that has a subnet for each."""
    ranges = [f"  - {{address: '10.76.0.[1-{min(count, 3)}]', role: control}}"]
    for block in range((count + 249) // 250):
        first, last = (4 if block == 0 else 1), min(250, count - 250 * block)
        if first <= last:
            ranges.append(f"  - {{address: '10.76.{block}.[{first}-{last}]', role: worker}}")
    head = f"name: scale\nid: {CLUSTER}\nssh: {{user: root, key: operator}}\nsettings: {{network: {{cidr: 10.80.0.0/12}}, {settings}}}\n"
    return f"{head}hosts:\n" + "\n".join(ranges) + "\n"


@dataclass
class Fleet:
    folder: Path
    enter: list[str]  # what puts a command into the network
    environment: dict[str, str]
    content: bytes = b""  # of the release that is planted

    @property
    def path(self) -> Path:
        return self.folder / "cluster.yaml"

    @property
    def inventory(self) -> Inventory:
        return load_inventory(self.path, {})[0]

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.inventory.hosts]

    @property
    def store(self) -> OperatorStore:
        return OperatorStore.open(CLUSTER, self.folder / "data" / "hypermesh")

    def hosts(self, **request: Any) -> Any:
        return ask_now(self.folder / "hosts.sock", request)

    def agents(self, **request: Any) -> Any:
        return ask_now(self.folder / "agents.sock", request)

    def hmctl(self, *arguments: str, timeout: float = 300.0, program: tuple[str, ...] = (str(HMCTL),)) -> Run:
        if self.content and "deploy" in arguments:
            self.plant_release()
        command = [*self.enter, *program, "-i", str(self.path), *arguments]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.perf_counter()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self.environment)
            status, usage, files = _wait(process, timeout)
            wall = time.perf_counter() - began
            said = []
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read().decode())
        return Run(status, said[0], said[1], wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, files)

    def silence(self, name: str) -> None:
        """From now on nothing reaches the host's address: it was switched off."""
        address = self.inventory.host(name).address
        subprocess.run([*self.enter, "sh", "-c", SILENCE.format(address)], check=True, timeout=READY)

    def plant_release(self) -> Release:
        """A small release where hmctl looks for the one it built: every byte of it is sent and counted like the real one's. The place
        depends on the sources, which somebody may be editing: it is planted before each deploy."""
        store = ReleaseStore.open(self.environment)
        self.content = content = self.content or os.urandom(SMALL)
        folder = store.root / store._key(Target("3.11", "x86_64"))
        document = {"digest": sha256(content).hexdigest(), "version": "0", "python": "3.11", "arch": "x86_64", "compiled": True}
        document |= {
            "size": SMALL,
            "unpacked": SMALL,
            "checksum": sha256(content).hexdigest(),
            "built": time.time(),
            "archive": "release.tar.gz",
        }
        store._keep(folder, content, document)
        release = store.cached(Target("3.11", "x86_64"))
        assert release is not None
        return release

    def form(self) -> None:
        """A healthy cluster without a deploy: each agent with a certificate as its own request would have got it."""
        inventory, store, now = self.inventory, self.store, datetime.now(UTC)
        authority = store.create_authority(now)
        bootstrap = store.bootstrap()
        for host in inventory.hosts:
            key, identity = pki.create_key(), pki.Identity(CLUSTER, pki.Kind.NODE, host.name)
            certificate = pki.sign_request(authority, pki.create_request(key, identity), identity, now)
            config = dump_agent_config(agent_config_for(inventory, host, bootstrap)).encode()
            self.start(host.name, config, authority.certificate, certificate, key)
        self.agents(formed=bootstrap)
        self.agents(link="all")
        store.mark_formed(now)

    def start(self, name: str, config: bytes, ca: bytes, certificate: bytes, key: bytes) -> None:
        from base64 import b64encode

        content = {"config": config, "ca": ca, "certificate": certificate, "key": key}
        self.agents(start=name, release="r" * 64, **{what: b64encode(text).decode() for what, text in content.items()})


def _wait(process: subprocess.Popen[bytes], timeout: float) -> tuple[int, Any, int]:
    """The exit status, what it used, and the most descriptors that were seen open."""
    deadline, most = time.monotonic() + timeout, 0
    descriptor = os.pidfd_open(process.pid)
    try:
        while True:
            ended, _, _ = select.select([descriptor], [], [], 0.02)
            if ended:
                break
            try:
                most = max(most, len(os.listdir(f"/proc/{process.pid}/fd")))
            except OSError:
                continue  # it is ending
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGABRT)
    finally:
        os.close(descriptor)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage, most


@contextmanager
def fleet(count: int, *, text: str | None = None, cache: Path | None = None, ssh: bool = True) -> Iterator[Fleet]:
    """`count` fresh hosts. `cache`: hmctl's cache with releases that were built before; without one, a small release is planted.

    `ssh` False: only agents, for what does not log in.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hypermesh-scale-")))
        enter = stack.enter_context(_network())
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(folder / "operator"))
        (folder / "operator").chmod(0o600)
        key.write_public_key(str(folder / "operator.pub"))
        # Not as CI has it: a user's Python keeps the bytecode of what it has compiled.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "SSH_", "HMCTL_", "PYTHON"))}
        environment = inherited | {
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CACHE_HOME": str(cache or folder / "cache"),
            "NO_COLOR": "1",
            "PYTHONPATH": f"{ROOT}:{HERE}",
        }
        made = Fleet(folder, enter, environment)
        made.path.write_text(text or inventory_text(count))
        if cache is None:
            made.plant_release()
        sockets = ["--control", str(folder / "agents.sock")]
        stack.enter_context(_simulator(made, [str(HERE / "agents.py"), *sockets], folder / "agents.sock"))
        if ssh:
            sockets = ["--agents", str(folder / "agents.sock"), "--control", str(folder / "hosts.sock")]
            arguments = [str(HERE / "ssh_hosts.py"), str(made.path), "--key", str(folder / "operator.pub"), *sockets]
            stack.enter_context(_simulator(made, arguments, folder / "hosts.sock"))
        yield made


@contextmanager
def _network() -> Iterator[list[str]]:
    """A network namespace, for root and (in a user namespace) for everybody else; gives what enters it."""
    root = os.geteuid() == 0
    new = ["unshare", "--net", *([] if root else ["--user", "--map-root-user"]), "sh", "-c", NETWORK]
    with subprocess.Popen(new, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        if holder.stdout.readline() != b"up\n":
            raise RuntimeError(f"no network namespace can be made here: {' '.join(new[:-1])} failed")
        try:
            yield ["nsenter", *([] if root else ["--user", "--preserve-credentials"]), "--net", "--target", str(holder.pid), "--"]
        finally:
            holder.stdin.close()
            holder.wait(10)


@contextmanager
def _simulator(fleet: Fleet, arguments: list[str], socket: Path) -> Iterator[None]:
    log = fleet.folder / f"{socket.stem}.log"
    with log.open("wb") as stream:
        command = [*fleet.enter, sys.executable, *arguments]
        process = subprocess.Popen(command, env=fleet.environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + READY
        while not _listens(socket):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{arguments[0]} does not start:\n{log.read_text()}")
            select.select([], [], [], 0.02)
        yield
    finally:
        process.kill()
        process.wait(10)
        said = log.read_text()
        if "Traceback" in said:
            sys.stderr.write(said)


def _listens(socket: Path) -> bool:
    try:
        ask_now(socket, {"counts": "any"})
    except OSError:
        return False
    return True
