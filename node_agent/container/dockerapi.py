"""Docker's API over its socket, on the event loop: for streams, which the SDK (engine.py) reads in threads only. docs/adr/0099 says why.

Each request has a connection of its own, which ends with it. Questions are HTTP/1.0: the answer ends where the connection does.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from hmcore.errors import FrameError, LayerDown
from node_agent.container.refusals import refusal

FIX = "systemctl start docker"
CHUNK = 64 * 1024  # bytes read at a time
MOST_HEAD = 64 * 1024  # bytes
MOST_ANSWER = 4 * 1024 * 1024  # bytes

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?")
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class Head:
    """Of an answer. Names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]

    @property
    def length(self) -> int | None:
        """Of the body in bytes, if it was said."""
        said = self.headers.get("content-length", "")
        return int(said) if re.fullmatch("[0-9]{1,9}", said) else None


def parse_head(data: bytes) -> Head:
    """An answer's bytes up to its empty line. Total: anything else raises FrameError."""
    first, *rest = data.split(b"\r\n")
    found = _STATUS.fullmatch(first)
    if found is None:
        raise FrameError(f"no answer of HTTP: {first[:80]!r}")
    headers: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
    return Head(int(found[1]), headers)


def version_of(said: str) -> tuple[int, int] | None:
    """`1.41`, as Docker names the version of its API."""
    found = _VERSION.fullmatch(said)
    return (int(found[1]), int(found[2])) if found else None


class DockerStream:
    """What a request goes on as: bytes both ways, with the socket's back-pressure. What is written in vain spoils nothing of what is read.

    `close` frees it; nobody may be reading or writing then.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._early = b""  # read behind the head
        self.head = Head(0, {})

    async def read(self) -> bytes:
        """Some bytes as they come; empty at the end, which may be that Docker has gone. Raises LayerDown."""
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            return await asyncio.get_running_loop().sock_recv(self._connection, CHUNK)
        except ConnectionError:  # it closed with something unread that we wrote
            return b""
        except OSError as error:
            raise _gone() from error

    async def write(self, data: bytes) -> None:
        """Once there is room. Raises LayerDown."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, data)
        except OSError as error:
            raise _gone() from error

    def end_input(self) -> None:
        """No more is written. Raises LayerDown."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _gone() from error

    def close(self) -> None:
        self._connection.close()

    async def read_head(self) -> None:
        """Raises FrameError for what is none, LayerDown."""
        said = b""
        while b"\r\n\r\n" not in said:
            data = await self.read()
            if not data or len(said) > MOST_HEAD:
                raise FrameError("it ended within its head" if not data else f"a head of over {MOST_HEAD} bytes")
            said += data
        head, _, self._early = said.partition(b"\r\n\r\n")
        self.head = parse_head(head)


class DockerApi:
    """Docker at its socket. `timeout` (seconds) bounds each answer, of streams their beginning."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout

    async def version(self) -> tuple[int, int]:
        """Of the newest API that it speaks. Asked each time: Docker may be replaced under us. Raises LayerDown."""
        async with self._bounded():
            stream = await self._request("GET", "/_ping", None, upgrade=False)
            stream.close()
        found = version_of(stream.head.headers.get("api-version", ""))
        if stream.head.status != 200 or found is None:
            raise LayerDown(f"Docker on {self._path} does not say which API it speaks", fix="journalctl -u docker")
        return found

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> object:
        """The answer's JSON, None if it has none. Raises LayerDown, ContainerRefused."""
        path = await self._full(path, query)
        async with self._bounded():
            stream = await self._request(method, path, body, upgrade=False)
            try:
                return await self._json(stream)
            finally:
                stream.close()

    async def open(self, method: str, path: str, body: object = None, *, upgrade: bool = False, **query: str) -> DockerStream:
        """A stream, of which the caller is the owner. `upgrade`: both ways. Raises LayerDown, ContainerRefused."""
        path = await self._full(path, query)
        async with self._bounded():
            stream = await self._request(method, path, body, upgrade=upgrade)
            try:
                if stream.head.status not in (101, 200):
                    await self._json(stream)
                    raise LayerDown(f"Docker answered {path} with {stream.head.status}", fix="journalctl -u docker")
            except BaseException:
                stream.close()
                raise
            return stream

    async def _full(self, path: str, query: Mapping[str, str]) -> str:
        major, minor = await self.version()
        return f"/v{major}.{minor}{path}{'?' + urlencode(query) if query else ''}"

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise LayerDown(f"Docker does not answer on {self._path} within {self._timeout:g} s", fix="systemctl restart docker") from error
        except PermissionError as error:
            raise LayerDown(f"Docker's socket {self._path} may not be used by this user") from error
        except OSError as error:
            raise LayerDown(f"Docker does not answer on {self._path}", fix=FIX) from error
        except (FrameError, ValueError, RecursionError) as error:
            raise LayerDown(f"Docker's answer on {self._path} is none: {error}", fix="journalctl -u docker") from error

    async def _request(self, method: str, path: str, body: object, *, upgrade: bool) -> DockerStream:
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.{1 if upgrade else 0}", "Host: docker", f"Content-Length: {len(data)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, str(self._path))
            stream = DockerStream(connection)
            await stream.write("\r\n".join([*lines, "", ""]).encode() + data)
            await stream.read_head()
            return stream
        except BaseException:
            connection.close()
            raise

    async def _json(self, stream: DockerStream) -> object:
        body = bytearray()
        length = stream.head.length
        while length is None or len(body) < length:
            if not (data := await stream.read()):
                break
            body += data
            if len(body) > MOST_ANSWER:
                raise FrameError(f"over {MOST_ANSWER} bytes")
        said = json.loads(body) if body.strip() and "json" in stream.head.headers.get("content-type", "") else None
        if stream.head.status >= 400:
            words = said.get("message") if isinstance(said, dict) else body.decode(errors="replace")
            raise refusal(stream.head.status, str(words or ""))
        return said


def _gone() -> LayerDown:
    return LayerDown("Docker ended the connection", fix=FIX)
