"""Agents that have nothing to do do nothing: no loop of theirs goes round and round."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from clusters import AGENT, Cluster
from composing import IMAGE, Apps, archive

WINDOW = 2.0  # seconds
MOST = 0.05  # of a core; an agent at rest takes 0.01, one that spins in a loop 0.5 and more
USED = f"""
group=$(systemctl show -p ControlGroup --value {AGENT})
for root in /sys/fs/cgroup/unified /sys/fs/cgroup; do [ -f $root$group/cpu.stat ] && break; done
awk '/^usage_usec/{{print $2}}' $root$group/cpu.stat
"""


def share(cluster: Cluster, node: str) -> float:
    """Of a core, in the last WINDOW seconds, children included."""
    used, began = int(cluster.inside(node, "sh", "-c", USED)), time.monotonic()
    time.sleep(WINDOW)
    return (int(cluster.inside(node, "sh", "-c", USED)) - used) / 1e6 / (time.monotonic() - began)


def test_an_agent_is_at_rest_before_the_first_app_beside_it_and_after_it(
    new_cluster: Callable[[str, int], Cluster], eventually: Callable[..., None], tmp_path: Path
) -> None:
    cluster = new_cluster("r", 1)
    cluster.deploy()
    eventually(lambda: share(cluster, "node1") < MOST, within=40)  # no app yet: no subnet, no bridge
    path = tmp_path / "web.tar"
    path.write_bytes(archive(cluster.lab.exec("node1", ["cat", "/bin/busybox"]).stdout))
    cluster.run("image", "push", path)
    apps = Apps(cluster, tmp_path)
    apps.deploy("web", f"services: {{web: {{image: {IMAGE}, init: true, command: [sleep, '3600'], ports: ['8080:8080']}}}}\n")
    eventually(lambda: share(cluster, "node1") < MOST, within=40)
    apps.remove_all()
    eventually(lambda: share(cluster, "node1") < MOST, within=40)
