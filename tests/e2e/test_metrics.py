"""A real Prometheus scrapes real nodes over mutual TLS, with the rules and for the dashboard that we hand out."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from clusters import Cluster

OBSERVABILITY = Path(__file__).parents[2] / "docs" / "observability"
FOLDER = "/root/observability"
MONITOR = "node1"  # where Prometheus runs
FETCH = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/etc/hypermesh/pki/ca.pem")
context.check_hostname = False
if "proof" in sys.argv: context.load_cert_chain("/etc/hypermesh/pki/node.pem", "/etc/hypermesh/pki/node.key")
sys.stdout.write(urllib.request.urlopen("https://127.0.0.1:7444/metrics", context=context, timeout=5).read().decode())
"""
# What a cluster without trouble has nothing to show for.
SILENT = {"Checks that are not well", "Components that are not well", "Errors, per second"}


class Prometheus:
    def __init__(self, address: str) -> None:
        self._base = f"http://{address}:9090/api/v1/"

    def ask(self, what: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self._base}{what}?{urlencode(parameters)}", timeout=5) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result


def put(cluster: Cluster, name: str, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    done = cluster.lab.exec(MONITOR, ["sh", "-c", f"mkdir -p {FOLDER} && cat > {FOLDER}/{name}"], stdin=data)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def watched(new_cluster: Callable[[str, int], Cluster]) -> Cluster:
    """Three nodes that show their metrics to holders of the cluster's certificates."""
    cluster = new_cluster("m", 3)
    with cluster.inventory.open("a") as inventory:
        inventory.write("settings:\n  metrics: {address: 0.0.0.0, tls: mutual, interval: 1}\n")
    cluster.deploy()
    return cluster


def test_a_prometheus_sees_the_cluster_and_says_when_a_node_dies(watched: Cluster, eventually: Callable[..., None]):
    cluster = watched
    view = cluster.lab.view()
    asked = set().union(*(named((OBSERVABILITY / name).read_text()) for name in ("alerts.yml", "dashboard.json")))
    for host in view.hosts:
        cluster.inside(host.name, "sh", "-c", f"python3 -c '{FETCH}' proof > /tmp/scrape && promtool check metrics < /tmp/scrape")
        assert asked <= named(cluster.inside(host.name, "cat", "/tmp/scrape"))
        without = cluster.lab.exec(host.name, ["python3", "-c", FETCH])
        assert without.returncode != 0
        assert b"hypermesh_" not in without.stdout

    hand_over(cluster)
    prometheus = start(cluster)

    def all_up() -> bool:
        return {(each["metric"]["instance"], each["value"][1]) for each in prometheus.query('up{job="hypermesh"}')} == {
            (name, "1") for name in cluster.names
        }

    eventually(lambda: answers(prometheus) and all_up(), within=20, every=0.2)
    groups = prometheus.ask("rules")["groups"]
    assert {group["name"] for group in groups} == {"hypermesh-cluster", "hypermesh-node"}
    eventually(lambda: all(rule["health"] == "ok" for group in prometheus.ask("rules")["groups"] for rule in group["rules"]), within=10)
    eventually(lambda: not unanswered(prometheus), within=15, every=0.5)

    components = len(cluster.node(MONITOR)["components"])  # each of them is a service
    eventually(lambda: prometheus.query(f"min(hypermesh_services_active) >= {components}"), within=10, every=0.5)
    assert not firing(prometheus)

    victim = next(name for name in cluster.names if name != MONITOR)
    cluster.lab.kill(victim)
    eventually(lambda: "HyperMeshNodeDown" in firing(prometheus), within=30, every=0.2)
    assert [each["value"][1] for each in prometheus.query(f'up{{instance="{victim}"}}')] == ["0"]


def named(text: str) -> set[str]:
    """The metrics that are spoken of, without the suffixes of histograms."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bhypermesh_[a-z0-9_]+", text)}


def hand_over(cluster: Cluster) -> None:
    """What the guide says: our files, the cluster's names, and a viewer's certificate. Everything is checked by promtool."""
    view = cluster.lab.view()
    cluster_id = re.search(r"^id: (\S+)", cluster.inventory.read_text(), re.MULTILINE)
    assert cluster_id is not None
    for name in ("alerts.yml", "alerts_test.yml"):
        put(cluster, name, (OBSERVABILITY / name).read_text())
    example = (OBSERVABILITY / "prometheus.yml").read_text().replace("hm-example000", cluster_id[1])
    put(cluster, "prometheus.yml", example.replace("interval: 15s", "interval: 1s"))
    folder = cluster.hmctl.cwd / "viewer"
    cluster.run("ca", "viewer", "prometheus", "--to", folder)
    for name in ("ca.pem", "prometheus.pem", "prometheus.key"):
        put(cluster, name, (folder / name).read_bytes())
    hosts = "".join(f"{host.address} {host.name}.{cluster_id[1]}.hm\n" for host in view.hosts)
    cluster.inside(MONITOR, "sh", "-c", f"printf '%s' '{hosts}' >> /etc/hosts")
    for check in ("check rules alerts.yml", "test rules alerts_test.yml", "check config prometheus.yml"):
        cluster.inside(MONITOR, "sh", "-c", f"cd {FOLDER} && promtool {check}")


def start(cluster: Cluster) -> Prometheus:
    command = f"exec prometheus --config.file={FOLDER}/prometheus.yml --storage.tsdb.path=/tmp/prometheus --web.listen-address=0.0.0.0:9090"
    cluster.inside(MONITOR, "systemd-run", "--unit=prometheus-test", "sh", "-c", command)
    return Prometheus(next(host.address for host in cluster.lab.view().hosts if host.name == MONITOR))


def answers(prometheus: Prometheus) -> bool:
    try:
        return bool(prometheus.ask("status/buildinfo"))
    except OSError:
        return False


def firing(prometheus: Prometheus) -> set[str]:
    return {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"}


def unanswered(prometheus: Prometheus) -> list[str]:
    """Panels of the dashboard with a query that brings nothing."""
    empty = []
    for panel in json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$job", "hypermesh").replace("$instance", ".*").replace("$__rate_interval", "1m")
            if not prometheus.query(expression) and panel["title"] not in SILENT:
                empty.append(panel["title"])
    assert not empty, f"nothing to show in: {', '.join(empty)}"
    return empty
