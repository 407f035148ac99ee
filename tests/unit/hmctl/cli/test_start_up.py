"""What a command costs before it does anything: which modules it imports, and how often Python looks for garbage. Steadier than a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hmctl.state import OperatorStore

ID = "hm-abc123defg"
HEAVY = {"rich", "asyncssh", "jinja2", "uvloop", "tarfile", "http", "docker"}
SSH_ONLY = ("hmctl.remote", "hmctl.phases", "hmctl.facts", "hmctl.bundle", "hmctl.lab", "hmctl.render", "hmctl.progress")
LOOK = """
import atexit, gc, sys
def look():
    print("\\nMODULES", *sys.modules, file=sys.stderr)
    end = "passed over" if gc.get_freeze_count() else "searched"
    print("GARBAGE", end, "at the end,", searches() - before, "searches before", file=sys.stderr)
def searches():
    return sum(generation["collections"] for generation in gc.get_stats())
atexit.register(look)
from hmctl.__main__ import main
gc.collect()  # what led here does not count
before = searches()
main()
"""


def after(folder: Path, *words: str) -> tuple[set[str], str]:
    """The modules that hmctl has imported when it ends, and what is to be said of its garbage."""
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    said = {line.partition(" ")[0]: line.partition(" ")[2] for line in done.stderr.splitlines()}
    assert "Traceback" not in done.stderr, done.stderr
    return set(said["MODULES"].split()), said["GARBAGE"]


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """One that nobody answers for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    (tmp_path / "cluster.yaml").write_text(f"id: {ID}\nname: lab\nhosts:\n  - {{name: n1, address: 127.0.0.1, port: {port}}}\n")
    OperatorStore.open(ID, tmp_path / "hypermesh").create_authority(datetime.now(UTC))
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("words", ["status", "flows", "service ls", "events"])
def test_asking_agents_imports_nothing_that_only_ssh_or_a_terminal_needs_and_searches_no_garbage(words: str, cluster: Path) -> None:
    modules, garbage = after(cluster, *words.split(), "--via", "quic", "--timeout", "0.1")
    assert "hmcore.stoq.endpoint" in modules  # it did ask
    assert not HEAVY & modules
    assert not [module for module in modules if module.startswith(SSH_ONLY)]
    assert garbage == "passed over at the end, 0 searches before"
