"""What the engine asks of Docker to change a container, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_socket import DockerSocket

from hmcore.errors import ContainerRefused, ImageGone, LayerDown, NameTaken, PartGone
from node_agent.container import engine as engine_module
from node_agent.container.engine import Engine


@pytest.fixture
def docker(tmp_path) -> Iterator[DockerSocket]:
    socket = DockerSocket(tmp_path / "docker.sock")
    socket.start()
    yield socket
    socket.go_on()
    socket.stop()


@pytest.fixture
def engine(docker: DockerSocket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(engine_module, "HANDS_TIMEOUT", 0.3)
    made = Engine(docker.path, "hm-abc123defg", timeout=5)
    yield made
    made.close()


def test_create_sends_the_body_as_it_is_and_gives_the_id(docker: DockerSocket, engine: Engine) -> None:
    docker.answers["POST /containers/create"] = 201, {"Id": "c1", "Warnings": []}
    body = {"Image": "sha256:1", "HostConfig": {"RestartPolicy": {"Name": "no"}, "Dns": []}}
    assert engine.create("shop-web-1-7", body) == "c1"
    assert docker.changes == [("POST /containers/create?name=shop-web-1-7", body)]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, "No such image: sha256:1", ImageGone),
        (409, 'Conflict. The container name "/x" is already in use by container "y".', NameTaken),
        (400, "invalid mount config", ContainerRefused),
        (500, "something", ContainerRefused),
    ],
)
def test_a_refusal_is_of_its_kind(docker: DockerSocket, engine: Engine, status: int, message: str, kind: type[ContainerRefused]) -> None:
    docker.answers["POST /containers/create"] = status, {"message": message}
    with pytest.raises(kind) as caught:
        engine.create("x", {})
    assert type(caught.value) is kind
    assert caught.value.message == message


def test_start_is_fine_when_it_runs_already(docker: DockerSocket, engine: Engine) -> None:
    for status in (204, 304):
        docker.answers["POST /containers/c1/start"] = status, ""
        engine.start("c1")
    docker.answers["POST /containers/c1/start"] = 404, {"message": "network x not found"}
    with pytest.raises(PartGone):
        engine.start("c1")


@pytest.mark.parametrize(("config", "signal"), [({"StopSignal": "SIGQUIT"}, "SIGQUIT"), ({}, "SIGTERM"), ({"StopSignal": ""}, "SIGTERM")])
def test_stop_sends_the_signal_that_the_container_wants_and_does_not_wait(
    docker: DockerSocket, engine: Engine, config: dict[str, str], signal: str
) -> None:
    docker.answers["GET /containers/c1/json"] = 200, {"Id": "c1", "Config": config}
    docker.answers["POST /containers/c1/kill"] = 204, ""
    engine.signal_stop("c1")
    assert docker.changes == [(f"POST /containers/c1/kill?signal={signal}", None)]


def test_what_is_gone_or_has_ended_needs_no_signal(docker: DockerSocket, engine: Engine) -> None:
    docker.answers["GET /containers/c1/json"] = 404, {"message": "No such container: c1"}
    engine.signal_stop("c1")
    assert docker.changes == []
    for status in (404, 409):
        docker.answers["POST /containers/c1/kill"] = status, {"message": "Container c1 is not running"}
        engine.kill("c1")
        docker.answers["GET /containers/c1/json"] = 200, {"Id": "c1", "Config": {}}
        engine.signal_stop("c1")
    docker.answers["POST /containers/c1/kill"] = 500, {"message": "no"}
    with pytest.raises(ContainerRefused):
        engine.kill("c1")


def test_remove_takes_anonymous_volumes_along_and_never_forces(docker: DockerSocket, engine: Engine) -> None:
    docker.answers["DELETE /containers/c1"] = 204, ""
    engine.remove("c1")
    assert docker.changes == [("DELETE /containers/c1?v=True&link=False&force=False", None)]
    docker.answers["DELETE /containers/c1"] = 404, {"message": "No such container: c1"}
    engine.remove("c1")
    docker.answers["DELETE /containers/c1"] = 409, {"message": "removal of container c1 is already in progress"}
    engine.remove("c1")
    docker.answers["DELETE /containers/c1"] = 409, {"message": "You cannot remove a running container c1."}
    with pytest.raises(ContainerRefused, match="running"):
        engine.remove("c1")


def test_a_volume_that_must_be_there(docker: DockerSocket, engine: Engine) -> None:
    docker.answers["GET /volumes/data"] = 200, {"Name": "data"}
    engine.require_volume("data")
    docker.answers["GET /volumes/data"] = 404, {"message": "get data: no such volume"}
    with pytest.raises(PartGone, match="its volume data is not on this node") as caught:
        engine.require_volume("data")
    assert caught.value.fix == "docker volume create data"


def test_a_docker_that_hangs_is_not_waited_for_for_ever(docker: DockerSocket, engine: Engine) -> None:
    docker.hang()
    with pytest.raises(LayerDown):
        engine.start("c1")


def test_a_docker_that_is_gone_is_down(docker: DockerSocket, engine: Engine) -> None:
    docker.stop()
    for deed in (lambda: engine.create("x", {}), lambda: engine.remove("c1"), lambda: engine.signal_stop("c1")):
        with pytest.raises(LayerDown):
            deed()
    docker.start()
