"""What an app needs goes missing: room on a disk, its image, the way to a node. It says what is missing, and is whole again by itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import AGENT, Cluster
from outages import UNPACKING, App, Strangers, image, image_ids, small

IMAGE = "e2e-scarce:1"
BLOBS = "/var/lib/hypermesh/blobs"
SMALL, LARGE = "size=16m", "size=2g"  # the agent leaves half a gigabyte of that disk free; a tmpfs takes what is written to it


@pytest.fixture(scope="module")
def store(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Six replicas, two on each node."""
    cluster.until_healthy()
    folder = tmp_path_factory.mktemp("apps")
    deploy = "{replicas: 6, restart_policy: {delay: 1s}, update_config: {parallelism: 0, monitor: 1s}}"
    app = App(cluster, folder, "store", image(cluster, folder, IMAGE), deploy)
    try:
        app.roll_out(1)
        yield app
    finally:
        app.run("rm", app.name, "--yes", check=False)


@pytest.fixture(autouse=True)
def others_are_left_alone(cluster: Cluster, store: App, strangers: Strangers) -> Iterator[None]:
    before = strangers.seen()
    yield
    cluster.lab.heal()
    cluster.until_healthy()
    strangers.were_left_alone(before)


def test_a_node_that_is_cut_off_keeps_its_containers_and_falls_in_line_when_it_is_back(cluster: Cluster, store: App) -> None:
    victim = next(name for name in cluster.names if name != cluster.status()["leader"])
    others = [name for name in cluster.names if name != victim]
    before = store.containers()
    assert any(each.node == victim for each in before.values())
    cluster.lab.partition([[victim], others])
    took = store.until_whole(without=[victim])
    print(f"a follower cut off: {took:.1f} s until all replicas run on the others")
    elsewhere = store.containers(*others)
    assert {id: each for id, each in before.items() if each.node != victim}.items() <= elsewhere.items()
    assert store.containers(victim) == {id: each for id, each in before.items() if each.node == victim}, "they serve those on its side"
    cluster.lab.heal()
    cluster.until_healthy()
    store.until_nothing_else()
    assert store.containers() == elsewhere, "what took over stays"


def test_a_node_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(cluster: Cluster, store: App, tmp_path: Path) -> None:
    victim = cluster.names[0]  # to which images are pushed where nothing else speaks for another
    before = store.containers()
    call = App(cluster, tmp_path, "call", "e2e-ballast:1", "{mode: global}")
    with full_disk(cluster, victim), gone_afterwards(call):
        image(cluster, tmp_path, call.image, ballast=os.urandom(1 << 20))
        call.roll_out(1, "--no-wait")
        call.until(lambda: {each["node"] for each in call.fit()} == {*cluster.names} - {victim}, 30, "the others run it")

        def complaint() -> str:
            return next(
                (each["error"] for each in call.replicas() if each["node"] == victim and each["phase"] in ("pulling", "backoff")), ""
            )

        call.until(lambda: "no room" in complaint(), 20, f"the replica on {victim} says what is wrong")
        document = json.loads(call.run("explain", call.name, "-o", "json").stdout)
        assert [(each["node"], "no room" in each["why"]) for service in document["services"] for each in service["replicas"]] == [
            (victim, True)
        ]
        assert store.containers() == before
        cluster.inside(victim, "mount", "-o", f"remount,{LARGE}", BLOBS)
        took = call.until(lambda: {each["node"] for each in call.fit()} == set(cluster.names), 60, "all run it")
        print(f"room again: {took:.1f} s until the image is there and its replica runs")
    cluster.until_healthy()
    assert store.containers() == before


def test_an_update_whose_image_a_node_has_no_room_for_is_taken_back(cluster: Cluster, store: App, tmp_path: Path) -> None:
    victim = cluster.names[0]  # as above
    before = store.containers()
    how = "update_config: {monitor: 1s, failure_action: rollback}, rollback_config: {parallelism: 0, monitor: 1s}"
    thin = App(cluster, tmp_path, "thin", image(cluster, tmp_path, "e2e-thin:1", ballast=os.urandom(1 << 10)), f"{{mode: global, {how}}}")
    with gone_afterwards(thin):
        thin.roll_out(1)
        (old,) = {each.image for each in thin.containers().values()}
        with full_disk(cluster, victim):
            thick = replace(thin, image=image(cluster, tmp_path, "e2e-thick:1", ballast=os.urandom(1 << 20)))
            done = thick.run("deploy", "--file", thick.file(2), "--yes", "--timeout", "100", "-o", "json", check=False)
            document = json.loads(done.stdout)
            assert (done.returncode, document["ending"]) == (1, "rolled-back"), done.stderr
            assert "1 of 3 new replicas failed" in document["error"]
            assert "it cannot be started: " in document["error"]
            assert "no room" in document["error"]
            assert "generation 3 brings back what generation 1 was" in document["error"]
            took = thin.until_whole(count=3)  # also where the disk is full still: what ran before is on Docker's
            print(f"taken back: {took:.1f} s until all replicas are as they were")
            assert {each["node"] for each in thin.fit()} == set(cluster.names)
            thin.until_nothing_else()
            assert {each.image for each in thin.containers().values()} == {old}
    cluster.until_healthy()
    assert store.containers() == before


def test_a_node_on_whose_disk_docker_has_no_room_says_so_and_goes_on_when_there_is_room(
    cluster: Cluster, store: App, tmp_path: Path
) -> None:
    victim = cluster.names[1]
    call = App(cluster, tmp_path, "unpacked", "e2e-unpacked:1", "{mode: global}")
    with small(cluster, victim, UNPACKING), gone_afterwards(call):
        image(cluster, tmp_path, call.image, ballast=os.urandom(4 << 20))
        call.roll_out(1, "--no-wait")
        call.until(lambda: {each["node"] for each in call.fit()} == {*cluster.names} - {victim}, 30, "the others run it")

        def complaint() -> str:
            return next((each["error"] for each in call.replicas() if each["node"] == victim), "")

        call.until(lambda: "no space left on device" in complaint(), 20, f"the replica on {victim} says what is wrong")
        cluster.inside(victim, "mount", "-o", "remount,size=64m", UNPACKING)
        took = call.until(lambda: {each["node"] for each in call.fit()} == set(cluster.names), 60, "all run it")
        print(f"room for Docker again: {took:.1f} s until the replica runs")


def test_what_one_node_has_no_room_for_is_started_on_another(cluster: Cluster, store: App, tmp_path: Path) -> None:
    victim = cluster.names[1]
    roam = App(cluster, tmp_path, "roam", "e2e-roam:1", "{replicas: 3, update_config: {monitor: 1s}}")
    with small(cluster, victim, UNPACKING), gone_afterwards(roam):
        image(cluster, tmp_path, roam.image, ballast=os.urandom(4 << 20))
        roam.roll_out(1, "--no-wait")
        roam.until(lambda: victim in {each["node"] for each in roam.replicas()}, 20, f"one is placed on {victim}")
        took = roam.until(lambda: len(roam.fit()) == 3, 90, "all run")
        print(f"no room on one node: {took:.1f} s until its replica runs on another")
        assert victim not in {each["node"] for each in roam.fit()}
        roam.until_nothing_else()


@contextmanager
def full_disk(cluster: Cluster, node: str) -> Iterator[None]:
    """The node has no room for content that it does not have yet; what its Docker has stays. Its agent is restarted before and after."""
    mount = f"mount -t tmpfs -o {SMALL},mode=700 tmpfs {BLOBS}"
    cluster.inside(node, "sh", "-ec", f"systemctl stop {AGENT}; {mount}; systemctl start {AGENT}")
    try:
        cluster.until(lambda document: document["leader"] and _answers(document, node), 20, f"{node} is back")
        yield
    finally:
        cluster.inside(node, "sh", "-ec", f"systemctl stop {AGENT}; umount {BLOBS}; systemctl start {AGENT}")


@contextmanager
def gone_afterwards(app: App) -> Iterator[None]:
    try:
        yield
    finally:
        app.run("rm", app.name, "--yes", check=False)


def _answers(document: dict[str, object], node: str) -> bool:
    nodes: list[dict[str, object]] = document["nodes"]  # type: ignore[assignment]
    return next(each["state"] for each in nodes if each["name"] == node) in ("ready", "degraded")


def test_an_image_that_docker_lost_is_brought_back(cluster: Cluster, store: App) -> None:
    store.until_whole()
    victim = cluster.names[1]
    (lost,) = {each.image for each in store.containers().values()}
    store.run("scale", "store/web=0")
    store.until(lambda: not store.containers(), 20, "nothing runs")
    cluster.inside(victim, "docker", "rmi", "--force", lost)
    assert lost not in cluster.inside(victim, "docker", "images", "--quiet", "--no-trunc").split()
    store.run("scale", "store/web=6")
    store.until_whole()
    assert lost in cluster.inside(victim, "docker", "images", "--quiet", "--no-trunc").split()


def test_an_image_whose_name_is_removed_is_still_its_apps_and_no_new_ones(cluster: Cluster, store: App, tmp_path: Path) -> None:
    """No registry answers in the lab, so that nobody knows what else the name could mean."""
    store.until_whole()
    before = store.containers()
    cluster.run("image", "rm", IMAGE, "--yes")
    store.run("scale", "store/web=7")
    store.until_whole(count=7)
    assert before.items() <= store.containers().items()
    images = image_ids(cluster, store.name)
    changed = store.run("deploy", "--file", store.file(2), "--yes")
    assert f"{IMAGE} stays as it is" in changed.stderr
    store.until_whole()
    assert set.union(*image_ids(cluster, store.name).values()) == set.union(*images.values())

    newcomer = App(cluster, tmp_path, "newcomer", IMAGE)
    refused = newcomer.run("deploy", "--file", newcomer.file(1), "--yes", check=False)
    assert refused.returncode == 1
    assert f"the cluster has no image {IMAGE}" in refused.stderr
    assert "hmctl image push" in refused.stderr
    image(cluster, tmp_path, IMAGE)
    with gone_afterwards(newcomer):
        newcomer.roll_out(1)
        newcomer.until_whole()


def test_what_is_removed_leaves_nothing_of_ours_behind(cluster: Cluster, store: App) -> None:
    store.run("rm", store.name, "--yes")
    assert not store.containers()
    store.roll_out(1)
    store.until_whole()
