"""A voter without its event loop: everything that RaftNode does, driven by calls and a clock. The simulation drives the same object.

Whatever goes wrong ends in one of two ways. `failure` is final: the node says and hears nothing more (its disk is intact; a restart
may help). A full disk is waited out: the node is deaf and dumb, like one that is cut off, and tries again every second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pysyncobj.config import FAIL_REASON

from hmcore.errors import CallRefused, ConsensusError, FormationFailed, HyperMeshError, InvalidRequest, NoQuorum, NotLeader, StorageFull
from hmcore.records import RaftReport
from node_agent.consensus.append_guard import Append
from node_agent.consensus.census import Census
from node_agent.consensus.disk import Disk
from node_agent.consensus.engine import MAX_COMMAND, Engine, Timing
from node_agent.consensus.journal import Journal, Standing
from node_agent.consensus.machine import Proposal, Receipt, State
from node_agent.consensus.messages import AskStanding, Message, NextIndex, TellStanding
from node_agent.consensus.proposals import Done, Proposals
from node_agent.consensus.replica import Replica
from node_agent.consensus.snapshots import SnapshotStore
from node_agent.consensus.transport import ALL, Links, Protections, RaftTransport

_RETRY = 1.0  # seconds between attempts on a full disk, and between questions about the others' standing


@dataclass(frozen=True, slots=True)
class Limits:
    """When the log is compacted, and in which portions a snapshot travels. Simulations use tiny ones."""

    compact_entries: int = 5000
    compact_bytes: int = 64 << 20
    journal_slack: int = 4 << 20
    chunk: int = 256 << 10


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class FormationStatus:
    """hmcore.api.Formation, but for the bootstrap id, which the configuration knows."""

    empty: bool
    permitted: bool
    formed: bool
    term: int


class Member:
    def __init__(
        self,
        *,
        name: str,
        voters: Sequence[str],
        disk: Disk,
        timing: Timing,
        links: Links,
        clock: Callable[[], float],
        rng: random.Random,
        wake: Callable[[], None],
        on_applied: Callable[[State], None],
        limits: Limits = DEFAULT_LIMITS,
        protections: Protections = ALL,
    ) -> None:
        self._name = name
        self._voters = tuple(sorted(voters))
        self._timing = timing
        self._clock = clock
        self._wake = wake
        self._on_applied = on_applied
        self._limits = limits
        self._disk = disk
        self.replica = Replica()
        self.journal = Journal(disk, slack=limits.journal_slack)
        self.store = SnapshotStore(disk, self.replica, chunk=limits.chunk)
        others = [voter for voter in self._voters if voter != name]
        self.transport = RaftTransport(
            name,
            others,
            timing=timing,
            journal=self.journal,
            store=self.store,
            links=links,
            clock=clock,
            rng=rng,
            on_standing=self._on_standing,
            protections=protections,
        )
        self.engine: Engine | None = None
        self._proposals = Proposals(self._put, max_bytes=MAX_COMMAND)
        self._census = Census(name, self._voters)
        self._leading: int | None = None  # the term in which we lead
        self._shown: State | None = None
        self._retry_at = 0.0
        self.full: StorageFull | None = None
        self.failure: HyperMeshError | None = None

    # --- life

    def open(self) -> None:
        """Load snapshot and journal. Raises StorageDamaged, StorageFull or another ConsensusError."""
        snapshot = self.store.load()
        self.journal.open(snapshot.anchor if snapshot else None)
        self._start_if_entitled()
        self._after()
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self._proposals.abandon(NoQuorum(f"{self._name} is stopping"))
        self.transport.destroy()
        self.journal.close()
        self._disk.close()

    def _start_if_entitled(self) -> None:
        standing = self.journal.standing
        if self.engine is not None or not (standing.bootstrap or standing.floor):
            return
        self.journal.sync()
        if self.journal.getCurrentTerm() < standing.floor:
            self.journal.setCurrentTerm(standing.floor, None)
        engine = Engine(
            self._name,
            [voter for voter in self._voters if voter != self._name],
            timing=self._timing,
            journal=self.journal,
            store=self.store,
            transport=self.transport,
            apply_batch=self.replica.apply,
            compact_entries=self._limits.compact_entries,
        )
        if self._disk.read("snapshot") is not None:
            engine.load_snapshot()
        self.engine = engine
        self.transport.attach(engine)
        self._wake()

    # --- formation and re-seeding

    def formation(self) -> FormationStatus:
        standing = self.journal.standing
        formed = standing.formed or self.replica.state.cluster is not None
        return FormationStatus(self.journal.empty, bool(standing.bootstrap), formed, self.term)

    def permit(self, bootstrap: str) -> None:
        standing = self.journal.standing
        if standing.reseeding or self._census.cluster_exists:
            raise FormationFailed("the cluster is formed already; this node is being re-seeded from it", host=self._name)
        if standing.bootstrap not in ("", bootstrap):
            raise FormationFailed(f"this node takes part in another formation ({standing.bootstrap})", host=self._name)
        if not standing.bootstrap:
            self.journal.standing = Standing(bootstrap=bootstrap)
        self.journal.sync()
        self._start_if_entitled()
        self._after()

    def reseed(self) -> None:
        """The cluster exists, though our journal is empty. Found out by asking the other voters; anybody else may tell, too."""
        if self.journal.standing == Standing():
            self.journal.standing = Standing(formed=True, reseeding=True)
            self.journal.sync()
            self._wake()

    def _on_standing(self, peer: str, message: AskStanding | TellStanding) -> None:
        if isinstance(message, AskStanding):
            standing = self.journal.standing
            member = bool(standing.bootstrap) and not standing.reseeding
            self.transport.tell(peer, TellStanding(self.term, member, standing.formed))
            return
        self._census.hear(peer, message)
        if self.engine is None:
            if self._census.cluster_exists:
                self.reseed()
            floor = self._census.floor
            if self.journal.standing.reseeding and floor is not None:
                self.journal.standing = Standing(formed=True, reseeding=True, floor=floor)
            self._start_if_entitled()

    def _update_standing(self, engine: Engine) -> None:
        standing, cluster = self.journal.standing, self.replica.state.cluster
        if cluster is None:
            return
        if standing.reseeding:
            position = engine.applied_index - self.journal[0].index
            if not 0 <= position < len(self.journal) or self.journal[position].term < standing.floor:
                return
        self.journal.standing = Standing(bootstrap=cluster.bootstrap, formed=True)

    # --- what happens

    def peer_up(self, peer: str) -> None:
        self._guarded(lambda: self._peer_up(peer))

    def _peer_up(self, peer: str) -> None:
        self.transport.peer_up(peer)
        if self.engine is None:
            self.transport.tell(peer, AskStanding())
        self._wake()

    def peer_down(self, peer: str) -> None:
        self._guarded(lambda: self.transport.peer_down(peer))

    def receive(self, peer: str, payload: bytes) -> None:
        if self.full is None:
            self._guarded(lambda: self._receive(peer, payload))

    def _receive(self, peer: str, payload: bytes) -> None:
        message = self.transport.receive(peer, payload)
        if message is not None and self._worth_a_tick(message):
            self._wake()

    def _worth_a_tick(self, message: Message) -> bool:
        """Not for a heartbeat with nothing in it, nor for its answer: ticks are what an idle node's CPU time goes into."""
        engine = self.engine
        if engine is None:
            return False
        idle = engine.commit_index <= engine.applied_index and (not engine.leads or engine.commit_index == self.journal[-1].index)
        return not (idle and isinstance(message, Append | NextIndex))

    def tick(self) -> None:
        self._guarded(self._tick)

    def _tick(self) -> None:
        engine, now = self.engine, self._clock()
        if self.full is not None or engine is None or self.store.postponed:
            if now >= self._retry_at:
                self._retry_at = now + _RETRY
                self._retry()
            if self.full is not None or engine is None:
                return
        self.journal.sync()  # what a leader counts as its own must be durable
        self.transport.before_tick()
        engine.tick()

    def _retry(self) -> None:
        self.store.postponed = False
        if self.engine is None:
            for peer in sorted(self.transport.connected):
                self.transport.tell(peer, AskStanding())
        self.journal.sync()
        self.full = self.transport.full = self.store.full = None
        self._start_if_entitled()

    def next_tick(self) -> float:
        """When to tick, if nothing happens before. On the clock."""
        engine = self.engine
        if self.failure is not None:
            return float("inf")
        if self.full is not None or engine is None:
            return self._retry_at
        deadline = engine.heartbeat_deadline if engine.leads else self.transport.wake()
        return min(deadline, self._retry_at) if self.store.postponed else deadline

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.failure is not None:
            return
        try:
            work()
        except StorageFull as error:
            self.transport.full = error
        except HyperMeshError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001  # whatever it was, a step may be half done: this node must stop
            self.failure = ConsensusError(f"the consensus layer failed: {error!r}")
            self.failure.__cause__ = error
        self._after()

    def _after(self) -> None:
        """Draw the consequences of what pysyncobj just did."""
        self.failure = self.failure or self.transport.failure or self.store.failure or self.replica.failure
        full = self.transport.full or self.store.full
        if full is not None and self.full is None:
            self._retry_at = self._clock() + _RETRY
        self.full = self.transport.full = full
        engine = self.engine
        if engine is not None and self.failure is None:
            self._update_standing(engine)
            if self.journal.command_bytes > self._limits.compact_bytes:
                engine.compact()
            if engine.leads and len(self._voters) == 1 and engine.commit_index < self.journal[-1].index:
                self._wake()  # nobody's answer will
        leading = engine.term if engine is not None and self.is_leader else None
        if leading != self._leading:
            self._leading = leading
            self._proposals.abandon(self._refusal() or NotLeader("the leadership changed", leader=self.leader))
        if self.replica.state is not self._shown and self.failure is None:
            self._shown = self.replica.state
            self._on_applied(self._shown)

    # --- proposals

    def propose(self, proposal: Proposal, done: Done) -> None:
        """Put a command into the log. `done` hears its receipt once it is applied here, or why it cannot be."""
        refusal = self._refusal()
        if len(proposal.command) > MAX_COMMAND:
            refusal = InvalidRequest(f"a command of {len(proposal.command)} bytes is too large; {MAX_COMMAND} are allowed")
        if refusal is not None:
            done(refusal)
            return
        self._proposals.offer(proposal, done)
        self._wake()

    def _put(self, batch: bytes, settled: Callable[[list[Receipt] | None], None]) -> None:
        engine = self.engine
        if engine is None:
            raise ConsensusError("the consensus layer is not open")
        engine.propose(batch, lambda receipts, reason: settled(receipts if reason == FAIL_REASON.SUCCESS else None))

    def _refusal(self) -> HyperMeshError | None:
        """Why this node takes no commands now, or None."""
        if self.failure is not None or self.full is not None:
            return self.failure or self.full
        if self.is_leader:
            return None
        if self.leader is not None:
            return NotLeader(f"{self._name} does not lead; {self.leader} does", leader=self.leader)
        return self.no_quorum()

    def no_quorum(self) -> CallRefused:
        reachable, needed = len(self.reachable()), len(self._voters) // 2 + 1
        count = f"{reachable} of {len(self._voters)} voters reachable"
        return NoQuorum(f"no quorum: {count}" if reachable < needed else f"no leader at the moment: {count}", host=self._name)

    # --- what others may know

    @property
    def term(self) -> int:
        return self.journal.getCurrentTerm() if self.engine is None else int(self.engine.term)

    @property
    def is_leader(self) -> bool:
        return self.engine is not None and self.engine.leads and self.failure is None and self.full is None

    @property
    def leader(self) -> str | None:
        """Who leads, as far as we know. A leader that was not heard for longer than any voter's patience is none."""
        if self.is_leader:
            return self._name
        if self.engine is None or self.engine.leads or self.transport.candidacy.silence(self._clock()) > self._timing.election_max:
            return None
        return self.engine.leader

    def reachable(self) -> list[str]:
        """Voters, ourselves included. Of a leader's followers only those count that answered lately."""
        since = self._clock() - self._timing.election_max
        leads = self.is_leader
        others = [peer for peer in self.transport.connected if not leads or self.transport.heard.get(peer, since) > since]
        return sorted([self._name, *others])

    @property
    def trouble(self) -> str | None:
        """Why this layer is degraded, for a person; None when it works."""
        standing = self.journal.standing
        if self.failure is not None or self.full is not None:
            return str(self.failure or self.full)
        if standing.reseeding:
            return f"re-seeding: {self._census.lacking}" if not standing.floor else "re-seeding: catching up with the leader"
        if self.engine is None:
            return "not yet part of a formed cluster"
        return None if self.leader is not None else str(self.no_quorum().message)

    def report(self) -> RaftReport:
        engine = self.engine
        return RaftReport(
            role=self._role(),
            leader=self.leader,
            term=self.term,
            commit_index=0 if engine is None else engine.commit_index,
            applied_index=0 if engine is None else engine.applied_index,
            voters=list(self._voters),
            reachable_voters=self.reachable(),
        )

    def _role(self) -> str:
        if self.journal.standing.reseeding:
            return "reseeding"
        if self.engine is None:
            return "unformed"
        if self.is_leader:
            return "leader"
        return "candidate" if self.engine.stands else "follower"
