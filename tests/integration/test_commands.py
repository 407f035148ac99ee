"""What `hypermesh-agent` does besides being one: the node's key, its release, and the relay to its socket."""

from __future__ import annotations

import stat
import subprocess
import sys

from cluster import CLUSTER, ROOT

from hmcore.config.agent import agent_config_for, dump_agent_config
from hmcore.config.inventory import load_inventory


def agent(*arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node_agent", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, input=said
    )


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


def test_a_configuration_is_judged_before_it_is_put_where_the_agent_reads_it(tmp_path):
    file = ROOT / "inventories/three-nodes.yaml"
    inventory = load_inventory(file, {"HOME": "/root"})[0]
    text = dump_agent_config(agent_config_for(inventory, inventory.hosts[0], "b00t"))
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    assert (agent("check-config", str(path)).returncode, agent("check-config", "-", said=text).returncode) == (0, 0)
    bad = agent("check-config", "-", said=text.replace("suspect: 2.0", "suspect: 0.5").replace("heartbeat:", "hartbeat:", 1))
    assert bad.returncode == 2
    assert "stdin:" in bad.stderr
    assert "hartbeat" in bad.stderr
    assert "Traceback" not in bad.stderr
