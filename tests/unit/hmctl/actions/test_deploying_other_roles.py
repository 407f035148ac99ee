"""deploy where roles have changed: who is to vote joins, who is not leaves, in an order that never costs a quorum, from wherever the run
before was cut short. The machines assert that nobody who votes loses its log."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from memory_cluster import Bed, config, make, no_probe

from hmcore.records import Role
from hmctl import layout
from hmctl.phases import probe
from hmctl.remote.fake import Fuse

FIRST = ("node1", "node2", "node3")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe", no_probe)


async def formed(folder: Path, count: int = 4) -> Bed:
    bed = make(folder, count)
    assert (await bed.deploy()).error is None
    bed.world.fewest = len(bed.world.electorate)
    return bed


async def settled(bed: Bed, *control: str) -> None:
    """These vote, they and no others hold a log, every file names them, and running again changes nothing."""
    world = bed.world
    assert world.electorate == control
    for name, machine in world.machines.items():
        running = config(machine.running or b"")
        assert (running.role is Role.CONTROL, machine.journal) == (name in control, name in control)
        assert machine.running == machine.files[layout.CONFIG]
        assert tuple(sorted(voter.name for voter in running.voters)) == control
    assert [place.name for place in bed.store.voters or ()] == list(control)
    report = await bed.deploy()
    assert (report.exit_code(detailed=True), report.changed, report.healthy) == (0, False, True), report


async def test_a_worker_becomes_a_voter_and_the_plan_says_what_that_means(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control(*FIRST, "node4")
    planned = await bed.deploy(dry_run=True)
    assert planned.cluster_changes == ("node4 becomes a voter, once it has caught up: 4 voters: 1 may fail",)
    assert "change /etc/hypermesh/agent.yaml: role worker -> control" in planned.hosts[3].changes
    assert bed.world.electorate == FIRST
    report = await bed.deploy()
    assert (report.error, report.healthy, report.cluster_changes) == (None, True, ("node4 votes",))
    assert bed.world.machines["node4"].starts == 2
    await settled(bed, *FIRST, "node4")


async def test_the_leader_becomes_a_worker_and_its_log_is_set_aside(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control(*FIRST, "node4")
    await bed.deploy()
    assert bed.world.leader() == "node1"
    bed.make_control("node2", "node3", "node4")
    planned = await bed.deploy(dry_run=True)
    assert planned.cluster_changes == ("node1 is no voter any more (it leads, and hands over first): 3 voters: 1 may fail",)
    assert "set /var/lib/hypermesh/raft aside (it stays on the disk, beside), and start the agent as a worker" in planned.hosts[0].changes
    report = await bed.deploy()
    assert (report.error, report.healthy, report.leader) == (None, True, "node2")
    assert (bed.world.machines["node1"].aside, bed.world.machines["node1"].starts) == (1, 3)  # formed, told of node4, a worker
    await settled(bed, "node2", "node3", "node4")


async def test_a_voter_is_replaced_with_never_fewer_than_before(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control("node2", "node3", "node4")
    report = await bed.deploy()
    assert report.cluster_changes == ("node4 votes", "node1 is no voter any more")
    assert bed.world.fewest == 3
    await settled(bed, "node2", "node3", "node4")


async def test_all_voters_can_be_replaced_though_the_new_ones_name_none_of_the_old(tmp_path: Path) -> None:
    bed = await formed(tmp_path, count=6)
    bed.make_control("node4", "node5", "node6")
    report = await bed.deploy()
    assert (report.error, report.healthy, bed.world.fewest) == (None, True, 3)
    await settled(bed, "node4", "node5", "node6")


async def test_while_one_that_is_to_vote_is_out_of_reach_nobody_loses_a_vote(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control("node2", "node3", "node4")
    bed.world.down = {"node4"}
    report = await bed.deploy()
    assert report.exit_code(detailed=False) == 3
    assert "node1 keeps its vote until node4 can be reached, and votes" in report.problems
    assert (bed.world.electorate, bed.world.machines["node1"].starts) == (FIRST, 1 + 1)  # its file names node4 by now
    assert config(bed.world.machines["node1"].running or b"").role is Role.CONTROL
    bed.world.down = set()
    assert (await bed.deploy()).healthy
    await settled(bed, "node2", "node3", "node4")


async def test_a_voter_out_of_reach_keeps_its_vote_until_it_is_back_or_the_operator_takes_it(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control("node1", "node2")
    bed.world.down = {"node3"}
    report = await bed.deploy()
    assert "node3 keeps its vote until it can be reached; if it is gone for good: hmctl raft rm node3" in report.problems
    assert {voter.name for voter in config(bed.world.machines["node1"].files[layout.CONFIG]).voters} == {*FIRST}
    bed.world.down = set()
    assert (await bed.deploy()).healthy
    await settled(bed, "node1", "node2")


async def test_a_limit_that_leaves_out_whose_role_has_changed_changes_no_voter(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control("node2", "node3", "node4")
    await bed.deploy(limit="node2")
    assert bed.world.electorate == FIRST
    await bed.deploy(limit="node4")
    assert bed.world.electorate == (*FIRST, "node4")
    await bed.deploy()
    await settled(bed, "node2", "node3", "node4")


async def test_a_voter_that_the_inventory_does_not_list_is_named_with_what_to_do(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    before = {name: dict(machine.files) for name, machine in bed.world.machines.items()}
    bed.text = "".join(line for line in bed.text.splitlines(keepends=True) if "node3" not in line)
    report = await bed.deploy()
    (check,) = [check for check in report.checks if check.status == "error"]
    assert (report.exit_code(detailed=False), report.changed) == (1, False)
    assert "node3, which the inventory does not list, still has a vote" in check.message
    assert "role: worker" in (check.fix or "")
    assert "hmctl raft rm node3" in (check.fix or "")
    assert {name: machine.files for name, machine in bed.world.machines.items()} == before
    bed.world.electorate = ("node1", "node2")  # as the operator did by then
    assert (await bed.deploy()).healthy


@pytest.mark.parametrize("recorded", [True, False])
async def test_without_a_leader_who_votes_cannot_be_changed(tmp_path: Path, recorded: bool) -> None:
    bed = await formed(tmp_path)
    if not recorded:
        bed.store._write_record(msgspec.structs.replace(bed.store._record(), voters=None))
    for name in FIRST:
        bed.world.machines[name].active = False
    bed.make_control("node2", "node3", "node4")
    report = await bed.deploy()
    (check,) = [check for check in report.checks if check.status == "error"]
    assert (report.exit_code(detailed=False), report.changed) == (1, False)
    assert "they were node1, node2 and node3, and shall be node2, node3 and node4; but nobody leads" in check.message
    bed.make_control(*FIRST)
    assert (await bed.deploy()).healthy  # what the fix says
    bed.make_control("node2", "node3", "node4")
    assert (await bed.deploy()).healthy
    await settled(bed, "node2", "node3", "node4")


async def test_a_record_that_missed_a_change_costs_nobody_its_log_while_nobody_leads(tmp_path: Path) -> None:
    """Another operator, on another machine, has replaced node1 by node4; this one has the inventory and the record of before."""
    bed = await formed(tmp_path)
    before, record = bed.text, bed.store._record()
    bed.make_control("node2", "node3", "node4")
    await bed.deploy()
    bed.text = before
    bed.store._write_record(record)
    for machine in bed.world.machines.values():
        machine.active = False
    report = await bed.deploy()
    assert (report.exit_code(detailed=False), report.changed) == (1, False)
    assert any("they were node1, node2, node3 and node4" in check.message for check in report.checks)
    assert (bed.world.machines["node4"].aside, bed.world.machines["node4"].journal) == (0, True)


async def test_below_the_level_that_knows_such_changes_it_is_refused(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.world.level = 1
    bed.make_control(*FIRST, "node4")
    report = await bed.deploy()
    assert (report.exit_code(detailed=False), report.changed) == (1, False)
    assert any("from feature level 2 on; the cluster is at 1" in check.message for check in report.checks)


async def test_a_voter_cannot_move_to_another_address(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.text = bed.text.replace("address: 10.0.0.3", "address: 10.0.0.33")
    report = await bed.deploy()
    assert report.exit_code(detailed=False) == 1
    assert any("node3 is at 10.0.0.3:7443; a voter cannot move to 10.0.0.33:7443" in check.message for check in report.checks)


async def test_who_cannot_be_set_up_stops_the_change_before_anybody_loses_a_vote(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control("node2", "node3", "node4")
    bed.world.machines["node4"].fails["hm-start"] = "node_agent: no room on the disk"
    files = {name: dict(bed.world.machines[name].files) for name in FIRST}
    report = await bed.deploy()
    assert "no room on the disk" in (report.error or "")
    assert bed.world.electorate == FIRST
    assert {name: bed.world.machines[name].files for name in FIRST} == files
    bed.world.machines["node4"].fails.clear()
    assert (await bed.deploy()).healthy
    await settled(bed, "node2", "node3", "node4")


async def test_what_would_cost_the_quorum_is_refused_by_the_leader_and_nothing_is_built_on_it(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control("node2", "node3")
    bed.world.machines["node3"].active = False  # and does not come back
    bed.world.machines["node3"].fails["hm-start"] = "node_agent: the disk is damaged"
    report = await bed.deploy()
    assert "without node1, too few answer" in (report.error or "")
    assert bed.world.electorate == FIRST
    assert config(bed.world.machines["node1"].files[layout.CONFIG]).role is Role.CONTROL


@pytest.mark.long
@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from([("node1", "node2", "node3", "node4"), ("node2", "node3", "node4"), ("node2", "node3"), ("node4",)]),
    st.dictionaries(st.sampled_from(["node1", "node2", "node3", "node4"]), st.tuples(st.integers(0, 9), st.booleans()), min_size=1),
    st.sampled_from(["lost", "cancelled"]),
)
def test_cut_short_anywhere_the_next_run_ends_it(control: tuple[str, ...], cuts: dict[str, tuple[int, bool]], how: str) -> None:
    async def scenario(folder: Path) -> None:
        bed = await formed(folder)
        bed.make_control(*control)
        stop = {"error": asyncio.CancelledError} if how == "cancelled" else {}
        fuses = {name: Fuse(after, effective, **stop) for name, (after, effective) in cuts.items()}  # type: ignore[arg-type]
        try:
            await bed.deploy(fuses)
        except asyncio.CancelledError:
            assert how == "cancelled"
        assert bed.world.leader() is not None
        report = await bed.deploy()
        assert (report.error, report.healthy) == (None, True), report
        assert bed.world.fewest >= min(3, len(control))
        await settled(bed, *control)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


@pytest.mark.long
@settings(max_examples=5, deadline=None)
@given(st.sampled_from([("node2", "node3", "node4"), ("node1",)]), st.integers(0, 8))
@example(("node2", "node3", "node4"), 4)  # node4 votes, and nobody heard
def test_killed_between_two_answers_of_the_agents_the_next_run_ends_it(control: tuple[str, ...], after: int) -> None:
    async def scenario(folder: Path) -> None:
        bed = await formed(folder)
        bed.make_control(*control)
        bed.world.answers_left = after
        try:
            await bed.deploy()
        except asyncio.CancelledError:
            assert bed.world.answers_left == 0
        assert {place.name for place in bed.store.voters or ()} >= set(bed.world.electorate), "a reset would not look there"
        bed.world.answers_left = None
        report = await bed.deploy()
        assert (report.error, report.healthy) == (None, True), report
        await settled(bed, *control)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


async def test_a_host_that_another_hmctl_works_on_does_not_join(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.make_control(*FIRST, "node4")
    bed.world.machines["node4"].holder = object()
    report = await bed.deploy()
    assert "somebody else" in (report.error or "")
    assert bed.world.electorate == FIRST
