"""Images without a registry, with real Docker: what a push sends, who keeps it, what a name means later, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster
from composing import Apps, archive, serving
from outages import image_ids

PARTIALS = "/var/lib/hypermesh/blobs/partial"
FRAMES = 16 << 10  # bytes: the most that questions, answers and an image's configuration come to beside its layers
CHUNK = 1 << 20
LARGE = 96 << 20

Push = Callable[..., dict[str, Any]]


@pytest.fixture
def push(cluster: Cluster, busybox: bytes, tmp_path: Path) -> Iterator[Push]:
    """`push(name, layer)`: an image of busybox, and a file with `layer` in it, comes to the cluster; what hmctl says of it. The names are
    removed after the test."""
    named: list[str] = []

    def bring(name: str, layer: bytes) -> dict[str, Any]:
        path = tmp_path / "image.tar"
        path.write_bytes(archive(busybox, {"layer": layer}, names=(name,)))
        named.append(name)
        (document,) = json.loads(cluster.run("image", "push", path, "-o", "json").stdout)["images"]
        return dict(document)

    yield bring
    there = {each["name"] for each in images(cluster)}
    if left := [name for name in dict.fromkeys(named) if name in there]:
        cluster.run("image", "rm", *left, "--yes")


def images(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.run("image", "ls", "-o", "json").stdout)["images"]
    return found


def test_what_a_node_has_is_not_sent_and_three_nodes_come_to_have_all(
    cluster: Cluster, push: Push, pushed: str, eventually: Callable[..., None]
) -> None:
    """`pushed`: the lowest layer is in the cluster already."""
    size = 3 << 20
    layer = os.urandom(size)
    first = push("e2e-shared:1", layer)
    assert size < first["sent"] < size + 2 * 10240 + FRAMES, "tar ends in blocks of zeros"
    assert first["was_there"] > 500_000, "busybox"
    again = push("e2e-shared:1", layer)
    assert (again["sent"], again["was_there"], again["changed"], again["id"]) == (0, again["size"], False, first["id"])
    other = push("e2e-shared:2", os.urandom(1 << 20))
    assert (1 << 20) < other["sent"] < (1 << 20) + 2 * 10240 + FRAMES
    same = push("e2e-shared:3", layer)
    assert (same["sent"], same["changed"], same["id"]) == (0, True, first["id"]), "another name of the same bytes"

    def kept() -> bool:
        named = {each["name"]: each["holders"] for each in images(cluster) if each["name"].startswith("e2e-shared:")}
        assert named == {f"e2e-shared:{number}": sorted(cluster.names) for number in (1, 2, 3)}
        return True

    eventually(kept, within=20)
    cluster.run("image", "rm", "e2e-shared:2", "e2e-shared:3", "--yes")
    assert {each["name"] for each in images(cluster) if each["name"].startswith("e2e-shared:")} == {"e2e-shared:1"}
    unknown = cluster.run("image", "rm", "e2e-shared:1", "e2e-shared:2", "--yes", check=False)
    assert unknown.returncode == 1
    assert "there is no image e2e-shared:2" in unknown.stderr
    assert "e2e-shared:1" in {each["name"] for each in images(cluster)}, "all or nothing"


def test_a_name_means_the_same_bytes_on_every_node_until_the_next_deployment(apps: Apps, push: Push) -> None:
    cluster = apps.cluster
    text = f"""
    services:
      web:
        image: e2e-moving:1
        init: true
        command: {serving("moving")}
        deploy: {{replicas: 2, placement: {{max_replicas_per_node: 1}}, update_config: {{monitor: 0s, parallelism: 0}}}}
    """
    old = push("e2e-moving:1", b"old")["id"]
    apps.deploy("moving", text)
    assert list(image_ids(cluster, "moving").values()) == [{old}, {old}]
    new = push("e2e-moving:1", b"new")["id"]
    assert new != old
    assert apps.change("scale", "moving/web=3")["ending"] == "healthy"
    assert image_ids(cluster, "moving") == {node: {old} for node in cluster.names}, "a node that it was never brought to, too"
    assert [(each["name"], each["id"]) for each in images(cluster) if each["id"] in (old, new)] == [("", old), ("e2e-moving:1", new)]

    done = apps.deploy("moving", text.replace("replicas: 2", "replicas: 3"))
    assert (done["ending"], [each["action"] for each in done["plan"]]) == ("healthy", ["replaced"])
    assert image_ids(cluster, "moving") == {node: {new} for node in cluster.names}
    assert apps.change("rollback", "moving", "--yes")["ending"] == "healthy"
    assert image_ids(cluster, "moving") == {node: {old} for node in cluster.names}, "what an app may come back to is kept"


def test_a_push_that_was_interrupted_goes_on_where_it_was(cluster: Cluster, busybox: bytes, tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    path.write_bytes(archive(busybox, {"layer": os.urandom(LARGE)}, names=("e2e-large:1",)))
    process = cluster.hmctl.start("-i", cluster.inventory, "image", "push", path)
    try:
        _until_some_has_come(cluster, process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]
    finally:
        process.kill()
    assert process.returncode == 130, said
    came = sum(_partial(cluster).values())
    assert 8 * CHUNK <= came < LARGE, "it was interrupted in the middle"
    assert "e2e-large:1" not in {each["name"] for each in images(cluster)}
    (document,) = json.loads(cluster.run("image", "push", path, "-o", "json").stdout)["images"]
    try:
        assert 0 < document["sent"] < LARGE - came + 2 * CHUNK
        assert _partial(cluster, [document["node"]]) == {document["node"]: 0}
    finally:
        cluster.run("image", "rm", "e2e-large:1", "--yes")


def _until_some_has_come(cluster: Cluster, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while sum(_partial(cluster, cluster.names[:1]).values()) < 8 * CHUNK:
        assert process.poll() is None, f"it was over too soon: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "nothing comes"


def _partial(cluster: Cluster, nodes: list[str] | None = None) -> dict[str, int]:
    """Bytes of a large layer that is not whole yet, by node."""
    sizes = f"find {PARTIALS} -type f -size +1M -printf '%s\\n' | awk '{{ sum += $1 }} END {{ print sum + 0 }}'"
    return {node: int(cluster.inside(node, "sh", "-c", sizes)) for node in nodes or cluster.names}
