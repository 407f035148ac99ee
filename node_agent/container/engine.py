"""Docker, as this node uses it. With engine_images.py the one home of its SDK, which blocks and is slow to import: layer.py loads and calls
it in threads.

What changes containers has a connection pool and a timeout of its own: to start one may take long where to answer may not.
"""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import node_agent.container.sdk  # noqa: F401 -- before what it prepares

# isort: split

import docker
import docker.errors
import requests

from hmcore.apps.records import Machine
from hmcore.errors import ContainerRefused, LayerDown, PartGone
from node_agent.container.creation import Body
from node_agent.container.ends import Run, run_of
from node_agent.container.executor import HANDS
from node_agent.container.info import CLUSTER, ContainerInfo, complaint_of, containers_of
from node_agent.container.machine import machine_of
from node_agent.container.refusals import refusal

FIX = "systemctl start docker"
# What changes the list of containers. Not exec_*: a health check makes three of those each time it runs.
CHANGES = ("create", "start", "die", "destroy", "rename", "update", "pause", "unpause", "health_status")

HANDS_TIMEOUT = 60.0  # seconds that Docker may take to carry something out; killing alone may take it ten


class Engine:
    """Docker at its socket. Every call blocks, for `timeout` seconds at most, and raises LayerDown when Docker does not answer.

    What changes a container blocks for HANDS_TIMEOUT at most, and raises ContainerRefused, of its kind, when Docker answers: no.
    """

    def __init__(self, socket: Path, cluster: str, timeout: float) -> None:
        self._socket = socket
        self._filters = {"label": f"{CLUSTER}={cluster}"}
        try:
            knock(socket, timeout)
            self._client: Any = docker.APIClient(base_url=f"unix://{socket}", version="auto", timeout=timeout, max_pool_size=4)
            self._hands: Any = docker.APIClient(
                base_url=f"unix://{socket}", version=self._client.api_version, timeout=HANDS_TIMEOUT, max_pool_size=HANDS
            )
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise self._down(error) from error

    def cgroup_driver(self) -> str:
        """`systemd` or `cgroupfs`."""
        return str(self._ask(self._client.info).get("CgroupDriver", ""))

    def close(self) -> None:
        self._client.close()
        self._hands.close()

    def ping(self) -> None:
        self._ask(self._client.ping)

    def containers(self) -> dict[str, ContainerInfo]:
        """Our containers by id, also those that do not run. One question, however many there are."""
        return containers_of(self._ask(lambda: self._client.containers(all=True, filters=self._filters)))

    def complaint(self, container: str) -> str:
        """Why it is unhealthy, in its health check's words; empty: Docker does not say."""
        try:
            return complaint_of(self._ask(lambda: self._client.inspect_container(container)))
        except LayerDown as error:
            if isinstance(error.__cause__, docker.errors.NotFound):
                return ""
            raise

    def run(self, container: str) -> Run | None:
        """Its last one; None: Docker does not say, or it is gone."""
        try:
            return run_of(self._ask(lambda: self._client.inspect_container(container)))
        except LayerDown as error:
            if isinstance(error.__cause__, docker.errors.NotFound):
                return None
            raise

    def live_restore(self) -> bool:
        """Whether containers run on while Docker is away."""
        return self._ask(self._client.info).get("LiveRestoreEnabled") is True

    def machine(self, node: str) -> Machine:
        """What there is for containers. Docker counts the processors and the memory that it may use itself."""
        info = self._ask(self._client.info)
        images = self._ask(lambda: self._client.images(all=False))
        volumes = self._ask(self._client.volumes)
        return machine_of(node, info, images, volumes)

    def create(self, name: str, body: Body) -> str:
        """Its id. Raises NameTaken, ImageGone, PartGone, NoSpace or another ContainerRefused."""
        return str(self._do(lambda: self._hands.create_container_from_config(dict(body), name))["Id"])

    def start(self, container: str) -> None:
        """It runs, or did already. Raises PartGone, PortTaken, NoSpace or another ContainerRefused."""
        self._do(lambda: self._hands.start(container))

    def signal_stop(self, container: str) -> None:
        """Send it the signal that it, or its image, wants as its stop signal. One that does not run, or is gone, needs none."""
        told = self._do(lambda: self._hands.inspect_container(container), gone_is_fine=True)
        if told is not None:
            signal = told.get("Config", {}).get("StopSignal") or "SIGTERM"
            self._do(lambda: self._hands.kill(container, signal), gone_is_fine=True, conflict_is_fine=True)

    def kill(self, container: str) -> None:
        """SIGKILL. One that does not run, or is gone, needs none."""
        self._do(lambda: self._hands.kill(container), gone_is_fine=True, conflict_is_fine=True)

    def remove(self, container: str) -> None:
        """And its anonymous volumes; named ones stay. Raises ContainerRefused if it runs. One that is being removed, or gone, is fine."""
        try:
            self._do(lambda: self._hands.remove_container(container, v=True), gone_is_fine=True)
        except ContainerRefused as error:
            if "already in progress" not in error.message:
                raise

    def require_volume(self, name: str) -> None:
        """Raises PartGone unless there is a volume of that name."""
        try:
            self._do(lambda: self._hands.inspect_volume(name))
        except PartGone as error:
            raise PartGone(f"its volume {name} is not on this node", fix=f"docker volume create {name}") from error

    def network(self, name: str) -> object | None:
        """What Docker says of a network of that name; None if there is none."""
        found: object | None = self._do(lambda: self._hands.inspect_network(name), gone_is_fine=True)
        return found

    def create_network(self, body: Body) -> None:
        """As in `POST /networks/create`. Raises ContainerRefused, among others where its addresses are another's."""
        self._do(
            lambda: self._hands.create_network(
                body["Name"],
                driver=body["Driver"],
                options=body["Options"],
                ipam=body["IPAM"],
                check_duplicate=body["CheckDuplicate"],
                labels=body["Labels"],
            )
        )

    def remove_network(self, name: str) -> None:
        """Raises ContainerRefused while a container is attached to it. One that is gone is fine."""
        self._do(lambda: self._hands.remove_network(name), gone_is_fine=True)

    def reattach(self, network: str, container: str, address: str) -> None:
        """Take a running container off the network and put it back, with the same address. Raises ContainerRefused."""
        self._do(lambda: self._hands.disconnect_container_from_network(container, network, force=True), gone_is_fine=True)
        self._do(lambda: self._hands.connect_container_to_network(container, network, ipv4_address=address))

    def watch(self, on_event: Callable[[str, str], None], on_end: Callable[[], None]) -> Events:
        """Follow our containers in a thread of its own: an event stream parks its thread, and must not take one from the calls.

        `on_event` is called once the stream is open, with nothing, and after each event, with what happened (of CHANGES) and the id of the
        container; `on_end` when it has ended; both in that thread.
        """
        return Events(self._client, self._filters, on_event, on_end)

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise self._down(error) from error

    def _do(self, deed: Callable[[], Any], *, gone_is_fine: bool = False, conflict_is_fine: bool = False) -> Any:
        """What it gives. None: it is not there, or not in a state for it, and that is fine."""
        try:
            knock(self._socket, HANDS_TIMEOUT)
            return deed()
        except docker.errors.APIError as error:
            status = error.status_code or 0
            if (gone_is_fine and status == 404) or (conflict_is_fine and status == 409):
                return None
            raise refusal(status, str(error.explanation or error)) from error
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise self._down(error) from error

    def _down(self, error: Exception) -> LayerDown:
        if isinstance(error, docker.errors.APIError):
            return LayerDown(f"Docker refuses on {self._socket}: {error.explanation or error}", fix="journalctl -u docker")
        if isinstance(error.__cause__ or error, PermissionError):
            return LayerDown(f"Docker's socket {self._socket} may not be used by this user")
        return LayerDown(f"Docker does not answer on {self._socket}", fix=FIX)


def knock(socket: Path, timeout: float) -> None:
    """See that somebody listens: the SDK leaks the socket of a connection that fails."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        probe.settimeout(timeout)
        probe.connect(str(socket))


class Events:
    """Docker's events about our containers, read by one thread until `close` or until Docker ends them."""

    def __init__(self, client: Any, filters: dict[str, Any], on_event: Callable[[str, str], None], on_end: Callable[[], None]) -> None:
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
        ends = (docker.errors.DockerException, docker.errors.StreamParseError, requests.RequestException, OSError)
        with contextlib.suppress(*ends):  # its end is what `on_end` tells
            self._stream = self._client.events(filters=self._filters, decode=True)
            if self._closed.is_set():
                self._hang_up()
            self._on_event("", "")
            for event in self._stream:
                self._on_event(str(event.get("Action", "")), str((event.get("Actor") or {}).get("ID", "")))
        if self._stream is not None:
            self._stream._response.close()  # or its socket stays open: `close` above only shuts it down, to wake this thread
        if not self._closed.is_set():
            self._on_end()
