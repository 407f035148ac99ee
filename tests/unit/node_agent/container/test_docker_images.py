"""The SDK's calls about images, against a socket that answers as Docker does."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from hmcore.errors import BlobMissing, ImageUnavailable, LayerDown, NoSpace, RegistryDenied, RegistrySilent
from node_agent.container import engine_images
from node_agent.container.engine_images import DockerImages
from node_agent.container.local_images import LocalImage

ID = "sha256:" + "ab" * 32


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        self.asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.loaded = b""
        self.says: list[object] = []
        self.status = 200
        self.silent = False
        self.root: object = str(path.parent)
        self.breaks_off = False  # in the middle of what it is sent
        self.gone = threading.Event()  # somebody hung up on us
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(unquote(self.path))
        if url.path.endswith("/version"):
            self._json({"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"})
        elif url.path.endswith("/_ping"):
            self._json("OK")
        elif url.path.endswith("/info"):
            self._json({"DockerRootDir": self.server.root, "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]})
        elif "/distribution/" in url.path:
            self.server.asked.append((url.path.partition("/distribution/")[2], {}, dict(self.headers)))
            self._json(self.server.says[0], self.server.status)
        elif url.path.endswith("/images/json"):
            self._json([{"Id": ID, "RepoTags": ["web:1"]}])
        elif url.path.endswith("/images/web:1/json"):
            self._json({"Id": ID, "RepoTags": ["web:1"], "RootFS": {"Layers": ["sha256:x"]}})
        elif url.path.endswith("/images/broken/json"):
            self._json({"message": "the disk is on fire"}, 500)
        else:
            self._json({"message": "No such image"}, 404)

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        self.server.asked.append((url.path.split("/", 2)[2], parse_qs(url.query), dict(self.headers)))
        if self.server.breaks_off:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline() or b"0", 16):
                self.server.loaded += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        if self.server.status != 200:
            self._json({"message": "no"}, self.server.status)
            return
        self.close_connection = True
        try:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")  # or who asks again may do so on what is being closed
            self.end_headers()
            for said in self.server.says:
                line = json.dumps(said).encode() + b"\r\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
            if self.server.silent:
                self.rfile.read(1)  # until whoever asked hangs up
                self.server.gone.set()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.gone.set()

    def _json(self, body: object, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "docker.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def docker(server: Server, tmp_path: Path) -> Iterator[DockerImages]:
    docker = DockerImages(tmp_path / "docker.sock", 5.0)
    yield docker
    docker.close()


def test_images_are_listed_and_found(docker: DockerImages) -> None:
    assert docker.images() == [LocalImage(ID, ("web:1",))]
    assert docker.find("web:1") == LocalImage(ID, ("web:1",), ("sha256:x",))
    assert docker.find("no:1") is None
    assert not docker.skips_layers()
    with pytest.raises(ImageUnavailable, match="on fire"):
        docker.find("broken")


def test_a_registry_is_asked_what_a_tag_is(server: Server, docker: DockerImages) -> None:
    server.says = [{"Descriptor": {"digest": ID, "size": 1}, "Platforms": []}]
    assert docker.manifest("example.org/web", "2", ("anna", "secret")) == ID
    (path, _, headers) = server.asked[0]
    assert path == "example.org/web:2/json"
    assert json.loads(base64.urlsafe_b64decode(headers["X-Registry-Auth"])) == {"username": "anna", "password": "secret"}
    for said in ({}, {"Descriptor": {"digest": "x"}}, {"Descriptor": {"digest": 1}}):
        server.says = [said]
        with pytest.raises(ImageUnavailable, match="does not say"):
            docker.manifest("web", "2", None)
    server.says, server.status = [{"message": "pull access denied"}], 403
    with pytest.raises(RegistryDenied, match="denied"):
        docker.manifest("web", "2", None)
    server.says, server.status = [{"message": "manifest unknown: manifest unknown"}], 404
    with pytest.raises(ImageUnavailable, match="refuses: manifest unknown") as error:
        docker.manifest("web", "2", None)
    assert type(error.value) is ImageUnavailable
    server.says, server.status = [{"message": 'Get "https://example.org/v2/": dial tcp 10.0.0.1:443: i/o timeout'}], 500
    with pytest.raises(RegistrySilent, match=r"Docker says: Get .* i/o timeout"):
        docker.manifest("example.org/web", "2", None)


def test_an_archive_is_loaded_as_it_comes(server: Server, docker: DockerImages) -> None:
    server.says = [{"stream": "Loaded image: web:1\n"}]
    docker.load(iter([b"one", b"two"]))
    assert server.loaded == b"onetwo"
    server.says = [{"errorDetail": {"message": "x"}, "error": "no space left on device"}]
    with pytest.raises(NoSpace, match="no space"):
        docker.load(iter([b"x"]))
    server.status = 500
    with pytest.raises(ImageUnavailable, match="no"):
        docker.load(iter([b"x"]))


def test_what_an_archive_raises_is_what_is_told(docker: DockerImages) -> None:
    def archive() -> Iterator[bytes]:
        yield b"one"
        raise BlobMissing("the blob is gone")

    with pytest.raises(BlobMissing, match="gone"):
        docker.load(archive())

    def failing() -> Iterator[bytes]:
        yield b"one"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        docker.load(failing())


def test_docker_that_breaks_off_is_not_said_to_be_away(server: Server, docker: DockerImages, tmp_path: Path) -> None:
    server.breaks_off = True
    with pytest.raises(ImageUnavailable, match="broke off"):
        docker.load(iter([b"x" * 1_000_000] * 20))
    server.shutdown()
    (tmp_path / "docker.sock").unlink()
    with pytest.raises(LayerDown):
        docker.load(iter([b"x"]))


@pytest.mark.parametrize("root", [None, 7, "/not/there", "/a\0b"])
def test_the_room_on_dockers_disk_is_told_where_it_can_be(server: Server, docker: DockerImages, tmp_path: Path, root: object) -> None:
    usage = shutil.disk_usage(tmp_path)
    assert abs((docker.room() or 0) - usage.free) < usage.total // 10
    server.root = root
    assert docker.room() is None


def test_a_pull_sends_credentials_and_tells_how_far_it_is(server: Server, docker: DockerImages) -> None:
    server.says = [{"status": "Downloading"}, {"status": "done"}]
    seen: list[object] = []
    docker.pull("example.org/web", "2", ("anna", "secret"), lambda said: seen.append(said) is None)
    (path, query, headers) = server.asked[0]
    assert (path, query) == ("images/create", {"fromImage": ["example.org/web"], "tag": ["2"]})
    assert json.loads(base64.urlsafe_b64decode(headers["X-Registry-Auth"])) == {"username": "anna", "password": "secret"}
    assert seen == server.says
    docker.pull("web", "2", None, lambda said: True)
    assert "X-Registry-Auth" not in server.asked[1][2]
    server.says = [{"error": "pull access denied"}]
    with pytest.raises(RegistryDenied, match="denied"):
        docker.pull("web", "2", None, lambda said: True)
    server.status = 404
    with pytest.raises(ImageUnavailable):
        docker.pull("web", "2", None, lambda said: True)


def test_a_pull_that_is_given_up_hangs_up(server: Server, docker: DockerImages) -> None:
    server.says, server.silent = [{"status": "Downloading"}], True
    docker.pull("web", "2", None, lambda said: False)
    assert server.gone.wait(10)


def test_a_pull_in_which_nothing_comes_any_more_ends(server: Server, docker: DockerImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_images, "SILENCE", 0.2)
    server.says, server.silent = [{"status": "Downloading"}], True
    with pytest.raises(LayerDown):
        docker.pull("web", "2", None, lambda said: True)


def test_without_docker_it_is_down(tmp_path: Path) -> None:
    with pytest.raises(LayerDown):
        DockerImages(tmp_path / "docker.sock", 5.0)
