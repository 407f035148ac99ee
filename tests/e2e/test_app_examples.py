"""The examples as they stand in the repository, and what they promise in their first lines."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import Cluster
from composing import Apps

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSWORD = base64.b64encode(os.urandom(18)).decode()  # as the example makes one


@pytest.fixture(scope="module")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As examples/README.md says."""
    path = tmp_path_factory.mktemp("examples") / "busybox.tar"
    done = cluster.lab.exec("node1", ["sh", "-s"], stdin=(EXAMPLES / "image.sh").read_bytes())
    assert done.returncode == 0, done.stderr
    path.write_bytes(done.stdout)
    cluster.run("image", "push", path)


def bring_up(apps: Apps, name: str) -> None:
    apps.seen.append(name)
    done = apps.run("deploy", "-f", EXAMPLES / name / "compose.yaml", "--yes", "--timeout", "60", "-o", "json")
    assert json.loads(done.stdout)["ending"] == "healthy"


def test_the_web_example_answers_from_all_nodes_on_every_node(apps: Apps, image: None, eventually: Callable[..., None]) -> None:
    bring_up(apps, "web")
    assert {each["node"] for each in apps.replicas("web")} == set(apps.cluster.names)
    for node in apps.cluster.names:
        heard: set[str] = set()

        def everybody(heard: set[str] = heard, node: str = node) -> bool:
            heard.add(apps.get(f"{apps.address(node)}:8080").partition(",")[0])
            return heard >= {f"Hello from {each}" for each in apps.cluster.names}

        eventually(everybody, within=10)


def test_the_visitors_example_counts_whatever_is_restarted(apps: Apps, image: None, eventually: Callable[..., None]) -> None:
    addresses = [f"{apps.address(node)}:8081" for node in apps.cluster.names]
    apps.cluster.run("secret", "set", "visitors-db", "-", stdin=PASSWORD)

    def counted(address: str) -> int:
        words = apps.get(address, timeout=5).split()
        assert words[:3] == ["You", "are", "visitor"], words
        return int(words[3])

    try:
        bring_up(apps, "visitors")
        eventually(lambda: counted(addresses[0]), within=10)
        start = counted(addresses[0])
        assert [counted(address) for address in addresses * 2] == list(range(start + 1, start + 7))
        (db,) = apps.replicas("visitors/db")
        apps.change("restart", "visitors")
        assert apps.replicas("visitors/db")[0]["container"] != db["container"]
        eventually(lambda: counted(addresses[1]) > start + 6, within=10)
        key = base64.b64encode(f"web:{PASSWORD}".encode()).decode()
        ask = "wget -q -O - {} http://db:5000/cgi-bin/visit"
        stranger = apps.run("exec", "visitors/web", "--", "sh", "-c", ask.format(""), check=False)
        assert stranger.returncode == 1
        assert "401" in stranger.stderr
        apps.run("exec", "visitors/web", "--", "sh", "-c", ask.format(f"--header 'Authorization: Basic {key}'"))
        assert PASSWORD not in apps.cluster.inside(db["node"], "docker", "inspect", apps.replicas("visitors/db")[0]["container"])
    finally:
        apps.remove_all()
        apps.cluster.run("secret", "rm", "visitors-db", "--yes")


def test_the_agent_example_tells_of_each_node_on_that_node(apps: Apps, image: None, eventually: Callable[..., None]) -> None:
    bring_up(apps, "agent")
    assert sorted(each["node"] for each in apps.replicas("agent")) == sorted(apps.cluster.names)
    metrics = {"node_load1", "node_uptime_seconds", "node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes"}
    for node in apps.cluster.names:
        said = dict(line.split() for line in apps.get(f"{apps.address(node)}:9101", timeout=5).splitlines())
        assert said.keys() == metrics
        total = apps.cluster.inside(node, "awk", "/^MemTotal:/ { print $2 }", "/proc/meminfo")
        assert float(said["node_memory_MemTotal_bytes"]) == int(total) * 1024
