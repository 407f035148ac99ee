"""A batch must stay healthy for as long as it soaks, in virtual seconds; and why an agent failed is told from systemd's account of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from msgspec.structs import replace

from hmcore.config.inventory import Host, SshTarget
from hmcore.errors import HyperMeshError, PeerUnreachable
from hmcore.records import CheckReport, ComponentReport, ComponentState, Node, NodeReport, PhaseReport, RaftReport, Role
from hmctl.phases import healthy
from hmctl.phases.healthy import Ailments, judge, wait_healthy, wait_steady
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


UNSERVED = CheckReport(name="metrics", weight=0.5, worth=0.0, reason="metrics cannot be served", fix="another address")
SERVED = CheckReport(name="metrics", weight=0.5, worth=1.0)
BEGUN = PhaseReport(name="metrics", began_seconds=0.0, seconds=0.1, outcome="ok")


class Complaining(Agents):
    """Its metrics are served from the `mended`-th question on."""

    def __init__(self, mended: int) -> None:
        super().__init__(set())
        self.mended = mended

    async def reports(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]:
        await super().reports(hosts, timeout=timeout)
        return {host.name: replace(WELL, checks=[SERVED if self.asked >= self.mended else UNSERVED]) for host in hosts}


async def worse(agents: Agents, before: Mapping[str, Ailments]) -> list[str]:
    async with asyncio.timeout(5.0):
        verdict = await wait_steady([HOST], agents, timeout=1.0, soak=0.0, before=before)  # type: ignore[arg-type]
    return [check.reason or "" for check in verdict.worse.get("node1", {}).values()]


async def test_what_was_well_before_is_waited_for_and_its_lack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Complaining(mended=3)
    assert (await worse(agents, {"node1": {}}), agents.asked) == ([], 3)
    monkeypatch.setattr(healthy, "SETTLE", 0.01)
    assert await worse(Complaining(mended=10**9), {"node1": {}}) == ["metrics cannot be served"]


async def test_what_was_amiss_before_is_not_waited_for() -> None:
    agents = Complaining(mended=10**9)
    assert (await worse(agents, {"node1": {"metrics": UNSERVED}}), agents.asked) == ([], 1)


def test_a_check_that_complains_keeps_a_cluster_from_being_called_healthy() -> None:
    assert judge(["node1"], {"node1": replace(WELL, checks=[UNSERVED])}).degraded == {"node1": "metrics cannot be served"}
    assert judge(["node1"], {"node1": replace(WELL, checks=[replace(UNSERVED, muted=True)])}).healthy


def test_metrics_that_are_still_to_be_served_are_not_served() -> None:
    early = replace(WELL, checks=[SERVED], phases=[replace(BEGUN, name="identity")])
    assert judge(["node1"], {"node1": early}).degraded == {"node1": "metrics are not served yet"}
    assert judge(["node1"], {"node1": replace(early, phases=[BEGUN])}).healthy


async def test_a_soak_ends() -> None:
    agents = Agents(set())
    assert await steady(agents, 0.02) == {}
    assert agents.asked > 2


@pytest.mark.parametrize(
    ("journal", "why"),
    [
        ("", ""),
        ("it cannot\nleaving in 0.5 s, to be started again", "it cannot"),
        ("it cannot\nhypermesh-agent.service: Failed with result 'exit-code'.\nFailed to start hypermesh-agent.service - x", "it cannot"),
        (
            "Starting hypermesh-agent.service - x\nFailed to start hypermesh-agent.service - x",
            "Failed to start hypermesh-agent.service - x",
        ),
        (
            'Job for hypermesh-agent.service failed.\nSee "systemctl status" for details.\nsystemd calls it: timeout',
            "systemd calls it: timeout",
        ),
    ],
)
def test_the_reason_is_the_agents_own_last_word(journal: str, why: str) -> None:
    assert reason(journal) == why


DAMAGED = replace(
    WELL,
    components={"consensus": ComponentReport(state=ComponentState.DEGRADED, error="checksum at offset 8", fix="hmctl raft reseed node1")},
    raft=RaftReport(role="damaged"),
)


class Damaged(Agents):
    async def reports(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]:
        self.asked += 1
        return {host.name: DAMAGED for host in hosts}


def test_a_voter_with_a_damaged_memory_says_what_mends_it() -> None:
    verdict = judge(["node1"], {"node1": DAMAGED})
    assert verdict.waiting == {"node1": "checksum at offset 8; to mend it: hmctl raft reseed node1"}
    assert not verdict.healthy


async def test_nobody_waits_for_what_no_waiting_mends() -> None:
    async with asyncio.timeout(5.0):
        verdict = await wait_healthy([HOST], Damaged(set()), timeout=60.0, grace=0.05)  # type: ignore[arg-type]
    assert set(verdict.waiting) == {"node1"}
