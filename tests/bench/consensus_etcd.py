"""etcd, the peer of the benchmarks of consensus: Debian's own package, as three processes on loopback with etcd's defaults.

The package is fetched by the machine's own apt and unpacked into a cache of ours: nothing is installed, no service is started.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmcore.errors import HyperMeshError

PACKAGE = "etcd-server"
KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypermesh-bench" / "etcd"
FETCHING = 120.0  # seconds that apt may take
WAIT = 30.0  # seconds for three processes to agree on a leader


class EtcdUnavailable(HyperMeshError):
    """There is no etcd to measure beside."""


def obtain(kept: Path = KEPT) -> Path:
    """The program, from the package that this machine's apt offers; fetched once. Raises EtcdUnavailable."""
    program = kept / "usr/bin/etcd"
    if not program.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
            package = _fetched(Path(directory))
            _run("dpkg-deb", "-x", str(package), str(Path(directory, "tree")))
            with contextlib.suppress(OSError):  # somebody else was quicker: as good
                Path(directory, "tree").rename(kept)
    if not program.is_file():
        raise EtcdUnavailable(f"the package {PACKAGE} holds no {program.relative_to(kept)}", fix=f"rm -r {kept}")
    return program


def _fetched(directory: Path) -> Path:
    directory.chmod(0o755)  # apt fetches as a user of its own
    try:
        _run("apt-get", "download", "-qq", PACKAGE, cwd=directory)
    except EtcdUnavailable:  # the lists were missing or old
        _run("apt-get", "update", "-qq")
        _run("apt-get", "download", "-qq", PACKAGE, cwd=directory)
    return next(directory.glob(f"{PACKAGE}_*.deb"))


def _run(*argv: str, cwd: Path | None = None) -> None:
    fix = "see that apt-get reaches Debian's or Ubuntu's archive"
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=FETCHING)
    except FileNotFoundError as error:
        raise EtcdUnavailable(f"there is no {argv[0]} here: {PACKAGE} comes from Debian's or Ubuntu's archive") from error
    except subprocess.TimeoutExpired as error:
        raise EtcdUnavailable(f"{' '.join(argv)} took over {FETCHING:g} s", fix=fix) from error
    if done.returncode != 0:
        raise EtcdUnavailable(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}", fix=fix)


@dataclass
class EtcdProcess:
    name: str
    argv: tuple[str, ...]
    directory: Path
    port: int  # for clients
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def ask(self, path: str, timeout: float = 5.0, **request: object) -> dict[str, Any]:
        """One call by etcd's JSON gateway, for what is not measured. Raises OSError, http.client.HTTPException, ValueError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps(request))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise ValueError(f"{self.name}: {path}: {answer.status} {body.decode(errors='replace').strip()}")
        document: dict[str, Any] = json.loads(body)
        return document


class Etcd:
    """Three members, each with its ports and directory."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._directory = directory
        ports = _free_ports(6)
        names = ("etcd1", "etcd2", "etcd3")
        peers = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, ports[:3], strict=True)}
        together = ",".join(f"{name}={peer}" for name, peer in peers.items())
        self.members = {
            name: EtcdProcess(
                name,
                (
                    *(str(program), "--name", name, "--data-dir", str(directory / name), "--log-level", "error"),
                    *("--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]),
                    *("--listen-client-urls", f"http://127.0.0.1:{port}", "--advertise-client-urls", f"http://127.0.0.1:{port}"),
                    *("--initial-cluster", together, "--initial-cluster-state", "new"),
                ),
                directory,
                port,
            )
            for name, port in zip(names, ports[3:], strict=True)
        }

    def start(self) -> None:
        self._directory.mkdir(exist_ok=True)
        for member in self.members.values():
            member.start()

    def stop(self) -> None:
        for member in self.members.values():
            member.kill()

    def until_led(self) -> str:
        """The leader's name, once all that run agree on it. Raises EtcdUnavailable."""
        end = time.monotonic() + WAIT
        while True:
            running = [member for member in self.members.values() if member.process is not None]
            try:
                said = [member.ask("/v3/maintenance/status", timeout=1.0) for member in running]
            except (OSError, http.client.HTTPException, ValueError) as error:
                trouble = str(error)
            else:
                leaders = {status["leader"] for status in said}
                for member, status in zip(running, said, strict=True):
                    if leaders == {status["header"]["member_id"]}:
                        return member.name
                trouble = f"leaders: {', '.join(sorted(leaders))}"
            if gone := [member.name for member in running if member.process is not None and member.process.poll() is not None]:
                raise EtcdUnavailable(f"{', '.join(gone)} ended: {self._logs(gone)}")
            if time.monotonic() > end:
                raise EtcdUnavailable(f"no leader within {WAIT:g} s: {trouble}")
            time.sleep(0.05)

    def transfer(self, leader: str, to: str) -> None:
        """Raises OSError, http.client.HTTPException, ValueError."""
        target = self.members[to].ask("/v3/maintenance/status")["header"]["member_id"]
        self.members[leader].ask("/v3/maintenance/transfer-leadership", targetID=target)

    def _logs(self, names: list[str]) -> str:
        return "\n".join((self._directory / f"{name}.log").read_text()[-2000:] for name in names)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
