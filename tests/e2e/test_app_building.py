"""Images of the operator's own Docker: services that are built, and images that are pushed by their names. One host of the lab lends its
Docker; the other nodes come by the images through the cluster alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from clusters import Cluster
from composing import Apps, archive
from outages import image_ids

BUILT, SAVED = "e2e-built:1", "e2e-saved:1"
DOCKERFILE = """
FROM scratch
ARG FLAVOUR=none
ENV PATH=/bin FLAVOUR=$FLAVOUR
COPY busybox /bin/sh
COPY words /words
CMD ["sh", "-c", "sleep 3600"]
"""
BUILDING = f"""
services:
  made:
    image: {BUILT}
    build: {{context: made, args: {{FLAVOUR: plain}}}}
    init: true
    deploy: {{mode: global, update_config: {{monitor: 0s, parallelism: 0}}}}
"""
RUNNING = f"""
services:
  saved:
    image: {SAVED}
    init: true
    deploy: {{mode: global, update_config: {{monitor: 0s, parallelism: 0}}}}
"""


@pytest.fixture
def lender(cluster: Cluster) -> Iterator[str]:
    """The node that lends its Docker; what was made there is removed."""
    node = cluster.names[-1]
    yield node
    named = {each["name"] for each in json.loads(cluster.run("image", "ls", "-o", "json").stdout)["images"]}
    if left := [name for name in (BUILT, SAVED) if name in named]:
        cluster.run("image", "rm", *left, "--yes")
    cluster.inside(node, "sh", "-c", f"docker rmi --force {BUILT} {SAVED} > /dev/null 2>&1; true")


@pytest.fixture
def docker(cluster: Cluster, lender: str, tmp_path: Path) -> Mapping[str, str]:
    """The environment of an operator who has that Docker: its program and its socket, as this machine sees the host's files."""
    target = next(word for word in cluster.lab.enter(lender, ["true"]) if word.startswith("--target="))
    root = Path(f"/proc/{target.partition('=')[2]}/root")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").symlink_to(root / "usr/bin/docker")
    (tmp_path / "docker-config").mkdir()
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{root}/run/docker.sock",
        "DOCKER_CONFIG": str(tmp_path / "docker-config"),
    }


def test_a_service_that_is_built_runs_on_nodes_that_never_built_it(
    apps: Apps, docker: Mapping[str, str], lender: str, busybox: bytes
) -> None:
    cluster, context = apps.cluster, apps.folder / "made"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "busybox").write_bytes(busybox)
    (context / "busybox").chmod(0o755)
    (context / "words").write_text("first\n")
    path = apps.file("building", BUILDING)
    without = apps.run("deploy", "-f", path, "--yes", check=False, env={**docker, "PATH": str(apps.folder)})
    assert without.returncode == 1
    assert f"{BUILT} is to be built from {context}, and there is no docker command here" in without.stderr

    done = apps.deploy("building", BUILDING, env=docker)
    assert done["ending"] == "healthy"
    first = cluster.inside(lender, "docker", "inspect", "--format", "{{.Id}}", BUILT).strip()
    assert image_ids(cluster, "building") == {node: {first} for node in cluster.names}
    for each in apps.replicas("building"):
        said = apps.run("exec", f"building/made@{each['node']}", "--", "sh", "-c", "read word < /words; echo $word $FLAVOUR").stdout
        assert said == "first plain\n"
    assert apps.deploy("building", BUILDING, env=docker)["ending"] == "unchanged", "the same files make the same image"

    (context / "words").write_text("second\n")
    again = apps.deploy("building", BUILDING, env=docker)
    assert (again["ending"], [each["action"] for each in again["plan"]]) == ("healthy", ["replaced"])
    second = cluster.inside(lender, "docker", "inspect", "--format", "{{.Id}}", BUILT).strip()
    assert second != first
    assert image_ids(cluster, "building") == {node: {second} for node in cluster.names}

    (context / "Dockerfile").write_text(f"{DOCKERFILE}COPY missing /\n")
    failed = apps.run("deploy", "-f", path, "--yes", check=False, env=docker)
    assert failed.returncode == 1
    assert f"docker build of {BUILT} failed" in failed.stderr
    assert "missing" in failed.stderr
    assert image_ids(cluster, "building") == {node: {second} for node in cluster.names}


def test_an_image_that_ones_docker_has_is_pushed_by_its_name(apps: Apps, docker: Mapping[str, str], lender: str, busybox: bytes) -> None:
    cluster = apps.cluster
    loaded = cluster.lab.exec(lender, ["docker", "load"], stdin=archive(busybox, {"layer": os.urandom(1 << 16)}, names=(SAVED,)))
    assert loaded.returncode == 0, loaded.stderr.decode()
    unknown = cluster.run("image", "push", "e2e-saved:2", check=False, env=docker)
    assert unknown.returncode == 1
    assert "docker save e2e-saved:2: " in unknown.stderr
    (pushed,) = json.loads(cluster.run("image", "push", SAVED, "-o", "json", env=docker).stdout)["images"]
    assert pushed["id"] == cluster.inside(lender, "docker", "inspect", "--format", "{{.Id}}", SAVED).strip()
    assert (pushed["name"], pushed["changed"]) == (SAVED, True)
    assert apps.deploy("running", RUNNING)["ending"] == "healthy"
    assert image_ids(cluster, "running") == {node: {pushed["id"]} for node in cluster.names}
    (again,) = json.loads(cluster.run("image", "push", SAVED, "-o", "json", env=docker).stdout)["images"]
    assert (again["sent"], again["changed"]) == (0, False)
