"""Operators who add and remove voters while everything goes wrong, and what must be true of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from raft_sim_checks import Violation

from hmcore.errors import HyperMeshError
from hmcore.records import Configuration
from node_agent.consensus.member import Member
from node_agent.consensus.voters.reconfiguration import Add, Done, Remove, Wish

if TYPE_CHECKING:
    from raft_sim_machine import Machine
    from raft_sim_world import World


class Director:
    """One wish at a time, asked again and again of whoever leads, until it is done or he gives up: what was begun then stays as it is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rnd = world.rnd
        self._wish: Wish | None = None
        self._patience = 0
        self._count = 0
        self._quiet_until = 0.0
        self._counted: dict[str, Configuration] = {}  # by what a machine counted before its latest step
        self._committed: dict[str, int] = {}  # up to where it had

    def begin(self) -> None:
        self._world.after(1.0, self._act)

    def rest(self, seconds: float) -> None:
        """A disk was just emptied, and the leader cannot know yet: nobody removes another voter in this very moment."""
        self._quiet_until = self._world.now + seconds

    def _act(self) -> None:
        world = self._world
        if not world.faulty:
            return
        leaders = [machine for machine in world.machines.values() if machine.leads and machine.responsive]
        if leaders and world.now >= self._quiet_until:
            self._ask(self._rnd.choice(leaders))
        world.after(self._rnd.choice((0.02, 0.1, 0.3)), self._act)

    def _ask(self, machine: Machine) -> None:
        assert machine.member is not None
        if self._wish is None:
            self._wish, self._patience = self._choose(machine.member.journal.configuration), self._rnd.choice((1, 5, 40))
            self._count += 1
        wish, world = self._wish, self._world

        def ask(member: Member) -> None:
            try:
                step = member.change_voters(wish, request_id=f"wish{self._count}")
            except HyperMeshError as error:
                world.seen[f"change: {type(error).__name__}"] += 1
                self._wish = None
                return
            world.seen[f"{type(wish).__name__}: {type(step).__name__}"] += 1
            self._patience -= 1
            if isinstance(step, Done) or self._patience <= 0:
                self._wish = None

        world.log("WISH", machine.name, wish, machine.member.journal.configuration)
        machine.step(ask)

    def _choose(self, configuration: Configuration) -> Wish:
        inside = [*configuration.voters, *configuration.learners]
        outside = [name for name in self._world.machines if name not in inside]
        few = len(configuration.voters) < 3
        if outside and (few or self._rnd.random() < 0.5):
            return Add(self._rnd.choice(outside))
        leaders = [name for name in configuration.voters if self._world.machines[name].leads]
        return Remove(self._rnd.choice(leaders) if leaders and self._rnd.random() < 0.3 else self._rnd.choice(inside))

    # --- what holds

    def after_step(self, machine: Machine, member: Member) -> None:
        """Only a voter leads, and it counts a majority of its configuration, learners and strangers left out."""
        before, now = self._counted.get(machine.name), member.journal.configuration
        self._counted[machine.name] = now
        engine = member.engine
        commit_index = 1 if engine is None else engine.commit_index
        advanced = commit_index > self._committed.get(machine.name, 1)
        self._committed[machine.name] = commit_index
        if engine is None or not engine.leads:
            return
        if machine.name not in now.voters:
            raise Violation("one that is no voter leads")
        log = member.journal.entries
        position = commit_index - log[0].index
        if not advanced or position < 0 or (entry := log[position]).term != engine.term:
            return  # committed by one who led before
        counts = (now, before) if before is not None else (now,)  # it may have been changed in this very step, after counting
        if not any(self._majority(configuration, entry.index, entry.term) for configuration in counts):
            raise Violation("committed without a majority of the voters")

    def _majority(self, configuration: Configuration, index: int, term: int) -> bool:
        holders = [name for name in configuration.voters if self._may_hold(self._world.machines[name], index, term)]
        return 2 * len(holders) > len(configuration.voters)

    @staticmethod
    def _may_hold(machine: Machine, index: int, term: int) -> bool:
        member = machine.member
        if member is None or member.journal.standing.reseeding or not member.journal.entries:
            return True  # it cannot be asked, or has lost what it held
        log = member.journal.entries
        return index < log[0].index or (index <= log[-1].index and log[index - log[0].index].term == term)

    # --- the disks that may be lost

    def spares(self, machine: Machine) -> bool:
        """Whether the others are a quorum without this machine, whichever configuration of those that are known counts, and all sound.

        Not while a change is in somebody's log that is not committed: who is lost for good then may take the only leader that there can be
        (docs/adr/0069, limits).
        """
        known = list(self._known())
        committed = max((index for index in self._committed_configurations()), default=-1)
        if any(configuration.index > committed for configuration in known):
            return False
        names = {name for configuration in known for name in configuration.voters} - {machine.name}
        others = [self._world.machines[name] for name in names]
        enough = all(machine.name not in configuration.voters or len(configuration.voters) > 2 for configuration in known)
        return bool(known) and enough and all(other.sound and other.member and other.member.journal.standing.formed for other in others)

    def _committed_configurations(self) -> Iterator[int]:
        """Their log indexes, as far as anybody who is sound knows that they are committed; nothing if nobody is."""
        for machine in self._world.machines.values():
            if machine.member is not None and machine.member.engine is not None and machine.sound:
                yield machine.member.journal.configuration_at(machine.member.engine.commit_index).index

    def _known(self) -> Iterator[Configuration]:
        for machine in self._world.machines.values():
            if machine.member is not None and machine.member.engine is not None and machine.sound:
                yield machine.member.journal.configuration
                yield machine.member.journal.configuration_at(machine.member.engine.commit_index)

    # --- in the end

    def members(self) -> list[Machine]:
        """Of the configuration that is in force in the end: those that must come to agree."""
        configurations = [
            machine.member.journal.configuration for machine in self._world.machines.values() if machine.member and machine.leads
        ]
        names = configurations[-1].voters + configurations[-1].learners if configurations else ()
        return [self._world.machines[name] for name in names]

    def untold(self) -> list[str]:
        """Who is no longer of the cluster, or is not yet, and does not know."""
        inside = self.members()
        return [
            machine.name
            for machine in self._world.machines.values()
            if machine not in inside and machine.member is not None and not machine.member.enrolment.outside
        ]
