"""One member's state machine misbehaves at one command: it is found out, takes the others' state, and all are equal in the end."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from raft_sim_checks import Checks, Violation
from raft_sim_machine import Machine
from raft_sim_world import Plan, World

from hmcore.records import KeyValue
from node_agent.consensus.divergence import agreement
from node_agent.consensus.divergence.agreement import Judgement
from node_agent.consensus.divergence.opinion import Opinion
from node_agent.consensus.divergence.selfcure import HandOver, Reseed
from node_agent.consensus.limits import Limits
from node_agent.consensus.member import Member
from node_agent.consensus.statemachine.checkpoints import Checkpoints
from node_agent.consensus.statemachine.commands import PutKey, Result
from node_agent.consensus.statemachine.effects import keys
from node_agent.consensus.statemachine.replica import Replica
from node_agent.consensus.statemachine.state import Draft, State

BEAT = 0.2
EVERY = 16  # entries between checkpoints: in two heartbeats
WITHIN = 200  # entries in which it must be found out
# Compaction is rare: whoever needed a snapshot of the one that is wrong, while that leads, would be wrong with it (docs/adr/0075).
PLAN = Plan(seconds=10.0, faults=0.3, wipes=False, full_disks=False, limits=Limits(compact_entries=400, chunk=3000))


class BarOne(Checks):
    """All that must hold, but for the states of the one that is wrong, while it is."""

    def __init__(self, world: Diverging) -> None:
        super().__init__()
        self._world = world
        self._current = ""

    def after_step(self, name: str, incarnation: int, member: Member) -> None:
        self._current = name
        super().after_step(name, incarnation, member)

    def _applied(self, state: State) -> None:
        if not (self._world.wrong and self._current == self._world.victim):
            super()._applied(state)


class Diverging(World):
    """`victim` puts a key that it was not told to, once, after `bad_at`. In every other world it is the one that leads then."""

    def __init__(self, seed: int, plan: Plan, *, cures: bool = True) -> None:
        super().__init__(seed, plan)
        self.checks = BarOne(self)
        self.victim = self.rnd.choice(sorted(self.machines))
        self.bad_at = self.rnd.uniform(2.0, 4.0)
        self._lead = seed % 2 == 1
        self.wrong = False
        self.wrong_since = 0
        self.found: list[int] = []  # the log index that its finders were at
        self.cured = 0
        self._cures = cures
        self.opinions = {name: Opinion(name, silent_after=4 * BEAT) for name in self.machines}

    def _run(self) -> None:
        for name in self.machines:
            self.after(1.0 + self.rnd.random() * BEAT, lambda name=name: self._beat(name))  # type: ignore[misc]
        self.after(self.bad_at, self._choose)
        super()._run()

    def _choose(self) -> None:
        leaders = [name for name, machine_ in self.machines.items() if machine_.member is not None and machine_.member.is_leader]
        if self._lead and leaders:
            self.victim = leaders[-1]

    def misbehaves(self, index: int) -> bool:
        due = self.busy is self.machines[self.victim] and self.now >= self.bad_at and not self.wrong_since
        if due:
            self.wrong, self.wrong_since = True, index
            self.log("WRONG", self.victim, index)
        return due

    def _beat(self, name: str) -> None:
        """What pulse.py and comparison.py do."""
        self.after(BEAT, lambda: self._beat(name))
        machine_ = self.machines[name]
        member = machine_.member
        if member is None or not machine_.responsive or member.engine is None:
            return
        reseeding = member.enrolment.reseeding
        claims = () if reseeding else member.replica.checkpoints.claims
        for other in self.machines:
            if (name, other) not in self.network.blocked and self.machines[other].responsive:
                self.opinions[other].hear(name, claims, reseeding=reseeding, now=self.now)
        outlook, opinion = member.outlook, self.opinions[name]
        action = opinion.look(
            member.replica.checkpoints.hashes,
            voters=outlook.voters,
            learners=(),
            leader=outlook.leader,
            whole=bool(claims),
            since=None if not self.cured else 0.0,
            now=self.now,
        )
        accused = {odd.node for odd in opinion.judgement.odd}
        if accused - {self.victim} or (accused and not self.wrong_since):
            raise Violation(f"{accused} accused, {self.victim} is wrong")
        if accused:
            self.found.append(member.replica.state.index)
        if self._cures:
            self._do(machine_, action)

    def _do(self, machine_: Machine, action: object) -> None:
        match action:
            case HandOver():
                self.seen["handed over"] += 1
                machine_.step(lambda member: member.transfer(None, lambda outcome: None, timeout=1.0))
            case Reseed():
                self.log("RE-SEED", machine_.name)
                self.cured += 1
                self.wrong = False  # from here on what it shows must be right
                self.crash(machine_)
                machine_.permitted = False
                machine_.disk.wipe()

    def crash(self, machine_: Machine) -> None:
        super().crash(machine_)
        if self.wrong and machine_.name == self.victim and machine_.disk.read("snapshot") is None:
            self.wrong = False  # it makes its state of the log anew, and this time does it right
            self.seen["replayed"] += 1

    def _settle(self) -> None:
        self.until(self.now + 12.0)  # an election for its floor, among others
        super()._settle()


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch):
    """Makes worlds whose victim misbehaves: in its replica, not in the model that the checks hold beside it."""
    inside: list[int] = []  # the log index that a replica is applying
    apply, put_key = Replica.apply, keys.put_key
    worlds: list[Diverging] = []

    def applied(self: Replica, batch: bytes, index: int, *, configures: bool = False) -> object:
        inside.append(index)
        try:
            return apply(self, batch, index, configures=configures)
        finally:
            inside.pop()

    def put(draft: Draft, command: PutKey) -> Result:
        if inside and worlds[-1].misbehaves(inside[-1]):  # no later write makes it good again, or is answered otherwise
            draft.put("keys", "wrong", KeyValue(value=command.value, created=1, changed=1))
        return put_key(draft, command)

    def made(seed: int, plan: Plan = PLAN, **options: bool) -> Diverging:
        worlds.append(Diverging(seed, plan, **options))
        return worlds[-1]

    monkeypatch.setattr(Replica, "apply", applied)
    monkeypatch.setattr(keys, "put_key", put)
    monkeypatch.setattr(Checkpoints.__init__, "__defaults__", (EVERY,))
    return made


@pytest.mark.long
@pytest.mark.parametrize("voters", [3, 5])
def test_it_is_found_out_re_seeded_and_equal_in_the_end(diverging, voters):
    seen: Counter[str] = Counter()
    for seed in range(10):
        world = diverging(seed, dataclasses.replace(PLAN, voters=voters)).run()
        if not world.wrong_since or (world.seen["replayed"] and not world.cured):
            continue
        seen["wrong"] += 1
        assert world.cured == 1, f"seed {seed}"
        assert min(world.found) - world.wrong_since < WITHIN, f"seed {seed}"
        seen.update(world.seen)
        seen["acknowledged"] += len(world.checks.acknowledged)
    assert seen["wrong"] > 3
    assert seen["handed over"] > 0  # it led
    assert seen["acknowledged"] > 1000


def broken(diverging, **options: bool) -> str:
    """The first broken promise that shows."""
    for seed in range(12):
        try:
            diverging(seed, **options).run()
        except Violation as violation:
            return str(violation)
    return "nothing"


def test_without_the_comparison_they_differ_for_ever(diverging, monkeypatch):
    monkeypatch.setattr(agreement, "judge", lambda told, voters, learners=(): Judgement())
    assert broken(diverging) == "state hashes differ"


def test_one_that_is_only_accused_stays_wrong(diverging):
    assert broken(diverging, cures=False) == "state hashes differ"


@pytest.mark.long
def test_nobody_is_accused_where_nobody_is_wrong():
    """With all faults, compaction after a few entries and snapshots on their way."""
    for seed in range(4):
        world = Diverging(seed, dataclasses.replace(Plan(), seconds=8.0))
        world.run()
        assert (world.found, world.cured) == ([], 0)
