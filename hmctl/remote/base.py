"""What a phase may ask of a host. Everything is an argv, bounded by a timeout, and answers with bytes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hmcore.errors import CommandFailed, HostKeyMismatch

if TYPE_CHECKING:
    from hmcore.config.inventory import Host


@dataclass(frozen=True, slots=True)
class Completed:
    """How a remote command ended. `status` is -1 when a signal ended it."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True, slots=True)
class Script:
    """A few lines of POSIX sh that change one thing on a host. Whatever varies is an argument ($1, $2 ...), never spliced in.

    `name` becomes $0: it shows in `ps`, and is how the host in memory knows what it is asked to do.
    """

    name: str
    text: str

    def argv(self, *arguments: str) -> list[str]:
        return ["sh", "-c", self.text, self.name, *arguments]


class ByteReader(Protocol):
    """Raises OSError when the connection is lost, as asyncio's own streams do; ByteWriter, too."""

    async def read(self, n: int = -1) -> bytes: ...
    async def readline(self) -> bytes: ...
    async def readexactly(self, n: int) -> bytes: ...


class ByteWriter(Protocol):
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...


class Process(Protocol):
    """A command that runs on while we talk with it: the relay, a journal that is followed, the port probe."""

    @property
    def stdout(self) -> ByteReader: ...

    @property
    def stdin(self) -> ByteWriter: ...

    async def wait(self, *, timeout: float) -> Completed:
        """Its end; `stdout` holds what nobody has read."""

    def kill(self) -> None: ...


class Remote(Protocol):
    """A host that we can reach. `timeout` is in seconds and raises Unreachable when it passes, as a lost connection does.

    `sudo` means: as root. It costs nothing where we are root already.
    """

    host: Host

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Path | None = None,
        sudo: bool = False,
        timeout: float,
        sent: Callable[[int], None] | None = None,
    ) -> Completed:
        """Runs a command to its end, whatever its status. `sent` hears how many bytes of stdin are on their way."""

    async def open_process(self, argv: Sequence[str], *, sudo: bool = False, timeout: float) -> Process: ...


# Beside, then renamed: nobody ever reads half a file. The mode is right before the first byte is there.
PUT = Script(
    "hm-put",
    'set -e; umask 077; mkdir -p -- "$(dirname -- "$1")"; t="$1.hm-new"; trap \'rm -f -- "$t"\' EXIT; '
    'cat > "$t"; chmod -- "$2" "$t"; mv -f -T -- "$t" "$1"',
)


async def check(
    remote: Remote,
    argv: Sequence[str],
    *,
    stdin: bytes | Path | None = None,
    sudo: bool = True,
    timeout: float,
    sent: Callable[[int], None] | None = None,
) -> bytes:
    """Runs a command that must succeed, as root; its stdout. Raises CommandFailed."""
    done = await remote.run(argv, stdin=stdin, sudo=sudo, timeout=timeout, sent=sent)
    if done.status != 0:
        raise CommandFailed(shown(argv), done.status, done.stderr, host=remote.host.name)
    return done.stdout


async def put(remote: Remote, content: bytes, path: str, *, mode: int, timeout: float = 30.0) -> None:
    """Writes a file on the host, atomically. Directories that are missing are made, for root only."""
    await check(remote, PUT.argv(path, f"{mode:o}"), stdin=content, timeout=timeout)


async def get(remote: Remote, path: str, *, timeout: float = 30.0) -> bytes:
    """A file's content. Raises CommandFailed when it cannot be read."""
    return await check(remote, ["cat", "--", path], timeout=timeout)


def shown(argv: Sequence[str]) -> str:
    """A command as a person should see it: a script (of sh, or of Python) by its name, never its text."""
    words = list(argv[3:]) if len(argv) > 3 and argv[1] == "-c" else list(argv)
    return " ".join("..." if "\n" in word else shlex.quote(word) for word in words)


class FirstContact(HostKeyMismatch):
    """Nobody vouches for the host's key yet. `line` is what known_hosts would say once somebody does."""

    def __init__(self, *, host: str, place: str, fingerprint: str, line: str) -> None:
        super().__init__(
            f"first contact with {place}: its key {fingerprint} is not known here",
            host=host,
            fix="compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host, then answer yes, or give --yes",
        )
        self.place = place
        self.fingerprint = fingerprint
        self.line = line
