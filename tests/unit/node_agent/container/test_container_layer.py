"""The container layer against a Docker that stops, hangs and comes back. The real Docker is tried in the lab."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from docker_socket import DockerSocket

from hmcore.errors import LayerDown, LayerMissing
from hmcore.records import ComponentState as S
from node_agent.container.ends import Unit
from node_agent.container.layer import ContainerLayer
from node_agent.container.questions import THREADS
from node_agent.platform.lifecycle import Backoff, Managed

CLUSTER = "hm-abc123defg"


@pytest.fixture
def docker(tmp_path) -> Iterator[DockerSocket]:
    socket = DockerSocket(tmp_path / "docker.sock")
    socket.start()
    yield socket
    socket.go_on()
    socket.stop()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- threads change it, too
            await asyncio.sleep(0.005)


@asynccontextmanager
async def supervised(layer: ContainerLayer) -> AsyncIterator[Managed]:
    managed = Managed(layer, check_interval=0.1, check_timeout=2, backoff=Backoff(first=0.02, ceiling=0.05))
    try:
        await managed.initialize()
    except (LayerDown, LayerMissing):
        assert managed.state is S.DEGRADED
    async with asyncio.TaskGroup() as tasks:
        managed.start(tasks, lambda error: None)
        yield managed
        await managed.stop()


async def test_counts_the_running_containers_of_this_cluster_as_they_come(docker):
    docker.run(hypermesh_cluster=CLUSTER)
    docker.run(hypermesh_cluster="hm-another")
    docker.run(app="not ours at all")
    layer = ContainerLayer(docker.path, CLUSTER, timeout=2)
    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        assert layer.running == 1
        docker.run(hypermesh_cluster=CLUSTER)
        await until(lambda: layer.running == 2)


async def test_tells_when_something_about_a_container_changed_and_only_then(docker):
    docker.run(hypermesh_cluster=CLUSTER, hypermesh_service="shop/web")
    told: list[dict[str, tuple[str, str]]] = []

    def changed() -> None:
        told.append({info.name: (info.state, info.health) for info in layer.containers().values()})

    layer = ContainerLayer(docker.path, CLUSTER, timeout=2, on_change=changed)
    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        assert layer.containers()["0"].service == "shop/web"
        docker.say(0, Status="Up 3 seconds (unhealthy)")
        await until(lambda: len(told) == 2)
        docker.say(0, Status="Up 5 minutes (unhealthy)")  # time goes by: nothing that anybody must hear of
        docker.say(0, State="exited", Status="Exited (137) 1 second ago")
        await until(lambda: layer.running == 0)
        docker.stop()
        await until(lambda: managed.state is S.DEGRADED)
        assert layer.containers() == {}
    assert told == [{"c0": ("running", "")}, {"c0": ("running", "unhealthy")}, {"c0": ("exited", "")}, {}]
    assert docker.questions.count("/v1.41/containers/json") >= 3
    assert sum(question.endswith("/0/json") for question in docker.questions) == 1, "why it is unhealthy; all else is in the list"


async def test_one_that_ended_is_asked_for_until_docker_lists_it_so(docker):
    """Docker 20.10 tells of the end before it lists it, and of nothing more when it does."""
    docker.run(hypermesh_cluster=CLUSTER)
    layer = ContainerLayer(docker.path, CLUSTER, timeout=2)

    def questions() -> int:
        return docker.questions.count("/v1.41/containers/json")

    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        docker.tell("die", 0)
        seen = questions()
        await until(lambda: questions() > seen + 2)
        assert layer.running == 1
        docker.said[0] = {"State": "exited", "Status": "Exited (0) 1 second ago"}  # no event
        await until(lambda: layer.running == 0)
        docker.said[0] = {}
        docker.tell("die", 0)
        docker.tell("start", 0)  # it runs indeed
        await until(lambda: layer.running == 1)
        assert layer._dying == {}


async def test_what_a_failing_health_check_says_is_asked_for_once(docker):
    docker.run(hypermesh_cluster=CLUSTER)
    asked = "/v1.41/containers/0/json"
    log = [{"ExitCode": 0, "Output": "fine"}, {"ExitCode": 1, "Output": "connection\n refused\n"}]
    docker.answers["GET /containers/0/json"] = 200, {"State": {"Health": {"Status": "unhealthy", "Log": log}}}
    layer = ContainerLayer(docker.path, CLUSTER, timeout=2)

    def complaint() -> str:
        return next((info.complaint for info in layer.containers().values()), "")

    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        assert asked not in docker.questions
        docker.say(0, Status="Up 2 seconds (unhealthy)")
        await until(lambda: complaint() == "connection refused")
        docker.say(0, Status="Up 3 seconds (unhealthy)", Names=["/other"])
        await until(lambda: next(iter(layer.containers().values())).name == "other")
        assert docker.questions.count(asked) == 1
        docker.say(0, Status="Up 4 seconds (healthy)")
        await until(lambda: complaint() == "")
        del docker.answers["GET /containers/0/json"]  # it is removed while it is asked for
        docker.say(0, Status="Up 5 seconds (unhealthy)")
        await until(lambda: docker.questions.count(asked) == 2)
        assert complaint() == ""


async def test_docker_stopped_and_started_is_degraded_and_running_again_by_itself(docker):
    layer = ContainerLayer(docker.path, CLUSTER, timeout=2)
    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        docker.stop()
        await until(lambda: managed.state is S.DEGRADED)
        assert layer.running is None
        docker.containers = [{"hypermesh.cluster": CLUSTER}]
        docker.start()
        await until(lambda: managed.state is S.RUNNING)
        await until(lambda: layer.running == 1)
        docker.run(hypermesh_cluster=CLUSTER)  # the new event stream works, too
        await until(lambda: layer.running == 2)
        assert managed.restarts == 0


async def test_a_docker_that_somebody_stopped_is_not_woken_through_its_socket(docker, monkeypatch):
    layer = ContainerLayer(docker.path, CLUSTER, timeout=2)
    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        docker.stop()
        knocks = DockerSocket(docker.path)
        knocks.start()  # systemd's socket: connecting would start dockerd
        docker.path.with_name("docker.pid").unlink()
        with pytest.raises(LayerDown):
            await layer.observe()
        assert (layer.engine, layer.images, await layer.machine("node1")) == (None, None, None)
        await until(lambda: managed.error is not None and "Docker is stopped" in managed.error)
        assert knocks.questions == []
        docker.path.with_name("docker.pid").write_text("1")
        await until(lambda: managed.state is S.RUNNING)
        knocks.stop()


@pytest.mark.long
async def test_a_hanging_docker_holds_up_nothing_and_is_named(docker):
    layer = ContainerLayer(docker.path, CLUSTER, timeout=0.1)
    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        docker.hang()
        await until(lambda: managed.state is S.DEGRADED)
        assert f"Docker does not answer on {docker.path}" in (managed.error or "")
        for _ in range(3 * THREADS):  # threads that never come back must not be made without end
            assert await layer.check() is not None
        assert sum(thread.name.startswith("docker_") for thread in threading.enumerate()) <= THREADS
        docker.go_on()
        await until(lambda: managed.state is S.RUNNING)
        await until(lambda: layer.running == 0)


def ran(started: float, finished: float) -> tuple[int, object]:
    """An answer about a container: when it ran, in seconds from now."""
    stamps = (datetime.fromtimestamp(time.time() + seconds, UTC).isoformat() for seconds in (started, finished))
    return 200, {"State": dict(zip(("StartedAt", "FinishedAt"), stamps, strict=True))}


async def test_what_ended_before_there_was_this_docker_ended_with_docker(docker):
    unit = Unit()
    docker.answers["GET /containers/old/json"] = ran(-50, -40)
    docker.answers["GET /containers/new/json"] = ran(+50, +60)
    layer = ContainerLayer(docker.path, CLUSTER, timeout=2, unit=lambda: unit)
    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        began = docker.path.with_name("docker.pid").stat().st_mtime
        assert await layer.ends(["old", "new", "gone"]) == {"old": began}
        unit = Unit(left=time.monotonic() - 5)
        assert await layer.ends(["old", "new"]) == {}, "it was done 35 s before Docker was told to stop"
        unit = Unit()
        docker.live_restore = True
        assert await layer.ends(["old", "new"]) == {}, "it could have run on"
        docker.answers["GET /containers/old/json"] = ran(-time.clock_gettime(time.CLOCK_BOOTTIME) - 1000, -1)
        assert await layer.ends(["old", "new"]) != {}, "but not while the machine was down"


async def test_while_docker_goes_or_comes_nobody_can_tell_what_ended_a_container(docker):
    unit = Unit(passing=True)
    docker.answers["GET /containers/old/json"] = ran(-50, 0)
    layer = ContainerLayer(docker.path, CLUSTER, timeout=2, unit=lambda: unit)
    with pytest.raises(LayerDown):
        await layer.ends(["old"])
    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        with pytest.raises(LayerDown, match="is being stopped or started"):
            await layer.ends(["old"])
        assert await layer.going()
        unit = Unit()
        assert not await layer.going()
        assert await layer.ends(["old"])
        away = docker.path.with_name("away")
        docker.path.rename(away)  # as one that nobody but dockerd itself listens on goes first, when it stops
        with pytest.raises(LayerDown, match="is being stopped or started"):
            await layer.ends(["old"])
        away.rename(docker.path)


async def test_a_docker_without_a_pid_file_is_not_told_from_another(docker):
    docker.path.with_name("docker.pid").unlink()
    docker.answers["GET /containers/old/json"] = ran(-50, -40)
    layer = ContainerLayer(docker.path, CLUSTER, timeout=2, unit=Unit)
    async with supervised(layer) as managed:
        await until(lambda: managed.state is S.RUNNING)
        assert await layer.ends(["old"]) == {}
    docker.path.with_name("docker.pid").touch()


async def test_not_installed_is_missing_and_says_how_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LayerMissing, match="Docker is not installed") as caught:
        await ContainerLayer(tmp_path / "docker.sock", CLUSTER, timeout=1).initialize()
    assert caught.value.fix == "apt-get install docker.io"


async def test_installed_but_not_running_is_down(tmp_path, monkeypatch):
    dockerd = tmp_path / "dockerd"
    dockerd.write_text("#!/bin/sh\n")
    dockerd.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LayerDown, match="Docker is not running") as caught:
        await ContainerLayer(tmp_path / "docker.sock", CLUSTER, timeout=1).initialize()
    assert caught.value.fix == "systemctl start docker"


async def test_a_socket_that_nobody_serves_is_down(tmp_path):
    dead = DockerSocket(tmp_path / "docker.sock")
    dead.start()
    os.link(dead.path, tmp_path / "kept")
    dead.stop()
    os.link(tmp_path / "kept", dead.path)
    layer = ContainerLayer(dead.path, CLUSTER, timeout=1)
    with pytest.raises(LayerDown, match="Docker does not answer on"):
        await layer.initialize()
    await layer.stop()
