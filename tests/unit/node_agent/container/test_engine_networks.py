"""What the engine asks of Docker about networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_socket import DockerSocket

from hmcore.errors import ContainerRefused
from node_agent.container.engine import Engine
from node_agent.network.docker import creation


@pytest.fixture
def docker(tmp_path) -> Iterator[DockerSocket]:
    socket = DockerSocket(tmp_path / "docker.sock")
    socket.start()
    yield socket
    socket.stop()


@pytest.fixture
def engine(docker: DockerSocket) -> Iterator[Engine]:
    made = Engine(docker.path, "hm-abc123defg", timeout=5)
    yield made
    made.close()


def test_a_network_is_looked_up_by_its_name(docker: DockerSocket, engine: Engine) -> None:
    docker.answers["GET /networks/hypermesh"] = 200, {"Name": "hypermesh", "Driver": "bridge"}
    assert engine.network("hypermesh") == {"Name": "hypermesh", "Driver": "bridge"}
    docker.answers["GET /networks/hypermesh"] = 404, {"message": "network hypermesh not found"}
    assert engine.network("hypermesh") is None


def test_all_that_makes_the_bridge_ours_reaches_docker(docker: DockerSocket, engine: Engine) -> None:
    docker.answers["POST /networks/create"] = 201, {"Id": "n1", "Warning": ""}
    body = creation("10.210.3.0/24", 1500, "hm-abc123defg")
    engine.create_network(body)
    ((path, sent),) = docker.changes
    assert path == "POST /networks/create"
    assert sent == {name: value for name, value in body.items() if name != "EnableIPv6"}  # which is Docker's default
    docker.answers["POST /networks/create"] = 403, {"message": "Pool overlaps with other one on this address space"}
    with pytest.raises(ContainerRefused, match="Pool overlaps"):
        engine.create_network(body)


def test_a_network_in_use_is_not_removed_and_one_that_is_gone_is_fine(docker: DockerSocket, engine: Engine) -> None:
    for status in (204, 404):
        docker.answers["DELETE /networks/hypermesh"] = status, {"message": "network hypermesh not found"} if status == 404 else ""
        engine.remove_network("hypermesh")
    docker.answers["DELETE /networks/hypermesh"] = 403, {"message": "error while removing network: it has active endpoints"}
    with pytest.raises(ContainerRefused, match="active endpoints"):
        engine.remove_network("hypermesh")


def test_a_container_is_put_back_with_the_address_that_it_had(docker: DockerSocket, engine: Engine) -> None:
    docker.answers["POST /networks/hypermesh/connect"] = 200, ""
    for status in (200, 404):
        docker.answers["POST /networks/hypermesh/disconnect"] = status, {"message": "not connected"} if status == 404 else ""
        engine.reattach("hypermesh", "c1", "10.210.3.2")
    assert docker.changes[:2] == [
        ("POST /networks/hypermesh/disconnect", {"Container": "c1", "Force": True}),
        ("POST /networks/hypermesh/connect", {"Container": "c1", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.210.3.2"}}}),
    ]
    docker.answers["POST /networks/hypermesh/connect"] = 409, {"message": "container is not running"}
    with pytest.raises(ContainerRefused, match="not running"):
        engine.reattach("hypermesh", "c1", "10.210.3.2")
