"""The first deploy, with everything going wrong that can: there is one cluster in the end, never two."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Callable

import pytest
from clusters import Cluster

Maker = Callable[[str, int], Cluster]


def test_first_host_down_at_first_deploy_then_it_joins(new_cluster: Maker) -> None:
    cluster = new_cluster("a", 3)
    cluster.lab.kill("node1")
    done = cluster.deploy("-o", "json", check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert {host["name"]: host["status"] for host in report["hosts"]} == {"node1": "unreachable", "node2": "changed", "node3": "changed"}
    assert "node1" in done.stderr
    first = cluster.status()
    assert first["leader"] in {"node2", "node3"}

    cluster.lab.start("node1")
    cluster.deploy()
    cluster.until_healthy()
    assert cluster.leaders() == {cluster.status()["leader"]}
    assert cluster.run("status", check=False).returncode == 0


def test_deploys_with_different_limits_never_make_two_clusters(new_cluster: Maker) -> None:
    cluster = new_cluster("b", 3)
    alone = cluster.deploy("--limit", "node1", check=False)
    assert alone.returncode == 1, alone.stderr
    assert "majority" in alone.stdout + alone.stderr
    assert cluster.leaders() == set()

    others = cluster.deploy("--limit", "node2,node3", check=False)
    assert others.returncode in (0, 3), others.stderr
    assert cluster.status()["leader"] in cluster.names  # node1 runs already: any of them may lead

    cluster.deploy("--limit", "node1")
    cluster.deploy()
    cluster.until_healthy()
    assert len(cluster.leaders()) == 1


@pytest.mark.parametrize("seconds", [1.0, 3.0, 5.0])
def test_deploy_killed_halfway_is_finished_by_the_next(new_cluster: Maker, seconds: float) -> None:
    cluster = new_cluster("c", 1)
    process = cluster.hmctl.start("-i", cluster.inventory, "deploy", "--yes")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    cluster.deploy()
    cluster.until_healthy()
    again = json.loads(cluster.deploy("-o", "json").stdout)
    assert again["changed"] is False


def test_two_deploys_at_once_do_not_interleave(new_cluster: Maker) -> None:
    cluster = new_cluster("d", 1)
    processes = [cluster.hmctl.start("-i", cluster.inventory, "deploy", "--yes") for _ in range(2)]
    said = [process.communicate(timeout=90) for process in processes]
    codes = sorted(process.returncode for process in processes)
    assert codes[0] == 0, said
    cluster.deploy()
    cluster.until_healthy()


PINS = "ls -d /sys/fs/bpf/hypermesh 2>/dev/null || true"
PARENTS = "find /sys/fs/cgroup -maxdepth 2 -type d \\( -name hypermesh -o -name hypermesh.slice \\)"


def test_reset_leaves_the_host_as_it_was(new_cluster: Maker) -> None:
    cluster = new_cluster("e", 1)
    transient = "/proc /sys /run /tmp /var/tmp /var/log /var/lib/docker /var/lib/systemd/timers /root/.cache"
    pruned = " -o ".join(f"-path {path}" for path in transient.split())
    settled = "-not -name '*.pyc' -not -path '*/__pycache__'"
    parts = (
        f"find / -xdev \\( {pruned} \\) -prune -o {settled} -not -type d -printf '%p %y %m %U %G %s %l\\n' | sort",
        f"find / -xdev \\( {pruned} \\) -prune -o {settled} -type d -printf '%p %y %m %U %G\\n' | sort",  # theirs is the disk's business
        f"find /etc /opt /usr/local -xdev -type f {settled} -exec sha256sum {{}} + | sort -k 2",
        "dpkg -l",
        "systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'",
        "ip -br link",
        "nft --stateless list ruleset",
    )
    listing = "; ".join(parts)
    before = cluster.inside("node1", "sh", "-c", listing)
    cluster.deploy()
    assert cluster.inside("node1", "sh", "-c", listing) != before
    assert cluster.inside("node1", "sh", "-c", PINS).split()
    assert cluster.inside("node1", "sh", "-c", PARENTS).split()
    done = cluster.run("reset", "--yes")
    assert "node1" in done.stdout + done.stderr
    after = cluster.inside("node1", "sh", "-c", listing)
    assert after.splitlines() == before.splitlines()
    # Nor in the kernel, which the listing above leaves out: programs would count on, held by their pins.
    assert cluster.inside("node1", "sh", "-c", PINS).split() == []
    assert "hm_" not in cluster.inside("node1", "bpftool", "cgroup", "tree")
    assert cluster.inside("node1", "sh", "-c", PARENTS).split() == []
    cluster.deploy()
    cluster.until_healthy()


def test_a_cluster_is_not_taken_over_without_its_ca(new_cluster: Maker, tmp_path: object) -> None:
    cluster = new_cluster("f", 1)
    cluster.deploy()
    kept = cluster.hmctl.cwd / "ca-of-f"
    cluster.run("ca", "export", kept)
    elsewhere = {"XDG_DATA_HOME": str(tmp_path)}
    refused = cluster.run("deploy", "--yes", check=False, env=elsewhere)
    assert refused.returncode == 1
    assert "hmctl ca import" in refused.stdout + refused.stderr
    assert cluster.status()["health"] == "healthy"

    cluster.run("ca", "import", kept, env=elsewhere)
    assert cluster.run("deploy", "--yes", env=elsewhere).returncode == 0
