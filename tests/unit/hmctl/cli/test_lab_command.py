"""hmctl lab, as typed: which lab is meant, and what is said of what was done."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmctl.cli import main
from hmctl.lab.state import LabState, save
from hmctl.state import OperatorStore


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the lab `usr`, whose inventory is usr.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HMCTL_INVENTORY", raising=False)
    monkeypatch.setenv("HYPERMESH_LAB_DIR", str(tmp_path / "labs-here"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    made(tmp_path, "usr")
    return tmp_path


def made(root: Path, name: str) -> LabState:
    file = str(root / f"{name}.yaml")
    lab = LabState(name=name, subnet=5, cluster_id=f"hm-{name}0000000", image="", nodes=("node1",), inventory=file, written={file: "0"})
    save(root / "labs-here" / "labs" / name, lab)
    return lab


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labs that were asked to crash a host; the first time it runs."""
    found: list[str] = []

    def kill(lab: object, node: str) -> bool:
        found.append(lab.name)  # type: ignore[attr-defined]
        return len(found) == 1

    monkeypatch.setattr("hmctl.lab.lab.Lab.kill", kill)
    return found


def test_the_lab_whose_inventory_is_in_use_is_meant(labs: Path, killed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made(labs, "lab")
    made(labs, "cluster")  # whose inventory is cluster.yaml
    assert main.run(["lab", "kill", "node1", "-i", "usr.yaml"]) == 0
    assert main.run(["lab", "kill", "node1", "-i", "usr.yaml", "--name", "lab"]) == 0
    assert main.run(["lab", "kill", "node1", "-i", "other.yaml"]) == 0
    assert main.run(["lab", "kill", "node1"]) == 0
    monkeypatch.setenv("HMCTL_INVENTORY", str(labs / "usr.yaml"))
    assert main.run(["lab", "kill", "node1"]) == 0
    assert killed == ["usr", "lab", "lab", "cluster", "usr"]


def test_a_host_that_is_down_does_not_crash(labs: Path, killed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for said in ("node1 crashed\n", "node1 was down already\n"):
        assert main.run(["lab", "kill", "node1", "--name", "usr"]) == 0
        assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("typed", "fix"),
    [
        ("kill node1", "hmctl lab kill --name usr node1"),
        ("start node2 --name absent", "hmctl lab start --name usr node2"),
        ("exec node1 -- ls -l", "hmctl lab exec --name usr node1 -- ls -l"),
        ("partition node1 / node2", "hmctl lab partition --name usr node1 / node2"),
        ("heal", "hmctl lab heal --name usr"),
    ],
)
def test_where_there_is_another_lab_the_command_for_that_is_said(
    typed: str, fix: str, labs: Path, killed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["lab", *typed.split()]) == 1
    assert capsys.readouterr().err.endswith(f" on this machine\n  fix: {fix}\n")
    made(labs, "zoo")
    assert main.run(["lab", *typed.split()]) == 1
    assert capsys.readouterr().err.endswith(f"\n  fix: {fix} (or zoo)\n")
    assert killed == []


def test_down_removes_the_ca_of_its_own_cluster_and_says_so(
    labs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datetime import UTC, datetime

    mine, other = (OperatorStore.open(cluster) for cluster in ("hm-usr0000000", "hm-precious00"))
    for store in (mine, other):
        store.create_authority(datetime.now(UTC))
    there = iter([True, False])
    monkeypatch.setattr("hmctl.lab.lab.Lab.down", lambda lab: next(there))
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert main.run(["lab", "down", "--name", "usr"]) == 0
    err = capsys.readouterr().err
    assert "the lab 'usr' and its hosts are gone\n" in err
    assert f"in {mine.folder}\n" in err
    assert not mine.folder.exists()
    assert other.has_authority()
    assert main.run(["lab", "down"]) == 0
    assert "there is no lab lab: nothing to do (--name usr names another)\n" in capsys.readouterr().err


def test_a_bad_name_says_what_a_good_one_is(labs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lab", "up", "--name", "A b"]) == 2
    assert "fix: choose such a name: --name lab2" in capsys.readouterr().err
