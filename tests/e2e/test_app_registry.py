"""Images of a registry that wants a password: who we are to it is the cluster's secret, and a name is found out once for all nodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import registries
from clusters import Cluster
from composing import Apps, archive
from outages import UNPACKING, image_ids, small
from registries import PASSWORD, USER, Registry


@pytest.fixture(scope="module")
def registry(cluster: Cluster) -> Iterator[Registry]:
    program = registries.program()
    if program is None:
        said = "there is no docker-registry here (fix: make install)"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    cluster.until_healthy()
    with registries.registry(cluster, program, cluster.names[0]) as found:
        yield found
    cluster.until_healthy()


def test_an_image_of_a_registry_with_a_password(apps: Apps, registry: Registry, busybox: bytes) -> None:
    cluster, image = apps.cluster, f"{registry.host}/team/web:1"
    old = registry.push(archive(busybox, {"revision": b"old"}, names=(image,)), image)
    text = f"""
    services:
      web:
        image: {image}
        init: true
        deploy: {{replicas: 2, placement: {{max_replicas_per_node: 1}}, update_config: {{monitor: 0s, parallelism: 0}}}}
    """
    path = apps.file("private", text)

    def refused() -> str:
        done = apps.run("deploy", "-f", path, "--yes", check=False)
        assert done.returncode == 1
        assert image in done.stderr
        assert f"hmctl secret set --registry {registry.host}" in done.stderr
        return str(done.stderr)

    refused()
    try:
        cluster.run("secret", "set", "--registry", registry.host, "-u", USER, "-", stdin="not the password")
        assert "not the password" not in refused()
        cluster.run("secret", "set", "--registry", registry.host, "-u", USER, "-", stdin=PASSWORD)
        assert PASSWORD not in cluster.run("secret", "ls", "-o", "json").stdout

        assert apps.deploy("private", text)["ending"] == "healthy"
        assert list(image_ids(cluster, "private").values()) == [{old}, {old}]
        new = registry.push(archive(busybox, {"revision": b"new"}, names=(image,)), image)
        assert new != old
        assert apps.change("scale", "private/web=3")["ending"] == "healthy"
        assert image_ids(cluster, "private") == {node: {old} for node in cluster.names}, "a tag that was moved moves nobody"
        done = apps.deploy("private", text.replace("replicas: 2", "replicas: 3"))
        assert (done["ending"], [each["action"] for each in done["plan"]]) == ("healthy", ["replaced"])
        assert image_ids(cluster, "private") == {node: {new} for node in cluster.names}
    finally:
        apps.remove_all()
        cluster.run("secret", "rm", "--registry", registry.host, "--yes")


def test_a_node_without_room_for_what_it_pulls_says_so_and_goes_on_when_there_is_room(
    apps: Apps, registry: Registry, busybox: bytes, eventually: Callable[..., None]
) -> None:
    cluster, image = apps.cluster, f"{registry.host}/team/large:1"
    victim = cluster.names[2]
    id = registry.push(archive(busybox, {"layer": os.urandom(4 << 20)}, names=(image,)), image)
    deploy = "{mode: global, update_config: {monitor: 0s, parallelism: 0}}"
    text = f"services: {{web: {{image: '{image}', init: true, deploy: {deploy}}}}}\n"
    cluster.run("secret", "set", "--registry", registry.host, "-u", USER, "-", stdin=PASSWORD)
    try:
        with small(cluster, victim, UNPACKING):
            apps.deploy("pulling", text, "--no-wait")

            def errors() -> dict[str, str]:
                return {each["node"]: each["error"] for each in apps.replicas("pulling") if each["health"] != "healthy"}

            eventually(lambda: "no space left on device" in errors().get(victim, ""), within=30)
            eventually(lambda: errors().keys() == {victim}, within=30)
            (service,) = apps.explain("pulling")["services"]
            assert [(each["node"], "no space left on device" in each["why"]) for each in service["replicas"]] == [(victim, True)]
            assert victim not in image_ids(cluster, "pulling")
            cluster.inside(victim, "mount", "-o", "remount,size=64m", UNPACKING)
            eventually(lambda: errors() == {}, within=60)
        assert image_ids(cluster, "pulling") == {node: {id} for node in cluster.names}
    finally:
        apps.remove_all()
        cluster.run("secret", "rm", "--registry", registry.host, "--yes")
