"""Locks of a real cluster: two operators at once, one who dies, and a leader that is killed while a lock is held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, Hmctl

HOLDER = """
import asyncio, sys, time
from hmcore.config.inventory import load_inventory
from hmctl.actions.locks import lock
from hmctl.state import OperatorStore

async def main():
    inventory, _ = load_inventory(sys.argv[1], {"HOME": "/root"})
    async with lock(inventory, OperatorStore.open(inventory.id), "nightly", ttl=9.0, note="a test", wait=20.0) as lease:
        while not sys.stdin.closed:
            print(lease.token, "held" if lease.held else f"lost: {lease.why}", flush=True)
            try:
                async with asyncio.timeout(0.5):
                    await lease.lost.wait()
            except TimeoutError:
                continue
            print(lease.token, f"lost: {lease.why}", flush=True)
            return

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def healthy_before_and_after(cluster: Cluster) -> Iterator[None]:
    cluster.until_healthy()
    yield
    cluster.lab.heal()
    cluster.deploy()
    cluster.until_healthy()


@pytest.fixture
def elsewhere(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """The environment of another operator, on another machine."""
    env = {"XDG_DATA_HOME": str(tmp_path / "data")}
    cluster.run("ca", "export", tmp_path / "ca")
    cluster.run("ca", "import", tmp_path / "ca", env=env)
    return env


def changed(cluster: Cluster, folder: Path, interval: int) -> Path:
    """An inventory with another setting: its deploy restarts every agent."""
    path = folder / f"{interval}.yaml"
    path.write_text(cluster.inventory.read_text() + f"settings: {{health: {{interval: {interval}}}}}\n")
    return path


def locks(cluster: Cluster) -> list[dict[str, Any]]:
    return list(json.loads(cluster.run("lock", "status", "-o", "json").stdout)["locks"])


def until_held(cluster: Cluster, process: subprocess.Popen[str], within: float = 60.0) -> dict[str, Any]:
    began = time.monotonic()
    while not (held := locks(cluster)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < within
    return held[0]


def test_of_two_deploys_at_once_the_second_is_told_who_is_at_work_or_waits(
    cluster: Cluster, tmp_path: Path, elsewhere: dict[str, str]
) -> None:
    first = cluster.hmctl.start("-i", changed(cluster, tmp_path, 8), "deploy", "--yes")
    held = until_held(cluster, first)
    other = changed(cluster, tmp_path, 7)
    words = f"{held['holder']} is changing this cluster (`hmctl deploy`, since "
    first.send_signal(signal.SIGSTOP)  # or it may be done before the second, on a busy machine, has asked
    try:
        done = cluster.hmctl("-i", other, "deploy", "--yes", check=False, env=elsewhere)
        colleague = Hmctl({**cluster.hmctl.environ, **elsewhere}, cluster.hmctl.cwd)
        second = colleague.start("-i", other, "deploy", "--yes", "--lock-wait", "120")
        assert second.stderr is not None
        said = second.stderr.readline()
    finally:
        first.send_signal(signal.SIGCONT)
    assert done.returncode == 1
    assert words in done.stderr
    assert "nothing was changed" in done.stderr
    assert words in said
    assert "waiting up to 2m" in said
    for deploy in (first, second):
        told = deploy.communicate(timeout=120)
        assert deploy.returncode == 0, told
    assert "interval: 7" in cluster.inside("node1", "cat", "/etc/hypermesh/agent.yaml")
    assert locks(cluster) == []


def test_who_is_killed_keeps_nobody_for_longer_than_the_term(cluster: Cluster, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    first = cluster.hmctl.start("-i", changed(cluster, tmp_path, 8), "deploy", "--yes")
    held = until_held(cluster, first)
    first.kill()
    first.communicate()
    began = time.monotonic()
    done = cluster.hmctl("-i", changed(cluster, tmp_path, 7), "deploy", "--yes", "--lock-wait", "90", env=elsewhere, timeout=240)
    assert f"{held['holder']} is changing this cluster" in done.stderr
    events = json.loads(cluster.run("events", "--kind", "lock.expired", "-o", "json").stdout)["events"]
    assert any("has not renewed it for 30 s" in event["message"] for event in events)
    assert time.monotonic() - began < 30 + 60


def test_a_lock_that_is_ended_by_an_operator_stops_its_holder(cluster: Cluster, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    with holding(cluster, tmp_path) as holder:
        token = holder.line()[0]
        done = json.loads(cluster.run("lock", "release", "nightly", "--yes", "--reason", "a test", "-o", "json", env=elsewhere).stdout)
        assert (str(done["token"]), done["changed"]) == (token, True)
        assert holder.until_lost(within=9.0).endswith("nobody holds it")


def test_a_lock_is_kept_while_leaders_are_killed(cluster: Cluster, tmp_path: Path) -> None:
    with holding(cluster, tmp_path) as holder:
        token = holder.line()[0]
        for _ in range(2):
            leader, term = cluster.status()["leader"], cluster.status()["term"]
            cluster.kill_agent(leader)
            cluster.until(lambda document, term=term: document["leader"] and document["term"] > term, 15, "another term has a leader")  # type: ignore[misc]
            cluster.until_healthy()
            holder.held_for(10.0, token)  # longer than its term
        (held,) = locks(cluster)
        assert (held["name"], str(held["token"])) == ("nightly", token)


def test_a_holder_that_nobody_hears_stops_before_the_next_one_has_it(cluster: Cluster, tmp_path: Path) -> None:
    with holding(cluster, tmp_path) as holder:
        holder.line()
        holder.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        while locks(cluster):
            assert time.monotonic() - began < 9 + 5
        holder.process.send_signal(signal.SIGCONT)
        assert "lost" in holder.until_lost(within=3.0)


class holding:
    """Another process that holds the lock `nightly`."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(cluster.inventory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **cluster.hmctl.environ},
            cwd=folder,
        )

    def __enter__(self) -> holding:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate()

    def line(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, "the holder has ended"
        token, _, state = said.strip().partition(" ")
        return token, state

    def held_for(self, seconds: float, token: str) -> None:
        """As of now, on and on. Lines that were said before do not count."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.line() == (token, "held")

    def until_lost(self, within: float) -> str:
        began = time.monotonic()
        while (state := self.line()[1]) == "held":
            assert time.monotonic() - began < within
        return state
