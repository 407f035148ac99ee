"""Signals to commands in containers: to the process that Docker means, and to no other."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator

import pytest

from hmcore.errors import LayerDown
from node_agent.container.signals import Command, send_signal


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(["sleep", "100"])
    try:
        yield started
    finally:
        started.kill()
        started.wait()


class Docker:
    """What it says of the command, look by look; the last for ever."""

    def __init__(self, *said: object) -> None:
        self.said = list(said)

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> object:
        assert (method, path) == ("GET", "/exec/e1/json")
        said = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(said, Exception):
            raise said
        return said


def runs(process: int) -> dict[str, object]:
    return {"Running": True, "ExitCode": None, "Pid": process}


ENDED = {"Running": False, "ExitCode": 0, "Pid": 0}


async def sent(docker: Docker, name: str = "TERM") -> bool:
    return await send_signal(Command(docker, "e1"), name)


async def test_it_reaches_the_command(child: subprocess.Popen[bytes]) -> None:
    assert await sent(Docker(runs(child.pid)), "HUP")
    assert child.wait(20) == -1


async def test_one_that_has_ended_gets_none(child: subprocess.Popen[bytes]) -> None:
    assert not await sent(Docker(ENDED))
    assert not await sent(Docker({"Running": True, "Pid": 0}))
    assert child.poll() is None


@pytest.mark.parametrize("then", [ENDED, {"Running": True, "ExitCode": None, "Pid": 4711}])
async def test_a_process_that_has_taken_the_commands_number_gets_none(child: subprocess.Popen[bytes], then: object) -> None:
    """The command ended after the first look; who has its number now is somebody else."""
    assert not await sent(Docker(runs(child.pid), then))
    assert child.poll() is None


async def test_what_keeps_it_from_that_is_logged(child: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert not await sent(Docker(LayerDown("Docker does not answer")))
    assert "SIGTERM cannot be sent to a command in a container: Docker does not answer" in caplog.text


async def test_a_number_that_nobody_has_is_no_failure(child: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture) -> None:
    child.kill()
    child.wait()
    assert not await sent(Docker(runs(child.pid)))
    assert caplog.text == ""


async def test_no_file_is_left_open(child: subprocess.Popen[bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert await sent(Docker(runs(child.pid)), "HUP") or child.wait(20)
        await sent(Docker(runs(child.pid), ENDED))
    assert len(os.listdir("/proc/self/fd")) == before
