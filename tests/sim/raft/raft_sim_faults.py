"""What befalls the machines of a simulation, and when. All of it ends when the world heals."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError
from node_agent.consensus.leading.handover import Handed

if TYPE_CHECKING:
    from raft_sim_machine import Machine
    from raft_sim_world import World


class Faults:
    """By `dice`, but for the clocks: they change nothing else, and shall not change what happens when either."""

    def __init__(self, world: World, seed: int, dice: random.Random) -> None:
        self._world = world
        self._rnd = dice
        self._clocks = random.Random(f"clocks {seed}")

    def begin(self) -> None:
        self._world.after(1.0, self._fault)
        self._world.after(1.0, self._jump)
        if self._world.plan.slow_disks:
            self._world.after(1.5, self._slow)

    def _pick(self, live: list[Machine]) -> Machine:
        leaders = [machine_ for machine_ in live if machine_.leads]
        return self._rnd.choice(leaders) if leaders and self._rnd.random() < 0.5 else self._rnd.choice(live)

    def _fault(self) -> None:
        if not self._world.faulty:
            return
        live = [machine_ for machine_ in self._world.machines.values() if machine_.alive]
        if len(self._world.machines) == 1:
            self._alone(live)
        elif len(live) > 1:
            kind = self._rnd.random()
            if kind < 0.16:
                self._world.crash(self._pick(live))
            elif kind < 0.20:
                for machine_ in live:
                    self._world.crash(machine_)
            elif kind < 0.38:
                one, other = self._rnd.sample(live, 2)
                self._world.log("BREAK", one.name, other.name)
                self._world.network.sever(one.name, other.name)
            elif kind < 0.68:
                self._partition(live)
            elif kind < 0.80:
                self._pause(self._pick(live))
            elif kind < 0.88:
                self._transfer(live)
            elif kind < 0.92:
                self._fill(self._pick(live))
            elif kind < 0.94:
                self._fail(self._pick(live))
            else:
                self._wipe(self._pick(live))
        if self._world.plan.lying_disk and self._rnd.random() < 0.3:
            for machine_ in live:
                machine_.disk.settle()
        self._world.after(self._rnd.expovariate(self._world.plan.faults), self._fault)

    def _alone(self, live: list[Machine]) -> None:
        """What can befall a machine without others; its disk is never emptied, or all would be gone."""
        for machine_ in live:
            kind = self._rnd.random()
            if kind < 0.5:
                self._world.crash(machine_)
            elif kind < 0.7:
                self._pause(machine_)
            elif kind < 0.9:
                self._fill(machine_)
            else:
                self._fail(machine_)

    def _pause(self, machine_: Machine) -> None:
        self._world.log("PAUSE", machine_.name)
        machine_.paused_until = self._world.now + self._rnd.choice((0.1, 0.5, 1.2))

    def _partition(self, live: list[Machine]) -> None:
        names, kind = list(self._world.machines), self._rnd.random()
        if kind < 0.5:
            inside = {self._pick(live).name}
            cut = {(a, b) for a in names for b in names if (a in inside) != (b in inside)}
        elif kind < 0.67:
            inside = {machine_.name for machine_ in self._rnd.sample(live, len(live) // 2)}
            cut = {(a, b) for a in names for b in names if (a in inside) != (b in inside)}
        else:
            one, inward = self._pick(live).name, self._rnd.random() < 0.5
            cut = {(a, one) if inward else (one, a) for a in names if a != one}
            if self._rnd.random() < 0.4:
                cut = set(self._rnd.sample(sorted(cut), max(1, len(cut) // 2)))
        seconds = self._rnd.choice((0.2, 0.8, 2.0, 4.0))
        self._world.log("CUT", sorted(cut), seconds)
        self._world.network.block(cut, seconds)
        if seconds > 1 and self._rnd.random() < 0.7:  # the connections' own time-out
            for a, b in sorted(cut):
                self._world.after(self._rnd.uniform(0.8, 1.6), partial(self._time_out, a, b))

    def _time_out(self, a: str, b: str) -> None:
        if (a, b) in self._world.network.blocked:
            self._world.network.sever(a, b)

    def _transfer(self, live: list[Machine]) -> None:
        for machine_ in live:
            if machine_.leads and machine_.responsive:
                to = self._rnd.choice((None, *self._world.machines))
                self._world.log("TRANSFER", machine_.name, to)
                machine_.step(lambda member, to=to: member.transfer(to, self._transferred, timeout=1.0))  # type: ignore[misc]

    def _transferred(self, outcome: Handed | HyperMeshError) -> None:
        self._world.log("TRANSFERRED", outcome)
        self._world.seen[f"transfer: {type(outcome).__name__}"] += 1

    def _fill(self, machine_: Machine) -> None:
        if self._world.plan.full_disks:
            self._world.log("FULL", machine_.name)
            self._world.seen["full"] += 1
            machine_.disk.full = True
            self._world.after(self._rnd.choice((0.3, 1.5, 3.0)), lambda: setattr(machine_.disk, "full", False))

    def _slow(self) -> None:
        if not self._world.faulty:
            return
        latency = self._rnd.choice(self._world.plan.slow_disks)
        machines = list(self._world.machines.values())
        for machine_ in machines if self._rnd.random() < 0.2 else [self._pick(machines)]:
            self._world.log("SLOW", machine_.name, latency)
            machine_.disk.latency = latency
            self._world.after(self._rnd.choice((0.5, 2.0, 4.0)), partial(setattr, machine_.disk, "latency", 0.0))
        self._world.after(self._rnd.uniform(0.5, 2.0), self._slow)

    def _jump(self) -> None:
        """Somebody sets a machine's clock: by the time of day that it keeps, nothing may be decided."""
        if not self._world.faulty:
            return
        machine_ = self._clocks.choice(list(self._world.machines.values()))
        machine_.ahead = self._clocks.choice((-86_400.0, -3.0, 0.0, 3.0, 86_400.0))
        self._world.log("CLOCK", machine_.name, machine_.ahead)
        self._world.seen["clock set"] += 1
        self._world.after(self._clocks.uniform(0.3, 2.0), self._jump)

    def _fail(self, machine_: Machine) -> None:
        self._world.log("FAIL", machine_.name)
        machine_.disk.failing = True

    def _wipe(self, machine_: Machine) -> None:
        """Only if the others are a quorum, all with what they ever knew: or the entries that they share would be gone for good."""
        formed = machine_.member is not None and machine_.member.formation().formed
        if self._world.plan.wipes and formed and len(self._world.machines) > 2 and self._world.director.spares(machine_):
            self._world.log("WIPE", machine_.name)
            self._world.seen["wipe"] += 1
            machine_.permitted = False
            self._world.director.rest(2.0)
            self._world.crash(machine_)
            machine_.disk.wipe()
