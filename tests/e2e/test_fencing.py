"""Whatever becomes of the node of an exclusive replica, of its agent, of Docker or of the fence: no second one runs before the first is
dead, and one runs elsewhere soon after (docs/adr/0083). Real units, Docker, gates and leaders; the processes themselves are watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from clusters import AGENT, Cluster
from lives import Life, Lives
from outages import App, image

from hmcore.config.settings import Settings
from hmctl.layout import FENCE, FENCING
from node_agent.platform.control import BACK_WITHIN, DOCKER_WITHIN

BALANCED = Settings()  # the lab's
AFTER, LEASE, ELECTION = BALANCED.fencing.after, BALANCED.fencing.lease, BALANCED.raft.election_max
KILL = 0.9  # seconds: what conflicts.py leaves at least for it
SOON = 5.0  # seconds beyond what the settings say: an image may be fetched, and the machine is shared with others
BRIEF = 12345  # seconds that a replica sleeps: what tells it from all other processes
IMAGE = "e2e-alone:1"
SERVICE = """
  {name}:
    image: {image}
    command: [sleep, "{seconds}"]
    stop_grace_period: 1s
    x-hypermesh: {{exclusive: true}}
    deploy: {{restart_policy: {{delay: 3s}}, update_config: {{monitor: 0s}}}}
"""


def start(cluster: Cluster, folder: Path, name: str, *services: str, seconds: int) -> App:
    """An app whose services are all exclusive, up and running."""
    app = App(cluster, folder, name, image(cluster, folder, IMAGE))
    path = folder / f"{name}.yaml"
    each = "".join(SERVICE.format(name=service, image=IMAGE, seconds=seconds) for service in services)
    path.write_text(f"name: {name}\nservices:{each}")
    app.run("deploy", "--file", path, "--yes", "--timeout", "60")
    return app


@pytest.fixture(scope="module")
def alone(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One exclusive service."""
    cluster.until_healthy()
    app = App(cluster, tmp_path_factory.mktemp("apps"), "alone", IMAGE)
    try:
        yield start(cluster, app.folder, app.name, "web", seconds=BRIEF)
    finally:
        app.run("rm", app.name, "--yes", check=False)


@pytest.fixture
def lives(cluster: Cluster, alone: App) -> Iterator[Lives]:
    """Of the replica. After the test, once all is mended, one runs, the one that the cluster means; and there were never two."""
    with Lives(cluster.lab, BRIEF) as lives:
        alone.until_whole(count=1)
        lives.until(lambda: len(lives.now) == 1, 10, "one replica runs")
        yield lives
        cluster.lab.heal()
        cluster.until_healthy()
        alone.until_whole(count=1)
        alone.until_nothing_else()
        lives.never_more_at_once_than(1)
        assert [life.container for life in lives.now] == [each["container"] for each in alone.replicas()]


@contextmanager
def kept_down(cluster: Cluster, node: str, unit: str) -> Iterator[None]:
    """A unit dies (SIGKILL), and systemd does not start it again, until the block ends."""
    folder = f"/run/systemd/system/{unit}.d"
    off = f"mkdir -p {folder}; printf '[Service]\\nRestart=no\\n' > {folder}/test.conf; systemctl daemon-reload"
    dead = f"while systemctl is-active -q {unit}; do sleep .05; done"
    on = f"rm -rf {folder}; systemctl daemon-reload; systemctl reset-failed {unit} || true; systemctl start {unit}"
    try:
        cluster.inside(node, "sh", "-ec", f"{off}; systemctl kill --signal=KILL {unit}; {dead}")
        yield
    finally:
        cluster.inside(node, "sh", "-ec", on)


@contextmanager
def standing_still(cluster: Cluster, node: str, *units: str) -> Iterator[None]:
    """SIGSTOP for the main processes, until the block ends."""

    def send(name: str) -> None:
        cluster.inside(node, "systemctl", "kill", "--kill-whom=main", f"--signal={name}", *units)

    send("STOP")
    try:
        yield
    finally:
        send("CONT")


@contextmanager
def cut_off(cluster: Cluster, node: str) -> Iterator[None]:
    cluster.lab.partition([[node], [name for name in cluster.names if name != node]])
    try:
        yield
    finally:
        cluster.lab.heal()


def follows(cluster: Cluster, node: str) -> None:
    """Somebody else leads."""
    if cluster.status()["leader"] == node:
        cluster.run("raft", "transfer", next(name for name in cluster.names if name != node), "--yes")
        cluster.until_leader_is_not(node, 10)


def leads(cluster: Cluster, node: str) -> None:
    if cluster.status()["leader"] != node:
        cluster.run("raft", "transfer", node, "--yes")
        cluster.until(lambda document: document["leader"] == node, 10, f"{node} leads")


def elsewhere(lives: Lives, old: Life, what: str, *, by: float, died_by: float = LEASE + KILL) -> Life:
    """The replica on another node. To be called right after the fault; `by` and `died_by`: seconds from then, by the settings."""
    struck = time.monotonic()
    new = lives.until(lambda: next((life for life in lives.now if life.node != old.node), None), by + SOON, f"it runs elsewhere: {what}")
    print(f"{what}: dead after {old.ended - struck:.1f} s, runs elsewhere after {new.began - struck:.1f} s")
    assert old.ended <= new.began, f"two ran: {old}; {new}"
    assert old.ended - struck <= died_by
    return new


def fenced(cluster: Cluster, node: str) -> bool:
    return cluster.lab.exec(node, ["systemctl", "is-active", "--quiet", FENCE]).returncode == 0


def told(cluster: Cluster, life: Life, form: str) -> str:
    """By Docker, of its container."""
    return cluster.inside(life.node, "docker", "inspect", "--format", form, life.container).strip()


def test_its_node_which_led_is_cut_off(cluster: Cluster, alone: App, lives: Lives) -> None:
    """It gives itself no lease that a majority has not confirmed; whoever leads next counts from when that began. For followers that are
    cut off: see below, beside what else is done to them."""
    (old,) = lives.now
    leads(cluster, old.node)
    with cut_off(cluster, old.node):
        new = elsewhere(lives, old, "its node, which led, is cut off", by=AFTER + 3 * ELECTION)
        lives.until(lambda: told(cluster, old, "{{.State.Status}}") == "exited", 10, "it is not started again while it is cut off")
    cluster.until_healthy()
    assert lives.now == [new], "it is not moved back"


def test_its_agent_is_killed_and_stays_dead_and_the_fence_is_killed_too(cluster: Cluster, alone: App, lives: Lives) -> None:
    """The second fence knows what the first one did."""
    (old,) = lives.now
    follows(cluster, old.node)
    with kept_down(cluster, old.node, AGENT):
        cluster.inside(old.node, "systemctl", "kill", "--signal=KILL", FENCE)
        new = elsewhere(lives, old, "its agent is killed", by=AFTER)
    cluster.until_healthy()
    assert lives.now == [new]


def test_its_agent_is_stopped_in_good_order(cluster: Cluster, alone: App, lives: Lives) -> None:
    """It is given time to come back, which is as good as if it had been there; the lease ends nevertheless."""
    (old,) = lives.now
    follows(cluster, old.node)
    cluster.inside(old.node, "systemctl", "restart", AGENT)
    cluster.until_healthy()
    assert lives.now == [old], "whose agent is back in time runs on"
    before = time.monotonic()
    cluster.inside(old.node, "systemctl", "stop", AGENT)
    try:
        new = elsewhere(lives, old, "its agent is stopped", by=BACK_WITHIN)
        assert new.began - before > BACK_WITHIN - 1.0
    finally:
        cluster.inside(old.node, "systemctl", "start", AGENT)
    cluster.until_healthy()
    assert lives.now == [new]


def test_its_agent_stands_still(cluster: Cluster, alone: App, lives: Lives) -> None:
    (old,) = lives.now
    follows(cluster, old.node)
    with standing_still(cluster, old.node, AGENT):
        new = elsewhere(lives, old, "its agent stands still", by=AFTER)
    cluster.until_healthy()
    assert lives.now == [new]


def test_its_host_which_led_crashes_and_comes_back(cluster: Cluster, alone: App, lives: Lives) -> None:
    (old,) = lives.now
    leads(cluster, old.node)
    cluster.lab.kill(old.node)
    try:
        new = elsewhere(lives, old, "its host, which led, crashes", by=AFTER + 3 * ELECTION)
    finally:
        cluster.lab.start(old.node)
    cluster.until_healthy()
    assert lives.now == [new], "neither Docker nor the agent starts what ran before the boot"
    assert fenced(cluster, old.node)


def test_docker_hangs_in_the_middle_of_a_start_and_gets_round_to_it_after_the_lease(cluster: Cluster, alone: App, lives: Lives) -> None:
    (old,) = lives.now
    follows(cluster, old.node)
    exited = f"until docker inspect --format {{{{.State.Status}}}} {old.container} | grep -q exited; do sleep .05; done"
    cluster.inside(old.node, "sh", "-ec", f"docker kill --signal=KILL {old.container}; {exited}")
    started = told(cluster, old, "{{.State.StartedAt}}")
    with ExitStack() as partition:
        with standing_still(cluster, old.node, "containerd.service"):
            lives.until(lambda: alone.replicas()[0]["phase"] == "starting", 10, "Docker is asked to start it again")
            with standing_still(cluster, old.node, "docker.service"):
                partition.enter_context(cut_off(cluster, old.node))
                new = elsewhere(lives, old, "Docker hangs, its node is cut off", by=AFTER)
        error = lives.until(lambda: told(cluster, old, "{{.State.Error}}"), 20, "Docker gets round to it")
        assert f"{FENCING}/open/" in error, "its gate is shut"
        assert told(cluster, old, "{{.State.StartedAt}}") == started
    cluster.until_healthy()
    assert lives.now == [new]


def test_without_the_fence_nothing_is_started_and_the_agent_ends_what_runs(cluster: Cluster, alone: App, lives: Lives) -> None:
    (old,) = lives.now
    follows(cluster, old.node)
    fence = fence_pid(cluster, old.node)
    cluster.inside(old.node, "systemctl", "kill", "--signal=KILL", FENCE)
    lives.until(lambda: fence_pid(cluster, old.node) not in (0, fence), 5, "a fence that dies is started again")
    lives.until(lambda: fenced(cluster, old.node), 10, "and has started: from then on the watchdog counts")
    fence = fence_pid(cluster, old.node)
    with standing_still(cluster, old.node, FENCE):
        lives.until(lambda: fence_pid(cluster, old.node) not in (0, fence), 15, "a fence that stands still is replaced")
    assert lives.now == [old], "it runs on meanwhile"
    with kept_down(cluster, old.node, FENCE), cut_off(cluster, old.node):
        new = elsewhere(lives, old, "its node is cut off and has no fence", by=AFTER, died_by=AFTER)
    cluster.until_healthy()
    assert lives.now == [new]
    with kept_down(cluster, new.node, FENCE):
        cluster.inside(new.node, "docker", "kill", "--signal=KILL", new.container)
        lives.until(lambda: "the fence does not run" in alone.replicas()[0]["error"], 15, "it says why it is not started again")
        assert lives.now == []
    alone.until_whole(count=1)
    (again,) = lives.now
    assert again.container == new.container


def fence_pid(cluster: Cluster, node: str) -> int:
    return int(cluster.inside(node, "systemctl", "show", "-p", "MainPID", "--value", FENCE))


def test_docker_hangs_for_good_and_the_fence_ends_what_docker_cannot(cluster: Cluster, alone: App, lives: Lives) -> None:
    """Its agent lives and tells so; once the leader has given the replica up, the agent asks for no lease any more."""
    (old,) = lives.now
    with standing_still(cluster, old.node, "docker.service"):
        struck = time.monotonic()
        assert "Docker does not answer" in lives.until(lambda: alone.replicas()[0]["error"], 30, "it is said")
        new = elsewhere(lives, old, "its Docker hangs", by=DOCKER_WITHIN + 10.0 + AFTER, died_by=DOCKER_WITHIN + 10.0 + LEASE + KILL)
        assert old.ended - struck > DOCKER_WITHIN, "it may only be restarting"
    cluster.until_healthy()
    assert lives.now == [new]


def test_a_host_that_is_reset_runs_none_any_more(new_cluster: Callable[[str, int], Cluster], tmp_path: Path) -> None:
    cluster = new_cluster("f", 2)
    cluster.deploy()  # of two hosts, the second is a worker
    assert all(fenced(cluster, node) for node in cluster.names)
    with Lives(cluster.lab, BRIEF + 1) as lives:
        start(cluster, tmp_path, "pair", "web", "other", seconds=BRIEF + 1)
        pair = lives.until(lambda: lives.now if len(lives.now) == 2 else None, 10, "both run")
        old, other = sorted(pair, key=lambda life: life.node, reverse=True)
        assert (old.node, other.node) == ("node2", "node1")
        cluster.run("reset", "--limit", "node2", "--yes")
        assert lives.now == [other]
        assert not fenced(cluster, "node2")
        assert cluster.inside("node2", "docker", "ps", "-aq", "--filter", "label=hypermesh.allocation") == ""
        lives.until(lambda: len(lives.now) == 2, BACK_WITHIN + SOON, "the second one runs elsewhere")
        assert {life.node for life in lives.now} == {"node1"}
        lives.never_more_at_once_than(2)
