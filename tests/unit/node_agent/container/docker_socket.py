"""Docker's API on a unix socket, as far as the agent asks: enough to stop, hang and come back at will."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    docker: DockerSocket


class DockerSocket:
    """`containers` are those that run, by their labels; `said` is what the list says of one beyond them, by its number.

    Every change is an event, as `docker run` and `docker kill` would make.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.containers: list[dict[str, str]] = []
        self.said: dict[int, dict[str, object]] = {}
        self.hanging = threading.Event()
        self.hanging.set()  # "set" lets answers through
        self.questions: list[str] = []
        self._news = threading.Condition()
        self._events = 0
        self._server: _Server | None = None

    def start(self) -> None:
        self.path.with_name("docker.pid").write_text("1")
        self._server = _Server(str(self.path), _Handler)
        self._server.docker = self
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Clean, as systemd does it: streams end, socket and pid file go."""
        server, self._server = self._server, None
        if server is None:
            return
        with self._news:
            self._news.notify_all()
        server.shutdown()
        server.server_close()
        self.path.unlink()
        self.path.with_name("docker.pid").unlink()

    def run(self, **labels: str) -> None:
        with self._news:
            self.containers.append({name.replace("_", "."): value for name, value in labels.items()})
            self._events += 1
            self._news.notify_all()

    def say(self, number: int, **said: object) -> None:
        """Container `number` has changed."""
        with self._news:
            self.said[number] = said
            self._events += 1
            self._news.notify_all()

    def summary(self, number: int) -> dict[str, object]:
        """The list's entry, as Docker 20.10 writes it."""
        return {
            "Id": str(number),
            "Names": [f"/c{number}"],
            "Labels": self.containers[number],
            "State": "running",
            "Status": "Up 2 seconds",
            "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": f"172.17.0.{number + 2}", "Gateway": "172.17.0.1"}}},
        } | self.said.get(number, {})

    def wait_for_news(self, server: _Server, seen: int) -> None:
        with self._news:
            self._news.wait_for(lambda: self._events != seen or self._server is not server, timeout=20)

    def hang(self) -> None:
        self.hanging.clear()

    def go_on(self) -> None:
        self.hanging.set()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        docker = self.server.docker
        url = urlsplit(self.path)
        docker.questions.append(url.path)
        docker.hanging.wait(20)
        filters = json.loads(parse_qs(url.query).get("filters", ["{}"])[0])
        match url.path.split("/")[-1]:
            case "version":
                self._answer({"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"})
            case "_ping":
                self._answer("OK")
            case "json":
                labels = [label.split("=", 1) for label in filters["label"]]
                ours = (n for n, has in enumerate(docker.containers) if all(has.get(k) == v for k, v in labels))
                self._answer([docker.summary(n) for n in ours])
            case "events":
                self._stream()
            case _:
                self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, body: object) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        docker = self.server.docker
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        seen = docker._events
        try:
            while docker._server is self.server:
                docker.wait_for_news(self.server, seen)
                for _ in range(docker._events - seen):
                    event = json.dumps({"Type": "container", "Action": "start"}).encode() + b"\n"
                    self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                self.wfile.flush()
                seen = docker._events
        except OSError:
            return
