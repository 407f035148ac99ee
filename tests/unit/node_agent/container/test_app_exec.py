"""Commands in containers: what passes both ways, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from app_streams import PATIENCE, Node, node, until
from streaming_docker import Exec

from hmcore.apps.streams import (
    EXEC,
    STDIN_WINDOW,
    Began,
    ExecRequest,
    ExecSaid,
    ExecUp,
    Exited,
    Input,
    InputEnd,
    Output,
    Resize,
    Signal,
    Taken,
)
from hmcore.errors import CallRefused, InternalFault, InvalidRequest
from hmcore.stoq.dialogue import Talk, open_talk
from hmcore.stoq.window import WINDOW
from node_agent.container import exec as commands

ALLOCATION = "shop/web.1.1"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that a signal ends."""
    started = subprocess.Popen(["sleep", "100"])
    try:
        yield started
    finally:
        started.kill()
        started.wait()


async def cat(one: Exec) -> int:
    while data := await one.reader.read(65_536):
        await one.say(data)
    await one.say(b"bye", 2)
    return 7


async def stuck(one: Exec) -> int:
    await one.say(b"ready")
    await one.reader.read(0)
    await until(lambda: one.status is not None)
    assert one.status is not None
    return one.status


@contextlib.asynccontextmanager
async def ran(here: Node, request: ExecRequest) -> AsyncIterator[Talk[ExecRequest, ExecUp, ExecSaid]]:
    async with await open_talk(here.connection, EXEC, request, timeout=PATIENCE) as talk:
        yield talk


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Node]:
    async with node(folder) as here:
        here.docker.add("c1")
        here.docker.programs = {"cat": cat, "stuck": stuck}
        yield here
        await until(lambda: here.streams.execs.running == 0)


async def heard(talk: Talk[ExecRequest, ExecUp, ExecSaid]) -> tuple[bytes, bytes, int]:
    """All that is said: of stdout, of stderr, and how it ended."""
    out, err = bytearray(), bytearray()
    async with asyncio.timeout(PATIENCE):
        while True:
            match await talk.receive():
                case Output(data, error):
                    (err if error else out).extend(data)
                case Taken():
                    pass
                case Exited(status):
                    assert await talk.receive() is None
                    return bytes(out), bytes(err), status
                case Began(name):
                    assert name == "c1-name"
                case None:
                    raise AssertionError("it ended without a status")


async def test_input_output_errors_and_the_status_pass(tmp_path: Path) -> None:
    async with running(tmp_path) as here, ran(here, ExecRequest(allocation=ALLOCATION, command=["cat", "-u"], stdin=True)) as talk:
        await talk.send(Input(b"hello "))
        await talk.send(Input(b"there"))
        await talk.send(InputEnd())
        assert await heard(talk) == (b"hello there", b"bye", 7)
        assert here.docker.execs["e0"].config == {
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": False,
            "Cmd": ["cat", "-u"],
        }


async def test_without_input_it_has_none(tmp_path: Path) -> None:
    async def deaf(one: Exec) -> int:
        await one.say(b"out")
        return 0

    async with running(tmp_path) as here:
        here.docker.programs["deaf"] = deaf
        async with ran(here, ExecRequest(allocation=ALLOCATION, command=["deaf"])) as talk:
            assert await heard(talk) == (b"out", b"", 0)


async def test_a_terminal_has_a_size_and_one_output(tmp_path: Path) -> None:
    request = ExecRequest(allocation=ALLOCATION, command=["cat"], stdin=True, tty=True, rows=24, columns=80, term="xterm", user="app")
    async with running(tmp_path) as here, ran(here, request) as talk:
        await until(lambda: here.docker.execs and here.docker.execs["e0"].sizes == [(24, 80)])
        await talk.send(Resize(50, 132))
        await talk.send(Resize(0, -1))
        await until(lambda: here.docker.execs["e0"].sizes == [(24, 80), (50, 132)])
        await talk.send(Input(b"\x03"))
        await talk.send(InputEnd())
        assert await heard(talk) == (b"\x03bye", b"", 7)
        config = here.docker.execs["e0"].config
        assert (config["Tty"], config["Env"], config["User"]) == (True, ["TERM=xterm"], "app")


async def test_a_window_that_docker_does_not_resize_is_no_end(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        here.docker.refusals["POST /exec/e0/resize"] = (500, "no such process")
        request = ExecRequest(allocation=ALLOCATION, command=["cat"], stdin=True, tty=True, rows=24, columns=80)
        async with ran(here, request) as talk:
            talk.close()
            assert (await heard(talk))[2] == 7


async def test_much_input_is_taken_as_the_command_takes_it(tmp_path: Path) -> None:
    total = 5_000_000
    async with running(tmp_path) as here, ran(here, ExecRequest(allocation=ALLOCATION, command=["cat"], stdin=True)) as talk:
        sent = held = received = 0
        async with asyncio.timeout(PATIENCE):
            while received < total:
                while sent < total and held + 65_536 <= STDIN_WINDOW:
                    piece = min(65_536, total - sent)
                    await talk.send(Input(b"x" * piece))
                    sent, held = sent + piece, held + piece
                match await talk.receive():
                    case Taken(size):
                        held -= size
                    case Output(data):
                        received += len(data)
        talk.close()
        assert (await heard(talk))[2] == 7
    assert received == total


async def test_a_command_that_reads_nothing_stops_its_input_and_nothing_else(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    async with running(tmp_path) as here, ran(here, ExecRequest(allocation=ALLOCATION, command=["stuck"], stdin=True)) as talk:
        await until(lambda: here.docker.execs and here.docker.execs["e0"].running)
        here.docker.execs["e0"].process = child.pid
        for _ in range(STDIN_WINDOW // 65_536):
            await talk.send(Input(bytes(65_536)))
        await talk.send(Signal("INT"))
        assert await asyncio.to_thread(child.wait, PATIENCE) == -2
        here.docker.execs["e0"].status = 130
        assert (await heard(talk))[2] == 130


async def test_more_input_than_was_taken_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as here, ran(here, ExecRequest(allocation=ALLOCATION, command=["stuck"], stdin=True)) as talk:
        for _ in range(3 * STDIN_WINDOW // 65_536 + 40):
            await talk.send(Input(bytes(65_536)))
        with pytest.raises(InvalidRequest, match="more input than there was room for"):
            await heard(talk)
        here.docker.execs["e0"].status = 1


async def test_an_opener_that_vanishes_ends_the_commands_input_and_hangs_up_on_it(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    async with running(tmp_path) as here:
        talk = await open_talk(here.connection, EXEC, ExecRequest(allocation=ALLOCATION, command=["stuck"], stdin=True), timeout=PATIENCE)
        assert await talk.receive() == Began("c1-name")
        assert await talk.receive() == Output(b"ready")
        one = here.docker.execs["e0"]
        one.process = child.pid
        here.connection.hang_up()
        assert await asyncio.to_thread(child.wait, PATIENCE) == -1
        await until(lambda: one.reader.at_eof())
        one.status = 129


async def test_who_reads_slowly_stops_the_command(tmp_path: Path) -> None:
    async def flood(one: Exec) -> int:
        for _ in range(500):
            await one.say(bytes(65_536))
        return 0

    async with running(tmp_path) as here:
        here.docker.programs["flood"] = flood
        async with ran(here, ExecRequest(allocation=ALLOCATION, command=["flood"])) as talk:
            await until(lambda: here.docker.execs and here.docker.execs["e0"].written >= WINDOW)
            for _ in range(100):  # round trips, in which an agent that does not wait reads much more
                with pytest.raises(InvalidRequest):
                    await here.connection.call("none", b"", timeout=PATIENCE)
            assert here.docker.execs["e0"].written < WINDOW + 1_500_000
            out, _, status = await heard(talk)
            assert (len(out), status) == (500 * 65_536, 0)


async def test_docker_is_waited_for_to_say_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as here, ran(here, ExecRequest(allocation=ALLOCATION, command=["stuck"])) as talk:
        await until(lambda: here.docker.execs and here.docker.execs["e0"].written)
        one = here.docker.execs["e0"]
        assert one.writer is not None
        one.writer.write_eof()  # its output ends before it does
        looks = here.docker.asked.count("GET /exec/e0/json")
        await until(lambda: here.docker.asked.count("GET /exec/e0/json") >= looks + 3)
        one.status = 3
        assert (await heard(talk))[2] == 3
    monkeypatch.setattr(commands, "ENDING", 0.05)
    async with running(tmp_path) as here, ran(here, ExecRequest(allocation=ALLOCATION, command=["stuck"])) as talk:
        await until(lambda: here.docker.execs and here.docker.execs["e0"].written)
        one = here.docker.execs["e0"]
        assert one.writer is not None
        one.writer.write_eof()
        with pytest.raises(InternalFault, match="its output has ended, and it has not"):
            await heard(talk)
        one.status = 3


async def refused(here: Node, request: ExecRequest) -> CallRefused:
    async with ran(here, request) as talk:
        with pytest.raises(CallRefused) as error:
            await heard(talk)
    return error.value


async def test_what_cannot_be_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as here:
        here.docker.add("c2", allocation="shop/db.1.2", running=False)
        said = await refused(here, ExecRequest(allocation="shop/db.1.2", command=["cat"]))
        assert (said.message, said.fix) == ("shop/db.1.2 does not run: its container is exited", "hmctl app ps shop")
        said = await refused(here, ExecRequest(allocation="shop/web.9.9", command=["cat"]))
        assert said.message == "shop/web.9.9 does not run: there is no container of it here"
        here.docker.refusals["POST /containers/c1/exec"] = (409, "Container c1 is paused, unpause the container before exec")
        said = await refused(here, ExecRequest(allocation=ALLOCATION, command=["cat"]))
        assert said.message == "Container c1 is paused, unpause the container before exec"
        here.docker.refusals = {"POST /exec/e0/start": (500, "no such thing")}
        assert (await refused(here, ExecRequest(allocation=ALLOCATION, command=["cat"]))).message == "no such thing"
        monkeypatch.setattr(commands, "MOST_RUNNING", 0)
        assert "commands run here already" in (await refused(here, ExecRequest(allocation=ALLOCATION, command=["cat"]))).message


@pytest.mark.parametrize(
    "request_",
    [
        ExecRequest(allocation=ALLOCATION, command=[]),
        ExecRequest(allocation=ALLOCATION, command=[""]),
        ExecRequest(allocation=ALLOCATION, command=["x"] * 5000),
        ExecRequest(allocation=ALLOCATION, command=["x" * 200_000]),
        ExecRequest(allocation=ALLOCATION, command=["cat"], term="x\nPATH=/evil"),
        ExecRequest(allocation=ALLOCATION, command=["cat"], user="x" * 300),
    ],
    ids=["nothing", "empty", "many words", "long", "term", "user"],
)
async def test_what_no_command_can_be_is_refused(tmp_path: Path, request_: ExecRequest) -> None:
    async with running(tmp_path) as here:
        assert isinstance(await refused(here, request_), InvalidRequest)
        assert here.docker.execs == {}


async def test_input_that_was_not_announced_and_signals_that_are_none_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for said in (Input(b"x"), Signal("KILL"), Signal("x" * 1000)):
            async with ran(here, ExecRequest(allocation=ALLOCATION, command=["stuck"])) as talk:
                await talk.send(said)
                with pytest.raises(InvalidRequest):
                    await heard(talk)
        for one in here.docker.execs.values():
            one.status = 1
