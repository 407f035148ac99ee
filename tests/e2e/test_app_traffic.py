"""Who gets an app's traffic: replicas that pass their check, that are not in maintenance, and each as much as its weight says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from composing import IMAGE, Apps, Load

PORT = 18090
# Its first word names the replica. A second web server is what the tcp check is about.
SERVING = """["sh", "-c", "echo $$(hostname) > /www/index.html; httpd -f -p 9000 & echo $$! > /www/pid; exec httpd -f -p 8080 -h /www"]"""
CHECKS = {
    "http": "{type: http, port: 8080, path: /alive, interval: 300ms, timeout: 5s, start_period: 20s, retries: 2}",
    "tcp": "{type: tcp, port: 9000, interval: 300ms, timeout: 5s, start_period: 20s, retries: 2}",
}
BREAK = {"http": "busybox rm /www/alive", "tcp": "kill $(cat /www/pid)"}
MEND = {"http": "echo yes > /www/alive", "tcp": "httpd -p 9000"}
TWO = "replicas: 2, update_config: {monitor: 0s}"
SLOWLY = "replicas: 2, update_config: {parallelism: 1, delay: 120s, monitor: 0s, order: stop-first}"
COMPLAINT = {"http": "its health check fails: it answers 404", "tcp": "its health check fails: connection refused"}


def heal(check: str = CHECKS["http"], *, traffic: str = "weight: 100", deploy: str = TWO, version: str = "") -> str:
    return f"""
    services:
      web:
        image: {IMAGE}
        init: true
        command: {SERVING}
        environment: {{VERSION: "{version}"}}
        ports: ["{PORT}:8080"]
        x-hypermesh: {{{traffic}, check: {check}}}
        deploy: {{{deploy}}}
    """


def addresses(apps: Apps) -> list[str]:
    return [f"{apps.address(node)}:{PORT}" for node in apps.cluster.names]


def hosts(apps: Apps) -> dict[str, str]:
    """The names that replicas give themselves, by replica."""
    return {each["replica"]: each["container"][:12] for each in apps.replicas("heal")}


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_replica_whose_check_fails_gets_no_traffic_until_it_passes(apps: Apps, kind: str) -> None:
    apps.deploy("heal", heal(CHECKS[kind]))
    both = hosts(apps)

    def state() -> dict[str, tuple[str, str]]:
        return {each["replica"]: (each["health"], each["error"]) for each in apps.replicas("heal")}

    with Load(addresses(apps)) as load:
        load.until(lambda: load.recent(100) == set(both.values()))
        apps.run("exec", "heal/web.1", "--", "sh", "-c", BREAK[kind])
        load.until(lambda: load.recent(100) == {both["web.2"]})
        load.until(lambda: state() == {"web.1": ("unhealthy", COMPLAINT[kind]), "web.2": ("healthy", "")})
        assert COMPLAINT[kind] in " ".join(apps.run("explain", "heal").stdout.split())
        apps.run("exec", "heal/web.1", "--", "sh", "-c", MEND[kind])
        load.until(lambda: load.recent(100) == set(both.values()))
    load.expect_no_failure()
    assert hosts(apps) == both, "the container is the same all the while"


def test_a_replica_in_maintenance_gets_no_traffic_until_that_is_over(apps: Apps) -> None:
    apps.deploy("heal", heal())
    both = hosts(apps)
    target = next(each["id"] for each in instances(apps) if each["attributes"]["container"].startswith(both["web.1"]))
    with Load(addresses(apps)) as load:
        load.until(lambda: load.recent(100) == set(both.values()))
        apps.cluster.run("service", "maintain", target, "--on", "--reason", "a look inside", "--yes")
        load.until(lambda: load.recent(200) == {both["web.2"]})
        assert {each["id"]: each["maintenance"] for each in instances(apps)}[target] == "a look inside"
        assert apps.run("exec", "heal/web.1", "--", "hostname").stdout.strip() == both["web.1"], "it runs on"
        apps.cluster.run("service", "maintain", target, "--off", "--yes")
        load.until(lambda: load.recent(100) == set(both.values()))
    load.expect_no_failure()


def test_replicas_get_traffic_by_their_weights(apps: Apps, eventually: Callable[..., None]) -> None:
    """Of one service they differ while it is updated: here to one that takes three times as much."""
    apps.deploy("heal", heal(traffic="weight: 30", deploy=SLOWLY))
    apps.deploy("heal", heal(traffic="weight: 90", deploy=SLOWLY, version="2"), "--no-wait")

    eventually(lambda: generations(apps).keys() == {1, 2}, within=20)
    names = generations(apps)
    with Load(addresses(apps)) as load:
        load.until(lambda: load.recent(100) == set(names.values()))
        before = Counter(load.answers)
        load.until(lambda: load.count > before.total() + 800)
    load.expect_no_failure()
    answers = load.answers - before
    assert 0.68 < answers[names[2]] / answers.total() < 0.82, answers


def test_replicas_of_the_lowest_priority_that_is_fit_get_all_traffic(apps: Apps, eventually: Callable[..., None]) -> None:
    """Of one service they differ while it is updated: here to one that stands by until nobody else is there."""
    apps.deploy("heal", heal(traffic="priority: 0", deploy=SLOWLY))
    apps.deploy("heal", heal(traffic="priority: 1", deploy=SLOWLY, version="2"), "--no-wait")
    eventually(lambda: generations(apps).keys() == {1, 2}, within=20)
    names = generations(apps)
    target = next(each["id"] for each in instances(apps) if each["attributes"]["container"].startswith(names[1]))
    with Load(addresses(apps)) as load:
        load.until(lambda: load.recent(200) == {names[1]})
        apps.cluster.run("service", "maintain", target, "--on", "--reason", "nobody else is left", "--yes")
        load.until(lambda: load.recent(200) == {names[2]})
        apps.cluster.run("service", "maintain", target, "--off", "--yes")
        load.until(lambda: load.recent(200) == {names[1]})
    load.expect_no_failure()


def generations(apps: Apps) -> dict[int, str]:
    """The names that replicas which are fit give themselves, by their generation."""
    return {each["generation"]: each["container"][:12] for each in apps.replicas("heal") if each["health"] == "healthy"}


def instances(apps: Apps) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(apps.cluster.run("service", "ls", "heal/web", "-o", "json").stdout)["instances"]
    return found
