"""What deploy writes to nodes: the agent reads its file back, systemd accepts the unit, and no path can smuggle anything in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hmcore.config.agent import agent_config_for, parse_agent_config
from hmcore.config.inventory import Places, parse_inventory
from hmcore.errors import PreflightFailed
from hmctl import layout
from hmctl.render import Renderer, edited

TEXT = """
name: test
id: hm-abc123defg
ssh: {user: root}
hosts:
  - {name: node1, address: 10.0.0.1, role: control, labels: {zone: a, disk: ssd}}
  - {name: node2, address: 10.0.0.2, role: worker}
"""
INVENTORY = parse_inventory(TEXT, "cluster.yaml", {}, Places(Path("/"), Path("/root")))[0]
CONFIG = agent_config_for(INVENTORY, INVENTORY.hosts[0], "b00t")


def test_the_agent_reads_back_what_was_meant() -> None:
    rendered = Renderer().agent_yaml(CONFIG)
    assert parse_agent_config(rendered, "agent.yaml") == CONFIG
    assert rendered == Renderer().agent_yaml(CONFIG)
    assert [voter.name for voter in CONFIG.voters] == ["node1"]


def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path) -> None:
    text = Renderer().unit(CONFIG, "/usr/bin/python3").decode()
    assert "ExecStart=/usr/bin/python3 -P -m node_agent run --config /etc/hypermesh/agent.yaml\n" in text
    assert "Type=notify" in text
    assert "StartLimitIntervalSec=0" in text
    assert "{{" not in text
    unit = tmp_path / layout.UNIT
    unit.write_text(text.replace("/usr/bin/python3", "/bin/true"))
    assert shutil.which("systemd-analyze")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stderr.splitlines() if layout.UNIT in line] == []


def test_the_fence_is_a_unit_of_its_own_that_systemd_accepts(tmp_path: Path) -> None:
    text = Renderer().fence("/usr/bin/python3", "node1").decode()
    assert "ExecStart=/usr/bin/python3 -P -m node_agent.container.fencing /run/hypermesh/fence\n" in text
    assert "{{" not in text
    assert not any(f"{word}={layout.UNIT}" in text for word in ("Requires", "PartOf", "BindsTo", "After", "Wants"))
    assert f" {layout.FENCE}\n" in next(
        line + "\n" for line in Renderer().unit(CONFIG, "/x").decode().splitlines() if line.startswith("Wants=")
    )
    unit = tmp_path / layout.FENCE
    unit.write_text(text.replace("/usr/bin/python3", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stderr.splitlines() if layout.FENCE in line] == []


def test_a_fence_that_hangs_is_replaced_soon_also_in_its_start() -> None:
    said = dict(line.split("=", 1) for line in Renderer().fence("/x", "node1").decode().splitlines() if "=" in line)
    assert (said["Type"], said["Restart"]) == ("notify", "always")
    assert {int(said[limit]) <= 15 for limit in ("WatchdogSec", "TimeoutStartSec", "TimeoutStopSec")} == {True}


@pytest.mark.parametrize("both", [Renderer().unit(CONFIG, "/x").decode(), Renderer().fence("/x", "node1").decode()], ids=["agent", "fence"])
def test_what_the_fence_reads_outlives_the_agent(both: str) -> None:
    assert "RuntimeDirectory=hypermesh\n" in both
    assert "RuntimeDirectoryPreserve=yes\n" in both
    assert layout.FENCING.startswith("/run/hypermesh/")


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"), reason="there is no systemd-analyze here; in CI there must be"
)
@pytest.mark.parametrize("name", [layout.UNIT, layout.FENCE])
def test_the_unit_lets_the_agent_do_little_more_than_it_needs(tmp_path: Path, name: str) -> None:
    unit = tmp_path / name
    made = Renderer().unit(CONFIG, "/usr/bin/python3") if name == layout.UNIT else Renderer().fence("/usr/bin/python3", "node1")
    unit.write_bytes(made)
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=40", "--no-pager", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout  # exposure 4.0 or less


def test_the_unit_notes_all_that_the_agent_reads_at_its_start() -> None:
    text = Renderer().unit(CONFIG, "/usr/bin/python3").decode()
    noted = next(line for line in text.splitlines() if line.startswith("ExecStartPre="))
    assert all(path in noted for path in (*layout.READ_AT_START, layout.STARTED, layout.CURRENT))


def test_the_wrapper_is_a_shell_script(tmp_path: Path) -> None:
    script = tmp_path / "hypermesh-agent"
    script.write_bytes(Renderer().wrapper("/usr/bin/python3", "node1"))
    assert subprocess.run(["sh", "-n", script], timeout=10, check=True).returncode == 0


@pytest.mark.parametrize("python", ["/usr/bin/python3; rm -rf /", "python3", "/opt/my python", "/x\nExecStartPre=/bin/evil", "/%i"])
def test_no_path_can_say_more_than_a_path(python: str) -> None:
    with pytest.raises(PreflightFailed):
        Renderer().unit(CONFIG, python)
    with pytest.raises(PreflightFailed):
        Renderer().wrapper(python, "node1")


def test_a_hand_edit_shows_and_what_was_rendered_does_not() -> None:
    rendered = Renderer().agent_yaml(CONFIG)
    assert not edited(rendered)
    assert edited(rendered.replace(b"heartbeat: 0.2", b"heartbeat: 0.3"))
    assert edited(rendered + b"# remark\n")
    assert not edited(b"# written before there were checksums\nnode: node1\n")
