"""Who is restarted, in which order, and how the last phases reach agents where UDP is closed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmcore.api import Formation
from hmcore.config.inventory import Host, SshTarget
from hmcore.errors import PeerUnreachable
from hmcore.records import Role
from hmctl import client, layout
from hmctl.bundle.store import Release
from hmctl.facts import gather
from hmctl.facts.agent import checksum
from hmctl.phases.agents import LiveAgents
from hmctl.phases.base import Desired, Target
from hmctl.phases.rolling import batches
from hmctl.phases.start import stale
from hmctl.remote.fake import FakeRemote, Machine, facts

RELEASE = Release("a" * 64, "0", "3.11", "x86_64", True, 1, 1, "", 0.0, Path("/archive"))
DESIRED = Desired(RELEASE, b"config", b"unit", b"wrapper", b"ca", None)


def target(name: str, *, role: Role = Role.CONTROL, changed: bool = False, running: bool = True) -> Target:
    machine = Machine(name, "10.0.0.1", active=running, started_release="a" * 64)
    machine.files = {layout.CONFIG: b"config", layout.CA: b"ca", layout.CERTIFICATE: b"certificate", layout.UNIT_FILE: b"unit"}
    machine.started = {path: checksum(content) for path, content in machine.files.items()}
    found = gather.parse(name, gather.split(facts(machine)), 0.0, 0.0)
    host = Host(name, SshTarget("10.0.0.1"), "10.0.0.1", 7443, role)
    return Target(host, found, replace(DESIRED, config=b"other") if changed else DESIRED)


def test_an_agent_that_runs_with_what_shall_be_is_left_alone() -> None:
    assert stale(target("node1")) == ()


@pytest.mark.parametrize(
    ("desired", "reason"),
    [
        (replace(DESIRED, config=b"x"), "configuration"),
        (replace(DESIRED, unit=b"x"), "unit"),
        (replace(DESIRED, ca=b"x"), "CA"),
        (replace(DESIRED, certificate="expires"), "certificate"),
        (replace(DESIRED, release=replace(RELEASE, digest="b" * 64)), "release"),
        (replace(DESIRED, packages=("python3-bpfcc",)), "packages"),
    ],
)
def test_whatever_it_reads_at_its_start_restarts_it(desired: Desired, reason: str) -> None:
    assert stale(replace(target("node1"), desired=desired)) == (reason,)
    assert stale(replace(target("node1", running=False), desired=desired)) == ()


def test_the_wrapper_restarts_nothing() -> None:
    assert stale(replace(target("node1"), desired=replace(DESIRED, wrapper=b"x"))) == ()


def test_control_nodes_go_one_by_one_the_leader_last_and_workers_in_batches() -> None:
    control = [target(f"node{i}", changed=i != 3) for i in (1, 2, 3, 4)]
    workers = [target(f"work{i}", role=Role.WORKER, changed=True) for i in (1, 2, 3)]
    order = batches([*workers, *control], "node1", 2)
    assert [[one.name for one in batch] for batch in order] == [["node2"], ["node4"], ["node1"], ["work1", "work2"], ["work3"]]
    assert batches([target("node1")], None, 1) == []


class _Client:
    def __init__(self) -> None:
        self.closed = False

    async def formation(self) -> Formation:
        return Formation(bootstrap="b", voters=[], empty=True, permitted=False, formed=False)

    async def close(self) -> None:
        self.closed = True


async def test_where_udp_is_closed_agents_are_asked_through_ssh_and_udp_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clients: list[_Client] = []

    async def over_quic(*_: Any, **__: Any) -> Any:
        calls.append("quic")
        raise PeerUnreachable("no answer")

    async def over_ssh(*_: Any, **__: Any) -> Any:
        calls.append("ssh")
        clients.append(_Client())
        return clients[-1]

    monkeypatch.setattr(client, "connect", over_quic)
    monkeypatch.setattr(client, "connect_remote", over_ssh)
    host = target("node1").host
    remote = FakeRemote(host, Machine("node1", "10.0.0.1"))
    agents = LiveAgents(client.Access("hm-abc123defg", b"", None, Path("/")), {"node1": remote})  # type: ignore[arg-type]
    for _ in range(2):
        answers = await agents.formation([host], timeout=1.0)
        assert isinstance(answers["node1"], Formation)
    assert calls == ["quic", "ssh"]  # and the connection was kept
    await agents._drop("node1")
    await agents.formation([host], timeout=1.0)
    assert calls == ["quic", "ssh", "ssh"]
    await agents.close()
    assert all(one.closed for one in clients)


async def test_a_host_without_ssh_is_asked_over_quic_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def over_quic(*_: Any, **__: Any) -> Any:
        raise PeerUnreachable("no answer")

    monkeypatch.setattr(client, "connect", over_quic)
    host = target("node1").host
    agents = LiveAgents(client.Access("hm-abc123defg", b"", None, Path("/")), {})  # type: ignore[arg-type]
    assert isinstance((await agents.formation([host], timeout=1.0))["node1"], PeerUnreachable)
