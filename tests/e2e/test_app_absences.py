"""A node that is away holds nothing up: apps go on elsewhere, end, and begin anew; what it still has ends once it is back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster
from outages import App, image

IMAGE = "e2e-absent:1"


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
    return next(each["node"] for each in shop.replicas() if each["node"] != leader)


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
