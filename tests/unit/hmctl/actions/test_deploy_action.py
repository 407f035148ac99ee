"""deploy as a whole, on machines in memory: what it plans, that it converges from anywhere, and that it never makes two clusters."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cluster import Bed, killed, make, no_probe

from hmcore.errors import Interrupted, UsageError
from hmcore.records import FEATURE_LEVEL
from hmctl import layout
from hmctl.actions.deploy import consent
from hmctl.phases import level, probe
from hmctl.phases.base import Step
from hmctl.remote.fake import Fuse

RAISED = f"raised the feature level to {FEATURE_LEVEL}"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe", no_probe)


async def settled(bed: Bed) -> None:
    """Nothing is left to do, the cluster is healthy, and looking at it again changes nothing."""
    starts = [machine.starts for machine in bed.world.machines.values()]
    report = await bed.deploy()
    assert (report.exit_code(detailed=True), report.changed, report.healthy) == (0, False, True), report
    assert [machine.starts for machine in bed.world.machines.values()] == starts


async def test_three_fresh_hosts_become_one_cluster_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    bed = make(tmp_path)
    report = await bed.deploy()
    assert (report.error, report.healthy, report.leader) == (None, True, "node1")
    assert [host.status for host in report.hosts] == ["changed"] * 3
    assert bed.store.formed_at is not None
    assert bed.world.forms == 1
    await settled(bed)
    assert bed.world.forms == 1


async def test_a_dry_run_says_what_deploy_then_does_and_touches_nothing(tmp_path: Path) -> None:
    bed = make(tmp_path)
    planned = await bed.deploy(dry_run=True)
    assert planned.exit_code(detailed=True) == 10
    assert planned.exit_code(detailed=False) == 0
    assert not any(machine.log for machine in bed.world.machines.values())
    assert not bed.store.has_authority()
    done = await bed.deploy()
    assert [host.changes for host in planned.hosts] == [host.changes for host in done.hosts]
    after = await bed.deploy(dry_run=True)
    assert after.exit_code(detailed=True) == 0


@pytest.mark.long
@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["node1", "node2", "node3"]), st.tuples(st.integers(0, 14), st.booleans()), min_size=1),
    st.sampled_from(["lost", "cancelled"]),
)
def test_interrupted_anywhere_it_converges_when_run_again(cuts: dict[str, tuple[int, bool]], how: str) -> None:
    """A lost connection sets one host aside; Ctrl-C or kill -9 ends the whole. Either way the next run finishes the job."""

    async def scenario(folder: Path) -> None:
        bed = make(folder)
        stop = {"error": asyncio.CancelledError} if how == "cancelled" else {}
        fuses = {name: Fuse(after, effective, **stop) for name, (after, effective) in cuts.items()}  # type: ignore[arg-type]
        try:
            await bed.deploy(fuses)
        except asyncio.CancelledError:
            assert how == "cancelled"
        assert all(machine.holder is None for machine in bed.world.machines.values())
        report = await bed.deploy()
        assert (report.error, report.healthy) == (None, True)
        await settled(bed)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


async def test_a_dead_first_host_is_set_aside_and_joins_later(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.down = {"node1"}
    report = await bed.deploy()
    assert report.exit_code(detailed=False) == 3
    assert [(host.name, host.status) for host in report.hosts] == [("node1", "unreachable"), ("node2", "changed"), ("node3", "changed")]
    assert (report.healthy, bed.world.forms) == (True, 1)
    bed.world.down = set()
    report = await bed.deploy()
    assert (report.error, report.healthy, bed.world.forms) == (None, True, 1)
    await settled(bed)


async def test_without_a_majority_nothing_is_formed_and_the_rest_of_the_hosts_completes_it(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.down = {"node2", "node3"}
    report = await bed.deploy()
    assert report.exit_code(detailed=False) == 1
    assert "not formed" in (report.error or "")
    assert "node2 and node3" in (report.error or "")
    assert bed.world.formed is None
    bed.world.down = set()
    report = await bed.deploy(limit="node2")  # node1 runs already
    assert (report.error, bed.world.forms) == (None, 1)
    report = await bed.deploy()
    assert (report.healthy, bed.world.forms) == (True, 1)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_limit_that_can_never_form_the_cluster_is_refused_before_anything_is_changed(tmp_path: Path, dry_run: bool) -> None:
    bed = make(tmp_path, count=5)
    for limit in ("node1", "node4,node5", "node3,node4"):
        report = await bed.deploy(limit=limit, dry_run=dry_run)
        assert report.exit_code(detailed=False) == 1
        assert "a majority, 2 of its 3 control nodes" in (report.error or "")
        assert "node2" in (report.fix or "")
        assert not any(machine.log for machine in bed.world.machines.values())
        assert not bed.store.has_authority()
    assert (await bed.deploy(limit="node1,node3")).error is None
    assert (await bed.deploy(limit="node4")).error is None


def test_the_question_counts_changes_and_hosts() -> None:
    steps = [Step(f"node{i}", "", "write") for i in (1, 2, 3)]
    assert consent([*steps, *steps, Step(None, "", "form")]) == "Make these 7 changes on 3 hosts?"
    assert consent(steps[:1]) == "Make this change on 1 host?"
    assert consent([Step(None, "", "form")]) == "Make this change?"


async def test_a_host_where_nothing_was_done_and_that_is_well_gets_no_line_about_it(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    assert "node2: healthy" in bed.stderr.getvalue()
    bed.stderr.truncate(0)
    await settled(bed)
    assert "node2: checks passed" in bed.stderr.getvalue()
    assert "healthy" not in bed.stderr.getvalue()


async def test_it_is_known_whether_an_interrupted_run_had_begun(tmp_path: Path) -> None:
    bed = make(tmp_path)

    def leave() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await bed.deploy(meanwhile=leave)
    assert not bed.begun
    await killed(bed)
    assert bed.begun


@pytest.mark.long
@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(["node1", "node2", "node3"])), st.sets(st.sampled_from(["node1", "node2", "node3"]), min_size=1))
    )
)
def test_no_sequence_of_limits_and_dead_hosts_forms_two_clusters(runs: list[tuple[set[str], set[str]]]) -> None:
    """MemoryAgents asserts that `form` never carries two bootstrap ids."""

    async def scenario(folder: Path) -> None:
        bed = make(folder)
        for down, limit in [*runs, (set(), {"node1", "node2", "node3"})]:
            bed.world.down = down
            await bed.deploy(limit=",".join(sorted(limit)))
        bootstraps = {bed.world.bootstrap(name) for name in bed.world.machines}
        assert bootstraps == {bed.world.formed}
        await settled(bed)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


@pytest.mark.parametrize("cut_off", [set(), {"node1", "node2"}])
async def test_killed_after_form_and_given_other_control_nodes_it_forms_nothing(tmp_path: Path, cut_off: set[str]) -> None:
    """node1 and node2 formed the cluster and hmctl never heard; then only node3, which knows of nothing, is to be a control node."""
    bed = make(tmp_path)
    bed.world.down = {"node3"}
    await killed(bed)
    assert (bed.store.formed_at, bed.world.formed is not None) == (None, True)
    bed.world.down = cut_off
    bed.make_control("node3")
    before = dict(bed.world.machines["node3"].files)
    report = await bed.deploy(limit="node3")
    assert report.exit_code(detailed=False) == 1
    refusal = next(check for check in report.checks if check.status == "error")
    assert "node1 (10.0.0.1:7443), node2 (10.0.0.2:7443) and node3 (10.0.0.3:7443) were asked to form this cluster" in refusal.message
    assert "hmctl reset" in (refusal.fix or "")
    assert ("node3" in bed.world.permitted, bed.world.machines["node3"].files) == (False, before)

    await bed.reset(limit="node3")  # node1 and node2 still hold the cluster
    assert bed.store.voters is not None
    assert (await bed.deploy(limit="node3")).exit_code(detailed=False) == 1

    bed.world.down = set()
    bed.make_control("node1", "node2", "node3")
    assert (await bed.deploy()).healthy
    await settled(bed)


async def test_control_nodes_that_left_the_inventory_keep_a_reset_from_forgetting_the_cluster(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.down = {"node3"}
    await killed(bed)
    whole, bed.world.down = bed.text, set()
    bed.make_control("node3")
    bed.text = "".join(line for line in bed.text.splitlines(keepends=True) if "node1" not in line and "node2" not in line)
    await bed.reset()
    assert bed.store.voters is not None
    assert "may live on at node1 (10.0.0.1:7443) and node2 (10.0.0.2:7443)" in bed.stderr.getvalue()
    bed.text = whole
    await bed.reset()
    assert (bed.store.voters, bed.world.formed) == (None, None)
    bed.make_control("node3")
    assert (await bed.deploy()).healthy
    assert bed.world.founders == ("node3",)


async def test_control_nodes_may_be_changed_as_long_as_nobody_was_asked_to_form(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.down = {"node1", "node2"}
    await bed.deploy()
    assert bed.store.voters is None
    bed.make_control("node3")
    report = await bed.deploy()
    assert (report.error, bed.world.founders, report.exit_code(detailed=False)) == (None, ("node3",), 3)


async def test_a_host_that_missed_a_change_of_the_control_nodes_is_brought_up_to_date(tmp_path: Path) -> None:
    """node1 was set up to form with others, and was not reachable when those that formed it were chosen."""
    bed = make(tmp_path, count=4)
    await bed.deploy(limit="node1")
    bed.world.down = {"node1"}
    bed.make_control("node2", "node3", "node4")
    await bed.deploy()
    assert bed.world.founders == ("node2", "node3", "node4")
    bed.world.down = set()
    assert (await bed.deploy()).healthy
    await settled(bed)


FOUR = ["node1", "node2", "node3", "node4"]


@pytest.mark.long
@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([("node1", "node2", "node3"), ("node2", "node3", "node4"), ("node1",), ("node4",)]),
            st.sets(st.sampled_from(FOUR)),
            st.sets(st.sampled_from(FOUR), min_size=1),
            st.sampled_from(["deploy", "killed", "reset"]),
        ),
        max_size=6,
    )
)
def test_no_sequence_of_control_sets_forms_two_clusters(runs: list[tuple[tuple[str, ...], set[str], set[str], str]]) -> None:
    """World.form asserts that one list of voters forms one cluster; reset may end it."""

    async def scenario(folder: Path) -> None:
        bed = make(folder, count=4)
        for control, down, limit, what in runs:
            bed.make_control(*control)
            bed.world.down = down
            match what:
                case "killed":
                    await killed(bed, limit=",".join(sorted(limit)))
                case "reset" if bed.world.formed is None or not limit & set(bed.world.founders):  # lost disks are another matter
                    await bed.reset(limit=",".join(sorted(limit)))
                case _:
                    await bed.deploy(limit=",".join(sorted(limit)))
            bed.world.form()
        bed.world.down = set()
        recorded = bed.store.voters
        bed.make_control(*([place.name for place in recorded] if recorded else ["node1", "node2", "node3"]))
        await bed.deploy()
        bootstraps = {bed.world.bootstrap(name) for name in bed.world.machines}
        assert bootstraps == {bed.world.formed}
        await settled(bed)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


async def test_a_changed_setting_restarts_agents_and_names_the_value(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.text = bed.text.replace("hosts:", "settings: {raft: {heartbeat: 0.15}}\nhosts:")
    planned = await bed.deploy(dry_run=True)
    assert "change /etc/hypermesh/agent.yaml: settings.raft.heartbeat 0.2 -> 0.15" in planned.hosts[0].changes
    assert any("restart the agent: its configuration changed" in change for change in planned.hosts[0].changes)
    await bed.deploy()
    assert [machine.starts for machine in bed.world.machines.values()] == [2, 2, 2]
    await settled(bed)


@pytest.mark.parametrize("dry_run", [False, True])
async def test_settings_that_must_not_meet_are_refused_on_a_formed_cluster_with_the_two_steps_that_work(
    tmp_path: Path, dry_run: bool
) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    before, text = {name: dict(machine.files) for name, machine in bed.world.machines.items()}, bed.text
    bed.text = text.replace("hosts:", "settings: {membership: {heartbeat: 0.1, suspect: 0.5, down: 1}}\nhosts:")
    report = await bed.deploy(dry_run=dry_run)
    assert (report.exit_code(detailed=True), report.changed, bed.begun) == (1, False, False)
    assert "membership.suspect" in (report.error or "")
    assert [check.fix for check in report.checks if check.status == "error"] == [
        "apply membership.heartbeat: 0.1 alone first, and the rest afterwards"
    ]
    assert {name: machine.files for name, machine in bed.world.machines.items()} == before
    for step in ("{membership: {heartbeat: 0.1}}", "{membership: {heartbeat: 0.1, suspect: 0.5, down: 1}}"):
        bed.text = text.replace("hosts:", f"settings: {step}\nhosts:")
        assert (await bed.deploy()).exit_code(detailed=False) == 0
    await settled(bed)


async def test_agents_that_do_not_run_meet_nobody_and_hand_edits_are_undone(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.world.machines["node2"].files[layout.CONFIG] = (
        bed.world.machines["node2"].files[layout.CONFIG].replace(b"port: 7443", b"port: 7500")
    )
    assert (await bed.deploy()).exit_code(detailed=False) == 0
    bed.text = bed.text.replace("hosts:", "settings: {membership: {heartbeat: 0.1, suspect: 0.5, down: 1}}\nhosts:")
    for machine in bed.world.machines.values():
        machine.active = False
    assert (await bed.deploy()).exit_code(detailed=False) == 0
    await settled(bed)


async def test_a_new_release_is_sent_and_switched_to_and_the_old_one_kept(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.digest = "b" * 64
    await bed.deploy()
    for machine in bed.world.machines.values():
        assert (machine.current, machine.started_release) == ("b" * 64, "b" * 64)
        assert machine.releases == {"a" * 64, "b" * 64}
    await settled(bed)


async def test_the_last_step_of_an_upgrade_raises_the_feature_level(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.world.level, bed.digest = 1, "b" * 64  # formed by the release before
    said = await bed.deploy(dry_run=True)
    assert said.cluster_changes == (f"raise the feature level to {FEATURE_LEVEL}: every node runs a release that knows it",)
    limited = await bed.deploy(limit="node1,node2")
    assert (limited.exit_code(detailed=False), limited.cluster_changes, bed.world.level) == (0, (), 1)  # node3 may run anything
    report = await bed.deploy()
    assert (report.exit_code(detailed=False), report.cluster_changes, bed.world.level) == (
        0,
        (RAISED,),
        FEATURE_LEVEL,
    )
    again = await bed.deploy()
    assert (again.changed, again.cluster_changes) == (False, ())


async def test_a_level_that_cannot_be_raised_is_said_and_tried_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level, "PAUSE", 0.0)
    bed = make(tmp_path)
    await bed.deploy()
    bed.world.level, bed.world.holding_back = 1, "node9"
    report = await bed.deploy()
    assert (report.exit_code(detailed=False), report.cluster_changes) == (3, ())
    assert report.problems == ("the feature level stays at 1: node9 runs a release that knows no other",)
    bed.world.holding_back = ""
    assert (await bed.deploy()).cluster_changes == (RAISED,)


async def test_the_level_is_not_raised_while_a_host_is_left_behind(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.world.level, bed.digest = 1, "b" * 64
    bed.world.down = {"node3"}
    report = await bed.deploy()
    assert (report.exit_code(detailed=False), report.cluster_changes, bed.world.level) == (3, (), 1)


async def test_an_agent_that_somebody_stopped_is_started_again(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.world.machines["node2"].active = False
    report = await bed.deploy()
    assert [host.status for host in report.hosts] == ["unchanged", "changed", "unchanged"]
    await settled(bed)


async def test_a_rolling_restart_stops_when_the_cluster_does_not_recover(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.text = bed.text.replace("hosts:", "settings: {raft: {heartbeat: 0.15}}\nhosts:")
    bed.world.machines["node2"].fails["hm-start"] = "node_agent: the journal is damaged"
    report = await bed.deploy()
    assert report.exit_code(detailed=False) == 1
    assert "the journal is damaged" in (report.hosts[1].error or "")
    assert [machine.starts for machine in bed.world.machines.values()] == [1, 1, 1]  # node1 leads, so it would have been the last
    assert "not restarted" in (report.hosts[0].error or "")


async def test_a_rolling_restart_stops_when_no_majority_confirms_what_the_leader_says(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.text = bed.text.replace("hosts:", "settings: {raft: {heartbeat: 0.15}}\nhosts:")
    bed.world.unconfirmed = "no quorum: 1 of 3 voters reachable"
    report = await bed.deploy()
    assert report.exit_code(detailed=False) == 3
    assert [machine.starts for machine in bed.world.machines.values()] == [1, 2, 1]
    assert "not restarted: the cluster is not healthy (node1: no quorum" in (report.hosts[0].error or "")
    bed.world.unconfirmed = ""
    asked = bed.world.confirmed
    assert (await bed.deploy()).exit_code(detailed=False) == 0
    assert bed.world.confirmed == asked + 1  # between the two that were left


async def test_a_host_without_docker_gets_it_or_the_cluster_does_without(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.machines["node1"].docker = "missing"
    bed.world.machines["node2"].docker = "missing"
    bed.world.machines["node2"].fails["hm-packages"] = "E: Unable to locate package docker.io"
    report = await bed.deploy()
    assert report.exit_code(detailed=False) == 3
    assert "install packages: docker.io" in report.hosts[0].changes
    assert "Unable to locate" in report.hosts[1].warnings[0]
    assert (report.healthy, report.leader) == (False, "node1")
    assert bed.world.machines["node1"].files[layout.PACKAGES] == b"docker.io\n"


async def test_where_packages_are_required_all_that_lack_them_are_named_at_once(tmp_path: Path) -> None:
    bed = make(tmp_path, extra="packages: require\n")
    for name in ("node1", "node3"):
        bed.world.machines[name].docker = "missing"
    report = await bed.deploy()
    assert [check.host for check in report.checks if check.status == "error"] == ["node1", "node3"]
    assert not any(machine.log for machine in bed.world.machines.values())


async def test_nobody_is_asked_where_nobody_can_answer(tmp_path: Path) -> None:
    bed = make(tmp_path)
    with pytest.raises(UsageError, match="no terminal"):
        await bed.deploy(yes=False)
    assert not any(machine.log for machine in bed.world.machines.values())
    assert not bed.store.has_authority()


async def test_a_host_that_another_hmctl_works_on_is_left_alone(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.machines["node2"].holder = object()
    report = await bed.deploy()
    assert report.hosts[1].status == "failed"
    assert "somebody else" in (report.hosts[1].error or "")
    assert bed.world.machines["node2"].log == []


async def test_a_host_that_changed_while_the_plan_was_read_is_left_alone(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.text = bed.text.replace("hosts:", "settings: {raft: {heartbeat: 0.15}}\nhosts:")
    machine = bed.world.machines["node2"]
    report = await bed.deploy(meanwhile=lambda: machine.releases.add("c" * 64))
    assert [host.status for host in report.hosts] == ["changed", "failed", "changed"]
    assert "by somebody else after this plan was made" in (report.hosts[1].error or "")
    assert machine.starts == 1


async def test_a_release_that_cannot_be_unpacked_leaves_nothing_behind(tmp_path: Path) -> None:
    bed = make(tmp_path)
    said = "tar: ./aioquic: Cannot mkdir: No space left on device\ntar: Exiting with failure status due to previous errors\n"
    bed.world.machines["node3"].fails["hm-unpack"] = said
    report = await bed.deploy()
    assert (report.hosts[2].status, report.exit_code(detailed=False)) == ("failed", 3)
    assert (report.hosts[2].error or "").endswith("Cannot mkdir: No space left on device")
    assert "make room on node3" in (report.hosts[2].fix or "")
    assert not bed.world.machines["node3"].partial
    bed.world.machines["node3"].fails.clear()
    await bed.deploy()
    await settled(bed)


async def test_a_unit_that_systemd_has_not_read_yet_is_read(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.world.machines["node1"].stale = True
    report = await bed.deploy()
    assert report.hosts[0].changes == ("have systemd read the unit again",)
    await settled(bed)


async def test_reset_leaves_nothing_and_the_next_deploy_forms_anew(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    first = bed.store.bootstrap()
    report = await bed.reset()
    assert (report.exit_code(detailed=False), report.changed) == (0, True)
    assert all(not machine.files and not machine.releases for machine in bed.world.machines.values())
    assert bed.store.formed_at is None
    await bed.deploy()
    assert bed.world.formed not in (None, first)
    await settled(bed)


async def test_a_reset_of_some_keeps_the_cluster_and_of_all_in_turn_ends_it(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    await bed.reset(limit="node1")
    assert bed.store.formed_at is not None
    assert "call node1 down" in bed.stderr.getvalue()
    await bed.reset(limit="node2")
    assert "loses its quorum" in bed.stderr.getvalue()
    await bed.reset(limit="node3")
    assert "ceases to exist" in bed.stderr.getvalue()
    assert bed.store.formed_at is None


async def test_a_reset_with_an_unreachable_host_does_not_forget_the_formation(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.world.down = {"node2"}
    assert (await bed.reset()).exit_code(detailed=False) == 3
    assert bed.store.formed_at is not None


async def test_reset_keeps_installed_packages_unless_told_otherwise(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.machines["node1"].docker = "missing"
    await bed.deploy()
    report = await bed.reset(dry_run=True, packages=True)
    assert "purge the packages that deploy installed: docker.io" in report.hosts[0].changes
    report = await bed.reset()
    assert "docker.io" in bed.stderr.getvalue()
    assert (report.exit_code(detailed=False), bed.world.machines["node1"].packages >= {"docker.io"}) == (0, True)


async def test_reset_asks(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    with pytest.raises((UsageError, Interrupted)):
        await bed.reset(yes=False)
    assert all(machine.files for machine in bed.world.machines.values())


async def test_hosts_that_lost_everything_are_not_waited_for_in_vain(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    fresh = make(tmp_path)
    bed.world = fresh.world
    report = await bed.deploy()
    assert report.exit_code(detailed=False) == 1
    assert any("hmctl reset" in (check.fix or "") for check in report.checks)
    await bed.reset()
    assert (await bed.deploy()).healthy
