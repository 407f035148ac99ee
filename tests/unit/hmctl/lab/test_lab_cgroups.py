"""Cgroup hierarchies as machines mount them, and a host's cgroups on a plain directory that looks like one."""

from pathlib import Path

import pytest

from hmctl.lab.cgroups import Hierarchy, HostCgroup, join_files, parse_mounts

UNIFIED = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
28 24 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
HYBRID = """\
28 24 0:25 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
30 28 0:27 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
33 28 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct
34 28 0:31 / /sys/fs/cgroup/cpuset rw,nosuid shared:16 - cgroup cgroup rw,cpuset
29 28 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
90 88 0:30 / /mnt/with\\040space/cpu rw - cgroup cgroup rw,cpu,cpuacct
91 88 0:30 /docker/abc /mnt/inner rw - cgroup cgroup rw,cpu,cpuacct
"""


def test_a_machine_with_version_2_alone():
    assert parse_mounts(UNIFIED) == (Hierarchy(Path("/sys/fs/cgroup"), 2, frozenset()),)


def test_a_hybrid_machine_version_2_first_and_each_hierarchy_once():
    assert parse_mounts(HYBRID) == (
        Hierarchy(Path("/sys/fs/cgroup/unified"), 2, frozenset()),
        Hierarchy(Path("/sys/fs/cgroup/systemd"), 1, frozenset({"xattr", "name=systemd"})),
        Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), 1, frozenset({"cpu", "cpuacct"})),
        Hierarchy(Path("/sys/fs/cgroup/cpuset"), 1, frozenset({"cpuset"})),
    )


def test_joining_the_cgroups_of_another_process():
    membership = (
        "5:cpuset:/hm-a-node1\n4:cpu,cpuacct:/hm-a-node1/x\n3:misc:/\n1:name=systemd:/hm-a-node1/init.scope\n0::/hm-a-node1/init.scope\n"
    )
    assert join_files(parse_mounts(HYBRID), membership) == [
        "/sys/fs/cgroup/cpuset/hm-a-node1/cgroup.procs",
        "/sys/fs/cgroup/cpu,cpuacct/hm-a-node1/x/cgroup.procs",
        "/sys/fs/cgroup/systemd/hm-a-node1/init.scope/cgroup.procs",
        "/sys/fs/cgroup/unified/hm-a-node1/init.scope/cgroup.procs",
    ]
    assert join_files(parse_mounts(UNIFIED), "0::/hm-a-node1/payload/init.scope\n") == [
        "/sys/fs/cgroup/hm-a-node1/payload/init.scope/cgroup.procs"
    ]


@pytest.fixture
def tree(tmp_path: Path) -> HostCgroup:
    """A hybrid machine's hierarchies, as far as plain files can be."""
    for name in ("unified", "cpuset", "systemd"):
        (tmp_path / name).mkdir()
    (tmp_path / "unified/cgroup.controllers").write_text("io memory hugetlb pids\n")
    (tmp_path / "unified/cgroup.subtree_control").write_text("pids\n")
    (tmp_path / "cpuset/cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset/cpuset.mems").write_text("0\n")
    return HostCgroup(
        "hm-a-node1",
        (
            Hierarchy(tmp_path / "unified", 2, frozenset()),
            Hierarchy(tmp_path / "cpuset", 1, frozenset({"cpuset"})),
            Hierarchy(tmp_path / "systemd", 1, frozenset({"name=systemd"})),
        ),
    )


def test_a_new_host_cgroup_is_everywhere_and_accepts_processes(tree, tmp_path):
    tree.create()
    assert (tmp_path / "cpuset/hm-a-node1/cpuset.cpus").read_text() == "0-1\n"
    assert (tmp_path / "cpuset/hm-a-node1/cpuset.mems").read_text() == "0\n"
    assert (tmp_path / "unified/cgroup.subtree_control").read_text() == "+memory", "the last that was enabled: io was before it, pids is on"
    assert tree.join_files()[0] == str(tmp_path / "unified/hm-a-node1/cgroup.procs"), "first, so that a launcher can be found from then on"
    assert len(tree.join_files()) == 3


def test_a_host_that_is_nowhere_is_neither_alive_nor_in_the_way(tree):
    assert not tree.populated()
    assert not tree.frozen()
    assert tree.init() is None
    tree.kill(timeout=0.1)
    tree.remove(timeout=0.1)


def test_only_process_1_one_namespace_down_is_the_hosts_init(tree, tmp_path, monkeypatch):
    statuses = {
        101: "State:\tS (sleeping)\nNSpid:\t101\n",  # systemd-nspawn itself
        102: "State:\tS (sleeping)\nNSpid:\t102\t7\n",  # a service of the host
        103: "State:\tS (sleeping)\nNSpid:\t103\t55\t1\n",  # process 1 of a container in the host
        104: "State:\tZ (zombie)\nNSpid:\t104\t1\n",  # an init that has ended
        105: "State:\tS (sleeping)\nNSpid:\t105\t1\n",
    }
    for pid, status in statuses.items():
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/status").write_text(status)
    inner = tmp_path / "unified/hm-a-node1/payload"
    inner.mkdir(parents=True)
    (inner / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in (101, 102, 103, 104, 999, 105)))
    monkeypatch.setattr("hmctl.lab.cgroups.PROC", tmp_path / "proc")
    assert tree.init() == 105
