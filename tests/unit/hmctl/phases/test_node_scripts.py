"""The scripts that run on hosts, run here for real by sh, in a folder: whole or not at all, and safe to run again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hmctl.bundle import archive
from hmctl.phases.activate import SWITCH
from hmctl.phases.hostlock import LOCK
from hmctl.phases.packages import INSTALL
from hmctl.phases.remove import PURGE, REMOVE, UNFENCE
from hmctl.phases.start import START, reason
from hmctl.phases.upload import DISCARD, UNPACK
from hmctl.remote.base import PUT

DIGEST = "d" * 64


def sh(argv: Sequence[str], stdin: bytes = b"", path: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None
    return subprocess.run(argv, input=stdin, capture_output=True, timeout=30, env=env, check=False)


def stub(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder


def release(tmp_path: Path, main: str) -> bytes:
    """A release whose agent is `main`."""
    root = tmp_path / f"content-{abs(hash(main))}"
    (root / "node_agent").mkdir(parents=True)
    (root / "node_agent" / "__main__.py").write_text(main)
    (root / "node_agent" / "__init__.py").write_text("")
    return archive.pack(root, last=True)


def test_put_replaces_whole_files_and_leaves_nothing_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "file"
    for content, mode in ((b"one", "644"), (b"two\0", "600")):
        assert sh(PUT.argv(str(path), mode), content).returncode == 0
        assert (path.read_bytes(), oct(path.stat().st_mode)[-3:]) == (content, mode)
    assert os.listdir(path.parent) == ["file"]
    assert sh(PUT.argv("/proc/no/such", "600"), b"x").returncode != 0


def test_a_release_that_runs_here_appears_under_its_name(tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    (releases / ".left.partial").mkdir(parents=True)
    done = sh(UNPACK.argv(str(releases), DIGEST, sys.executable, "compile"), release(tmp_path, "import sys; sys.exit(0)"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.listdir(releases) == [DIGEST]
    assert list((releases / DIGEST).rglob("*.pyc"))


@pytest.mark.parametrize("how", ["does not import", "cut short", "no archive"])
def test_a_release_that_does_not_run_here_leaves_nothing(tmp_path: Path, how: str) -> None:
    content = release(tmp_path, "import no_such_module" if how == "does not import" else "")
    content = {"cut short": content[: len(content) // 2], "no archive": b"hello"}.get(how, content)
    releases = tmp_path / "releases"
    done = sh(UNPACK.argv(str(releases), DIGEST, sys.executable, "as-it-is"), content)
    assert done.returncode != 0
    assert done.stderr
    assert os.listdir(releases) == []


def test_what_an_interrupted_upload_left_is_discarded(tmp_path: Path) -> None:
    (tmp_path / f".{DIGEST}.partial").mkdir()
    (tmp_path / DIGEST).mkdir()
    assert sh(DISCARD.argv(str(tmp_path))).returncode == 0
    assert os.listdir(tmp_path) == [DIGEST]


def test_switching_keeps_the_release_before_and_drops_older_ones(tmp_path: Path) -> None:
    releases, current = tmp_path / "releases", tmp_path / "current"
    for name in ("old", "before", "new"):
        (releases / name).mkdir(parents=True)
    assert sh(SWITCH.argv(str(current), str(releases), "before", "")).returncode == 0
    (releases / "new").mkdir(exist_ok=True)
    (releases / "old").mkdir(exist_ok=True)
    assert sh(SWITCH.argv(str(current), str(releases), "new", "before")).returncode == 0
    assert os.readlink(current) == "releases/new"
    deadline = time.monotonic() + 10
    while sorted(os.listdir(releases)) != ["before", "new"]:  # "old" is deleted while nobody waits
        assert "old" not in os.listdir(releases)
        assert time.monotonic() < deadline
    assert sorted(os.listdir(tmp_path)) == ["current", "releases"]


def test_a_host_lock_ends_with_its_holder(tmp_path: Path) -> None:
    argv = LOCK.argv(str(tmp_path / "lock"), "hmctl deploy by me")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith(b"locked ")
        second = sh(argv)
        assert (second.returncode, second.stderr) == (75, b"hmctl deploy by me\n")
        holder.kill()
    deadline = time.monotonic() + 10
    while sh(argv).returncode == 75:
        assert time.monotonic() < deadline
    assert sh(argv).stdout.startswith(b"locked ")


def test_removing_takes_everything_and_may_be_repeated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = stub(tmp_path / "bin", "systemctl", f'echo "$@" >> {log}')
    unit, wrapper, lock = tmp_path / "u.service", tmp_path / "wrapper", tmp_path / "lock"
    slice_file, pins, cgroups = tmp_path / "u.slice", tmp_path / "pins", tmp_path / "cgroups"
    folders = [tmp_path / name for name in ("opt", "etc", "state")]
    ours = (unit, wrapper, lock)
    argv = REMOVE.argv("u.service", *map(str, ours), "u.slice", str(slice_file), str(pins), str(cgroups), *map(str, folders))
    (cgroups / "u.slice").mkdir(parents=True)
    for _ in range(2):
        for file in (*ours, slice_file):
            file.write_text("x")
        (pins / "node1").mkdir(parents=True)
        (cgroups / "unified" / "hypermesh").mkdir(parents=True)
        for folder in folders[:2]:
            (folder / "deep").mkdir(parents=True)
        (tmp_path / "u.service.d").mkdir()
        assert sh(argv, path=path).returncode == 0
        assert sorted(os.listdir(tmp_path)) == ["bin", "cgroups", "log"]
        assert os.listdir(cgroups / "unified") == []
        (cgroups / "unified").rmdir()
    assert "disable --quiet --now u.service" in log.read_text()
    assert "stop u.slice" in log.read_text()
    assert sh(argv, path=path).returncode == 0


def test_removing_leaves_containers_in_the_slice_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = stub(tmp_path / "bin", "systemctl", f'echo "$@" >> {log}')
    (tmp_path / "u.slice").write_text("x")
    (tmp_path / "cgroups" / "u.slice" / "docker-1.scope").mkdir(parents=True)
    names = ("unit", "wrapper", "lock")
    argv = REMOVE.argv(
        "u", *(str(tmp_path / name) for name in names), "u.slice", *(str(tmp_path / n) for n in ("u.slice", "pins", "cgroups"))
    )
    assert sh(argv, path=path).returncode == 0
    assert "stop u.slice" not in log.read_text()


def test_an_agent_that_does_not_start_says_why(tmp_path: Path) -> None:
    stub(tmp_path / "bin", "systemctl", '[ "$1" = restart ] && exit 1; exit 0')
    path = stub(tmp_path / "bin", "journalctl", 'printf "first\\n\\nStorageDamaged: the journal\\n"')
    done = sh(START.argv("u.service"), path=path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"StorageDamaged: the journal"


def test_of_an_agent_that_said_nothing_systemd_has_the_word(tmp_path: Path) -> None:
    stub(tmp_path / "bin", "systemctl", 'case "$1" in restart) echo "See x" >&2; exit 1;; show) echo oom-kill;; esac')
    path = stub(tmp_path / "bin", "journalctl", "")
    assert reason(sh(START.argv("u.service"), path=path).stderr.decode()) == "systemd calls it: oom-kill"


class Apt:
    """A package manager that knows some packages, and what it was asked. dpkg has those that it installed."""

    def __init__(self, folder: Path, *known: str, arch: str = "amd64") -> None:
        self.log, self.has, self.list, self.tried = folder / "log", folder / "has", folder / "etc" / "packages", folder / "etc" / "tried"
        self.has.mkdir()
        self.log.touch()
        stub(folder / "bin", "uname", "echo 6.1.0")
        stub(folder / "bin", "dpkg", f"echo {arch}")
        stub(folder / "bin", "apt-cache", f'case " {" ".join(known)} " in *" $2 "*) exit 0;; esac; exit 100')
        stub(folder / "bin", "dpkg-query", f'for name; do :; done; [ -e "{self.has}/$name" ] && echo installed')
        self.bin = stub(
            folder / "bin",
            "apt-get",
            f"""echo "$@" >> {self.log}; cat {self.list} >> {self.log} 2>/dev/null
case "$*" in
*autoremove*) ;;
*update*) echo "E: Failed to fetch" >&2; exit 100;;
*install*) shift 6; for p; do case " {" ".join(known)} " in *" $p "*) ;; *) echo "E: Unable to locate package $p" >&2; exit 100;; esac; done
  for p; do : > "{self.has}/$p"; done;;
*purge*) shift 5; rm -- $(printf "{self.has}/%s " "$@");;
esac""",
        )

    def install(self, first: int, *names: str) -> str:
        done = sh(INSTALL.argv(str(self.list), str(self.tried), str(first), *names), path=self.bin)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode()

    @property
    def installed(self) -> list[str]:
        return sorted(os.listdir(self.has))


def test_packages_are_installed_and_written_down_before_that(tmp_path: Path) -> None:
    apt = Apt(tmp_path, "docker.io", "nftables", "python3-bpfcc", "linux-headers-amd64")
    assert apt.install(2, "docker.io", "nftables", "python3-bpfcc", "linux-headers") == ""
    assert apt.list.read_text() == "docker.io\nnftables\npython3-bpfcc\nlinux-headers-amd64\n"
    assert not apt.tried.exists()
    log = apt.log.read_text()
    assert "install -y --no-install-recommends docker.io nftables\ndocker.io\nnftables\n" in log  # listed when apt began
    assert "install -y --no-install-recommends linux-headers-amd64\n" in log
    assert os.listdir(tmp_path / "etc") == ["packages"]


@pytest.mark.parametrize(
    ("known", "name"),
    [(("linux-headers-6.1.0", "linux-headers-amd64"), "linux-headers-6.1.0"), (("linux-headers-generic",), "linux-headers-generic")],
)
def test_kernel_headers_are_called_as_the_distribution_calls_them(tmp_path: Path, known: tuple[str, ...], name: str) -> None:
    apt = Apt(tmp_path, *known)
    assert apt.install(0, "linux-headers") == ""
    assert apt.installed == [name]


def test_one_unfindable_package_keeps_no_other_out(tmp_path: Path) -> None:
    apt = Apt(tmp_path, "docker.io", "python3-bpfcc")
    said = apt.install(2, "docker.io", "nftables", "python3-bpfcc", "linux-headers")
    assert said.splitlines() == [
        "lacks nftables E: Unable to locate package nftables",
        "lacks linux-headers E: Unable to locate package linux-headers-generic",
    ]
    assert apt.installed == ["docker.io", "python3-bpfcc"]
    assert apt.list.read_text() == "docker.io\npython3-bpfcc\n"
    assert apt.tried.read_text() == "6.1.0 nftables\n6.1.0 linux-headers\n"
    apt.install(1, "nftables")
    assert apt.tried.read_text() == "6.1.0 nftables\n6.1.0 linux-headers\n"  # said once


def test_the_engine_is_never_given_up(tmp_path: Path) -> None:
    apt = Apt(tmp_path)
    assert apt.install(1, "docker.io") == "lacks docker.io E: Unable to locate package docker.io\n"
    assert os.listdir(tmp_path / "etc") == []


def test_purging_takes_what_came_and_leaves_what_was_only_written_down(tmp_path: Path) -> None:
    apt = Apt(tmp_path, "docker.io")
    apt.install(1, "docker.io")
    assert sh(PURGE.argv("docker.io", "nftables"), path=apt.bin).returncode == 0
    assert apt.installed == []
    assert "purge -y docker.io\n" in apt.log.read_text()
    assert sh(PURGE.argv("docker.io", "nftables"), path=apt.bin).returncode == 0  # cut short and run again


@pytest.mark.parametrize("gates", [True, False])
def test_the_fence_goes_when_it_has_ended_what_is_exclusive(tmp_path: Path, gates: bool) -> None:
    log, folder, unit = tmp_path / "log", tmp_path / "fence", tmp_path / "f.service"
    (folder / "open").mkdir(parents=True)
    (folder / "lease").write_text("x")
    if gates:
        (folder / "open" / "shop@db.1.7").write_text("x")
    shuts = f'echo "$@" >> {log}; if [ "$1" = start ]; then [ ! -e {folder}/lease ] && rm {folder}/open/*; fi'
    path = stub(tmp_path / "bin", "systemctl", shuts)
    argv = UNFENCE.argv("f.service", str(unit), str(folder), "a.service")
    assert sh(argv, path=path).returncode == 0
    assert not log.exists(), "there is no fence"
    unit.write_text("x")
    assert sh(argv, path=path).returncode == 0
    assert log.read_text().splitlines() == ["stop a.service", *(["start f.service"] if gates else []), "stop f.service"]
    assert not unit.exists()


@pytest.mark.long
def test_a_fence_that_does_not_end_them_is_not_taken_away(tmp_path: Path) -> None:
    folder, unit = tmp_path / "fence", tmp_path / "f.service"
    (folder / "open").mkdir(parents=True)
    (folder / "open" / "shop@db.1.7").write_text("x")
    unit.write_text("x")
    done = sh(UNFENCE.argv("f.service", str(unit), str(folder), "a.service"), path=stub(tmp_path / "bin", "systemctl", "exit 0"))
    assert (done.returncode, unit.exists()) == (1, True)
    assert b"does not end the exclusive containers" in done.stderr
