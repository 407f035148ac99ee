"""Machines, Docker, agents and operators fail under an app: it is whole again by itself, and what need not be touched is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import AGENT, Cluster
from outages import App, Strangers, agents_started, image

IMAGE = "e2e-busy:1"
POLITE = """[sh, -c, "trap 'exit 0' TERM; sleep 3600 & wait"]"""


@pytest.fixture(scope="module")
def shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Six replicas, two on each node."""
    cluster.until_healthy()
    folder = tmp_path_factory.mktemp("apps")
    app = App(cluster, folder, "shop", image(cluster, folder, IMAGE))
    try:
        app.roll_out(1)
        yield app
    finally:
        app.run("rm", app.name, "--yes", check=False)


@pytest.fixture(autouse=True)
def others_are_left_alone(cluster: Cluster, shop: App, strangers: Strangers) -> Iterator[None]:
    before = strangers.seen()
    yield
    cluster.lab.heal()
    cluster.until_healthy()
    strangers.were_left_alone(before)


def restarts(*apps: App) -> dict[str, int]:
    return {each["id"]: each["restarts"] for app in apps for each in app.replicas()}


def leader_of(cluster: Cluster) -> str:
    return str(cluster.status()["leader"])


def follower_of(cluster: Cluster) -> str:
    leader = leader_of(cluster)
    return next(name for name in cluster.names if name != leader)


def test_a_followers_host_crashes_its_replicas_run_elsewhere_and_none_is_moved_back(cluster: Cluster, shop: App) -> None:
    victim = follower_of(cluster)
    before = shop.containers()
    assert any(each.node == victim for each in before.values())
    cluster.lab.kill(victim)
    try:
        took = shop.until_whole(without=[victim])
        print(f"a follower's host killed: {took:.1f} s until all replicas run again")
        assert took <= 20
        replicas = {each["id"] for each in shop.replicas()}
        after = shop.containers(*(name for name in cluster.names if name != victim))
        assert {id: each for id, each in before.items() if each.node != victim}.items() <= after.items(), "what ran there ran on"
    finally:
        cluster.lab.start(victim)
    cluster.until_healthy()
    shop.until_nothing_else()
    assert {each["id"] for each in shop.replicas()} == replicas
    assert shop.containers() == after


def test_the_leaders_host_crashes_in_mid_rollout_which_goes_on_and_ends_well(cluster: Cluster, shop: App) -> None:
    generation = shop.generation
    process = shop.rolling_out(2)
    leader = leader_of(cluster)
    cluster.lab.kill(leader)
    try:
        assert shop.is_halfway(), "the rollout was over before its leader died"
        out, said = process.communicate(timeout=150)
        assert process.returncode == 0, said
        assert json.loads(out)["ending"] == "healthy"
        shop.until_whole(without=[leader])
    finally:
        process.kill()
        cluster.lab.start(leader)
    cluster.until_healthy()
    shop.until_nothing_else()
    last = json.loads(shop.run("history", "shop", "-o", "json").stdout)["generations"][-1]
    assert (last["number"], last["present"], last["reached"]) == (generation + 1, True, True)


def test_the_operator_is_gone_in_mid_rollout_which_goes_on(shop: App) -> None:
    process = shop.rolling_out(3)
    process.kill()
    process.communicate(timeout=10)
    assert shop.is_halfway(), "the rollout was over before its operator was gone"
    shop.until_whole()
    assert {each["generation"] for each in shop.replicas()} == {shop.generation}


def test_docker_is_restarted_and_its_replicas_come_back(cluster: Cluster, shop: App, tmp_path: Path) -> None:
    """Also those that end well when they are told to, under a policy that leaves it at that."""
    shop.until_whole()
    polite = App(cluster, tmp_path, "polite", IMAGE, "{mode: global, restart_policy: {condition: on-failure, delay: 1s}}", POLITE)
    polite.roll_out(1)
    victim = shop.replicas()[0]["node"]
    before, replicas, ends = shop.containers(), {each["id"] for each in shop.replicas()}, restarts(shop, polite)
    cluster.inside(victim, "systemctl", "restart", "docker.service")
    starts = {each.started for each in before.values() if each.node == victim}

    def back() -> bool:
        there = [each for each in shop.containers(victim).values() if each.running]
        return len(there) == len(starts) and not starts & {each.started for each in there}

    took = shop.until(back, 40, f"the containers of {victim} run again")
    print(f"Docker restarted: {took:.1f} s until its replicas run again")
    shop.until_whole()
    polite.until_whole(count=3)
    assert {each["id"] for each in shop.replicas()} == replicas, "they are restarted where they are"
    assert restarts(shop, polite) == ends, "that Docker went away is no end of theirs"
    elsewhere = {id: each for id, each in before.items() if each.node != victim}
    assert elsewhere.items() <= shop.containers().items()
    polite.run("rm", polite.name, "--yes")


def test_docker_is_restarted_while_an_update_is_watched_which_goes_on(cluster: Cluster, shop: App, tmp_path: Path) -> None:
    """An update that fails would be taken back; that Docker went away is no failure of what it replaced."""
    rolling = "{parallelism: 1, monitor: 10s, failure_action: rollback}"
    watched = App(cluster, tmp_path, "watched", IMAGE, f"{{replicas: 2, restart_policy: {{delay: 1s}}, update_config: {rolling}}}", POLITE)
    watched.roll_out(1)
    process = watched.rolling_out(2)
    try:
        (new,) = (each for each in watched.fit() if each["current"])
        cluster.inside(new["node"], "systemctl", "restart", "docker.service")
        assert watched.is_halfway(), "the update was over before Docker was restarted"
        out, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, json.loads(out)["ending"]) == (0, "healthy"), said
    watched.until_whole(count=2)
    assert new["id"] in {each["id"] for each in watched.replicas()}
    watched.run("rm", watched.name, "--yes")
    shop.until_whole()


def test_a_host_is_restarted_and_what_ended_well_with_it_runs_again(cluster: Cluster, shop: App, tmp_path: Path) -> None:
    """Under a policy that leaves a program that ended well at that: the machine's end is none of the program's."""
    polite = App(cluster, tmp_path, "rebooted", IMAGE, "{mode: global, restart_policy: {condition: on-failure, delay: 1s}}", POLITE)
    polite.roll_out(1)
    before, victim = polite.replicas(), follower_of(cluster)
    try:
        cluster.lab.stop(victim)
    finally:
        cluster.lab.start(victim)
    cluster.until_healthy()
    polite.until_whole(count=3)
    assert {each["id"]: each["restarts"] for each in polite.replicas()} == {each["id"]: each["restarts"] for each in before}
    polite.run("rm", polite.name, "--yes")
    shop.until_whole()


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_every_agent_at_once_is_restarted_or_killed_and_no_container_is(cluster: Cluster, shop: App, tmp_path: Path, how: str) -> None:
    shop.until_whole()
    shop.until_nothing_else()
    before, pids = shop.containers(), agents_started(cluster)
    for node in cluster.names:
        cluster.inside(node, "systemctl", *(("restart", "--no-block") if how == "restart" else ("kill", "--signal=KILL")), AGENT)
    cluster.until(lambda document: all(cluster.agent_pid(node) not in (0, pid) for node, pid in pids.items()), 30, "all are started anew")
    cluster.until_healthy()
    # each of them has looked at what it is to run, and at Docker, once it has started what is new
    call = App(cluster, tmp_path, f"call-{how}", IMAGE, "{mode: global}")
    call.roll_out(1)
    assert {each["node"] for each in call.fit()} == set(cluster.names)
    assert shop.containers() == before
    call.run("rm", call.name, "--yes")
    shop.until_whole()
    assert shop.containers() == before
