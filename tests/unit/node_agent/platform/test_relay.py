"""The relay copies bytes exactly, both ways, and ends when the agent does."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from hmcore.errors import Unreachable
from node_agent.platform.relay import relay


class Relay:
    """A relay in a thread, between two pipes and a listening socket."""

    def __init__(self, path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(5)
        stdin, self.stdin = os.pipe()
        self.stdout, stdout = os.pipe()

        def run() -> None:
            relay(path, stdin, stdout)
            os.close(stdout)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        self.agent, _ = self._listener.accept()
        self.agent.settimeout(5)
        self._mine = [stdin, self.stdout]

    def close(self) -> None:
        self.agent.close()
        self.thread.join(5)
        self._listener.close()
        for descriptor in self._mine:
            os.close(descriptor)


@pytest.fixture
def joined(tmp_path) -> Iterator[Relay]:
    bench = Relay(tmp_path / "agent.sock")
    yield bench
    bench.close()


def _read(receive, size: int) -> bytes:
    data = b""
    while len(data) < size and (chunk := receive(size - len(data))):
        data += chunk
    return data


def test_bytes_pass_both_ways_unchanged(joined):
    sent = os.urandom(3_000_000)
    writer = threading.Thread(target=lambda: (os.write(joined.stdin, sent[:60_000]), os.close(joined.stdin)))
    writer.start()
    assert _read(joined.agent.recv, 60_000) == sent[:60_000]
    writer.join()
    assert joined.agent.recv(1) == b""  # the end of stdin arrives as such, and the answer still passes
    answer = threading.Thread(target=lambda: (joined.agent.sendall(sent), joined.agent.shutdown(socket.SHUT_WR)))
    answer.start()
    assert _read(lambda size: os.read(joined.stdout, size), len(sent)) == sent
    answer.join()
    joined.thread.join(5)
    assert not joined.thread.is_alive()


def test_it_ends_when_the_agent_closes_though_stdin_stays_open(joined):
    joined.agent.close()
    joined.thread.join(5)
    assert not joined.thread.is_alive()
    os.close(joined.stdin)


def test_no_agent_is_said_with_what_mends_it(tmp_path):
    with pytest.raises(Unreachable, match="not running") as caught:
        relay(tmp_path / "agent.sock")
    assert caught.value.fix == "systemctl start hypermesh-agent"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "agent.sock"))
    dead.close()
    with pytest.raises(Unreachable, match=r"does not answer .* refused"):
        relay(tmp_path / "agent.sock")
