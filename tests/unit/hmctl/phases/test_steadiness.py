"""A batch must stay healthy for as long as it soaks, in virtual seconds; and why an agent failed is told from systemd's account of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from hmcore.config.inventory import Host, SshTarget
from hmcore.errors import HyperMeshError, PeerUnreachable
from hmcore.records import ComponentReport, ComponentState, Node, NodeReport, RaftReport, Role
from hmctl.phases import healthy
from hmctl.phases.healthy import wait_steady
from hmctl.phases.start import reason

HOST = Host("node1", SshTarget("10.0.0.1"), "10.0.0.1", 7443, Role.CONTROL)
WELL = NodeReport(
    cluster="hm-abc123defg",
    name="node1",
    address="10.0.0.1",
    role=Role.CONTROL,
    release="",
    uptime_seconds=1.0,
    health_score=1.0,
    reasons=[],
    containers=0,
    components={"consensus": ComponentReport(state=ComponentState.RUNNING)},
    raft=RaftReport(role="leader", leader="node1"),
    formed=True,
    members=[Node(name="node1", address="10.0.0.1", port=7443, role=Role.CONTROL, release="")],
)


class Agents:
    """Well, but for the questions numbered in `silent`."""

    def __init__(self, silent: set[int]) -> None:
        self.silent, self.asked = silent, 0

    async def reports(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]:
        self.asked += 1
        return {host.name: PeerUnreachable("no answer") if self.asked in self.silent else WELL for host in hosts}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthy, "POLL", 0.0)
    monkeypatch.setattr(healthy, "SOAK_POLL", 0.001)


async def steady(agents: Agents, soak: float) -> Mapping[str, str]:
    async with asyncio.timeout(5.0):
        return (await wait_steady([HOST], agents, timeout=1.0, soak=soak)).waiting  # type: ignore[arg-type]


async def test_without_soaking_it_is_asked_until_it_is_well_and_no_more() -> None:
    agents = Agents({1, 2})
    assert (await steady(agents, 0.0), agents.asked) == ({}, 3)


async def test_who_fails_while_it_soaks_has_failed() -> None:
    agents = Agents({1, 4})
    assert (await steady(agents, 5.0), agents.asked) == ({"node1": "no answer"}, 4)


async def test_a_soak_ends() -> None:
    agents = Agents(set())
    assert await steady(agents, 0.02) == {}
    assert agents.asked > 2


@pytest.mark.parametrize(
    ("journal", "why"),
    [
        ("", ""),
        ("it cannot\nhypermesh-agent.service: Failed with result 'exit-code'.\nFailed to start hypermesh-agent.service - x", "it cannot"),
        (
            "Starting hypermesh-agent.service - x\nFailed to start hypermesh-agent.service - x",
            "Failed to start hypermesh-agent.service - x",
        ),
    ],
)
def test_the_reason_is_the_agents_own_last_word(journal: str, why: str) -> None:
    assert reason(journal) == why
