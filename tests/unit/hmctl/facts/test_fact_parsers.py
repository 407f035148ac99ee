"""Parsers of facts: what real hosts print, as files (tests/cases/facts/<topic>.<case>.txt and .json); and whatever else anybody might."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import SudoRefused, Unreachable
from hmctl.facts import agent, disks, gather, kernel, packages, ports, runtime, system
from hmctl.remote.base import Completed
from hmctl.remote.fake import FakeRemote, Machine, facts

CASES = Path(__file__).parents[3] / "cases" / "facts"
PARSERS = {module.TOPIC.name: module.parse for module in (agent, disks, kernel, packages, ports, runtime, system)}


def plain(value: Any) -> Any:
    """As JSON would have it."""
    match value:
        case tuple() | list():
            return [plain(part) for part in value]
        case frozenset():
            return sorted(plain(part) for part in value)
        case bytes():
            return value.decode()
        case dict():
            return {key: plain(part) for key, part in value.items()}
        case float():
            return round(value, 3)
        case _ if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.txt")))
def test_what_hosts_print(case: str) -> None:
    text, expected = (CASES / f"{case}.txt").read_text(), json.loads((CASES / f"{case}.json").read_text())
    assert plain(PARSERS[case.split(".")[0]](text)) == expected


@given(
    st.one_of(
        st.text(),
        st.sampled_from(["version=", "MainPID=", "release=", "time=", "udp ", "file_ca="]).flatmap(
            lambda k: st.text().map(lambda t: k + t)
        ),
    )
)
def test_parsers_are_total(text: str) -> None:
    for parse in PARSERS.values():
        parse(text)
    gather.parse("host", gather.split(text), 0.0, 1.0)
    gather.parse("host", dict.fromkeys(PARSERS, text) | {"began": text, "ended": text}, 0.0, 1.0)


@given(st.floats(-1e6, 1e6), st.floats(0, 5), st.floats(0, 5), st.floats(0, 5))
def test_the_clock_offset_lies_within_its_error(offset: float, there: float, work: float, back: float) -> None:
    asked = 1_795_000_000.0
    began = asked + there
    sections = {"began": f"time={began + offset:.9f}", "ended": f"time={began + work + offset:.9f}"}
    found = gather.parse("host", sections, asked, began + work + back)
    assert abs(found.clock_offset - offset) <= found.clock_error + 1e-5
    assert found.clock_error <= (there + back) / 2 + 1e-5


def test_the_script_runs_in_a_plain_shell_and_every_topic_answers() -> None:
    done = subprocess.run(["sh", "-s"], input=gather.script("python3").encode(), capture_output=True, timeout=60, check=True)
    sections = gather.split(done.stdout.decode())
    assert set(sections) == {"began", "ended", *PARSERS}
    found = gather.parse("here", sections, 0.0, 0.0)
    assert found.python is not None
    assert found.system.arch
    assert found.disks


def test_a_host_without_python_is_asked_all_the_rest() -> None:
    done = subprocess.run(["sh", "-s"], input=gather.script("/no/such/python").encode(), capture_output=True, timeout=60, check=True)
    found = gather.parse("here", gather.split(done.stdout.decode()), 0.0, 0.0)
    assert found.python is None
    assert found.system.hostname


@pytest.mark.parametrize(
    ("units", "state", "knocks"),
    [
        ({"docker.socket": "active", "docker.service": "inactive"}, "down", 0),
        ({"docker.socket": "active", "docker.service": "failed"}, "down", 0),
        ({"docker.socket": "active", "docker.service": "active"}, "running", 1),
        ({"docker.socket": "inactive", "docker.service": "inactive"}, "running", 1),  # an engine that systemd knows nothing of
    ],
)
def test_an_engine_that_was_stopped_is_not_woken_by_asking(tmp_path: Path, units: dict[str, str], state: str, knocks: int) -> None:
    """systemd listens for a stopped Docker: whoever connects, starts it; also a dry run, which promises to change nothing."""
    cases = "".join(f"{unit}) echo {answer};; " for unit, answer in units.items())
    for name, text in {"systemctl": f'case "$2" in {cases}esac', "dockerd": ":"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    heard = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            with link:
                heard.append(link.recv(1000))
                link.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"Version": "24.0.7"}')

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        try:
            environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HM_PYTHON": sys.executable}
            script = runtime.command(str(tmp_path / "docker.sock"))
            done = subprocess.run(["sh", "-s"], input=script.encode(), capture_output=True, timeout=60, check=True, env=environ)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join(10)
    docker = runtime.parse(done.stdout.decode()).docker
    assert (docker.state, len(heard)) == (state, knocks)
    assert docker.error == ("it is stopped" if state == "down" else "")


class _Answering(FakeRemote):
    def __init__(self, answer: Completed) -> None:
        from hmcore.config.inventory import Host, SshTarget
        from hmcore.records import Role

        super().__init__(Host("node1", SshTarget("10.0.0.1", user="ops"), "10.0.0.1", 7443, Role.CONTROL), Machine("node1", "10.0.0.1"))
        self.answer = answer

    async def run(self, argv: object, **options: object) -> Completed:  # type: ignore[override]
        return self.answer


async def test_who_may_not_become_root_is_told_so() -> None:
    with pytest.raises(SudoRefused, match="ops may not use sudo there: sudo: a password is required"):
        await gather.gather(_Answering(Completed(1, b"", "sudo: a password is required\n")), timeout=1)
    ordinary = facts(Machine("node1", "10.0.0.1")).replace("uid=0", "uid=1000")
    with pytest.raises(SudoRefused, match="not root"):
        await gather.gather(_Answering(Completed(0, ordinary.encode(), "")), timeout=1)


async def test_an_answer_that_breaks_off_is_not_taken_for_facts() -> None:
    half = facts(Machine("node1", "10.0.0.1"))[:400]
    with pytest.raises(Unreachable, match="stopped answering"):
        await gather.gather(_Answering(Completed(-1, half.encode(), "")), timeout=1)
