"""hmctl app exec: which replica is meant, what passes both ways, signals, window sizes and exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from app_fleet import Fleet, eventually, fleet
from app_world import World, service, shop
from streaming_docker import Exec

from hmcore.apps.records import AllocationStatus, Phase
from hmcore.apps.spec import AppSpec
from hmcore.apps.streams import ExecRequest
from hmcore.errors import ConnectionLost, HyperMeshError, Interrupted
from hmctl.actions import agents as connections
from hmctl.actions.apps import exec as exec_action
from hmctl.actions.apps.calls import read
from hmctl.actions.apps.exec import chosen, run
from hmctl.actions.apps.target import Target
from hmctl.cli import main
from hmctl.cli.app import exec as exec_command
from node_agent.consensus.statemachine.appcommands import PutStatuses


async def cat(one: Exec) -> int:
    while data := await one.reader.read(65_536):
        await one.say(data)
    await one.say(b"bye", 2)
    return 7


async def stuck(one: Exec) -> int:
    await one.say(b"ready")
    await eventually(lambda: one.status is not None)
    assert one.status is not None
    return one.status


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that a signal ends."""
    started = subprocess.Popen(["sleep", "100"])
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@pytest_asyncio.fixture
async def here(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    world.deploy("shop", shop())
    async with fleet(tmp_path, world, tmp_path / "cluster.yaml") as made:
        monkeypatch.setattr(connections, "connect", made.connect)
        made.start()
        for node in made.nodes.values():
            node.docker.programs = {"cat": cat, "stuck": stuck}
        yield made
        await eventually(lambda: all(node.streams.execs.running == 0 for node in made.nodes.values()))


@dataclass
class Console:
    """`typed`: pieces that come; without an end unless it has an empty one."""

    typed: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    window: tuple[int, int] = (24, 80)
    broken: bool = False

    async def read(self) -> bytes:
        return await self.typed.get()

    async def write(self, data: bytes, *, error: bool) -> None:
        if self.broken:
            raise BrokenPipeError
        (self.err if error else self.out).extend(data)

    def size(self) -> tuple[int, int]:
        return self.window


async def ran(made: Fleet, console: Console, *command: str, **more: object) -> int:
    """In web.1."""
    async with made.agents() as agents:
        allocation = chosen(await read(agents, "shop"), Target("shop", "web", 1))
        request = ExecRequest(allocation=allocation.id, command=list(command), **more)  # type: ignore[arg-type]
        host = next(host for host in made.hosts if host.name == allocation.node)
        return await agents.ask(host, lambda agent: run(agent, request, console))  # type: ignore[arg-type]


def running(made: Fleet) -> Exec:
    [one] = [one for node in made.nodes.values() for one in node.docker.execs.values()]
    return one


def has_begun(made: Fleet) -> bool:
    return any(one.written for node in made.nodes.values() for one in node.docker.execs.values())


async def test_input_output_and_status_pass(here: Fleet) -> None:
    console = Console()
    for piece in (b"hello", b" there", b""):
        console.typed.put_nowait(piece)
    assert await ran(here, console, "cat", stdin=True) == 7
    assert (console.out, console.err) == (b"hello there", b"bye")


async def test_megabytes_pass_through_the_window(here: Fleet) -> None:
    console = Console()
    pieces = [os.urandom(16_384) for _ in range(200)]
    for piece in (*pieces, b""):
        console.typed.put_nowait(piece)
    assert await ran(here, console, "cat", stdin=True) == 7
    assert console.out == b"".join(pieces)


async def test_a_window_that_changes_its_size_changes_the_commands(here: Fleet) -> None:
    console = Console()
    going = asyncio.ensure_future(ran(here, console, "stuck", tty=True, rows=24, columns=80))
    await eventually(lambda: has_begun(here) and running(here).sizes == [(24, 80)])
    console.window = (50, 132)
    os.kill(os.getpid(), signal.SIGWINCH)
    await eventually(lambda: running(here).sizes == [(24, 80), (50, 132)])
    running(here).status = 0
    assert await going == 0


async def test_ctrl_c_is_the_commands_and_a_second_one_ours(here: Fleet, child: subprocess.Popen[bytes]) -> None:
    going = asyncio.ensure_future(ran(here, Console(), "stuck"))
    await eventually(lambda: has_begun(here))
    running(here).process = child.pid
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.to_thread(child.wait, 20) == -signal.SIGINT
    assert not going.done()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted):
        await going
    running(here).status = 130


async def test_a_command_that_ends_of_ctrl_c_gives_its_own_status(here: Fleet, child: subprocess.Popen[bytes]) -> None:
    going = asyncio.ensure_future(ran(here, Console(), "stuck", stdin=True))
    await eventually(lambda: has_begun(here))
    running(here).process = child.pid
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.to_thread(child.wait, 20)
    running(here).status = 42
    assert await going == 42


async def test_output_that_nobody_takes_any_more_ends_the_command(here: Fleet, child: subprocess.Popen[bytes]) -> None:
    async def talks(one: Exec) -> int:
        one.process = child.pid
        return await stuck(one)

    for node in here.nodes.values():
        node.docker.programs["talks"] = talks
    with pytest.raises(BrokenPipeError):
        await ran(here, Console(broken=True), "talks")
    assert await asyncio.to_thread(child.wait, 20) == -signal.SIGHUP
    running(here).status = 129


async def test_a_node_that_is_lost_meanwhile_is_said(here: Fleet) -> None:
    going = asyncio.ensure_future(ran(here, Console(), "stuck"))
    await eventually(lambda: has_begun(here))
    for name in here.nodes:
        here.cut_off(name)
    with pytest.raises(ConnectionLost):
        await going
    running(here).status = 1


async def test_an_agent_of_an_earlier_release_is_said(here: Fleet) -> None:
    for node in here.nodes.values():
        node.router._streams = None
    with pytest.raises(HyperMeshError, match="it is of an earlier release"):
        await ran(here, Console(), "cat")


async def typed(monkeypatch: pytest.MonkeyPatch, given: bytes, *words: str) -> int:
    """In a thread of its own: hmctl makes an event loop for itself. `given`: its input."""
    reading, writing = os.pipe()
    monkeypatch.setattr(exec_command, "STDIN", reading)
    os.write(writing, given)
    os.close(writing)
    try:
        return await asyncio.to_thread(main.run, ["app", "exec", *words])
    finally:
        os.close(reading)


async def test_as_typed(here: Fleet, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert await typed(monkeypatch, b"hello", "shop/web", "--", "cat", "-o", "x") == 7
    said = capfdbinary.readouterr()
    assert (said.out, said.err) == (b"hello", b"bye")
    assert running(here).config["Cmd"] == ["cat", "-o", "x"]
    assert (running(here).config["Tty"], running(here).config["AttachStdin"]) == (False, True)
    assert await typed(monkeypatch, b"hello", "-I", "-u", "app", "shop/web.2", "cat", "--version") == 7
    assert capfdbinary.readouterr().out == b""
    [one] = [one for node in here.nodes.values() for one in node.docker.execs.values() if one.config.get("User") == "app"]
    assert (one.config["Cmd"], one.config["AttachStdin"]) == (["cat", "--version"], False)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["shop", "--", "cat"], 2, "names no replica"),
        (["shop/web@node9", "--", "cat"], 2, "node9"),
        (["--node", "node1", "shop/web@node2", "--", "cat"], 2, "shop/web@node2 is not on node1"),
        (["shop/web", "--"], 2, "no command is named"),
        (["shop/web", "-t", "--", "sh", "-c", "a b"], 2, "  fix: hmctl app exec -t shop/web -- sh -c 'a b'\n"),
        (["shop/web", "-u", "app", "sh"], 2, "  fix: hmctl app exec -u app shop/web -- sh\n"),
        (["shop/web", "--user=app"], 2, "  fix: hmctl app exec --user=app shop/web -- CMD ...\n"),
        (["shop/web", "-x", "sh"], 2, "error: -x is no command\n  fix: hmctl app exec shop/web -- CMD ...\n"),
        (["nothing/web", "--", "cat"], 1, "there is no app nothing"),
        (["shop/cache", "--", "cat"], 1, "shop has no service cache"),
        (["shop/web.9", "--", "cat"], 1, "there is no replica shop/web.9; there are web.1 on "),
        (["--node", "node9", "shop/web", "--", "cat"], 2, "node9"),
    ],
)
async def test_what_cannot_be_meant_is_said(
    here: Fleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    assert await typed(monkeypatch, b"", *words) == status
    assert said in capfd.readouterr().err


async def test_a_global_services_replica_is_named_by_its_node(
    here: Fleet, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    here.world.deploy("all", AppSpec(services={"agent": service(mode="global")}))
    here.start()
    for node in here.nodes.values():
        node.docker.programs = {"cat": cat}
    assert await typed(monkeypatch, b"hello", "all/agent@node2", "--", "cat") == 7
    assert capfdbinary.readouterr().out == b"hello"
    assert [name for name, node in here.nodes.items() if node.docker.execs] == ["node2"]


async def test_the_replica_that_shall_stay_and_runs_is_meant(here: Fleet) -> None:
    here.world.deploy("all", AppSpec(services={"agent": service(mode="global")}))
    async with here.agents() as agents:
        seen = await read(agents, "all")
        assert chosen(seen, Target("all", "agent")).node == "node1"
        assert chosen(seen, Target("all", "agent", node="node3")).node == "node3"
        with pytest.raises(HyperMeshError, match=r"there is no replica all/agent\.1; there are agent@node1, agent@node2 and agent@node3"):
            chosen(seen, Target("all", "agent", 1))
        web = chosen(await read(agents, "shop"), Target("shop", "web"))
        assert web.slot == 1
        told = tuple(
            AllocationStatus(id=each.id, phase=Phase.BACKOFF) for each in here.world.state.allocations.values() if each.node == web.node
        )
        here.world.do(PutStatuses(node=web.node, incarnation=0, allocations=told))
        other = chosen(await read(agents, "shop"), Target("shop", "web"))
        assert (other.slot > 1, other.node != web.node) == (True, True)
        with pytest.raises(HyperMeshError, match=r"no replica of shop/web\.1 runs"):
            chosen(await read(agents, "shop"), Target("shop", "web", 1))


def test_input_never_exceeds_what_a_node_takes() -> None:
    from hmcore.apps.streams import STDIN_WINDOW
    from hmctl import terminal

    assert terminal.CHUNK * 2 <= STDIN_WINDOW
    assert exec_action.STDIN_WINDOW is STDIN_WINDOW
