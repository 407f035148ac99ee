"""config diff and apply as a whole, on machines in memory: what differs, that it converges from anywhere, and that it is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from memory_cluster import Bed, MemoryAgents, MemoryHosts, make, no_probe, renderer
from msgspec import structs

from hmcore.config.inventory import Host
from hmcore.errors import HyperMeshError, PeerUnreachable, Unreachable
from hmcore.records import CheckReport, NodeReport
from hmctl import layout
from hmctl.actions.config_apply import ConfigApply, Options
from hmctl.actions.config_diff import ConfigDiff
from hmctl.actions.config_report import ConfigReport
from hmctl.facts.agent import checksum
from hmctl.phases import probe
from hmctl.remote.base import Completed
from hmctl.remote.fake import FakeRemote

FILES = (layout.CONFIG, layout.UNIT_FILE)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe", no_probe)


class CountedHosts(MemoryHosts):
    """All commands of one hmctl in one row. At the one numbered `at` it is killed, interrupted, or one connection is lost."""

    def __init__(self, bed: Bed, at: int, effective: bool, how: str) -> None:
        super().__init__(bed.world, {})
        self.at, self.effective, self.how, self.count, self.dead = at, effective, how, 0, False
        self.task: asyncio.Task[ConfigReport] | None = None

    def strike(self) -> None:
        if self.how == "interrupted":
            assert self.task is not None
            self.task.cancel()
            return
        self.dead = self.how == "killed"
        raise Unreachable("the connection was lost")

    async def connect(self, host: Host) -> FakeRemote:
        await super().connect(host)
        return CountedRemote(self, host)


class CountedRemote(FakeRemote):
    def __init__(self, hosts: CountedHosts, host: Host) -> None:
        super().__init__(host, hosts.world.machines[host.name])
        self.hosts = hosts

    def _burn(self, effect: Callable[[], Completed]) -> Completed:
        hosts, number = self.hosts, self.hosts.count
        if hosts.dead:
            raise Unreachable("hmctl is no more")
        hosts.count += 1
        if number != hosts.at:
            return effect()
        if hosts.effective:
            effect()
        hosts.strike()
        return Completed(0, b"", "")


class Agents(MemoryAgents):
    """`silent`: what a node's configuration holds when its agent starts, and then answers nobody. Remembers whom it saw lead."""

    def __init__(self, bed: Bed, silent: Mapping[str, bytes]) -> None:
        super().__init__(bed.world)
        self.silent = silent

    async def reports(self, hosts: list[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]:  # type: ignore[override]
        answers = dict(await super().reports(hosts, timeout=timeout))
        for name, word in self.silent.items():
            if name in answers and word in self.world.machines[name].files[layout.CONFIG]:
                answers[name] = PeerUnreachable("no answer", host=name)
        return answers


def action(bed: Bed, *, hosts: MemoryHosts | None = None, silent: Mapping[str, bytes] | None = None, **options: object) -> ConfigApply:
    chosen = Options(**{"yes": True, "timeout": 0.05, **options})  # type: ignore[arg-type]
    return ConfigApply(
        inventory=bed.inventory,
        store=bed.store,
        hosts=hosts or MemoryHosts(bed.world, {}),
        agents=lambda store, remotes: Agents(bed, silent or {}),
        output=bed.output(),
        options=chosen,
        renderer=renderer(),
    )


async def diff(bed: Bed, **options: object) -> ConfigDiff:
    return await action(bed, **options).diff()


async def apply(bed: Bed, **options: object) -> ConfigReport:
    return await action(bed, **options).apply()


async def running(folder: Path, count: int = 3, change: str = "metrics: {interval: 7}") -> Bed:
    """A cluster that was deployed, and an inventory that was changed since."""
    bed = make(folder, count)
    await bed.deploy()
    bed.text = bed.text.replace("hosts:", f"settings: {{{change}}}\nhosts:")
    for machine in bed.world.machines.values():
        machine.log.clear()
    return bed


def files(bed: Bed) -> dict[str, list[bytes]]:
    return {name: [machine.files[path] for path in FILES] for name, machine in bed.world.machines.items()}


def starts(bed: Bed) -> list[int]:
    return [machine.starts for machine in bed.world.machines.values()]


async def settled(bed: Bed) -> None:
    """Everybody runs with what the inventory says, by either command's measure."""
    found = await diff(bed)
    assert (found.changed, found.common, found.exit_code(detailed=True)) == (False, (), 0), found
    assert [(node.status, node.drift, node.elsewhere) for node in found.nodes] == [("same", (), ())] * len(found.nodes)
    report = await bed.deploy()
    assert (report.changed, report.healthy) == (False, True), report


async def test_after_apply_nothing_differs_and_a_second_one_restarts_nobody(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    found = await diff(bed)
    assert [str(change) for change in found.common] == ["settings.metrics.interval 10 -> 7"]
    assert (found.exit_code(detailed=False), found.exit_code(detailed=True)) == (0, 10)
    assert not any(machine.log for machine in bed.world.machines.values())
    report = await apply(bed)
    assert (report.error, report.healthy, [node.status for node in report.nodes]) == (None, True, ["changed"] * 3)
    assert starts(bed) == [2, 2, 2]
    await settled(bed)
    again = await apply(bed)
    assert (again.error, again.changed, starts(bed)) == (None, False, [2, 2, 2])


async def test_workers_go_first_and_the_leader_last(tmp_path: Path) -> None:
    bed = await running(tmp_path, count=5)
    turns: list[str] = []
    doing = action(bed)
    doing.show_plan = lambda found, order: turns.extend(order)
    await doing.apply()
    assert (bed.world.leader(), turns) == ("node1", ["node4", "node5", "node2", "node3", "node1"])
    await settled(bed)


async def test_a_dry_run_has_the_agents_judge_and_changes_nothing(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    before = files(bed)
    report = await apply(bed, dry_run=True)
    assert (report.exit_code(detailed=True), report.exit_code(detailed=False)) == (10, 0)
    assert (files(bed), starts(bed)) == (before, [1, 1, 1])
    assert {tuple(machine.log) for machine in bed.world.machines.values()} == {("hm-check-config",)}


async def test_what_one_nodes_own_agent_refuses_is_not_begun(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    before = files(bed)
    bed.world.machines["node2"].fails["hm-check-config"] = "hypermesh-agent: stdin:4: settings.metrics.interval: no"
    report = await apply(bed)
    assert report.exit_code(detailed=False) == 1
    assert "node2: refused by the agent there; nothing was changed" in (report.error or "")
    assert report.nodes[1].error == "stdin:4: settings.metrics.interval: no"
    bed.world.machines["node2"].fails["hm-check-config"] = "hypermesh-agent: error: argument COMMAND: invalid choice: 'check-config'"
    report = await apply(bed)
    assert "hmctl deploy" in (report.nodes[1].fix or "")
    assert (files(bed), starts(bed)) == (before, [1, 1, 1])


@pytest.mark.parametrize("how", ["does not start", "answers nobody"])
@pytest.mark.parametrize("sick", ["node1", "node3", "node5"])
async def test_when_one_does_not_come_back_every_file_is_what_it_was(tmp_path: Path, sick: str, how: str) -> None:
    bed = await running(tmp_path, count=5, change="metrics: {interval: 7}, initialization_timeout: 70")
    before, silent = files(bed), {}
    if how == "does not start":
        bed.world.machines[sick].rejects = b"interval: 7"
    else:
        silent = {sick: b"interval: 7"}
    report = await apply(bed, silent=silent)
    assert (report.exit_code(detailed=False), report.rolled_back, report.changed) == (1, True, False)
    assert files(bed) == before
    assert all(machine.active for machine in bed.world.machines.values())
    failed = next(node for node in report.nodes if node.name == sick)
    assert failed.status == "restored"
    assert failed.log == ("these were", "its last words")
    assert sick in (report.error or "")
    assert {node.status for node in report.nodes} <= {"restored", "untouched"}
    bed.world.machines[sick].rejects = None
    assert (await apply(bed)).healthy
    await settled(bed)


async def test_a_check_that_fails_with_the_new_settings_takes_them_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = await running(tmp_path)
    before = files(bed)
    amiss = CheckReport(name="metrics", weight=0.5, worth=0.0, reason="metrics cannot be served", fix="another address")

    class Unserved(MemoryAgents):
        async def reports(self, hosts: list[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]:  # type: ignore[override]
            answers = await super().reports(hosts, timeout=timeout)
            return {
                name: structs.replace(answer, checks=[amiss if bed.world.machines[name].files[layout.CONFIG] != before[name][0] else well])
                for name, answer in answers.items()
                if isinstance(answer, NodeReport)
            }

    well = CheckReport(name="metrics", weight=0.5, worth=1.0)
    run = action(bed)
    run.agents = lambda store, remotes: Unserved(bed.world)
    report = await run.apply()
    first = next(node for node in report.nodes if node.status == "restored")
    assert (first.error, first.fix, report.rolled_back, report.exit_code(detailed=False)) == (amiss.reason, amiss.fix, True, 1)
    assert files(bed) == before


async def test_a_node_that_cannot_be_taken_back_is_named_with_its_state_and_what_mends_it(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    bed.world.machines["node2"].rejects = b"cluster_id"  # whatever it gets
    before = files(bed)
    report = await apply(bed)
    stuck = report.nodes[1]
    assert (stuck.status, report.exit_code(detailed=False)) == ("stuck", 1)
    assert "it got its previous file again, but the agent does not start" in (stuck.error or "")
    assert stuck.fix == "hmctl logs node2"
    assert "could not be taken back on node2" in (report.error or "")
    assert files(bed) == before


async def test_a_host_that_is_lost_in_the_middle_is_told_apart(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    hosts = CountedHosts(bed, 0, False, "nothing")
    remotes: dict[str, int] = {}

    class Losing(CountedRemote):
        def _burn(self, effect: Callable[[], Completed]) -> Completed:
            name = self.host.name
            remotes[name] = remotes.get(name, 0) + 1
            if name == "node2" and remotes[name] > 4:  # facts, check, keep, put
                raise Unreachable("the network is down")
            return effect()

    async def connect(host: Host) -> FakeRemote:
        return Losing(hosts, host)

    hosts.connect = connect  # type: ignore[method-assign]
    report = await apply(bed, hosts=hosts)
    stuck = report.nodes[1]
    assert (stuck.status, report.nodes[0].status) == ("stuck", "untouched")  # node2 came first, the leader would have been last
    assert "its previous file could not be put back" in (stuck.error or "")
    assert f"mv {layout.PREVIOUS} {layout.CONFIG}" in (stuck.fix or "")
    assert (await apply(bed)).healthy
    await settled(bed)


@pytest.mark.long
@pytest.mark.parametrize(("how", "effective"), [("killed", False), ("killed", True), ("interrupted", True), ("lost", True)])
async def test_interrupted_anywhere_it_is_taken_back_or_a_second_apply_finishes_it(tmp_path: Path, how: str, effective: bool) -> None:
    """At each command in turn. kill -9 stops all that follows; Ctrl-C takes back what was begun; one lost command does so, too."""
    deployed = await running(tmp_path, change="metrics: {interval: 7}, initialization_timeout: 70")
    before, begun, at, struck = files(deployed), 0, 0, True
    while struck:
        bed = replace(deployed, world=deepcopy(deployed.world))
        hosts = CountedHosts(bed, at, effective, how)
        async with asyncio.TaskGroup() as group:
            hosts.task = task = group.create_task(action(bed, hosts=hosts).apply(), name="apply")
        struck, at = hosts.count > at, at + 1
        begun += files(bed) != before
        if how != "killed" and struck:
            done = not task.cancelled() and task.result().error is None
            assert done or (files(bed) == before and all(machine.active for machine in bed.world.machines.values())), at
            assert done or all(
                machine.started[layout.UNIT_FILE] == checksum(before[name][1]) for name, machine in bed.world.machines.items()
            )
        assert all(machine.holder is None for machine in bed.world.machines.values())
        assert (await apply(bed)).healthy, at
        found = await diff(bed)
        assert [(node.status, node.elsewhere) for node in found.nodes] == [("same", ())] * 3, at
        assert not any(machine.stale for machine in bed.world.machines.values()), at
    assert at > 20
    assert begun > (10 if how == "killed" else 0)
    await settled(bed)


async def test_a_node_that_is_down_stops_it_unless_it_may_be_left_out(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    bed.world.down = {"node3"}
    before = files(bed)
    report = await apply(bed)
    assert (report.exit_code(detailed=False), files(bed)) == (1, before)
    assert "node3" in (report.error or "")
    assert "--skip-unreachable" in (report.fix or "")
    report = await apply(bed, skip_unreachable=True)
    assert (report.exit_code(detailed=False), [node.status for node in report.nodes]) == (3, ["changed", "changed", "left"])
    assert "decides nothing while one of them restarts" in bed.stderr.getvalue()
    bed.world.down = set()
    assert (await apply(bed)).exit_code(detailed=False) == 0
    assert starts(bed) == [2, 2, 2]
    await settled(bed)


async def test_without_a_quorum_it_is_refused_whatever_is_asked_for(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    bed.world.down = {"node2", "node3"}
    report = await apply(bed, skip_unreachable=True)
    assert "no leader" in (report.error or "")
    assert starts(bed) == [1, 1, 1]


async def test_a_limit_changes_these_alone(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    report = await apply(bed, limit="node2")
    assert [node.name for node in report.nodes] == ["node2"]
    assert starts(bed) == [1, 2, 1]
    found = await diff(bed)
    assert [node.status for node in found.nodes] == ["differs", "same", "differs"]
    assert (found.common, len(found.nodes[0].changes)) == ((), 1)


FREQUENT = "membership: {heartbeat: 0.1}"
HASTY = "membership: {heartbeat: 0.1, suspect: 0.5, down: 1}"  # of nodes that are frequent by now; the others send every 0.5 s


async def partly(folder: Path, change: str) -> Bed:
    """node1 has gone the first of two steps, the others have not; the inventory says `change` by now."""
    bed = await running(folder, change=FREQUENT)
    assert (await apply(bed, limit="node1")).exit_code(detailed=False) == 0
    bed.text = bed.text.replace(FREQUENT, change)
    return bed


async def test_a_limit_leaves_out_nodes_whose_settings_the_new_ones_must_go_with(tmp_path: Path) -> None:
    bed = await partly(tmp_path, HASTY)
    before = files(bed)
    (refusal,) = (await diff(bed, limit="node1")).refusals
    assert refusal.path == "settings.membership.suspect"
    assert "node2 and node3 would stay as they are" in refusal.message
    assert "to node2 and node3, too" in (refusal.fix or "")
    report = await apply(bed, limit="node1")
    assert (report.exit_code(detailed=False), files(bed)) == (1, before)
    bed.text = bed.text.replace(HASTY, FREQUENT)
    assert (await apply(bed)).exit_code(detailed=False) == 0
    bed.text = bed.text.replace(FREQUENT, HASTY)
    assert (await apply(bed, limit="node1")).exit_code(detailed=False) == 0, "the way that was named works"


class Unreachable3(MemoryHosts):
    async def connect(self, host: Host) -> FakeRemote:
        if host.name == "node3":
            raise Unreachable("no answer", host=host.name)
        return await super().connect(host)


async def test_a_node_that_is_left_out_and_cannot_be_asked_is_named(tmp_path: Path) -> None:
    bed = await partly(tmp_path, "membership: {suspect: 3}")
    before, hosts = files(bed), Unreachable3(bed.world, {})
    found = await action(bed, hosts=hosts, limit="node1").diff()
    assert (found.unasked, found.refusals, found.exit_code(detailed=False)) == ({"node3": "no answer"}, (), 3)
    report = await action(bed, hosts=hosts, limit="node1").apply()
    assert (report.exit_code(detailed=False), files(bed)) == (1, before)
    assert "node3, left out, cannot be asked for settings that the new ones must go with" in (report.error or "")
    report = await action(bed, hosts=hosts, limit="node1", skip_unreachable=True).apply()
    assert report.exit_code(detailed=False) == 0
    assert "nobody knows whether the settings of node3" in bed.stderr.getvalue()


async def test_a_change_that_meets_nothing_of_the_others_asks_none_of_them(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    hosts = Unreachable3(bed.world, {})
    report = await action(bed, hosts=hosts, limit="node1").apply()
    assert (report.exit_code(detailed=False), hosts.connected) == (0, ["node1"])


async def test_an_agent_that_is_stopped_is_told_of_with_what_starts_it(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    bed.world.machines["node3"].active = False
    found = await diff(bed)
    assert [node.running for node in found.nodes] == [True, True, False]
    report = await apply(bed)
    assert (report.nodes[2].error, report.nodes[2].status) == ("its agent does not run", "left")
    assert "systemctl start" in (report.fix or "")
    assert "--skip-unreachable" in (report.fix or "")


def reached_by(bed: Bed, hosts: MemoryHosts, remote: type[FakeRemote]) -> None:
    """From now on, connections are of this kind."""

    async def connect(host: Host) -> FakeRemote:
        return remote(host, bed.world.machines[host.name])

    hosts.connect = connect  # type: ignore[method-assign]


async def test_interrupted_again_while_it_takes_back_the_state_of_each_node_is_told(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    before, hosts, began = files(bed), MemoryHosts(bed.world, {}), starts(bed)

    class Impatient(FakeRemote):
        def _burn(self, effect: Callable[[], Completed]) -> Completed:
            earlier = self.machine.starts
            done = effect()
            if self.machine.starts == earlier + 1 == 2:  # with the new settings
                task.cancel()
            elif self.machine.starts > earlier:  # with the previous ones again
                raise asyncio.CancelledError
            return done

    reached_by(bed, hosts, Impatient)
    doing = action(bed, hosts=hosts)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(doing.apply(), name="apply")
    assert (task.cancelled(), sum(starts(bed)) - sum(began)) == (True, 2)
    assert doing.interrupted is not None
    (stuck,) = [node for node in doing.interrupted.nodes if node.status == "stuck"]
    assert "it got its previous file again, but its agent may run with the new settings: interrupted" in (stuck.error or "")
    assert [node.status for node in doing.interrupted.nodes if node is not stuck] == ["untouched"] * 2
    assert "hmctl config diff shows how each node was left" in (doing.interrupted.fix or "")
    assert files(bed) == before
    assert (await apply(bed)).healthy
    await settled(bed)


@pytest.mark.parametrize(
    ("at", "started"),
    [("put back node3", [1, 3, 2]), ("restarted node3", [1, 3, 3]), ("put back node2", [1, 3, 2]), ("restarted node2", [1, 4, 2])],
)
async def test_first_interrupted_while_it_takes_back_it_goes_on_with_the_rest(tmp_path: Path, at: str, started: list[int]) -> None:
    """node3 does not come back with the new settings; node2 has had them by then. Who was restored already is not restarted again."""
    bed = await running(tmp_path)
    before, hosts, seen = files(bed), MemoryHosts(bed.world, {}), set[str]()
    bed.world.machines["node3"].rejects = b"interval: 7"

    class Impatient(FakeRemote):
        def _burn(self, effect: Callable[[], Completed]) -> Completed:
            machine, held = self.machine, self.machine.files[layout.CONFIG]
            earlier = machine.starts
            done = effect()
            if machine.files[layout.CONFIG] != held and held != before[machine.name][0]:
                seen.add(f"put back {machine.name}")
            elif machine.starts > earlier and f"put back {machine.name}" in seen:
                seen.add(f"restarted {machine.name}")
            if at in seen and "interrupted" not in seen:
                seen.add("interrupted")
                raise asyncio.CancelledError
            return done

    reached_by(bed, hosts, Impatient)
    doing = action(bed, hosts=hosts)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(doing.apply(), name="apply")
    assert task.cancelled()
    report = doing.interrupted
    assert report is not None
    assert [node.status for node in report.nodes] == ["untouched", "restored", "restored"]
    assert (report.changed, report.rolled_back) == (False, True)
    assert (report.nodes[1].error, report.nodes[2].fix) == (None, "hmctl logs node3")
    assert "does not start" in (report.nodes[2].error or "")
    assert "previous file" not in (report.nodes[2].error or "")
    assert "change the inventory" in (report.fix or ""), "to begin anew would end in the same way"
    assert "not taken back" not in bed.stderr.getvalue()
    assert files(bed) == before
    assert starts(bed) == started


async def test_ssh_that_drops_while_a_node_is_started_with_its_previous_settings_is_dialled_once_more(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    before, hosts, dropped = files(bed), MemoryHosts(bed.world, {}), False
    bed.world.machines["node2"].rejects = b"interval: 7"

    class Dropping(FakeRemote):
        def _burn(self, effect: Callable[[], Completed]) -> Completed:
            nonlocal dropped
            earlier = self.machine.starts
            done = effect()
            if self.machine.name == "node2" and self.machine.starts > earlier and not dropped:
                dropped = True
                raise Unreachable("the connection was lost")
            return done

    reached_by(bed, hosts, Dropping)
    report = await apply(bed, hosts=hosts)
    assert (report.nodes[1].status, dropped, files(bed)) == ("restored", True, before)


async def test_a_mistake_of_hmctls_own_takes_back_what_was_begun(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    before = files(bed)

    class Mistaken(MemoryAgents):
        left = 1

        async def reports(self, hosts: list[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]:  # type: ignore[override]
            if files(bed) != before and self.left:
                self.left -= 1
                raise RuntimeError("a mistake")
            return await super().reports(hosts, timeout=timeout)

    doing = action(bed)
    doing.agents = lambda store, remotes: Mistaken(bed.world)
    with pytest.raises(RuntimeError, match="a mistake"):
        await doing.apply()
    assert files(bed) == before
    assert sorted(starts(bed)) == [1, 1, 3], "with which the first of them was started anew"


async def test_what_was_cut_short_before_the_restart_is_told_apart_from_a_hand_edit(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    bed.world.machines["node2"].started[layout.CONFIG] = "0" * 64
    (said,) = (await diff(bed)).nodes[1].drift
    assert said == "its agent still runs with the settings before these: whoever wrote its file was cut short before the restart"
    assert (await apply(bed)).healthy
    assert starts(bed) == [1, 2, 1]


async def test_what_only_hmctl_reads_concerns_no_node(tmp_path: Path) -> None:
    bed = await running(tmp_path, change="upgrade: {batch: 3, soak: 5}")
    await settled(bed)


async def test_a_hand_edit_and_an_agent_that_runs_with_something_else_show(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    machine = bed.world.machines["node2"]
    machine.files[layout.CONFIG] = machine.files[layout.CONFIG].replace(b"heartbeat: 0.2", b"heartbeat: 0.15")
    found = await diff(bed)
    node = found.nodes[1]
    assert [str(change) for change in node.changes] == ["settings.raft.heartbeat 0.15 -> 0.2"]
    assert len(node.drift) == 2
    assert "edited by hand" in node.drift[0]
    assert "runs with what the inventory says, not with what its file says" in node.drift[1]
    assert [other.drift for other in found.nodes if other.name != "node2"] == [(), ()]
    assert (await apply(bed)).healthy
    assert starts(bed) == [1, 1, 1]  # it runs with that already
    await settled(bed)


async def test_a_hand_edit_that_an_agent_was_started_with_is_undone_by_a_restart(tmp_path: Path) -> None:
    bed = make(tmp_path)
    await bed.deploy()
    machine = bed.world.machines["node2"]
    machine.files[layout.CONFIG] = machine.files[layout.CONFIG].replace(b"heartbeat: 0.2", b"heartbeat: 0.15")
    FakeRemote(bed.inventory.hosts[1], machine)._hm_start([], b"")
    assert [len(node.drift) for node in (await diff(bed)).nodes] == [0, 1, 0]
    assert (await apply(bed)).healthy
    assert starts(bed) == [1, 3, 1]
    await settled(bed)


async def test_a_file_that_no_agent_reads_is_left_to_deploy(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    machine = bed.world.machines["node2"]
    machine.files[layout.CONFIG] = machine.files[layout.CONFIG].replace(b"heartbeat: 0.2", b"heartbeat: soon")
    machine.active = False
    found = await diff(bed)
    assert (found.nodes[1].status, found.exit_code(detailed=False)) == ("unreadable", 3)
    assert "heartbeat" in (found.nodes[1].error or "")
    assert "settings.raft.heartbeat soon -> 0.2" in found.nodes[1].drift
    assert "hmctl deploy" in (found.nodes[1].fix or "")
    report = await apply(bed)
    assert (report.exit_code(detailed=False), starts(bed)) == (1, [1, 1, 1])
    assert (report.fix or "").startswith("hmctl deploy writes it anew")


async def test_who_a_node_is_is_left_to_deploy_and_so_are_new_hosts(tmp_path: Path) -> None:
    bed = await running(tmp_path, count=4)
    bed.text = bed.text.replace("10.0.0.4, role: worker", "10.0.0.4, port: 9000, role: worker").replace(
        "10.0.0.2, role: control", "10.0.0.2, role: control, apps: false, labels: {zone: a}"
    )
    bed.text += "  - {name: node5, address: 10.0.0.5, role: worker}\n"
    bed.world.machines["node5"] = type(bed.world.machines["node1"])("node5", "10.0.0.5")
    found = await diff(bed)
    nodes = {node.name: node for node in found.nodes}
    assert nodes["node4"].elsewhere == ("port 7443 -> 9000",)
    assert [str(change) for change in nodes["node2"].changes][-2:] == ["labels.zone (none) -> a", "apps true -> false"]
    assert (nodes["node5"].status, nodes["node5"].fix) == ("new", "hmctl deploy")
    report = await apply(bed)
    assert (report.error, report.nodes[4].status) == (None, "left")
    assert b"port: 7443\n" in bed.world.machines["node4"].files[layout.CONFIG]
    assert b"\napps: false\n" in bed.world.machines["node2"].files[layout.CONFIG]
    assert b"interval: 7" in bed.world.machines["node4"].files[layout.CONFIG]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("transport: {port: 7500}", "settings.transport.port"),
        ("membership: {heartbeat: 0.1, suspect: 0.5, down: 1}", "settings.membership.suspect"),
    ],
)
async def test_what_cannot_be_rolled_is_refused_with_the_way_that_works(tmp_path: Path, change: str, path: str) -> None:
    bed = await running(tmp_path, change=change)
    before = files(bed)
    found = await diff(bed)
    assert [refusal.path for refusal in found.refusals] == [path]
    assert found.refusals[0].fix
    assert [node.elsewhere for node in found.nodes] == [()] * 3, "nor is it deploy's business"
    for dry_run in (True, False):
        report = await apply(bed, dry_run=dry_run)
        assert (report.exit_code(detailed=True), files(bed)) == (1, before)
        assert not report.changed
        assert {node.status for node in report.nodes} <= {"untouched", "unchanged"}, "what is refused is not planned"


async def test_a_host_that_another_hmctl_holds_is_not_touched_nor_are_the_others(tmp_path: Path) -> None:
    bed = await running(tmp_path)
    bed.world.machines["node3"].holder = object()
    report = await apply(bed)
    assert "node3 cannot be had; nothing was changed" in (report.error or "")
    assert starts(bed) == [1, 1, 1]
