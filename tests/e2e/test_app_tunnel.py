"""Apps where nodes share no link, so that what containers send each other goes through a tunnel between the nodes: brought about by a
setting, for the hosts of a lab share one."""

from __future__ import annotations

import json
from collections.abc import Callable

from clusters import settings
from composing import IMAGE, Apps, serving

PORT = 18086
FAR = f"""
services:
  web:
    image: {IMAGE}
    command: {serving("through")}
    init: true
    ports: ["{PORT}:8080"]
    deploy: {{placement: {{constraints: [node.hostname == node1]}}}}
  desk:
    image: {IMAGE}
    init: true
    deploy: {{mode: global}}
"""
TUNNEL = "hmvx"


def has_tunnel(apps: Apps, node: str) -> bool:
    return f" {TUNNEL}:" in apps.cluster.inside(node, "ip", "-o", "link")


def packets(apps: Apps, node: str) -> int:
    """That went into the tunnel."""
    (link,) = json.loads(apps.cluster.inside(node, "ip", "-s", "-j", "link", "show", TUNNEL))
    return int(link["stats64"]["tx"]["packets"])


def test_containers_reach_each_other_through_a_tunnel(apps: Apps, eventually: Callable[..., None]) -> None:
    cluster = apps.cluster
    apps.deploy("far", FAR)
    before = apps.containers("far")

    def all_are_answered() -> bool:
        """At each node's published port, from outside, and in a container of each node, by name."""
        assert [apps.get(f"{apps.address(node)}:{PORT}").partition(" ")[0] for node in cluster.names] == ["through"] * 3
        inside = [apps.run("exec", f"far/desk@{node}", "--", "wget", "-q", "-O", "-", "http://web:8080/").stdout for node in cluster.names]
        return [said.partition(" ")[0] for said in inside] == ["through"] * 3

    eventually(all_are_answered, within=10)
    try:
        with settings(cluster, "{network: {encapsulation: vxlan}}"):
            cluster.run("config", "apply", "--yes")
            eventually(lambda: all(has_tunnel(apps, node) for node in cluster.names), within=20)
            sent = {node: packets(apps, node) for node in cluster.names}
            eventually(all_are_answered, within=20)
            assert all(packets(apps, node) > sent[node] for node in cluster.names), "by the tunnel, both ways"
    finally:
        cluster.run("config", "apply", "--yes")
    eventually(all_are_answered, within=20)
    eventually(lambda: not any(has_tunnel(apps, node) for node in cluster.names), within=20)
    assert apps.containers("far") == before
