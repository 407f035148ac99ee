"""The registry as its operator sees it: what runs is there, what is gone gets no call, what is in maintenance gets none either."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from clusters import Cluster

COMPONENTS = {"transport", "consensus", "container", "security", "network", "images", "apps", "registry", "orchestration"}
WEB = """
mkdir -p /tmp/web/bin && cp /bin/busybox /tmp/web/bin/ && ln -sf busybox /tmp/web/bin/sleep
tar -C /tmp/web -c . | docker import - hm-web >/dev/null
docker run --detach --init --name web-1 --cgroup-parent=/hypermesh --label hypermesh.cluster="$1" --label hypermesh.service=shop/web \
  --label hypermesh.port=8080 --label hypermesh.version=v1 --label hypermesh.tags=blue,edge hm-web /bin/sleep 3600 >/dev/null
"""
QUICK = "settings: {health: {interval: 2, timeout: 2}, registry: {ttl: 5, refresh: 1}}\n"


def services(cluster: Cluster, *args: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(cluster.run("service", "ls", *args, "-o", "json").stdout)
    return document


def instances(cluster: Cluster, *args: str) -> dict[str, dict[str, Any]]:
    return {instance["id"]: instance for instance in services(cluster, *args)["instances"]}


def resolved(cluster: Cluster, service: str, count: int = 60) -> set[str]:
    done = cluster.run("service", "resolve", service, "--count", str(count), "-o", "json", check=False)
    return set(json.loads(done.stdout)["chosen"])


def test_every_component_of_every_node_is_an_instance(cluster: Cluster, eventually: Callable[..., None]) -> None:
    cluster.until_healthy()
    expected = {f"{node}/{component}" for node in cluster.names for component in COMPONENTS}

    def complete() -> bool:
        found = instances(cluster)
        assert expected <= {id for id, instance in found.items() if instance["health"] == "healthy"}, found
        return True

    eventually(complete, within=15)
    document = services(cluster)
    assert document["leader"] is True
    assert {service["name"]: (service["fit"], service["total"]) for service in document["services"]}["hypermesh/consensus"] == (3, 3)
    table = cluster.run("service", "ls").stdout
    assert "hypermesh/registry" in table
    assert "3/3" in table
    assert resolved(cluster, "hypermesh/consensus") == {f"{node}/consensus" for node in cluster.names}


def test_what_is_in_maintenance_gets_no_call_until_it_is_given_back(cluster: Cluster) -> None:
    cluster.until_healthy()
    refused = cluster.run("service", "maintain", "node2", "--on", check=False)
    assert refused.returncode == 2
    assert "nobody can answer" in refused.stderr
    assert resolved(cluster, "hypermesh/consensus") == {f"{node}/consensus" for node in cluster.names}
    try:
        done = json.loads(cluster.run("service", "maintain", "node2", "--on", "--reason", "new disk", "--yes", "-o", "json").stdout)
        assert done["changed"]
        assert set(done["instances"]) >= {f"node2/{component}" for component in COMPONENTS}
        assert resolved(cluster, "hypermesh/consensus") == {"node1/consensus", "node3/consensus"}
        assert instances(cluster, "hypermesh/consensus")["node2/consensus"]["maintenance"] == "new disk"
        again = json.loads(cluster.run("service", "maintain", "node2", "--on", "--reason", "new disk", "--yes", "-o", "json").stdout)
        assert again["changed"] is False
    finally:
        cluster.run("service", "maintain", "node2/", "--off", "--yes")
    assert "node2/consensus" in resolved(cluster, "hypermesh/consensus")
    unknown = cluster.run("service", "maintain", "node2/nothing", "--on", "--yes", check=False)
    assert unknown.returncode == 2
    assert "no instance is called node2/nothing" in unknown.stderr


def test_a_labelled_container_is_an_instance_of_its_service_while_it_exists(cluster: Cluster, eventually: Callable[..., None]) -> None:
    cluster.until_healthy()
    id = next(line.split()[1] for line in cluster.inventory.read_text().splitlines() if line.startswith("id:"))
    cluster.inside("node3", "sh", "-ec", WEB, "-", id)
    try:
        eventually(lambda: resolved(cluster, "shop/web", 1) == {"node3/web-1"} if "node3/web-1" in instances(cluster) else False, within=10)
        web = instances(cluster, "shop/web")["node3/web-1"]
        assert (web["port"], web["version"], web["tags"], web["health"]) == (8080, "v1", ["blue", "edge"], "healthy")
        assert cluster.run("service", "resolve", "shop/web", "--tag", "blue", "--version", "v1").returncode == 0
        assert cluster.run("service", "resolve", "shop/web", "--tag", "red", check=False).returncode == 1
        cluster.inside("node3", "docker", "pause", "web-1")
        eventually(lambda: instances(cluster, "shop/web")["node3/web-1"]["health"] == "unhealthy", within=10)
        assert resolved(cluster, "shop/web") == set()
    finally:
        cluster.inside("node3", "docker", "rm", "--force", "web-1")
    eventually(lambda: "node3/web-1" not in instances(cluster), within=10)


def test_the_instances_of_a_dead_host_get_no_call_and_come_back_with_it(cluster: Cluster, eventually: Callable[..., None]) -> None:
    cluster.until_healthy()
    victim = next(name for name in cluster.names if name != cluster.status()["leader"])
    others = {f"{name}/consensus" for name in cluster.names if name != victim}
    cluster.lab.kill(victim)
    try:
        eventually(lambda: resolved(cluster, "hypermesh/consensus", 200) == others, within=8)
        gone = instances(cluster, "hypermesh/consensus")[f"{victim}/consensus"]
        assert gone["health"] == "unhealthy"
        assert f"{victim} is" in gone["reason"]
    finally:
        cluster.lab.start(victim)
    cluster.until_healthy()
    eventually(lambda: resolved(cluster, "hypermesh/consensus", 200) == others | {f"{victim}/consensus"}, within=10)


def test_what_nobody_renews_is_unknown_after_its_time(new_cluster: Callable[[str, int], Cluster], eventually: Callable[..., None]) -> None:
    """On a control node and a worker: the worker's instances, too, are told through heartbeats and asked for by the leader."""
    cluster = new_cluster("r", 2)
    cluster.inventory.write_text(cluster.inventory.read_text() + QUICK)
    cluster.deploy()
    eventually(lambda: "node2/registry" in instances(cluster), within=10)
    before = services(cluster)["index"]
    cluster.lab.kill("node2")
    eventually(lambda: instances(cluster)["node2/registry"]["health"] == "unknown", within=15)
    assert "not renewed for 5 s" in instances(cluster)["node2/registry"]["reason"]
    assert services(cluster)["index"] - before <= 10, "renewals are written to the log"
    cluster.lab.start("node2")
    eventually(lambda: instances(cluster)["node2/registry"]["health"] == "healthy", within=20)
