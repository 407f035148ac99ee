"""Members of two releases: equal at the level that both know, whatever goes wrong; above it the earlier one stops and says why."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from raft_sim_checks import Violation
from raft_sim_machine import Machine
from raft_sim_plans import PLANS
from raft_sim_world import Plan, World

from hmcore.errors import ReleaseTooOld
from node_agent.consensus.statemachine import levels, machine
from node_agent.consensus.statemachine.machine import Proposal

PLAN = dataclasses.replace(PLANS["earlier"], seconds=8.0)


class Mixed(World):
    """The first `earlier` machines run the release before. `careful`: a leader's node refuses what not all know (VoterLayer.propose)."""

    def __init__(self, seed: int, plan: Plan = PLAN, *, earlier: int = 1, careful: bool = True, raise_at: float | None = None) -> None:
        super().__init__(seed, plan)
        for machine_ in list(self.machines.values())[:earlier]:
            machine_.latest = levels.BASE
        self._careful = careful
        if raise_at is not None:
            self.after(raise_at, self._raise)

    def _raise(self) -> None:
        """What no leader does while it hears one that knows less (advance.py)."""
        for machine_ in self.machines.values():
            if machine_.leads and machine_.responsive and machine_.latest == levels.LATEST:
                self.propose(machine_, Proposal("raise", machine.encode(machine.RaiseFeatureLevel(level=levels.LATEST))))
        self.after(0.5, self._raise)

    def propose(self, machine_: Machine, proposal: Proposal) -> None:
        state = machine_.member.replica.state if machine_.member is not None else None
        if self._careful and state is not None and machine.too_new(state, machine.decode(proposal.command)) is not None:
            self.seen["too new"] += 1
            return
        super().propose(machine_, proposal)


@pytest.mark.long
@pytest.mark.parametrize("earlier", [1, 2])
def test_at_the_level_that_both_know_they_hold_the_same(earlier):
    seen: Counter[str] = Counter()
    for seed in range(8):
        world = Mixed(seed, earlier=earlier).run()
        seen.update(world.seen)
        seen["acknowledged"] += len(world.checks.acknowledged)
        seen["snapshots"] += sum(machine_.disk.read("snapshot") is not None for machine_ in world.machines.values())
    assert min(seen[kind] for kind in ("too new", "crash", "wipe", "snapshots", "acknowledged")) > 0


def broken(**options: object) -> Violation:
    for seed in range(8):
        try:
            Mixed(seed, **options).run()  # type: ignore[arg-type]
        except Violation as violation:
            return violation
    raise AssertionError("no promise was broken")


def test_a_leader_that_proposes_what_not_all_know_makes_them_diverge():
    assert "states differ" in str(broken(careful=False))


def test_after_a_raise_the_earlier_release_stops_instead_of_diverging():
    found = broken(raise_at=3.0)
    assert isinstance(found.__cause__, ReleaseTooOld), found
    assert str(found.__cause__) == f"this release knows feature level 1, the cluster is at {levels.LATEST}"
    assert found.__cause__.fix == "hmctl deploy"


class TakenBack(Mixed):
    """The release before is put back on a machine whose cluster is at a level that it does not know."""

    snapshot = False  # whether there was one then

    def _run(self) -> None:
        self.after(6.0, lambda: self._take_back(self.machines["n0"]))
        super()._run()

    def _take_back(self, machine_: Machine) -> None:
        assert machine_.member is not None
        assert machine_.member.replica.state.level == levels.LATEST
        self.snapshot = machine_.disk.read("snapshot") is not None
        machine_.latest = levels.BASE
        self.crash(machine_)


@pytest.mark.parametrize(("entries", "snapshot"), [(10_000, False), (6, True)])
def test_the_earlier_release_does_not_start_on_what_the_later_one_left(entries, snapshot):
    plan = Plan(voters=1, seconds=12.0, faults=0.01)
    world = TakenBack(1, dataclasses.replace(plan, limits=dataclasses.replace(plan.limits, compact_entries=entries)), earlier=0)
    with pytest.raises(Violation) as found:
        world.run()
    assert isinstance(found.value.__cause__, ReleaseTooOld)
    assert world.snapshot is snapshot
