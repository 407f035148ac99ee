"""A cluster in a lab as its operator sees it: through hmctl, and through what the hosts themselves say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hmctl.lab.lab import Lab

AGENT = "hypermesh-agent.service"
HMCTL = Path(sys.executable).with_name("hmctl")


@dataclass(frozen=True)
class Hmctl:
    """`hmctl(*args)` runs it to its end; `start(*args)` returns the running process. Both see an operator's folder of their own."""

    environ: dict[str, str] = field(repr=False)
    cwd: Path

    def __call__(
        self, *args: str | Path, check: bool = True, timeout: float = 120.0, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The finished process, with text output. With `check`, any exit code but 0 fails the test and shows what was said."""
        done = subprocess.run(
            [HMCTL, *args], input=stdin, capture_output=True, text=True, timeout=timeout, cwd=self.cwd, env={**self.environ, **(env or {})}
        )
        if check and done.returncode != 0:
            pytest.fail(f"hmctl {' '.join(map(str, args))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [HMCTL, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.cwd,
            env=self.environ,
        )


@dataclass(frozen=True)
class Cluster:
    lab: Lab
    hmctl: Hmctl
    inventory: Path

    def run(self, *args: str | Path, check: bool = True, **options: Any) -> Any:
        return self.hmctl("-i", self.inventory, *args, check=check, **options)

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.lab.view().hosts]

    def alone(self, node: str, folder: Path) -> Path:
        """An inventory that names no other host: hmctl asks this one, whatever the others would say."""
        path = folder / f"{node}.yaml"
        others = "|".join(name for name in self.names if name != node)
        path.write_text(re.sub(rf"^ *- {{name: (?:{others}),.*\n", "", self.inventory.read_text(), flags=re.MULTILINE))
        return path

    def deploy(self, *args: str, check: bool = True) -> Any:
        return self.run("deploy", "--yes", *args, check=check)

    def status(self) -> dict[str, Any]:
        """The document of `hmctl status -o json`, whatever its verdict."""
        done = self.run("status", "-o", "json", check=False)
        assert done.stdout, f"status said nothing: {done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def node(self, name: str) -> dict[str, Any]:
        return next(node for node in self.status()["nodes"] if node["name"] == name)

    def until(self, condition: Callable[[dict[str, Any]], object], within: float, what: str) -> float:
        """Seconds until `condition` holds for the status document. Fails the test, showing the last one, when it never does."""
        began = time.monotonic()
        while True:
            document = self.status()
            if condition(document):
                return time.monotonic() - began
            if time.monotonic() - began > within:
                pytest.fail(f"not within {within:g} s: {what}\n{json.dumps(document, indent=1)}")

    def until_healthy(self, within: float = 30.0) -> float:
        return self.until(lambda document: document["health"] == "healthy", within, "the cluster is healthy")

    def until_leader_is_not(self, name: str, within: float) -> float:
        return self.until(lambda document: document["leader"] not in (None, name), within, f"somebody else than {name} leads")

    def inside(self, node: str, *argv: str) -> str:
        """What a command prints on a host; it must succeed."""
        done = self.lab.exec(node, argv)
        assert done.returncode == 0, f"{node}: {argv} ended with {done.returncode}: {done.stderr.decode()}"
        return done.stdout.decode()

    def agent_pid(self, node: str) -> int:
        return int(self.inside(node, "systemctl", "show", "-p", "MainPID", "--value", AGENT))

    def kill_agent(self, node: str) -> None:
        """kill -9. systemd starts it again."""
        self.inside(node, "systemctl", "kill", "--signal=KILL", AGENT)

    def journal(self, node: str) -> str:
        return self.inside(node, "journalctl", "-u", AGENT, "-o", "cat", "--no-pager")

    def _raft(self) -> list[dict[str, Any]]:
        reports = [self.run("node", "inspect", name, "-o", "json", check=False).stdout for name in self.names]
        return [json.loads(report)["raft"] | {"name": json.loads(report)["name"]} for report in reports if report]

    def leaders(self) -> set[str]:
        """Everybody whom some node follows. More than one name in a quiet cluster: there are two clusters."""
        return {raft["leader"] for raft in self._raft() if raft["leader"]}

    def applied(self) -> dict[str, int]:
        """How far each node has applied the log."""
        return {raft["name"]: raft["applied_index"] for raft in self._raft()}


@contextmanager
def settings(cluster: Cluster, text: str) -> Iterator[None]:
    """The inventory with other settings, for as long as the block runs."""
    before = cluster.inventory.read_text()
    cluster.inventory.write_text(f"{before}settings: {text}\n")
    try:
        yield
    finally:
        cluster.inventory.write_text(before)
