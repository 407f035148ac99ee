"""Wall clocks that jump by days: they name the hour of events and judge new certificates, and nothing else depends on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cluster import WAIT, ClusterOfProcesses
from operators import Operator, new_id

from hmcore.api import MAINTAIN, MUTE, REGISTRY, Empty, MaintainRequest, MuteRequest, StateReply
from hmcore.records import Instance, InstanceHealth, NodeState
from hmcore.stoq.rpc import invoke

CLOCKED = "tests/integration/clocked_agent.py"
DAY = 86_400.0
WATCHED = 2.0  # seconds: longer than it takes to be called down (cluster.QUICK)
OUT = "node4/registry"  # in maintenance


@pytest.fixture
def clocks(tmp_path: Path) -> Iterator[ClusterOfProcesses]:
    """Three control nodes and a worker whose certificates are three days old: valid by all clocks that are set here but one."""
    cluster = ClusterOfProcesses(
        tmp_path, controls=3, workers=1, now=datetime.now(UTC) - timedelta(days=3), health={"interval": 1.0, "timeout": 0.5}
    )
    for node in cluster.nodes.values():
        node.program = (CLOCKED,)
    yield cluster
    cluster.stop()


def set_clocks(cluster: ClusterOfProcesses, ahead: Mapping[str, float]) -> None:
    for name, seconds in ahead.items():
        beside = cluster.nodes[name].directory / "clock.new"
        beside.write_text(str(seconds))
        beside.replace(beside.with_name("clock"))


def as_it_was(state: StateReply) -> bool:
    """Nobody is called down, nothing has expired, what operators said still holds."""
    return (
        {node.state for node in state.nodes} <= {NodeState.READY, NodeState.DEGRADED}
        and len(state.nodes) == 4
        and [each.target for each in state.maintenance] == [OUT]
        and [each.key for each in state.mutes] == ["component.container"]
    )


async def not_in(cluster: ClusterOfProcesses, *healths: InstanceHealth) -> list[Instance]:
    """Components that the worker knows to be in another health: those of containers are degraded, there is no Docker."""
    async with cluster.inside("node4") as connection:
        instances = (await invoke(connection, REGISTRY, Empty(), timeout=2)).instances
    return [each for each in instances if each.health not in healths and not each.id.endswith("/container")]


async def until_all_are_well(cluster: ClusterOfProcesses) -> None:
    async with asyncio.timeout(WAIT):
        while True:
            if not await not_in(cluster, InstanceHealth.HEALTHY):
                return
            await asyncio.sleep(0.05)


async def nothing_happens(cluster: ClusterOfProcesses, but: Collection[str] = ()) -> None:
    """Looks again and again: the same leader, no trouble, no instance that nobody vouches for, no event but of some kinds."""
    before = await cluster.states()
    ends = time.monotonic() + WATCHED
    while time.monotonic() < ends:
        states = await cluster.states()
        assert all(as_it_was(state) for state in states.values()), states
        assert {state.leader for state in states.values()} == {before["node1"].leader}
        new = [event for event in states["node1"].events if event.index > before["node1"].index and event.kind not in but]
        assert not new, new
        assert await not_in(cluster, InstanceHealth.HEALTHY, InstanceHealth.DEGRADED) == []
        await asyncio.sleep(0.1)


async def test_nothing_but_the_hour_of_events_depends_on_wall_clocks(clocks: ClusterOfProcesses) -> None:
    formed = await clocks.bring_up()
    leader = formed["node1"].raft.leader
    assert leader is not None
    other = next(name for name in clocks.voters if name != leader)
    async with Operator(clocks, "tester") as operator:
        await operator.change(MAINTAIN, MaintainRequest(id=new_id(), target=OUT, on=True, reason="a test"))
        await operator.change(MUTE, MuteRequest(id=new_id(), check="component.container", reason="no Docker here"))
        await clocks.until_states(
            lambda state: as_it_was(state) and all(each.state is NodeState.READY for each in state.nodes), "all settled"
        )
        await until_all_are_well(clocks)

        set_clocks(clocks, {leader: DAY, other: -DAY, "node4": -DAY})
        await nothing_happens(clocks)
        set_clocks(clocks, {leader: -DAY, other: DAY, "node4": DAY})
        await nothing_happens(clocks)
        await operator.change(MUTE, MuteRequest(id=new_id(), check="disk", reason="with a clock that is a day late"))
        await operator.change(MUTE, MuteRequest(id=new_id(), check="disk", on=False))
    events = (await clocks.until_states(as_it_was, "the last mute is taken back"))["node1"].events
    assert [event.kind for event in events[-2:]] == ["check.muted", "check.unmuted"]
    assert [event.index for event in events] == sorted(event.index for event in events), "their order is the log's"
    assert all(event.unix_time < events[0].unix_time - DAY / 2 for event in events[-2:]), "the hour is that of the leader's clock"

    await starts_again(clocks, other)
    clocks.nodes["node4"].kill()  # its disk is a new one then: only the cluster knows of its earlier starts
    (clocks.nodes["node4"].config.data_dir / "incarnation").unlink()
    await starts_again(clocks, "node4")
    await clocks.until_states(as_it_was, "both are back")
    await until_all_are_well(clocks)

    set_clocks(clocks, dict.fromkeys(clocks.nodes, 1000 * DAY))  # by which all certificates have expired
    await nothing_happens(clocks, but=("node.degraded", "instance.degraded"))
    reports = await clocks.until(
        lambda reports: all("expired" in " ".join(report.reasons) for report in reports.values()),
        what="they say that they cannot reconnect",
    )
    assert all(len(report.peers) == 3 and {peer.state for peer in report.peers} == {"connected"} for report in reports.values()), reports


async def starts_again(cluster: ClusterOfProcesses, name: str) -> None:
    """The agent is killed, if it runs, and believed when it comes back a day earlier."""

    def incarnation(state: StateReply) -> int:
        return next(node.incarnation for node in state.nodes if node.name == name)

    witness = next(each for each in cluster.voters if each != name)
    before = incarnation((await cluster.states(witness))[witness])
    cluster.nodes[name].kill()
    set_clocks(cluster, {name: -DAY})
    cluster.nodes[name].start()
    await cluster.until_states(lambda state: incarnation(state) > before, f"{name} is believed", of=[witness])
    await cluster.until_whole(f"{name} is back")
