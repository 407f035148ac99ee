"""The leadership is handed over in a healthy cluster while clients write, in virtual time: nobody waits for an election timeout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from raft_sim_machine import Machine
from raft_sim_network import Habits
from raft_sim_world import Plan, World

from hmcore.errors import HyperMeshError, NotLeader, TransferFailed
from node_agent.consensus.leading.handover import Handed
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal, Receipt

BOUND = 1.0  # seconds until a write that came meanwhile is acknowledged by whoever leads then; Timing.election_min is 0.4


class Healthy(World):
    """Nothing goes wrong but what `trouble` does, after the leader was asked to hand over."""

    def __init__(self, seed: int, voters: int, trouble: Callable[[Healthy, Machine], None] = lambda world, old: None) -> None:
        super().__init__(seed, Plan(voters=voters, habits=Habits(slow=0.0), crash_in_write=0.0))
        self.trouble = trouble
        self.handed: list[Handed | HyperMeshError] = []
        self.latencies: list[float] = []

    def _run(self) -> None:
        for member in self.machines.values():
            member.permitted = True
            self.after(0.0, member.start)
        self.after(0.0, self.network.connect)
        for number in range(6):
            self.until(self.now + 3.0)
            (leader,) = (each for each in self.machines.values() if each.leads)
            for write in range(5):
                self.write(leader, f"t{number}-{write}", self.now)
            leader.step(lambda member: member.transfer(None, self.handed.append, timeout=5.0))
            self.trouble(self, leader)
            for write in range(5, 10):
                self.after(0.003 * write, lambda leader=leader, id=f"t{number}-{write}": self.write(leader, id, self.now))  # type: ignore[misc]
        self.until(self.now + 3.0)
        self.checks.in_the_end([each.member.replica.state for each in self.machines.values() if each.member])

    def write(self, target: Machine, id: str, began: float) -> None:
        """As a client does: on to whom the answer names, with the same id."""

        def done(outcome: Receipt | HyperMeshError) -> None:
            match outcome:
                case Receipt():
                    self.checks.acknowledge(id, outcome)
                    self.latencies.append(self.now - began)
                case NotLeader(leader=str(leader)):
                    self.after(0.001, lambda: self.write(self.machines[leader], id, began))
                case _:
                    self.after(0.05, lambda: self.write(self.leader or target, id, began))

        target.step(lambda member: member.propose(Proposal(id, machine.encode(machine.Noop())), done))

    @property
    def leader(self) -> Machine | None:
        return next((each for each in self.machines.values() if each.leads), None)


@pytest.mark.long
@pytest.mark.parametrize("voters", [2, 3, 5])
def test_a_write_during_a_healthy_transfer_is_acknowledged_by_the_new_leader_within_a_second(voters):
    seconds: list[float] = []
    for seed in range(8):
        world = Healthy(seed, voters)
        world.run()
        assert [type(outcome) for outcome in world.handed] == [Handed] * 6
        seconds += [outcome.seconds for outcome in world.handed if isinstance(outcome, Handed)]
        assert len(world.latencies) == 60
        assert max(world.latencies) < BOUND
    assert max(seconds) < 0.25, "a transfer costs some messages, not an election timeout"


def silence(world: Healthy, old: Machine) -> None:
    """Nobody hears the leader's invitation, nor anything else it says, for longer than a transfer may take."""
    names = list(world.machines)
    world.network.block({(old.name, other) for other in names if other != old.name}, 1.2)


@pytest.mark.long
def test_a_transfer_that_cannot_be_finished_ends_and_writes_go_on():
    failed = 0
    for seed in range(8):
        world = Healthy(seed, 3, silence)
        world.run()
        assert len(world.handed) == 6
        assert not any(isinstance(outcome, Handed) and outcome.seconds > 0.9 for outcome in world.handed)
        failed += sum(isinstance(outcome, TransferFailed) for outcome in world.handed)
        assert len(world.latencies) == 60, "a write was forgotten"
    assert failed > 0
