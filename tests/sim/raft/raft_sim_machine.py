"""A simulated host: its disk outlives its voter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raft_sim_checks import Violation
from raft_sim_disk import Crash, SimDisk

from hmcore.errors import HyperMeshError, StorageFailed, StorageFull
from node_agent.consensus.member import Member
from node_agent.consensus.statemachine import levels

if TYPE_CHECKING:
    from raft_sim_world import World


@dataclass(frozen=True)
class Timing:
    heartbeat: float = 0.1
    election_min: float = 0.4
    election_max: float = 0.9


@dataclass
class Machine:
    """A host: its disk outlives its voter."""

    world: World
    name: str
    disk: SimDisk
    member: Member | None = None
    incarnation: int = 0
    connections: dict[str, int] = field(default_factory=dict)
    paused_until: float = 0.0
    permitted: bool = False
    ticking_at: float = float("inf")
    kicked: bool = False
    ahead: float = 0.0  # seconds that its clock, by which people tell the time, is ahead of ours
    latest: int = levels.LATEST  # the highest feature level that its release knows

    @property
    def alive(self) -> bool:
        return self.member is not None

    @property
    def responsive(self) -> bool:
        return self.paused_until <= self.world.now

    @property
    def leads(self) -> bool:
        return self.member is not None and self.member.is_leader

    @property
    def sound(self) -> bool:
        """Whether it takes part with all that it ever knew."""
        return self.member is not None and self.member.formation().permitted

    # --- the network's calls

    def send(self, peer: str, payload: bytes) -> bool:
        return not self.disk.dead and self.world.network.send(self.name, peer, payload, self.disk.waited)

    def peer_up(self, peer: str) -> None:
        self.step(lambda member: member.peer_up(peer))

    def peer_down(self, peer: str) -> None:
        self.step(lambda member: member.peer_down(peer))

    def receive(self, peer: str, payload: bytes) -> None:
        self.step(lambda member: member.receive(peer, payload))

    # --- life

    def start(self) -> None:
        plan = self.world.plan
        self.incarnation += 1
        self.connections = {}
        self.ticking_at = float("inf")
        self.kicked = False
        self.disk.crashy = 0.0
        member = Member(
            name=self.name,
            voters=self.world.listed(self),
            disk=self.disk,
            timing=Timing(),
            links=self,
            clock=self.world.clock,
            rng=self.world.rnd,
            wake=self.kick,
            on_applied=lambda state: None,
            wall_clock=lambda: self.world.clock() + self.ahead,
            limits=plan.limits,
            protections=plan.protections,
            latest=self.latest,
        )
        self.member = member

        def begin(member: Member) -> None:
            member.open()
            if self.permitted and not member.formation().permitted:
                with suppress(StorageFull):  # it is tried again when there is room
                    member.permit("b1")

        self.step(begin)
        self.disk.crashy = plan.crash_in_write if self.world.faulty else 0.0

    def kick(self) -> None:
        if not self.kicked:
            self.kicked = True
            incarnation = self.incarnation
            self.world.after(0.0005, lambda: self._tick(incarnation))

    def _tick(self, incarnation: int) -> None:
        if incarnation != self.incarnation:
            return
        self.kicked = False
        self.ticking_at = float("inf")
        if not self.responsive:
            self.world.after(self.paused_until - self.world.now, lambda: self._tick(incarnation))
        else:
            self.step(lambda member: member.tick())

    def step(self, work: Callable[[Member], None]) -> None:
        member = self.member
        if member is None:
            return
        before, self.world.busy = self.world.busy, self
        self.disk.waited = 0.0
        try:
            self._step(member, work)
        finally:
            if self.disk.waited:  # what comes meanwhile waits: a sync holds the whole agent up
                self.world.seen["waited for the disk"] += 1
                self.paused_until = max(self.paused_until, self.world.now + self.disk.waited)
                self.disk.waited = 0.0
            self.world.busy = before

    def _step(self, member: Member, work: Callable[[Member], None]) -> None:
        try:
            work(member)
        except Crash:
            self.disk.dead = True
        except (StorageFailed, StorageFull) as error:  # it cannot even open: the agent ends, and is started anew
            self.world.seen[f"{type(error).__name__} at start"] += 1
            self.disk.dead = True
        except HyperMeshError as error:
            if not self.disk.dead:
                raise Violation(f"a voter cannot go on: {type(error).__name__}") from error
        if isinstance(member.failure, StorageFailed):
            self.world.seen["stopped"] += 1
            self.disk.dead = True
        inside = self.world.plan.inside
        if self.disk.dead:  # also when pysyncobj's bare excepts swallowed the Crash
            if inside:
                self.world.checks.last_words(self.name, self.incarnation, member)
            self.world.crash(self)
            return
        if inside and (broken := self.world.outcry or self.world.readers.broken) is not None:
            raise Violation(broken)
        if inside:
            self.world.checks.after_step(self.name, self.incarnation, member)
            self.world.director.after_step(self, member)
        self.world.see(self, member)
        if member.store.writing:
            self.world.seen["snapshot under way"] += 1
        wanted = member.next_tick() + 0.001
        if wanted < self.ticking_at:
            self.ticking_at = wanted
            incarnation = self.incarnation
            self.world.after(max(0.0, wanted - self.world.now), lambda: self._due(incarnation, wanted))

    def _due(self, incarnation: int, wanted: float) -> None:
        if incarnation == self.incarnation and self.ticking_at == wanted:
            self._tick(incarnation)
