"""More hosts than connections: who is tried together, and whose lock is kept."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hmcore.config.inventory import Host, SshTarget
from hmcore.errors import HyperMeshError
from hmcore.records import Role
from hmctl.facts.gather import HostFacts, parse, split
from hmctl.phases import probe
from hmctl.phases.base import Found
from hmctl.phases.hostlock import Locks, room
from hmctl.phases.validate import Check
from hmctl.remote.fake import FakeRemote, Machine, facts


def hosts(count: int, control: int = 3, bastion: SshTarget | None = None) -> list[Host]:
    ssh = SshTarget("10.0.0.1", user="root", bastion=bastion)
    return [Host(f"node{n}", ssh, f"10.0.0.{n}", 7443, Role.CONTROL if n <= control else Role.WORKER) for n in range(1, count + 1)]


def known(machine: Machine) -> HostFacts:
    return parse(machine.name, split(facts(machine)), 0.0, 0.0)


@pytest.mark.parametrize(("count", "limit"), [(3, 32), (32, 32), (33, 32), (500, 32), (10, 4), (10, 3), (10, 1)])
def test_every_host_is_tried_with_the_control_nodes_and_nobody_with_more_than_the_limit(count: int, limit: int) -> None:
    groups = probe.groups(hosts(count), limit)
    assert all(len(group) <= limit for group in groups)
    assert {host.name for group in groups for host in group} == {host.name for host in hosts(count)}
    if limit > 3:
        assert all({"node1", "node2", "node3"} <= {host.name for host in group} for group in groups)
    if limit > 8:
        assert sum(len(group) ** 2 for group in groups) <= count * limit * 2  # grows with the hosts, not with their square


def test_all_well_is_said_once_and_trouble_by_group() -> None:
    well, bad = [Check(None, "network", "ok", "fine")], [Check("node9", "network", "error", "it cannot reach node1")]
    assert probe.together([well], 3) == well
    assert [check.status for check in probe.together([well, well], 60)] == ["ok"]
    assert probe.together([well, bad], 60) == bad


def test_bastions_take_room() -> None:
    assert room(hosts(5), 8) == 8
    assert room(hosts(5, bastion=SshTarget("bastion")), 8) == 7
    assert room(hosts(5, bastion=SshTarget("bastion")), 1) == 1


@pytest.mark.parametrize(
    ("limit", "kept"), [(5, {"node1", "node2", "node3", "node4", "node5"}), (4, {"node1", "node2", "node3"}), (3, set[str]())]
)
async def test_locks_are_kept_where_there_are_connections_for_them(limit: int, kept: set[str], tmp_path: Path) -> None:
    chosen = hosts(5)
    machines = {host.name: Machine(host.name, host.address) for host in chosen}
    remotes = {host.name: FakeRemote(host, machines[host.name]) for host in chosen}
    targets = [Found(host, known(machines[host.name])) for host in chosen]
    locks = Locks(remotes, "deploy", limit, chosen)
    async with locks.held(targets) as refused:
        assert refused == {}
        assert {name for name, machine in machines.items() if machine.holder} == kept
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(locks.turn(targets[4]))
            assert machines["node5"].holder
        assert bool(machines["node5"].holder) == ("node5" in kept)
    assert not any(machine.holder for machine in machines.values())


async def test_a_host_that_changed_before_its_turn_is_refused_but_not_after_we_changed_it() -> None:
    chosen = hosts(5)
    machine = Machine("node5", "10.0.0.5")
    target = Found(chosen[4], known(machine))
    locks = Locks({"node5": FakeRemote(chosen[4], machine)}, "deploy", 4, chosen)
    machine.current = "b" * 64
    with pytest.raises(HyperMeshError, match="changed by somebody else"):
        async with locks.turn(target):
            pass
    async with locks.turn(target, planned=False):
        assert machine.holder
