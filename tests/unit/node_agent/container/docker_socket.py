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
        self.live_restore = False
        self.answers: dict[str, tuple[int, object]] = {}  # to changes, and to `GET` of one thing: by method and path, without the version
        self.changes: list[tuple[str, object]] = []  # method, path and query of each, and its body
        self._news = threading.Condition()
        self._events: list[dict[str, object]] = []
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
        self.tell("start", len(self.containers) - 1)

    def say(self, number: int, **said: object) -> None:
        """Container `number` has changed."""
        self.said[number] = said
        self.tell("update", number)

    def tell(self, action: str, number: int) -> None:
        """An event, whatever the list says."""
        with self._news:
            self._events.append({"Type": "container", "Action": action, "Actor": {"ID": str(number), "Attributes": {}}})
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
            self._news.wait_for(lambda: len(self._events) != seen or self._server is not server, timeout=20)

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
            case "info":
                self._answer(
                    {
                        "CgroupDriver": "systemd",
                        "Driver": "overlay2",
                        "NCPU": 2,
                        "MemTotal": 4 << 30,
                        "LiveRestoreEnabled": docker.live_restore,
                    }
                )
            case "json" if url.path.endswith("/images/json"):
                self._answer([])
            case "json" if url.path.endswith("/containers/json"):
                labels = [label.split("=", 1) for label in filters["label"]]
                ours = (n for n, has in enumerate(docker.containers) if all(has.get(k) == v for k, v in labels))
                self._answer([docker.summary(n) for n in ours])
            case "events":
                self._stream()
            case _ if (known := f"GET {self._plain(url.path)}") in docker.answers:
                self._answer_as_told(known)
            case _:
                self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        docker = self.server.docker
        docker.hanging.wait(20)
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = f"?{url.query}" if url.query else ""
        docker.changes.append((f"{self.command} {self._plain(url.path)}{query}", json.loads(body) if body else None))
        self._answer_as_told(f"{self.command} {self._plain(url.path)}")

    def do_DELETE(self) -> None:
        self.do_POST()

    def _plain(self, path: str) -> str:
        return path.removeprefix("/v1.41")

    def _answer_as_told(self, question: str) -> None:
        status, body = self.server.docker.answers.get(question, (404, {"message": f"page not found: {question}"}))
        self._answer(body, status)

    def _answer(self, body: object, status: int = 200) -> None:
        data = b"" if status in (204, 304) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
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
        seen = len(docker._events)
        try:
            while docker._server is self.server:
                docker.wait_for_news(self.server, seen)
                news = docker._events[seen:]
                for each in news:
                    event = json.dumps(each).encode() + b"\n"
                    self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                self.wfile.flush()
                seen += len(news)
        except OSError:
            return
