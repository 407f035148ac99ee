"""Configurations with mistakes, as the agent and hmctl judge them, each as a process: every mistake at once, with its line, and alike."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster import ROOT, ClusterOfProcesses

from hmcore.config import yaml_writing
from hmcore.config.presets import PRESETS

GOOD = """\
cluster_id: hm-abc123defg
cluster_name: prod
bootstrap: b00t
node: node1
role: control
address: 10.0.0.1
port: 7443
voters:
  - {name: node1, address: 10.0.0.1, port: 7443}
preset: balanced
settings:
"""
INVENTORY = """\
id: hm-abc123defg
name: prod
preset: balanced
hosts:
  - {name: node1, address: 10.0.0.1, role: control}
settings:
"""
SETTINGS = {
    "nothing": {},
    "values that are wrong by themselves": {
        "raft": {"heartbeat": "fast", "election_min": -1},
        "membership": {"down": 99999999, "suspct": 2.0},
        "optional_layers": "maybe",
        "security": {"mode": "permissive"},
        "metrics": {"port": 0, "address": "everywhere"},
        "bogus": 1,
    },
    "values that cannot work together": {
        "raft": {"heartbeat": 1.0, "election_min": 1.0, "election_max": 0.5},
        "membership": {"heartbeat": 1.0, "suspect": 1.0, "down": 0.5},
        "calls": {"timeout": 0.1},
        "health": {"interval": 40.0, "timeout": 50.0},
        "registry": {"refresh": 50.0},
        "transport": {"reconnect_min": 2.0, "reconnect_max": 1.0},
    },
    "values at their bounds": {"raft": {"heartbeat": 0.2, "election_min": 1.0, "election_max": 1.01}, "calls": {"retries": 0}},
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=60)


def check_config(file: Path) -> tuple[int, list[tuple[int, str]]]:
    """The exit status of `hypermesh-agent check-config`, and its complaints: lines and what is said of them."""
    done = run("node_agent", "check-config", str(file))
    assert "Traceback" not in done.stderr
    return done.returncode, complaints(done.stderr, file)


def complaints(text: str, file: Path) -> list[tuple[int, str]]:
    found = re.split(re.escape(str(file)) + r":(\d+): ", text.rstrip())[1:]
    return [(int(line), said.strip().rstrip(";")) for line, said in zip(found[::2], found[1::2], strict=True)]


def indented(settings: dict[str, Any]) -> str:
    return "".join(f"  {line}\n" for line in yaml_writing.dump(settings).splitlines()) if settings else "  {}\n"


def test_every_mistake_of_a_file_is_named_at_once_with_its_line(lone: ClusterOfProcesses) -> None:
    """By the agent that would start with it: nothing of it is begun."""
    node = lone.nodes["node1"]
    node.start_with(
        """\
cluster_id: hm-abc123defg
bootstrap: b00t
node: Node_1
role: king
address: 10.0.0.1
port: 0
colour: blue
voters:
  - {name: node1, address: 10.0.0.1, port: 99999}
  - {name: node2, address: 10.0.0.2}
preset: balanced
settings:
  raft:
    heartbeat: fast
  bogus: 1
"""
    )
    assert node.process is not None
    assert node.process.wait(60) == 1
    assert "Traceback" not in node.log
    said = complaints(node.log, node.directory / "agent.yaml")
    wanted = {"node": 3, "role": 4, "port": 6, "colour": 7, "voters[0].port": 9, "voters[1].port": 10, "settings.raft.heartbeat": 14}
    wanted["settings.bogus"] = 15
    found = {words.partition(":")[0]: line for line, words in said}
    assert wanted.items() <= found.items(), said
    assert set(found) - set(wanted) == {"cluster_name"}, "a key that is missing is one more mistake"
    assert [line for line, _ in said] == sorted(line for line, _ in said), "in the order of the file"
    assert not list(node.directory.glob("data/*"))
    assert not node.config.socket.exists()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_agent_and_hmctl_judge_the_same_settings_alike(tmp_path: Path, settings: dict[str, Any]) -> None:
    agent_file, inventory = tmp_path / "agent.yaml", tmp_path / "cluster.yaml"
    agent_file.write_text(GOOD + indented(settings))
    inventory.write_text(INVENTORY + indented(settings))
    status, said = check_config(agent_file)
    hmctl = run("hmctl", "-i", str(inventory), "-o", "json", "config", "validate")
    problems = [problem for problem in json.loads(hmctl.stdout)["problems"] if problem["severity"] == "error"]
    shift = GOOD.count("\n") - INVENTORY.count("\n")
    theirs = [
        (each["line"] + shift, f"{each['path']}: {each['message']}" + (f" ({each['hint']})" if each["hint"] else "")) for each in problems
    ]
    assert said == theirs
    assert (status, hmctl.returncode) == ((2, 2) if theirs else (0, 0))
    changed = sum(len(value) if isinstance(value, dict) else 1 for value in settings.values())
    if len(theirs):
        assert len(theirs) >= changed * 2 / 3, "most of these values are wrong, and each is named"


@pytest.mark.parametrize("preset", PRESETS)
def test_what_hmctl_writes_the_agent_accepts(tmp_path: Path, preset: str) -> None:
    inventory, agent_file = tmp_path / "cluster.yaml", tmp_path / "agent.yaml"
    hosts = "".join(f"  - {{name: node{number}, address: 10.0.0.{number}, role: control}}\n" for number in range(1, 6))
    inventory.write_text(f"id: hm-abc123defg\nname: prod\npreset: {preset}\nhosts:\n{hosts}")
    rendered = run("hmctl", "-i", str(inventory), "config", "render", "node1")
    assert rendered.returncode == 0, rendered.stderr
    agent_file.write_text(rendered.stdout)
    assert check_config(agent_file) == (0, [])


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"", None, ""),
        (b"- a\n- list\n", 1, ""),
        (b"cluster_id: a\ncluster_id: b\n", 2, "cluster_id"),
        (b"cluster_id: [\n", None, ""),
        (b"a: b\n\tc: d\n", 2, ""),
        (b"cluster_id: \xff\xfe\n", None, ""),
        (b"a: &a [x]\nb: &b [*a,*a]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (n + 1, n + 1, n, n) for n in range(98, 121)), None, ""),
    ],
    ids=["empty", "a list", "a key twice", "cut short", "a tab", "no text", "aliases of aliases"],
)
def test_what_is_no_configuration_at_all_is_refused_with_its_place(tmp_path: Path, content: bytes, line: int | None, said: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_bytes(content)
    done = run("node_agent", "check-config", str(file))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (f"{file}:{line}: " if line else str(file)) in done.stderr, done.stderr
    assert said in done.stderr
