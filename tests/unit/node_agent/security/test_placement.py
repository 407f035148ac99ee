"""Where our containers' common cgroup is, on every kind of host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from node_agent.security import placement

HYBRID = """\
143 264 0:69 / /sys/fs/cgroup rw,nosuid shared:54 - tmpfs tmpfs ro,mode=755
144 143 0:35 / /sys/fs/cgroup/blkio rw,relatime shared:55 - cgroup cgroup rw,blkio
155 143 0:38 / /sys/fs/cgroup/unified rw,nosuid shared:66 - cgroup2 cgroup rw
157 143 0:37 / /sys/fs/cgroup/systemd rw,nosuid shared:68 - cgroup cgroup rw,name=systemd
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
# A version 1 hierarchy beside it, as some VPN clients (net_cls) and old images of systemd (name=systemd) want one.
STRAY = "900 23 0:99 / /run/old rw,relatime shared:9 - cgroup old rw,name=systemd\n"
ELSEWHERE = "20 23 0:26 / /mnt/cgroup2 rw,relatime shared:8 - cgroup2 cgroup2 rw\n"
BPF = "265 264 0:46 / /sys/fs/bpf rw,relatime shared:22 - bpf bpf rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "systemd", "parent"),
    [
        (HYBRID, True, "/sys/fs/cgroup/unified/hypermesh"),
        (UNIFIED, True, "/sys/fs/cgroup/hypermesh.slice"),
        (UNIFIED, False, "/sys/fs/cgroup/hypermesh"),
        (UNIFIED + STRAY, True, "/sys/fs/cgroup/hypermesh.slice"),
        (STRAY + ELSEWHERE + UNIFIED, True, "/sys/fs/cgroup/hypermesh.slice"),
        (ELSEWHERE, True, "/mnt/cgroup2/hypermesh"),
        (UNIFIED + HYBRID, True, "/sys/fs/cgroup/unified/hypermesh"),
        (BPF, True, None),
        ("", True, None),
        ("garbage - \n - cgroup2\n", True, None),
    ],
)
def test_the_parent(mountinfo: str, systemd: bool, parent: str | None) -> None:
    found = placement.parent(placement.parse_mounts(mountinfo), systemd=systemd)
    assert found == (Path(parent) if parent else None)


def test_a_mount_point_with_a_space() -> None:
    assert placement.parse_mounts("1 2 0:1 / /a\\040b rw - cgroup2 x rw")[0].point == Path("/a b")


def test_what_covers_the_bpf_file_system_counts() -> None:
    point = Path("/sys/fs/bpf")
    assert placement.has_bpffs(placement.parse_mounts(BPF), point)
    assert not placement.has_bpffs(placement.parse_mounts(HYBRID), point)
    assert not placement.has_bpffs(placement.parse_mounts(BPF + "9 1 0:9 / /sys/fs/bpf rw - tmpfs tmpfs rw\n"), point)


def test_containers_are_found_by_either_drivers_names(tmp_path: Path) -> None:
    one, two = "a" * 64, "b" * 64
    for name in (one, f"docker-{two}.scope", "init.scope", "c" * 63):
        (tmp_path / name).mkdir()
    (tmp_path / "cgroup.procs").write_text("")
    found = dict(placement.containers(tmp_path))
    assert found == {(tmp_path / one).stat().st_ino: one, (tmp_path / f"docker-{two}.scope").stat().st_ino: two}
    assert list(placement.containers(tmp_path / "gone")) == []


def test_who_has_been_gone_longest_is_forgotten_and_who_lives_never() -> None:
    seen: Mapping[int, str] = {1: "lives", 2: "gone first", 3: "gone last"}
    assert placement.remembered(seen, {1: "lives", 4: "new"}, 3) == {3: "gone last", 1: "lives", 4: "new"}
    assert placement.remembered(seen, {1: "lives", 4: "new"}, 9) == {**seen, 4: "new"}
    assert placement.remembered(seen, {1: "lives", 4: "new"}, 1) == {1: "lives", 4: "new"}
    assert list(placement.remembered({1: "a", 2: "b"}, {1: "a"}, 9)) == [2, 1]  # should it go next, it has been gone for less long


def test_how_docker_is_told_of_it() -> None:
    assert placement.option(Path("/sys/fs/cgroup/unified/hypermesh")) == "/hypermesh"
    assert placement.option(Path("/sys/fs/cgroup/hypermesh.slice")) == "hypermesh.slice"


def test_how_to_start_a_container_below_it() -> None:
    assert placement.advice(Path("/sys/fs/cgroup/unified/hypermesh")) == "docker run --cgroup-parent=/hypermesh ..."
    assert placement.advice(Path("/sys/fs/cgroup/hypermesh.slice")) == (
        "docker run --cgroup-parent=hypermesh.slice ... (/hypermesh.slice, if `docker info` names cgroupfs)"
    )
