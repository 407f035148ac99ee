"""What `hypermesh-agent` does besides being one: the node's key, its release, and the relay to its socket."""

from __future__ import annotations

import stat
import subprocess
import sys

from cluster import CLUSTER, ROOT


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "node_agent", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_key_is_born_here_once_and_readable_by_nobody_else(tmp_path):
    pki = tmp_path / "pki"
    first = agent("key", "--cluster", CLUSTER, "--name", "node1", "--pki-dir", str(pki))
    key = (pki / "node.key").read_bytes()
    second = agent("key", "--cluster", CLUSTER, "--name", "node1", "--pki-dir", str(pki))
    assert (pki / "node.key").read_bytes() == key
    assert stat.S_IMODE((pki / "node.key").stat().st_mode) == 0o600
    for run in (first, second):
        assert run.returncode == 0
        assert run.stdout.startswith("-----BEGIN CERTIFICATE REQUEST-----")
        assert "PRIVATE" not in run.stdout + run.stderr
    bad = agent("key", "--cluster", CLUSTER, "--name", "No Name", "--pki-dir", str(pki))
    assert (bad.returncode, "is no name" in bad.stderr, "Traceback" in bad.stderr) == (1, True, False)


def test_the_release_can_be_checked_and_named():
    checked = agent("check-release")
    assert checked.returncode == 0, checked.stderr
    assert {"aioquic 1.7.2", "pysyncobj 0.3.17", "hypermesh-agent source"} <= set(checked.stdout.splitlines())
    assert agent("version").stdout == "source\n"


def test_without_an_agent_the_relay_says_so(tmp_path):
    run = agent("relay", "--socket", str(tmp_path / "agent.sock"))
    assert run.returncode == 1
    assert "the agent is not running" in run.stderr
    assert "systemctl start hypermesh-agent" in run.stderr
