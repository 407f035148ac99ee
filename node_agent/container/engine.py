"""Docker, as this node uses it. The one home of its SDK, which blocks and is slow to import: layer.py loads and calls it in threads."""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from hmcore.errors import LayerDown
from node_agent.container.info import ContainerInfo, containers_of

CLUSTER_LABEL = "hypermesh.cluster"  # on every container of ours, with the cluster's id
FIX = "systemctl start docker"
# What changes the list of containers. Not exec_*: a health check makes three of those each time it runs.
CHANGES = ("create", "start", "die", "destroy", "rename", "update", "pause", "unpause", "health_status")


class Engine:
    """Docker at its socket. Every call blocks, for `timeout` seconds at most, and raises LayerDown when Docker does not answer."""

    def __init__(self, socket: Path, cluster: str, timeout: float) -> None:
        self._socket = socket
        self._filters = {"label": f"{CLUSTER_LABEL}={cluster}"}
        try:
            _knock(socket, timeout)
            self._client: Any = docker.APIClient(base_url=f"unix://{socket}", version="auto", timeout=timeout, max_pool_size=4)
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise self._down(error) from error

    def close(self) -> None:
        self._client.close()

    def ping(self) -> None:
        self._ask(self._client.ping)

    def containers(self) -> dict[str, ContainerInfo]:
        """Our containers by id, also those that do not run. One question, however many there are."""
        return containers_of(self._ask(lambda: self._client.containers(all=True, filters=self._filters)))

    def watch(self, on_event: Callable[[], None], on_end: Callable[[], None]) -> Events:
        """Follow our containers in a thread of its own: an event stream parks its thread, and must not take one from the calls.

        `on_event` is called once the stream is open and after each event, `on_end` when it has ended; both in that thread.
        """
        return Events(self._client, self._filters, on_event, on_end)

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise self._down(error) from error

    def _down(self, error: Exception) -> LayerDown:
        if isinstance(error, docker.errors.APIError):
            return LayerDown(f"Docker refuses on {self._socket}: {error.explanation or error}", fix="journalctl -u docker")
        if isinstance(error.__cause__ or error, PermissionError):
            return LayerDown(f"Docker's socket {self._socket} may not be used by this user")
        return LayerDown(f"Docker does not answer on {self._socket}", fix=FIX)


def _knock(socket: Path, timeout: float) -> None:
    """See that somebody listens: the SDK leaks the socket of a connection that fails."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        probe.settimeout(timeout)
        probe.connect(str(socket))


class Events:
    """Docker's events about our containers, read by one thread until `close` or until Docker ends them."""

    def __init__(self, client: Any, filters: dict[str, Any], on_event: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._client = client
        self._filters = filters | {"type": "container", "event": list(CHANGES)}
        self._on_event = on_event
        self._on_end = on_end
        self._closed = threading.Event()
        self._stream: Any = None
        self._thread = threading.Thread(target=self._read, name="docker events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, AttributeError):  # the SDK trips over a stream that has ended already
                self._stream.close()

    def _read(self) -> None:
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException, OSError):  # its end is what `on_end` tells
            self._stream = self._client.events(filters=self._filters)
            if self._closed.is_set():
                self._hang_up()
            self._on_event()
            for _ in self._stream:
                self._on_event()
        if self._stream is not None:
            self._stream._response.close()  # or its socket stays open: `close` above only shuts it down, to wake this thread
        if not self._closed.is_set():
            self._on_end()
