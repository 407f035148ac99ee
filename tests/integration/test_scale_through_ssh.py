"""Where UDP is closed, agents are asked through SSH: never with more connections at once than the limit, however many nodes there are.

The real hmctl against simulated hosts whose relays lead to simulated agents (tests/scale).
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fleet import HMCTL, Fleet, fleet

from hmctl.client import AT_ONCE

COUNT = AT_ONCE + 8
SSH = ("--via", "ssh", "--timeout", "20")
SOON = 30.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[Fleet]:
    with fleet(COUNT) as made:
        deployed = made.hmctl("-q", "deploy", "--yes")  # with which the hosts' keys are known
        assert deployed.status == 0, deployed.stderr
        yield made


def counts(hosts: Fleet) -> Any:
    return hosts.hosts(counts="now")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def following(hosts: Fleet, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*hosts.enter, str(HMCTL), "-i", str(hosts.path), *arguments, *SSH]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=hosts.environment) as run:
        try:
            yield run
        finally:
            run.send_signal(signal.SIGINT)
            run.wait(SOON)


@pytest.mark.parametrize("command", ["flows", "events"])
def test_more_nodes_than_connections_are_asked_in_turns(hosts: Fleet, command: str) -> None:
    hosts.hosts(counts="reset")
    run = hosts.hmctl("-o", "json", command, *SSH)
    assert (run.status, run.document["problems"]) == (0, []), run.stderr
    assert (counts(hosts)["total"], counts(hosts)["most_of_one_host"]) == (COUNT, 1)
    assert counts(hosts)["peak"] <= AT_ONCE
    until(lambda: counts(hosts)["open"] == 0)


@pytest.mark.parametrize("command", ["flows", "events"])
def test_more_nodes_than_connections_cannot_be_followed_and_none_is_opened(hosts: Fleet, command: str) -> None:
    hosts.hosts(counts="reset")
    run = hosts.hmctl(command, "-f", *SSH)
    assert run.status == 2
    assert f"no more than {AT_ONCE} connections are open at once: too few to follow {COUNT} nodes" in " ".join(run.stderr.split())
    assert "--node" in run.stderr
    assert counts(hosts)["total"] == 0


@pytest.mark.parametrize(("command", "others"), [("flows", 0), ("events", 3)])
def test_as_many_nodes_as_there_may_be_connections_are_followed_with_one_each(hosts: Fleet, command: str, others: int) -> None:
    """Of events, the control nodes tell the cluster's."""
    hosts.hosts(counts="reset")
    chosen = [word for name in hosts.names[-(AT_ONCE - others) :] for word in ("--node", name)]
    with following(hosts, command, "-f", *chosen) as run:
        until(lambda: counts(hosts)["sessions"] == AT_ONCE or run.poll() is not None)
        assert run.poll() is None
    assert run.returncode == 0
    assert {what: counts(hosts)[what] for what in ("sessions", "total", "peak")} == {"sessions": AT_ONCE, "total": AT_ONCE, "peak": AT_ONCE}
    until(lambda: counts(hosts)["open"] == 0)


@pytest.mark.parametrize("since", [pytest.param([], id="ever"), pytest.param(["--since", "@2"], id="since then")])
def test_the_latest_lines_of_more_journals_than_connections_are_read_in_turns(hosts: Fleet, since: list[str]) -> None:
    hosts.hosts(counts="reset")
    run = hosts.hmctl("-o", "json", "logs", "--tail", "3", *since)
    assert run.status == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert sorted(line["message"] for line in lines) == sorted(f"{name} says {number}" for name in hosts.names for number in (3, 4, 5))
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert counts(hosts)["total"] == COUNT
    assert counts(hosts)["peak"] <= AT_ONCE


@pytest.mark.parametrize(
    ("arguments", "way_out"), [pytest.param(["-f"], "name fewer nodes", id="follow"), pytest.param(["--since", "1h"], "--tail N", id="all")]
)
def test_more_journals_than_connections_are_neither_followed_nor_kept_whole(hosts: Fleet, arguments: list[str], way_out: str) -> None:
    hosts.hosts(counts="reset")
    run = hosts.hmctl("logs", *arguments)
    assert run.status == 2
    assert f"no more than {AT_ONCE} SSH connections are open at once" in " ".join(run.stderr.split())
    assert way_out in run.stderr
    assert counts(hosts)["total"] == 0
