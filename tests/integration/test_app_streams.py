"""hmctl app logs and exec as they are typed, in processes of their own, over QUIC: a node whose Docker is in memory answers.

The terminal is a real one (a pty); what a control node knows of the app is told by a stand-in, so that no cluster has to come up.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from app_streams import until
from cluster import free_ports
from streaming_docker import Exec, StreamingDocker, streaming_docker

from hmcore import pki
from hmcore.api import STATE, StateReply, StateRequest
from hmcore.apps.calls import APPS, AppsReply, AppsRequest
from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Phase
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.apps.streams import EXEC, LOGS, ExecRequest, LogLines, LogsRequest
from hmcore.errors import PermissionDenied
from hmcore.pki import Identity, Kind
from hmcore.stoq.connection import Connection
from hmcore.stoq.dialogue import open_talk
from hmcore.stoq.endpoint import Credentials, Local, Peer, dial, serve
from hmcore.stoq.rpc import Router
from hmctl.state import OperatorStore
from node_agent.platform.appstreams import AppStreams

CLUSTER = "hm-abc123defg"
PATIENCE = 30.0
ME = Identity(CLUSTER, Kind.NODE, "node1")


def shop() -> AppsReply:
    spec = AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="web:1"))})
    allocation = Allocation(id="shop/web.1.1", app="shop", service="web", slot=1, node="node1", generation=1, revision="r")
    return AppsReply(
        index=7,
        apps=[App(name="shop", generation=1)],
        generations=[Generation(app="shop", number=1, spec=spec, digest="d")],
        allocations=[allocation],
        statuses={allocation.id: AllocationStatus(id=allocation.id, phase=Phase.RUNNING)},
    )


async def state(peer: Peer, request: StateRequest) -> StateReply:
    return StateReply(index=7, leader="node1", term=1, nodes=[])


async def apps(peer: Peer, request: AppsRequest) -> AppsReply:
    return shop()


@dataclass
class Place:
    folder: Path
    docker: StreamingDocker
    streams: AppStreams
    authority: pki.KeyPair
    port: int

    @contextlib.asynccontextmanager
    async def connected(self, kind: Kind) -> AsyncIterator[Connection]:
        who = Identity(CLUSTER, kind, "ann")
        ours = pki.issue(self.authority, who, datetime.now(UTC))
        connection = await dial(
            "127.0.0.1",
            self.port,
            credentials=Credentials(self.authority.certificate, ours.certificate, ours.key),
            local=Local(who, "client", "test"),
            server=ME,
            timeout=PATIENCE,
        )
        try:
            yield connection
        finally:
            await connection.close()

    def typed(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "hmctl", "-i", str(self.folder / "cluster.yaml"), "app", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_DATA_HOME": str(self.folder / "data"), "TERM": "xterm", "COLUMNS": "", "LINES": ""}

    async def started(self, *words: str, stdin: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.typed(*words),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    [port] = free_ports(1)
    hosts = f"settings: {{transport: {{port: {port}}}}}\nhosts:\n  - {{name: node1, address: 127.0.0.1, role: control}}\n"
    (tmp_path / "cluster.yaml").write_text(f"id: {CLUSTER}\nname: lab\nssh: {{user: root}}\n{hosts}")
    authority = OperatorStore.open(CLUSTER, tmp_path / "data" / "hypermesh").create_authority(datetime.now(UTC))
    own = pki.issue(authority, ME, datetime.now(UTC))
    async with streaming_docker(tmp_path) as docker:
        streams = AppStreams(docker.path, lambda: docker.infos, timeout=PATIENCE)
        docker.on_change = streams.containers_changed
        readers = (Kind.OPERATOR, Kind.VIEWER)
        listener = await serve(
            "127.0.0.1",
            port,
            credentials=Credentials(authority.certificate, own.certificate, own.key),
            local=Local(ME, "control", "r1"),
            service=Router({STATE: (readers, state), APPS: (readers, apps)}, streams=streams.dialogues()),
        )
        docker.add("c1")
        try:
            yield Place(tmp_path, docker, streams, authority, port)
        finally:
            await listener.close()
        await until(lambda: docker.open == 0)


async def cat(one: Exec) -> int:
    while data := await one.reader.read(65_536):
        await one.say(data)
    await one.say(b"bye", 2)
    return 7


async def echo(one: Exec) -> int:
    """As a program on a terminal that has turned its own echo off; Ctrl-D ends it."""
    await one.say(b"ready\r\n")
    while (data := await one.reader.read(1024)) and b"\x04" not in data:
        await one.say(b"<" + data.hex().encode() + b">")
    return 3


async def test_viewers_read_logs_and_run_nothing(here: Place) -> None:
    await here.docker.log("c1", (1, 1, b"hello\n"))
    async with here.connected(Kind.VIEWER) as connection:
        async with await open_talk(connection, LOGS, LogsRequest(app="shop"), timeout=PATIENCE) as talk:
            said = [await talk.receive(), await talk.receive()]
            assert isinstance(said[1], LogLines)
        request = ExecRequest(allocation="shop/web.1.1", command=["cat"])
        async with await open_talk(connection, EXEC, request, timeout=PATIENCE) as running:
            with pytest.raises(PermissionDenied, match=r"viewer ann may not open apps\.exec"):
                await running.receive()
    async with (
        here.connected(Kind.NODE) as connection,
        await open_talk(connection, LOGS, LogsRequest(app="shop"), timeout=PATIENCE) as talk,
    ):
        with pytest.raises(PermissionDenied):
            await talk.receive()
    assert here.docker.execs == {}


async def test_megabytes_of_input_and_output_pass_and_the_status_too(here: Place) -> None:
    here.docker.programs["cat"] = cat
    data = os.urandom(3_000_000)
    process = await here.started("exec", "shop/web", "--", "cat")
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(data)
    assert (out == data, err, process.returncode) == (True, b"bye", 7)


async def test_logs_are_followed_until_ctrl_c(here: Place) -> None:
    await here.docker.log("c1", (1, 1, b"before\n"))
    process = await here.started("logs", "shop", "-f", "-o", "json")
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert b'"before"' in await process.stdout.readline()
        await until(lambda: here.streams.logs._open == 1)
        await here.docker.log("c1", (2, 2, b"after\n"))
        line = await process.stdout.readline()
        assert b'"after"' in line
        assert b'"stderr"' in line
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        await process.communicate()
    await until(lambda: here.streams.logs._open == here.streams.logs._readers == 0)


async def test_on_a_terminal_every_key_goes_through_and_it_is_as_before_afterwards(here: Place) -> None:
    here.docker.programs["sh"] = echo
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(theirs)
    process = await asyncio.create_subprocess_exec(
        *here.typed("exec", "shop/web.1", "--", "sh"),
        stdin=theirs,
        stdout=theirs,
        stderr=asyncio.subprocess.PIPE,
        env=here.environment,
        preexec_fn=lambda: _lead(theirs),
    )
    shown = bytearray()

    async def until_shown(text: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in shown:
                shown.extend(await asyncio.to_thread(os.read, ours, 1024))

    await until_shown(b"ready")
    assert here.docker.execs["e0"].config["Tty"] is True
    assert here.docker.execs["e0"].config["Env"] == ["TERM=xterm"]
    await until(lambda: here.docker.execs["e0"].sizes == [(24, 80)])
    os.write(ours, b"\x03")  # Ctrl-C
    await until_shown(b"<03>")
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))  # whose foreground is told
    await until(lambda: here.docker.execs["e0"].sizes == [(24, 80), (50, 132)])
    os.write(ours, b"\x1a")  # Ctrl-Z
    await until_shown(b"<1a>")
    os.write(ours, b"\x04")
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 3
    assert termios.tcgetattr(theirs)[:4] == before[:4]
    await process.communicate()
    os.close(ours)
    os.close(theirs)


async def test_an_operator_that_is_killed_leaves_nothing_behind(here: Place) -> None:
    """The node notices within seconds (KEEP_ALIVE and SILENCE of QUIC)."""
    here.docker.programs["cat"] = cat
    process = await here.started("exec", "shop/web", "--", "cat")
    await until(lambda: here.docker.execs and here.docker.execs["e0"].running)
    process.kill()
    await process.communicate()
    async with asyncio.timeout(PATIENCE):
        while here.streams.execs.running:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)
    assert not here.docker.execs["e0"].running


def _lead(terminal: int) -> None:
    """In the child: a session whose terminal that is."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
