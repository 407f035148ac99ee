"""A node that returns gets its share of what runs when it is asked for, and not before; nobody who asks an app notices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from composing import IMAGE, Apps, Load, serving

PORT = 18100
TEXT = f"""
services:
  web:
    image: {IMAGE}
    init: true
    command: {serving("spread")}
    ports: ["{PORT}:8080"]
    healthcheck: {{test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s, retries: 3}}
    deploy: {{replicas: 6, update_config: {{monitor: 0s, parallelism: 0}}}}
"""


def test_a_node_that_came_back_gets_its_share_when_that_is_asked_for(apps: Apps, eventually: Callable[..., None]) -> None:
    cluster = apps.cluster
    apps.deploy("spread", TEXT)
    victim = next(name for name in cluster.names if name != cluster.status()["leader"])
    others = [name for name in cluster.names if name != victim]

    def spread() -> dict[str, int]:
        return dict(Counter(each["node"] for each in apps.replicas("spread") if each["health"] == "healthy"))

    assert spread() == dict.fromkeys(cluster.names, 2)
    cluster.lab.kill(victim)
    try:
        eventually(lambda: spread() == dict.fromkeys(others, 3), within=30)
        nothing = apps.change("rebalance", "spread", "--yes")
        assert (nothing["ending"], nothing["absent"]) == ("even", {victim: "down"})
    finally:
        cluster.lab.start(victim)
    cluster.until_healthy()
    eventually(lambda: set(apps.containers("spread").values()) == set(others), within=15)
    kept = apps.containers("spread")

    # Docker begins to answer on that node when it will, and only then is it a place.
    eventually(lambda: apps.change("rebalance", "spread", "--dry-run")["ending"] == "planned", within=15)
    plan = apps.change("rebalance", "spread", "--dry-run")
    assert (plan["ending"], [each["target"] for each in plan["moves"]]) == ("planned", [victim, victim])
    assert {each["source"] for each in plan["moves"]} == set(others)
    assert apps.containers("spread") == kept
    with Load([f"{apps.address(node)}:{PORT}" for node in cluster.names]) as load:
        done = apps.change("rebalance", "spread", "--yes", "--timeout", "60")
        until = load.count + 300
        load.until(lambda: load.count > until)
    assert (done["ending"], done["left"]) == ("moved", [])
    assert [(each["allocation"], each["target"]) for each in done["moves"]] == [(each["allocation"], victim) for each in plan["moves"]]
    load.expect_no_failure()
    assert spread() == dict.fromkeys(cluster.names, 2)
    assert len(kept.keys() & apps.containers("spread").keys()) == 4, "what need not move is left alone"
    assert apps.change("rebalance", "spread", "--yes")["ending"] == "even"
    events = json.loads(cluster.run("events", "--kind", "replica", "-n", "20", "-o", "json").stdout)["events"]
    moved = [each["subject"] for each in events if each["kind"] == "replica.moved"]
    assert moved[-2:] == [each["allocation"] for each in done["moves"]]
