"""Apps watched and entered: a terminal in a replica, output of all nodes as it is written, what the cluster tells of apps as it happens."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest
from clusters import HMCTL
from composing import IMAGE, Apps

TALKING = f"""
services:
  talk:
    image: {IMAGE}
    init: true
    command: ["sh", "-c", "echo I am $$(hostname); exec sleep 3600"]
    deploy: {{replicas: 3, restart_policy: {{delay: 1s}}, update_config: {{monitor: 0s, parallelism: 0}}}}
"""


class Terminal:
    """A terminal of 33 rows and 101 columns, in which hmctl runs as a person would run it."""

    def __init__(self, apps: Apps, *words: str) -> None:
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        self._before = self._modes()
        hmctl = apps.cluster.hmctl
        self._process = subprocess.Popen(
            [HMCTL, "-i", apps.cluster.inventory, *words],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            cwd=hmctl.cwd,
            env=hmctl.environ | {"TERM": "vt100"},
            start_new_session=True,
        )
        self._seen = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, text: str, within: float = 15.0) -> str:
        """What was shown up to `text`, which is taken away with it."""
        deadline = time.monotonic() + within
        while text not in self._seen:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                pytest.fail(f"no {text!r} within {within:g} s, but {self._seen!r}")
            self._seen += os.read(self._ours, 4096).decode()
        shown, _, self._seen = self._seen.partition(text)
        return shown

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """The exit code. The terminal is as it was."""
        code = self._process.wait(15)
        assert self._modes() == self._before
        return code

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _modes(self) -> list[object]:
        return list(termios.tcgetattr(self._theirs))


@pytest.fixture
def terminal(apps: Apps) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(*words: str) -> Terminal:
        opened.append(Terminal(apps, *words))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def test_a_command_in_a_replica_has_the_operators_terminal(apps: Apps, terminal: Callable[..., Terminal]) -> None:
    apps.deploy("talking", TALKING)
    (second,) = (each for each in apps.replicas("talking") if each["replica"] == "talk.2")
    shell = terminal("app", "exec", "talking/talk.2", "--", "sh")
    shell.until("# ")
    shell.type("echo on $(hostname), $(busybox stty size), $TERM.\r")
    shell.until(f"on {second['container'][:12]}, 33 101, vt100.")
    shell.resize(50, 132)
    shell.type("while [ \"$(busybox stty size)\" != '50 132' ]; do sleep 0; done; echo it has $(echo grown)\r")
    shell.until("it has grown")
    # Who says it is in the foreground by then: busybox's shell loses a Ctrl-C that comes while it begins another program.
    shell.type("sh -c 'echo sleeping for $(echo long); exec sleep 3600'\r")
    shell.until("sleeping for long")
    shell.type("\x03")  # is the command's, not ours
    shell.until("# ")
    shell.type("echo $?\r")
    shell.until("130")
    shell.type("exit 7\r")
    assert shell.end() == 7


def test_what_all_nodes_write_is_one_stream_and_goes_on_with_containers_that_come(
    apps: Apps, eventually: Callable[..., None], following: Callable[..., list[str]]
) -> None:
    apps.deploy("talking", TALKING)
    replicas = apps.replicas("talking")
    assert {each["node"] for each in replicas} == set(apps.cluster.names)
    lines = following("app", "logs", "talking", "-f", "-o", "json")
    events = following("events", "-f", "--kind", "app,rollout,replica", "-o", "json")

    def said() -> set[tuple[str, str, str]]:
        told = [json.loads(line) for line in lines]
        return {(each["replica"], each["node"], each["message"]) for each in told}

    def happened(subject: str) -> list[str]:
        return [each["kind"] for each in map(json.loads, events) if (each["subject"] or "").startswith(subject)]

    eventually(lambda: {(each["replica"], each["node"], f"I am {each['container'][:12]}") for each in replicas} <= said(), within=15)
    for each in replicas:
        apps.run("exec", f"talking/{each['replica']}", "--", "sh", "-c", f"echo {each['replica']} speaks > /proc/1/fd/1")
    eventually(lambda: {(each["replica"], each["node"], f"{each['replica']} speaks") for each in replicas} <= said(), within=15)

    eventually(lambda: "app.deployed" in happened("talking"), within=10)
    first = replicas[0]
    apps.cluster.inside(first["node"], "docker", "kill", first["container"])
    eventually(lambda: "replica.ended" in happened(first["id"]), within=15)
    apps.change("restart", "talking")
    fresh = apps.replicas("talking")
    assert not {each["container"] for each in fresh} & {each["container"] for each in replicas}
    eventually(lambda: {(each["replica"], each["node"], f"I am {each['container'][:12]}") for each in fresh} <= said(), within=15)
    apps.change("scale", "talking/talk=0")
    eventually(lambda: {"app.deployed", "app.restarted", "app.healthy"} <= set(happened("talking")), within=15)
    assert "rollout.done" in happened("talking/talk")
