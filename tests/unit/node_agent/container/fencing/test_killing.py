"""Whose process it is, by /proc/PID/cgroup as the different drivers and trees have it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.container.fencing.killing import owned, unified_tree

ID, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("cgroups", "found"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", {"": f"/system.slice/docker-{ID}.scope"}),
        (f"0::/hypermesh.slice/docker-{ID}.scope/init.scope\n", {"": f"/hypermesh.slice/docker-{ID}.scope"}),
        (
            f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}/x\n0::/docker/{ID}\n",
            {"pids": f"/docker/{ID}", "name=systemd": f"/docker/{ID}", "": f"/docker/{ID}"},
        ),
        (f"4:cpu,cpuacct:/hm-lab-node1/hypermesh/{ID}\n", {"cpu,cpuacct": f"/hm-lab-node1/hypermesh/{ID}"}),
        (f"0::/docker/{OTHER}\n", {}),
        (f"0::/docker/{ID}0\n", {}),
        (f"0::/user.slice/x{ID}\n", {}),
        ("0::/\n", {}),
    ],
)
def test_whose_process_it_is(cgroups, found):
    assert owned(cgroups, {ID}) == found


@given(st.text())
def test_of_nonsense_nothing_is_killed(cgroups):
    assert owned(cgroups, {ID}) == {}


def test_where_the_version_2_tree_is():
    hybrid = "cgroup /sys/fs/cgroup/pids cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n"
    assert unified_tree(hybrid) == Path("/sys/fs/cgroup/uni fied")
    assert unified_tree("proc /proc proc rw 0 0\n\nx") is None
