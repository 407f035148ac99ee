"""What the tests share: one cluster of four agents that each leaves whole, a lone agent of one's own, and a Docker that can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from cluster import ClusterOfProcesses
from docker_socket import DockerSocket


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfProcesses]:
    """Three control nodes (node1 to node3) and a worker (node4). Tests take `cluster`, which looks after them."""
    cluster = ClusterOfProcesses(tmp_path_factory.mktemp("cluster"), controls=3, workers=1)
    try:
        asyncio.run(cluster.bring_up())
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
async def cluster(processes: ClusterOfProcesses) -> AsyncIterator[ClusterOfProcesses]:
    """The shared cluster, whole before the test and whole after it."""
    processes.revive()  # what a test that failed has left dead or asleep
    await processes.until_whole("before the test")
    yield processes
    await processes.until_whole("after the test")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., ClusterOfProcesses]]:
    """Makes a cluster of one, not started, with settings of its own."""
    made: list[ClusterOfProcesses] = []

    def make(**overrides: object) -> ClusterOfProcesses:
        made.append(ClusterOfProcesses(tmp_path / f"alone{len(made)}", controls=1, **overrides))
        return made[-1]

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture
def lone(alone: Callable[..., ClusterOfProcesses]) -> ClusterOfProcesses:
    """A cluster of one, not started."""
    return alone()


@pytest.fixture
def docker(lone: ClusterOfProcesses) -> Iterator[DockerSocket]:
    """The lone node's Docker, not there yet."""
    docker = DockerSocket(lone.nodes["node1"].config.docker_socket)
    yield docker
    docker.go_on()
    docker.stop()
