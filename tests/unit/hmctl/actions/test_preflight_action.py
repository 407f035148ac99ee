"""What deploy finds out before it changes anything, on machines in memory: whose the hosts are, and whether it may begin at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_cluster import Bed, killed, make, no_probe

from hmcore.errors import UsageError
from hmctl import layout
from hmctl.phases import probe


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe", no_probe)


async def test_a_cluster_that_formed_while_nobody_looked_is_found_formed(tmp_path: Path) -> None:
    """Ctrl-C while waiting until it is healthy: the agents form it all the same."""
    bed = make(tmp_path)
    await killed(bed)
    bed.world.form()
    assert bed.store.formed_at is None
    planned = await bed.deploy(dry_run=True)
    assert (planned.cluster_changes, planned.exit_code(detailed=True)) == ((), 0)
    assert bed.store.formed_at is None
    report = await bed.deploy(yes=False)  # nothing is left to ask for
    assert (report.changed, report.healthy) == (False, True)
    assert bed.store.formed_at is not None


async def test_the_progress_line_of_an_unfit_host_is_no_name_of_a_check(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.machines["node2"].port_holder = "nginx"
    await bed.deploy()
    assert "node2: failed: not fit for a node, see below" in bed.stderr.getvalue()


@pytest.mark.parametrize(("dry_run", "said"), [(True, "for this run they are accepted"), (False, "they are pinned")])
async def test_where_nobody_can_answer_for_strangers_the_way_on_is_named(tmp_path: Path, dry_run: bool, said: str) -> None:
    bed = make(tmp_path)
    bed.world.strange = {"node2"}
    with pytest.raises(UsageError, match="nobody can answer") as caught:
        await bed.deploy(yes=False, dry_run=dry_run)
    assert "--yes" in (caught.value.fix or "")
    assert said in (caught.value.fix or "")


async def test_hosts_of_a_cluster_whose_ca_is_elsewhere_are_refused(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    other = Bed(tmp_path / "elsewhere", bed.world, bed.text)
    other.folder.mkdir()
    before = {name: list(machine.log) for name, machine in bed.world.machines.items()}
    for limit in (None, "node3"):
        report = await other.deploy(limit=limit)
        assert report.exit_code(detailed=False) == 1
        assert any("hmctl ca import" in (check.fix or "") and "not on this machine" in check.message for check in report.checks)
    assert not other.store.has_authority()
    assert {name: machine.log for name, machine in bed.world.machines.items()} == before


async def test_without_a_ca_even_hosts_outside_the_limit_are_asked_whose_they_are(tmp_path: Path) -> None:
    """A fresh node4, and an operator who lost the CA: a second one must not be made for it."""
    bed = make(tmp_path, count=4)
    await bed.deploy(limit="node1,node2,node3")
    other = Bed(tmp_path / "elsewhere", bed.world, bed.text)
    other.folder.mkdir()
    report = await other.deploy(limit="node4")
    assert report.exit_code(detailed=False) == 1
    assert not other.store.has_authority()


async def test_a_host_of_another_cluster_is_refused(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    config = bed.world.machines["node2"].files[layout.CONFIG]
    bed.world.machines["node2"].files[layout.CONFIG] = config.replace(b"hm-abc123defg", b"hm-zzzzzzzzzz")
    report = await bed.deploy()
    assert [check.host for check in report.checks if check.status == "error"] == ["node2"]
    assert "hm-zzzzzzzzzz" in next(check.message for check in report.checks if check.status == "error")


async def test_no_sudo_sets_a_host_aside_with_the_way_to_mend_it(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.machines["node3"].root = False
    report = await bed.deploy()
    assert (report.hosts[2].status, report.exit_code(detailed=False)) == ("unreachable", 3)
    assert "sudo" in (report.hosts[2].error or "")
    assert report.hosts[2].fix


async def test_strangers_are_shown_before_anything_is_sent_to_them(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.strange = {"node2"}
    with pytest.raises(UsageError):
        await bed.deploy(yes=False)
    assert "SHA256:abc" in bed.stderr.getvalue()
    report = await bed.deploy()
    assert report.healthy


async def test_all_hosts_down_is_a_failure(tmp_path: Path) -> None:
    bed = make(tmp_path)
    bed.world.down = set(bed.world.machines)
    assert (await bed.deploy()).exit_code(detailed=False) == 1


async def test_a_limit_is_judged_against_the_agents_that_it_leaves_out(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    text = bed.text
    bed.text = text.replace("hosts:", "settings: {membership: {heartbeat: 0.1}}\nhosts:")
    assert (await bed.deploy(limit="node1")).error is None, "who hears more often than it needs to minds nothing"
    bed.text = text.replace("hosts:", "settings: {membership: {heartbeat: 0.1, suspect: 0.5, down: 1}}\nhosts:")
    report = await bed.deploy(limit="node1")
    assert (report.exit_code(detailed=False), report.changed) == (1, False)
    (check,) = [check for check in report.checks if check.status == "error"]
    assert "node2 and node3" in check.message

    bed.world.down = {"node2", "node3"}
    report = await bed.deploy(limit="node1", dry_run=True)
    (check,) = [check for check in report.checks if check.name == "settings"]
    assert (report.error, check.status) == (None, "warn")
    assert "node2 and node3, left out" in check.message


async def test_hosts_that_are_left_out_are_not_asked_where_it_does_not_matter(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.text = bed.text.replace("hosts:", "settings: {membership: {down: 6}}\nhosts:")
    before = list(bed.world.machines["node2"].log)
    assert (await bed.deploy(limit="node1")).error is None
    assert bed.world.machines["node2"].log == before
