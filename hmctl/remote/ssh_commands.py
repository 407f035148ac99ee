"""What is done on a host over its SSH connection: commands, run to their end or talked with, and what it means when the connection breaks
off. How connections are opened, and whom they are opened to, is hmctl/remote/ssh.py's business."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import asyncssh

from hmcore.errors import Unreachable
from hmctl.remote.base import Completed, shown
from hmctl.remote.identity import command_line

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

CHUNK = 256 * 1024


class Connections(Protocol):
    """Where a host's connection comes from (Connector)."""

    @property
    def ended(self) -> bool: ...

    async def lease(self, host: Host) -> asyncssh.SSHClientConnection:
        """One that stays open until it is released."""

    def release(self, host: Host, connection: asyncssh.SSHClientConnection) -> None: ...


class SshRemote:
    """A host over SSH, one connection at a time. Once a connection was lost while it was used, the host counts as gone."""

    def __init__(self, host: Host, connections: Connections) -> None:
        self.host = host
        self._connections = connections
        self._gone = False

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Path | None = None,
        sudo: bool = False,
        timeout: float,
        sent: Callable[[int], None] | None = None,
    ) -> Completed:
        connection = await self._lease(argv)
        try:
            with self._lost(argv, timeout):
                async with asyncio.timeout(timeout):
                    return await self._run(connection, argv, stdin, sudo, sent)
        finally:
            self._connections.release(self.host, connection)

    async def open_process(self, argv: Sequence[str], *, sudo: bool = False, timeout: float) -> SshProcess:
        with self._lost(argv, timeout):
            async with asyncio.timeout(timeout):  # the wait for a connection, too: others may hold theirs for as long
                connection = await self._lease(argv)
        try:
            with self._lost(argv, timeout):
                async with asyncio.timeout(timeout):
                    process = await self._start(connection, argv, sudo)
        except BaseException:
            self._connections.release(self.host, connection)
            raise
        return SshProcess(self, argv, process, lambda: self._connections.release(self.host, connection))

    async def _lease(self, argv: Sequence[str]) -> asyncssh.SSHClientConnection:
        """Waits for its turn without a limit: every other use of a connection ends by its own."""
        if self._gone or self._connections.ended:
            raise Unreachable(f"the SSH connection was lost during `{shown(argv)}`", host=self.host.name)
        return await self._connections.lease(self.host)

    async def _run(
        self,
        connection: asyncssh.SSHClientConnection,
        argv: Sequence[str],
        stdin: bytes | Path | None,
        sudo: bool,
        sent: Callable[[int], None] | None,
    ) -> Completed:
        process = await self._start(connection, argv, sudo)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_feed(process, stdin, sent), name=f"feed {self.host.name}")
                out = group.create_task(process.stdout.read(), name=f"stdout {self.host.name}")
                err = group.create_task(process.stderr.read(), name=f"stderr {self.host.name}")
            await process.wait_closed()
        finally:
            process.close()
        return Completed(_status(process), out.result(), err.result().decode(errors="replace"))

    async def _start(self, connection: asyncssh.SSHClientConnection, argv: Sequence[str], sudo: bool) -> asyncssh.SSHClientProcess[bytes]:
        root = connection.get_extra_info("username") == "root"
        command, preamble = command_line(self.host.ssh, argv, sudo and not root)
        process = await connection.create_process(command, encoding=None)
        if preamble:
            process.stdin.write(preamble)
        return process

    @contextmanager
    def _lost(self, argv: Sequence[str], timeout: float) -> Iterator[None]:
        """What can happen to a connection while it is used, in words."""
        try:
            yield
        except TimeoutError as error:
            raise Unreachable(f"`{shown(argv)}` has not ended within {timeout:g} s", host=self.host.name) from error
        except (asyncssh.Error, OSError) as error:
            self._gone = True
            raise Unreachable(f"the SSH connection was lost during `{shown(argv)}`", host=self.host.name) from error
        except ExceptionGroup as group:
            lost, other = group.split((asyncssh.Error, OSError))
            if other is not None:
                raise
            self._gone = True
            raise Unreachable(f"the SSH connection was lost during `{shown(argv)}`", host=self.host.name) from lost


class _Reader:
    """A remote command's stdout. A connection that is lost is an OSError, as on any other stream."""

    def __init__(self, reader: asyncssh.SSHReader[bytes]) -> None:
        self._reader = reader

    async def read(self, n: int = -1) -> bytes:
        with _broken():
            return await self._reader.read(n)

    async def readline(self) -> bytes:
        with _broken():
            return await self._reader.readline()

    async def readexactly(self, n: int) -> bytes:
        with _broken():
            return await self._reader.readexactly(n)


class _Writer:
    """A remote command's stdin, likewise."""

    def __init__(self, writer: asyncssh.SSHWriter[bytes]) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        with _broken():
            self._writer.write(data)

    async def drain(self) -> None:
        with _broken():
            await self._writer.drain()

    def write_eof(self) -> None:
        with _broken():
            self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except asyncssh.Error as error:
        raise ConnectionResetError("the SSH connection was lost") from error


class SshProcess:
    """A remote command that is talked with. Its connection is its own until it was waited for or killed."""

    def __init__(
        self, remote: SshRemote, argv: Sequence[str], process: asyncssh.SSHClientProcess[bytes], release: Callable[[], None]
    ) -> None:
        self._remote = remote
        self._argv = argv
        self._process = process
        self._release: Callable[[], None] | None = release
        self.stdout = _Reader(process.stdout)
        self.stdin = _Writer(process.stdin)

    async def wait(self, *, timeout: float) -> Completed:
        with self._remote._lost(self._argv, timeout):
            async with asyncio.timeout(timeout):
                out = await self._process.stdout.read()
                err = await self._process.stderr.read()
                await self._process.wait_closed()
        self._over()
        return Completed(_status(self._process), out, err.decode(errors="replace"))

    def kill(self) -> None:
        self._process.close()
        self._over()

    def _over(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


async def _feed(process: asyncssh.SSHClientProcess[bytes], content: bytes | Path | None, sent: Callable[[int], None] | None) -> None:
    """Writes `content` to the command, as fast as it reads. A command that ends early says why itself."""
    try:
        total = 0
        for chunk in _chunks(content):
            process.stdin.write(chunk)
            await process.stdin.drain()
            total += len(chunk)
            if sent is not None:
                sent(total)
        process.stdin.write_eof()
    except BrokenPipeError:
        return


def _chunks(content: bytes | Path | None) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]
    elif content is not None:
        with content.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


def _status(process: asyncssh.SSHClientProcess[bytes]) -> int:
    return -1 if process.exit_status is None else process.exit_status
