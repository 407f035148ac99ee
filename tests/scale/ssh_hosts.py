"""Many hosts behind one SSH server, as a process of its own: what the real `hmctl` is measured and tested against. For tests only.

    ssh_hosts.py INVENTORY --key PUBLIC_KEY --agents SOCKET --control SOCKET

Every host of the inventory is a host in memory (hmctl/remote/fake.py), told apart by the address that the client connected to. What is
real: TCP, SSH's handshake, logging in, sessions, every byte of the release (counted and digested, not kept), node keys and requests.
When an agent is started on a host, the process behind `--agents` (agents.py) is given what deploy put there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncssh
from control import Answers, ask, serve

from hmcore.config.inventory import Host, load_inventory
from hmctl import layout
from hmctl.remote.fake import FakeRemote, Machine

CHUNK = 1 << 20
MESSAGES = 5  # in each journal


@dataclass
class Quirks:
    """What is wrong with a host. `cut`: it drops the connection after so many bytes of an upload. `delay`: seconds before each command.
    `fails`: what a script says before it fails, by its name."""

    closed: bool = False
    cut: int | None = None
    delay: float = 0.0


@dataclass
class Counts:
    """Connections and sessions as the servers see them; `logging_in` are those that MaxStartups counts."""

    open: int = 0
    peak: int = 0
    total: int = 0
    logging_in: int = 0
    peak_logging_in: int = 0
    sessions: int = 0
    most_of_one_host: int = 0
    received: int = 0
    by_host: Counter[str] = field(default_factory=Counter)


def journalctl(name: str, options: list[str]) -> bytes:
    """An agent's journal of MESSAGES lines, a second apart since 1970. As the real one: with --since the first lines, unless --reverse."""
    since = max((float(option.partition("@")[2]) for option in options if option.startswith("--since=@")), default=None)
    count = next(option.partition("=")[2] for option in options if option.startswith("--lines="))
    numbers = [number for number in range(1, MESSAGES + 1) if since is None or number >= since]
    if "--reverse" in options:
        numbers.reverse()
    if count != "all":
        first = since is not None or "--reverse" in options
        numbers = numbers[: int(count)] if first else numbers[len(numbers) - int(count) :]
    lines = [
        {"__REALTIME_TIMESTAMP": str(number * 1_000_000), "__CURSOR": f"c{number}", "MESSAGE": f"{name} says {number}"}
        for number in numbers
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class Hosts:
    def __init__(self, hosts: list[Host], key: asyncssh.SSHKey, agents: Path) -> None:
        self.hosts = {host.ssh.address: host for host in hosts}
        self.machines = {host.name: Machine(host.name, host.address) for host in hosts}
        self.quirks = {host.name: Quirks() for host in hosts}
        self.uploads: dict[str, list[str]] = {host.name: [] for host in hosts}  # SHA-256 of each release that arrived whole
        self.key = key
        self.agents = agents
        self.counts = Counts()

    def server(self) -> asyncssh.SSHServer:
        return Server(self)

    async def session(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.counts.sessions += 1
        host = self.hosts[process.get_extra_info("sockname")[0]]
        try:
            await self._run(host, shlex.split(process.command or ""), process)
        except (asyncssh.Error, OSError):
            process.close()  # the client is gone

    async def _run(self, host: Host, argv: list[str], process: asyncssh.SSHServerProcess[bytes]) -> None:
        machine, quirks = self.machines[host.name], self.quirks[host.name]
        remote = FakeRemote(host, machine)
        await asyncio.sleep(quirks.delay)
        match argv:
            case [*_, "/usr/local/bin/hypermesh-agent", "relay"]:
                await self._relay(host, process)
                return
            case _ if "journalctl" in argv:
                process.stdout.write(journalctl(host.name, argv))
                process.exit(0)
                return
            case ["sh", "-c", _, "hm-lock", *_]:
                await self._lock(remote, argv, process)
                return
            case [_, "-c", _, "network-probe"]:
                await self._probe(process)
                return
            case ["sh", "-c", _, "hm-unpack", *_]:
                stdin = b""
                if not await self._receive(host, process):
                    return
            case _:
                stdin = await process.stdin.read()
        try:
            done = await remote.run(argv, stdin=stdin, timeout=0)
        except AttributeError:
            process.stderr.write(f"sh: 1: {argv[:1]}: command not found\n".encode())
            process.exit(127)
            return
        if argv[3:4] == ["hm-start"] and machine.active:
            await ask(self.agents, self._started(host, machine))
        elif argv[3:4] == ["hm-remove"]:
            await ask(self.agents, {"stop": host.name})
        process.stdout.write(done.stdout)
        process.stderr.write(done.stderr.encode())
        process.exit(done.status)

    async def _relay(self, host: Host, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """To the agent's socket, until one of both hangs up."""
        reader, writer = await asyncio.open_unix_connection(self.agents.parent / f"{host.name}.agent")

        async def there() -> None:
            while data := await process.stdin.read(CHUNK):
                writer.write(data)
                await writer.drain()
            writer.close()

        async def back() -> None:
            while data := await reader.read(CHUNK):
                process.stdout.write(data)
                await process.stdout.drain()
            process.exit(0)

        try:
            await asyncio.gather(there(), back())
        finally:
            writer.close()

    async def _lock(self, remote: FakeRemote, argv: list[str], process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Held as long as the channel lives, as `flock` and `cat` do."""
        lock = await remote.open_process(argv, timeout=0)
        done = await lock.wait(timeout=0)
        process.stdout.write(await lock.stdout.read())
        process.stderr.write(done.stderr.encode())
        try:
            if done.status == 0:
                await process.stdin.read()
        finally:
            lock.kill()
            process.exit(done.status)

    async def _probe(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Everybody reaches everybody here."""
        task = json.loads(await process.stdin.readline())
        process.stdout.write(b"ready\n")
        await process.stdin.readline()
        answer = {name: {"tcp": None, "udp": None} for name, *_ in task["peers"]}
        process.stdout.write(json.dumps(answer).encode() + b"\n")
        await process.stdin.read()
        process.exit(0)

    async def _receive(self, host: Host, process: asyncssh.SSHServerProcess[bytes]) -> bool:
        digest, count, cut = sha256(), 0, self.quirks[host.name].cut
        while chunk := await process.stdin.read(CHUNK):
            digest.update(chunk)
            count += len(chunk)
            self.counts.received += len(chunk)
            if cut is not None and count >= cut:
                process.get_extra_info("connection").abort()
                return False
        self.uploads[host.name].append(digest.hexdigest())
        return True

    def _started(self, host: Host, machine: Machine) -> dict[str, Any]:
        files = {"config": layout.CONFIG, "ca": layout.CA, "certificate": layout.CERTIFICATE}
        content = {name: b64encode(machine.files[path]).decode() for name, path in files.items()}
        return {"start": host.name, "key": b64encode(machine.key or b"").decode(), "release": machine.started_release, **content}

    # What a test asks

    async def answer(self, request: dict[str, Any]) -> Any:
        match request:
            case {"counts": "reset"}:
                self.counts = Counts(open=self.counts.open, logging_in=self.counts.logging_in)
            case {"counts": _}:
                return {name: value for name, value in vars(self.counts).items() if name != "by_host"}
            case {"quirks": dict(changes), "hosts": list(names)}:
                for name in names:
                    self.quirks[name] = Quirks(**changes)
            case {"machines": _}:
                return {name: self._seen(machine) for name, machine in self.machines.items()}
        return None

    def _seen(self, machine: Machine) -> dict[str, Any]:
        return {
            "files": sorted(machine.files),
            "config": machine.files.get(layout.CONFIG, b"").decode(),
            "releases": sorted(machine.releases),
            "current": machine.current,
            "active": machine.active,
            "enabled": machine.enabled,
            "starts": machine.starts,
            "locked": machine.holder is not None,
            "partial": machine.partial,
            "uploads": self.uploads[machine.name],
            "did": machine.log,
        }


class Server(asyncssh.SSHServer):
    """One connection: counted from its first packet to its end."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._host = ""
        self._counted = self._logging_in = False

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        host = self._hosts.hosts[conn.get_extra_info("sockname")[0]]
        if self._hosts.quirks[host.name].closed:
            conn.abort()
            return
        counts = self._hosts.counts
        self._host, self._counted, self._logging_in = host.name, True, True
        counts.open += 1
        counts.total += 1
        counts.logging_in += 1
        counts.by_host[host.name] += 1
        counts.peak = max(counts.peak, counts.open)
        counts.peak_logging_in = max(counts.peak_logging_in, counts.logging_in)
        counts.most_of_one_host = max(counts.most_of_one_host, counts.by_host[host.name])

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key.public_data == self._hosts.key.public_data

    def auth_completed(self) -> None:
        self._logging_in = False
        self._hosts.counts.logging_in -= 1

    def connection_lost(self, exc: Exception | None) -> None:
        counts = self._hosts.counts
        if self._counted:
            counts.open -= 1
            counts.by_host[self._host] -= 1
        if self._logging_in:
            counts.logging_in -= 1


async def main(arguments: argparse.Namespace) -> None:
    inventory, _ = load_inventory(arguments.inventory, {})
    hosts = Hosts(list(inventory.hosts), asyncssh.read_public_key(arguments.key), arguments.agents)
    ports = {host.ssh.port or 22 for host in inventory.hosts}
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    answers: Answers = hosts.answer
    servers = [
        await asyncssh.listen(
            "0.0.0.0",
            port,
            backlog=1024,
            server_factory=hosts.server,
            server_host_keys=[host_key],
            process_factory=hosts.session,
            encoding=None,
        )
        for port in ports
    ]
    try:
        await serve(arguments.control, answers)
    finally:
        for server in servers:
            server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("inventory", type=Path)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--agents", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    asyncio.run(main(parser.parse_args()))
