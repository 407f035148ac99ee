"""SshRemote against a real SSH server on loopback: who gets in, whose word is taken, and what is said when something is wrong."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from hmcore.config.inventory import Host, SshTarget
from hmcore.errors import AuthenticationFailed, CommandFailed, HostKeyMismatch, SudoRefused, Unreachable
from hmcore.records import Role
from hmctl.facts.gather import gather
from hmctl.failure import explain
from hmctl.remote import hostkeys, identity, ssh
from hmctl.remote.base import FirstContact, check, get, put
from hmctl.remote.ssh import Connector

USER = "tester"


@dataclass
class Box:
    """A server, its host key, and an operator's home beside it."""

    folder: Path
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    user_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    port: int = 0
    offers: int = 0
    logins: int = 0
    forwards: int = 0

    @property
    def key(self) -> Path:
        path = self.folder / "id"
        if not path.exists():
            self.user_key.write_private_key(str(path))
            path.chmod(0o600)
        return path

    def target(self, **changes: object) -> SshTarget:
        base = SshTarget("127.0.0.1", user=USER, port=self.port, key=self.key, agent=False)
        return replace(base, **changes)  # type: ignore[arg-type]

    def host(self, **changes: object) -> Host:
        return Host("node1", self.target(**changes), "127.0.0.1", 7443, Role.CONTROL)

    def connector(self, *, accept_new: bool = True, keep: bool = True, timeout: float = 10.0) -> Connector:
        return Connector(self.folder / "pins", accept_new=accept_new, keep=keep, home=self.folder, timeout=timeout)

    def vouch(self, key: asyncssh.SSHKey | None = None, file: str = "known") -> Path:
        path = self.folder / file
        line = hostkeys.entry("127.0.0.1", self.port, (key or self.host_key).export_public_key("openssh").decode())
        path.write_text(f"# a comment\nnot a line that anybody can read\n{line}\n")
        return path


async def pump(source: Any, sink: Any, *, end: bool = False) -> None:
    """From one stream to another, until either ends."""
    with suppress(ConnectionError, asyncssh.Error):
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()
        if end:
            sink.close()


@asynccontextmanager
async def serving(folder: Path, *, sudo: str = "") -> AsyncIterator[Box]:
    """Runs commands with sh, as this process's own user. `sudo`: a script that stands for sudo there."""
    box = Box(folder)
    path = folder / "bin"
    path.mkdir()
    if sudo:
        (path / "sudo").write_text(f"#!/bin/sh\n{sudo}\n")
        (path / "sudo").chmod(0o755)

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            box.offers += 1
            return key.public_data == box.user_key.public_data

        def auth_completed(self) -> None:
            box.logins += 1

        def connection_requested(self, *_: object) -> bool:
            box.forwards += 1
            return True

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        child = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            process.command or "exit 1",
            env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(pump(process.stdin, child.stdin, end=True))
                saying = [group.create_task(pump(child.stdout, process.stdout)), group.create_task(pump(child.stderr, process.stderr))]
                status = await child.wait()
                await asyncio.wait(saying)
                feeding.cancel()
            process.exit(status)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[box.host_key], process_factory=handle, encoding=None
    )
    box.port = server.get_port()
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()


async def test_a_command_gets_its_arguments_input_and_status_exactly(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        connector = box.connector()
        remote = await connector.connect(box.host())
        done = await remote.run(
            ["sh", "-c", 'printf "%s|" "$@"; cat; echo oops >&2; exit 7', "x", "a b", "$HOME", "'"], stdin=b"\0in", timeout=10
        )
        assert (done.status, done.stdout, done.stderr) == (7, b"a b|$HOME|'|\0in", "oops\n")
        with pytest.raises(CommandFailed, match="ended with 7: oops"):
            await check(remote, ["sh", "-c", "echo oops >&2; exit 7"], sudo=False, timeout=10)
        await connector.close()


async def test_a_file_is_written_whole_with_its_mode(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        connector = box.connector()
        remote = await connector.connect(box.host())
        path, content = tmp_path / "deep" / "er" / "file", os.urandom(600_000)
        await put(remote, content, str(path), mode=0o640)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert [found.name for found in path.parent.iterdir()] == ["file"]
        assert await get(remote, str(path)) == content
        await connector.close()


async def test_a_big_upload_reports_its_progress_and_a_reader_that_leaves_says_why(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        connector = box.connector()
        remote = await connector.connect(box.host())
        archive = tmp_path / "archive"
        archive.write_bytes(os.urandom(3_000_000))
        heard: list[int] = []
        done = await remote.run(["sh", "-c", "wc -c"], stdin=archive, timeout=20, sent=heard.append)
        assert (int(done.stdout), heard[-1]) == (3_000_000, 3_000_000)
        assert len(heard) > 5
        done = await remote.run(["sh", "-c", "echo full >&2; exit 3"], stdin=archive, timeout=20)
        assert (done.status, done.stderr) == (3, "full\n")
        await connector.close()


async def test_first_contact_is_refused_until_somebody_vouches(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        shy = box.connector(accept_new=False)
        with pytest.raises(FirstContact) as caught:
            await shy.connect(box.host())
        assert caught.value.fingerprint == box.host_key.get_fingerprint()
        assert box.offers == 0  # nothing was offered to a stranger
        shy.trust(caught.value)
        assert not (tmp_path / "pins").exists()
        await shy.connect(box.host())
        await shy.connect(box.host())
        await shy.close()
        assert (tmp_path / "pins").read_text().splitlines() == [caught.value.line]
        assert shy.met == []  # the operator has seen it
        assert (tmp_path / "pins").stat().st_mode & 0o777 == 0o600


async def test_first_contact_is_pinned_and_shown_when_new_hosts_are_accepted(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        connector = box.connector()
        await connector.connect(box.host())
        assert [(met.place, met.fingerprint) for met in connector.met] == [(f"[127.0.0.1]:{box.port}", box.host_key.get_fingerprint())]
        await connector.close()
        again = box.connector(accept_new=False)
        await again.connect(box.host())
        await again.close()
        assert again.met == []


async def test_a_host_that_does_not_let_us_in_is_not_pinned(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        wrong = tmp_path / "wrong"
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(wrong))
        connector = box.connector()
        with pytest.raises(AuthenticationFailed):
            await connector.connect(box.host(key=wrong))
        await connector.close()
        assert connector.met == []
        assert not (tmp_path / "pins").exists()


@pytest.mark.parametrize("accept_new", [True, False])
async def test_a_run_that_keeps_nothing_pins_nothing(tmp_path: Path, accept_new: bool) -> None:
    async with serving(tmp_path) as box:
        connector = box.connector(accept_new=accept_new, keep=False)
        if not accept_new:
            with pytest.raises(FirstContact) as caught:
                await connector.connect(box.host())
            connector.trust(caught.value)
        await asyncio.gather(*(connector.connect(box.host()) for _ in range(3)))
        assert len(connector.met) == accept_new
        await connector.close()
        assert not (tmp_path / "pins").exists()


@pytest.mark.parametrize("other", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
async def test_a_changed_host_key_stops_that_host_and_names_the_line(tmp_path: Path, other: str) -> None:
    async with serving(tmp_path) as box:
        known = box.vouch(asyncssh.generate_private_key(other))
        connector = box.connector(accept_new=True)
        with pytest.raises(HostKeyMismatch, match=r"not the host it was") as caught:
            await connector.connect(box.host(known_hosts=known))
        assert not isinstance(caught.value, FirstContact)
        assert f"{known}:3" in caught.value.message
        assert caught.value.fix is not None
        assert f"ssh-keygen -R '[127.0.0.1]:{box.port}' -f {known}" in caught.value.fix
        assert box.offers == 0
        assert not (tmp_path / "pins").exists()


async def test_a_known_key_is_enough_also_when_its_name_is_hashed(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        known = box.vouch()
        salt = os.urandom(20)
        name = hmac.new(salt, f"[127.0.0.1]:{box.port}".encode(), "sha1").digest()
        hashed = f"|1|{b64encode(salt).decode()}|{b64encode(name).decode()}"
        known.write_text(known.read_text().replace(f"[127.0.0.1]:{box.port}", hashed))
        connector = box.connector(accept_new=False)
        await connector.connect(box.host(known_hosts=known))
        await connector.close()


async def test_a_wrong_key_says_what_was_offered(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        wrong = tmp_path / "wrong"
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(wrong))
        with pytest.raises(AuthenticationFailed, match=f"we offered the key {wrong}") as caught:
            await box.connector().connect(box.host(key=wrong))
        assert caught.value.fix == f"ssh-copy-id -p {box.port} -i {wrong} {USER}@127.0.0.1"


def test_ssh_by_hand_is_a_command_that_openssh_understands() -> None:
    gate = SshTarget("gate", user="jump", port=2222)
    assert identity.by_hand(SshTarget("10.0.0.1")) == "ssh -v 10.0.0.1"
    assert identity.by_hand(SshTarget("10.0.0.1", user="root", port=2200, bastion=gate)) == "ssh -v -p 2200 -J jump@gate:2222 root@10.0.0.1"


def test_a_host_that_hangs_up_is_named_with_what_shows_more(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-any\r\n")
        writer.write_eof()
        await reader.read()  # all of it: unread words would make it a reset
        writer.close()

    async def attempt() -> list[str]:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            host = Host("web", SshTarget("127.0.0.1", port=port, agent=False), "127.0.0.1", 7443, Role.CONTROL)
            connector = Connector(tmp_path / "known_hosts")
            try:
                await connector.connect(host)
            except Unreachable as error:
                return [str(port), *explain(error)]
            finally:
                await connector.close()
        raise AssertionError("it connected")

    port, said, *more = asyncio.run(attempt())
    assert said.startswith(f"web: [127.0.0.1]:{port} ended the connection")
    assert f"ssh -v -p {port} 127.0.0.1 shows more" in more[-1]


def test_without_any_key_the_message_says_so(tmp_path: Path) -> None:
    target = SshTarget("10.0.0.1", user="root", key=None, agent=True)
    assert not identity.own_keys(tmp_path)
    assert identity.offered(target, {}, own_keys=False) == "there are no keys in ~/.ssh, and no ssh-agent is running"
    assert identity.offered(target, {"SSH_AUTH_SOCK": "/a"}, own_keys=False).startswith("we offered the keys of ssh-agent")
    assert identity.mend(target, own_keys=False).startswith("ssh-keygen, then ssh-copy-id root@10.0.0.1; or ")
    assert "ssh: {key: PATH}" in identity.mend(target, own_keys=True)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").touch()
    assert not identity.own_keys(tmp_path)
    (tmp_path / ".ssh" / "id_ed25519").touch()
    assert identity.own_keys(tmp_path)
    assert identity.offered(target, {}, own_keys=True) == "we offered the keys in ~/.ssh and no ssh-agent (none is running)"


async def test_a_key_with_a_passphrase_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        locked = tmp_path / "locked"
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(locked), "pkcs8-pem", passphrase="secret")
        with pytest.raises(AuthenticationFailed, match="cannot be used") as caught:
            await box.connector().connect(box.host(key=locked))
        assert "ssh-add" in (caught.value.fix or "")


async def test_nobody_listening_and_nobody_answering_are_told_apart(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        free = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = free.sockets[0].getsockname()[1]
        free.close()
        await free.wait_closed()
        with pytest.raises(Unreachable, match="refused the connection"):
            await box.connector().connect(box.host(port=port))

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        try:
            with pytest.raises(Unreachable, match="login did not end in time"):
                await box.connector(timeout=0.2).connect(box.host(port=silent.sockets[0].getsockname()[1]))
        finally:
            silent.close()
            await silent.wait_closed()
        with pytest.raises(Unreachable, match="no address is known"):
            await box.connector().connect(box.host(address="no-such-host.invalid"))


async def test_a_host_that_gives_no_answer_at_all_is_given_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full drops what comes, as a dead host does; a login may still take longer than that."""
    monkeypatch.setattr(ssh, "REACH_TIMEOUT", 0.3)
    with socket.socket() as dead, socket.socket() as filler:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        filler.connect(dead.getsockname())
        box = Box(tmp_path, port=dead.getsockname()[1])
        with pytest.raises(Unreachable, match="no answer from") as caught:
            await box.connector(timeout=60.0).connect(box.host())
    assert explain(caught.value) == [f"node1: no answer from [127.0.0.1]:{box.port}", f"  fix: {caught.value.fix}"]
    assert "is the host up" in (caught.value.fix or "")


async def test_a_command_that_hangs_is_given_up(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        connector = box.connector()
        remote = await connector.connect(box.host())
        with pytest.raises(Unreachable, match=r"has not ended within 0\.2 s"):
            await remote.run(["sleep", "5"], timeout=0.2)
        await connector.close()


async def test_a_lost_connection_is_said_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        connector = box.connector()
        remote = await connector.connect(box.host())
        await connector.close()
        with pytest.raises(Unreachable, match="the SSH connection was lost"):
            await remote.run(["true"], timeout=5)
        with pytest.raises(Unreachable, match=r"the SSH connection was lost during `network-probe`$"):
            await remote.open_process(["python3", "-c", "import socket\nprint(socket)", "network-probe"], timeout=5)
        with pytest.raises(Unreachable, match=r"the SSH connection was lost during `sh -c \.\.\.`$"):
            await remote.run(["sh", "-c", "true\ntrue"], timeout=5)


async def test_a_bastion_is_verified_and_shared(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        bastion = box.target()
        with pytest.raises(FirstContact):
            await box.connector(accept_new=False).connect(box.host(bastion=bastion))
        connector = box.connector()
        await asyncio.gather(*(connector.connect(replace(box.host(bastion=bastion), name=f"node{n}")) for n in range(3)))
        assert (box.logins, box.forwards) == (4, 3)
        await connector.close()


async def test_a_host_that_its_bastion_cannot_reach_is_told_from_a_bastion_that_we_cannot(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            closed = unused.getsockname()[1]
        connector = box.connector()
        with pytest.raises(Unreachable, match=rf"the bastion cannot reach \[127\.0\.0\.1\]:{closed}") as caught:
            await connector.connect(box.host(bastion=box.target(), port=closed))
        assert "AllowTcpForwarding" in (caught.value.fix or "")
        await connector.close()


async def test_a_host_that_knows_none_of_our_algorithms_says_what_to_do(tmp_path: Path) -> None:
    """The server is asyncssh's, restricted to what our side does not offer."""
    box = Box(tmp_path)
    old = {"server_host_keys": [box.host_key], "kex_algs": ["diffie-hellman-group1-sha1"]}
    server = await asyncssh.listen("127.0.0.1", 0, **old)
    box.port = server.get_port()
    try:
        with pytest.raises(Unreachable, match="no algorithm in common") as caught:
            await box.connector().connect(box.host())
        assert "update its OpenSSH" in (caught.value.fix or "")
    finally:
        server.close()
        await server.wait_closed()


async def test_a_process_is_talked_with(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        connector = box.connector()
        remote = await connector.connect(box.host())
        process = await remote.open_process(["sh", "-c", "while read line; do echo got $line; done; echo end >&2; exit 4"], timeout=10)
        process.stdin.write(b"one\n")
        assert await process.stdout.readline() == b"got one\n"
        process.stdin.write(b"two\n")
        assert await process.stdout.readline() == b"got two\n"
        process.stdin.write_eof()
        done = await process.wait(timeout=10)
        assert (done.status, done.stderr) == (4, "end\n")
        await connector.close()


# sudo. These scripts behave as sudo does: -n refuses when it would have to ask; -S reads a line from stdin, unless no password is needed.

ASKS = """
if [ "$1" = -n ]; then echo "sudo: a password is required" >&2; exit 1; fi
IFS= read -r password; [ "$password" = "s3cret word" ] || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }
while [ "$1" != -- ]; do shift; done; shift; exec "$@"
"""
NEVER_ASKS = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'


@pytest.mark.parametrize(("sudo", "password"), [(ASKS, "s3cret word"), (NEVER_ASKS, "s3cret word"), (NEVER_ASKS, None)])
async def test_sudo_with_and_without_a_password_leaves_the_input_alone(tmp_path: Path, sudo: str, password: str | None) -> None:
    async with serving(tmp_path, sudo=sudo) as box:
        connector = box.connector()
        remote = await connector.connect(box.host(sudo=True, sudo_password=password))
        content = b"first line\n\0binary\nlast"
        done = await remote.run(["cat"], stdin=content, sudo=True, timeout=10)
        assert (done.status, done.stdout, done.stderr) == (0, content, "")
        await connector.close()


@pytest.mark.parametrize("password", [None, "wrong"])
async def test_sudo_that_is_refused_is_no_failed_command(tmp_path: Path, password: str | None) -> None:
    async with serving(tmp_path, sudo=ASKS) as box:
        connector = box.connector()
        remote = await connector.connect(box.host(sudo=True, sudo_password=password))
        with pytest.raises(SudoRefused, match=r"sudo: .*password") as caught:
            await gather(remote, timeout=20)
        assert "s3cret" not in str(caught.value)
        await connector.close()


async def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as box:
        with pytest.raises(AuthenticationFailed, match="missing cannot be read: no such file"):
            await box.connector().connect(box.host(key=tmp_path / "missing"))
