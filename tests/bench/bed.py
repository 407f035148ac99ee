"""The test bed: a lab of its own for the benchmarks, and `hmctl` as a user runs it, timed from outside."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HMCTL = ROOT / ".venv" / "bin" / "hmctl"
LAB = "bench"


@dataclass(frozen=True)
class Bed:
    """Where the inventory and the operator's own state of this run lie. `tools`: a folder of commands that hmctl finds before others."""

    directory: Path
    tools: Path | None = None

    @property
    def inventory(self) -> Path:
        return self.directory / "lab.yaml"

    def hmctl(self, *args: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return self._run("-i", str(self.inventory), *args, check=check, stdin=stdin)

    def _run(self, *args: str, check: bool, stdin: str | None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([HMCTL, *args], text=True, capture_output=True, input=stdin, env=self._environment, timeout=300)
        if check and done.returncode != 0:
            raise RuntimeError(f"hmctl {' '.join(args)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    @property
    def _environment(self) -> dict[str, str]:
        path = {"PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}"} if self.tools else {}
        return os.environ | path | {"XDG_DATA_HOME": str(self.directory / "data"), "NO_COLOR": "1"}

    def timed(self, *args: str) -> float:
        """Seconds that `hmctl args` takes as a whole process. Raises RuntimeError when it fails."""
        began = time.perf_counter()
        self.hmctl(*args)
        return time.perf_counter() - began

    def lab(self, *args: str, check: bool = True, stdin: str | None = None) -> str:
        return self._run("lab", *args, check=check, stdin=stdin).stdout  # which takes an inventory of its own

    def on(self, node: str, *argv: str, stdin: str | None = None) -> str:
        """What `argv` prints on a host of the lab."""
        return self.lab("exec", "--name", LAB, node, "--", *argv, stdin=stdin)

    def start_on(self, node: str, *argv: str) -> subprocess.Popen[str]:
        """The running process, whose output the caller reads and which it ends."""
        command = [str(HMCTL), "lab", "exec", "--name", LAB, node, "--", *argv]
        return subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=self._environment)

    def addresses(self) -> dict[str, str]:
        """By name of the host."""
        document = json.loads(self.hmctl("config", "show", "-o", "json").stdout)
        return {host["name"]: host["address"] for host in document["hosts"]}

    def until_healthy(self, within: float = 60.0) -> str:
        """The leader's name. Raises TimeoutError."""
        deadline = time.monotonic() + within
        while (document := self.status())["health"] != "healthy" or not document["leader"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster is not healthy within {within:g} s: {document['checks']}")
        return str(document["leader"])

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.hmctl("status", "-o", "json", check=False).stdout)
        return document


@contextmanager
def bed(nodes: int = 3) -> Iterator[Bed]:
    with tempfile.TemporaryDirectory(prefix="hypermesh-bench-") as directory:
        bed = Bed(Path(directory))
        try:
            bed.lab("up", "--name", LAB, "--nodes", str(nodes), "--inventory", str(bed.inventory))
            yield bed
        finally:
            bed.lab("down", "--name", LAB, check=False)
