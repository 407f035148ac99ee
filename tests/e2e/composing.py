"""Apps in the lab as their operator sees them: images made here, compose files written down, and what the hosts answer."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import subprocess
import tarfile
import textwrap
import threading
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster

APPLETS = ("cat", "echo", "false", "hostname", "httpd", "ls", "mkdir", "nc", "sh", "sleep", "stat", "test", "true", "wget")
IMAGE = "e2e-web:1"


def archive(busybox: bytes, files: Mapping[str, bytes] | None = None, *, names: tuple[str, ...] = (IMAGE,)) -> bytes:
    """What `docker save` writes of an image with busybox's shell, its web server, and `files`."""
    layers = [tar({"bin/busybox": busybox, **{f"bin/{applet}": "busybox" for applet in APPLETS}, "www/alive": b"yes\n"})]
    layers += [tar(files)] if files else []
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "3600"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    config = json.dumps(described).encode()
    manifest = [{"Config": "config.json", "RepoTags": list(names), "Layers": [f"{at}.tar" for at in range(len(layers))]}]
    return tar(
        {f"{at}.tar": layer for at, layer in enumerate(layers)} | {"config.json": config, "manifest.json": json.dumps(manifest).encode()}
    )


def tar(files: Mapping[str, bytes | str]) -> bytes:
    """Values that are text are symbolic links. The same bytes whenever it is made."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                out.addfile(info)
            else:
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def serving(words: str) -> str:
    """A service's command that answers every request for `/` with `words` and its host's name."""
    return f"""["sh", "-c", "echo {words} $$(hostname) > /www/index.html; exec httpd -f -p 8080 -h /www"]"""


@dataclass(frozen=True)
class Apps:
    """Compose files in a folder, and the commands of hmctl app."""

    cluster: Cluster
    folder: Path
    seen: list[str] = field(default_factory=list)  # names of what was deployed

    def file(self, name: str, text: str) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(f"name: {name}\n{textwrap.dedent(text)}")
        return path

    def run(self, *args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = self.cluster.run("app", *args, **options)
        return done

    def deploy(self, name: str, text: str, *args: str, check: bool = True, **options: Any) -> dict[str, Any]:
        """The document of `app deploy`, which with `check` must end well."""
        path = self.file(name, text)
        self.seen.append(name)
        patience = () if "--timeout" in args else ("--timeout", "60")
        done = self.run("deploy", "-f", path, "--yes", *patience, "-o", "json", *args, check=check, **options)
        return self._document(done)

    def change(self, *args: str, check: bool = True) -> dict[str, Any]:
        """The document of a command that changes an app."""
        return self._document(self.run(*args, "-o", "json", check=check))

    def _document(self, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        assert done.stdout, f"it said nothing: {done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        return document | {"code": done.returncode, "said": done.stderr}

    def replicas(self, target: str) -> list[dict[str, Any]]:
        """As `app ps` has them, without those that are to stop."""
        found = json.loads(self.run("ps", target, "-o", "json").stdout)["replicas"]
        return [each for each in found if not each["stop"]]

    def containers(self, name: str) -> dict[str, str]:
        """Of an app, on all nodes, whether they run or not: nodes by Docker's id."""
        asked = ("docker", "ps", "-aq", "--no-trunc", "--filter", f"label=hypermesh.app={name}")
        return {id: node for node in self.cluster.names for id in self.cluster.inside(node, *asked).split()}

    def explain(self, target: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run("explain", target, "-o", "json").stdout)
        return document

    def address(self, node: str) -> str:
        return next(host.address for host in self.cluster.lab.view().hosts if host.name == node)

    def get(self, where: str, timeout: float = 2.0) -> str:
        """What a web server at `HOST:PORT` says to this machine, which is no node; empty: nothing."""
        try:
            with urllib.request.urlopen(f"http://{where}/", timeout=timeout) as answer:
                return str(answer.read().decode().strip())
        except OSError:
            return ""

    def remove_all(self) -> None:
        listed = {each["name"] for each in json.loads(self.run("ls", "-o", "json").stdout)["apps"]}
        for name in dict.fromkeys(self.seen):
            if name in listed:
                self.run("rm", name, "--yes")


class Load:
    """Requests at some addresses one after the other, from a few threads, each on a connection of its own, until the block ends."""

    def __init__(self, addresses: Sequence[str], *, threads: int = 4, pause: float = 0.005) -> None:
        self.answers: Counter[str] = Counter()  # by the first word
        self.failures: list[str] = []
        self._latest: deque[str] = deque(maxlen=1000)
        self._addresses = addresses
        self._pause = pause
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(at,), name=f"load {at}") for at in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.until(lambda: self.count > 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def expect_no_failure(self) -> None:
        told = "\n".join([*self.failures[:10], *self.failures[10:][-10:]])
        assert not self.failures, f"{len(self.failures)} of {self.count} requests failed:\n{told}"

    def recent(self, number: int) -> set[str]:
        """The first words of the latest answers; nothing if there are not so many."""
        latest = list(self._latest)
        return set(latest[-number:]) if len(latest) >= number else set()

    def until(self, condition: Callable[[], object], within: float = 20.0) -> None:
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within:g} s; {self.count} requests, failed: {self.failures[-3:]}")
            time.sleep(0.02)

    def _ask(self, first: int) -> None:
        began = time.time()
        for address in islice(cycle(self._addresses), first, None):
            if self._ending.wait(self._pause):
                return
            asked = time.time()
            try:
                with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
                    word = answer.read().decode().split()[0]
            except (OSError, http.client.HTTPException, IndexError) as error:
                self.failures.append(
                    f"{address} asked at {asked - began:.3f} s of {began:.3f}, after {time.time() - asked:.3f} s: {error!r}"
                )
                continue
            self.answers[word] += 1
            self._latest.append(word)
