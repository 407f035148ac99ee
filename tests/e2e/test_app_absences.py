"""A node that is away, or whose Docker is, holds nothing up: apps go on elsewhere, end, and begin anew; what it still has ends once it is
back (docs/adr/0109, 0111)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from clusters import Cluster
from outages import App, image

from node_agent.platform.control import DOCKER_WITHIN

IMAGE = "e2e-absent:1"
SOON = 20.0  # seconds beyond what the terms say, on a machine that is shared with others


@pytest.fixture
def shop(cluster: Cluster, tmp_path: Path) -> Iterator[App]:
    cluster.until_healthy()
    app = App(cluster, tmp_path, "absent", image(cluster, tmp_path, IMAGE))
    try:
        app.roll_out(1)
        yield app
    finally:
        cluster.lab.heal()
        app.run("rm", app.name, "--yes", check=False)


def follower_with(shop: App) -> str:
    leader = str(shop.cluster.status()["leader"])
    return str(next(each["node"] for each in shop.replicas() if each["node"] != leader))


def test_an_app_is_removed_and_deployed_anew_while_a_host_is_dead_whose_containers_end_when_it_is_back(cluster: Cluster, shop: App) -> None:
    shop.until_whole()
    old = set(shop.containers())
    victim = follower_with(shop)
    cluster.lab.kill(victim)
    try:
        shop.until_whole(without=[victim])
        shop.run("rm", shop.name, "--yes", "--timeout", "60")
        shop.roll_out(1)
        shop.until_whole(without=[victim])
        new = {id for id, each in shop.containers(*(name for name in cluster.names if name != victim)).items() if each.running}
        assert not new & old
    finally:
        cluster.lab.start(victim)
    cluster.until_healthy()
    shop.until_nothing_else()
    assert {each["node"] for each in shop.replicas()}.isdisjoint({victim})
    assert set(shop.containers()) == new, "no other runs twice, and nothing was moved"


def test_a_host_is_back_long_before_its_docker_which_ends_what_it_has_once_it_answers(cluster: Cluster, shop: App) -> None:
    shop.until_whole()
    victim = follower_with(shop)
    others = [name for name in cluster.names if name != victim]
    old = {id for id, each in shop.containers(victim).items() if each.running}
    cluster.inside(victim, "systemctl", "mask", "docker.socket", "docker.service")
    cluster.lab.kill(victim)
    shop.until_whole(without=[victim])
    shop.run("rm", shop.name, "--yes", "--timeout", "60")
    shop.roll_out(1)
    new = shop.containers(*others)
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(cluster.lab.start, victim)  # the lab waits for Docker
        try:
            cluster.until(lambda _: cluster.node(victim)["state"] == "degraded", 45, "it is back")
            assert {each["node"] for each in shop.fit()} == set(others), "nothing is told of what is no more"
        finally:
            cluster.inside(victim, "systemctl", "unmask", "docker.socket", "docker.service")
            cluster.inside(victim, "systemctl", "start", "docker.socket", "docker.service")
            started.result()
    assert old >= set(shop.containers(victim))
    cluster.until_healthy(60)
    shop.until_nothing_else()
    assert shop.containers() == new


@contextmanager
def without_docker(cluster: Cluster, node: str) -> Iterator[None]:
    cluster.inside(node, "systemctl", "stop", "docker.socket", "docker.service")
    try:
        yield
    finally:
        cluster.inside(node, "systemctl", "start", "docker.socket", "docker.service")


def test_replicas_of_a_node_without_docker_run_elsewhere_after_a_while_and_a_rollout_goes_on(cluster: Cluster, shop: App) -> None:
    shop.until_whole()
    victim = follower_with(shop)
    with without_docker(cluster, victim):
        shop.until(lambda: f"Docker does not answer on {victim}" in shop.explained(), 30, "it is said why it waits")
        assert any(each["node"] == victim for each in shop.replicas()), "it may only be restarting"
        took = shop.until(lambda: all(each["node"] != victim for each in shop.replicas()), DOCKER_WITHIN + SOON, "nothing waits for it")
        print(f"Docker stopped: {took:.1f} s until its replicas are placed elsewhere")
        assert took > DOCKER_WITHIN / 2
        whole = App(cluster, shop.folder, shop.name, shop.image)
        others = [name for name in cluster.names if name != victim]
        whole.until(lambda: len(whole.fit()) == 6 and len(whole.containers(*others)) == 6, 30, "all run elsewhere")
        shop.roll_out(2, "--timeout", "90")
        assert all(each["node"] != victim for each in shop.replicas())
    cluster.until_healthy()
    shop.until_nothing_else()
    assert all(each["node"] != victim for each in shop.replicas()), "nothing is moved back"
