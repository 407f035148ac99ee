"""A voter without its event loop: everything that RaftNode does, driven by calls and a clock. The simulation drives the same object.

Whatever goes wrong ends in one of two ways. `failure` is final: the node says and hears nothing more (its disk is intact; a restart
may help). A full disk is waited out: the node is deaf and dumb, like one that is cut off, and tries again every second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hmcore.errors import ConsensusError, HyperMeshError, InvalidRequest, NoQuorum, NotLeader, StorageFull
from node_agent.consensus.append_guard import Append
from node_agent.consensus.commands import Proposal, Receipt
from node_agent.consensus.disk import Disk
from node_agent.consensus.engine import Engine, Timing
from node_agent.consensus.enrolment import Enrolment, FormationStatus
from node_agent.consensus.journal import Journal
from node_agent.consensus.limits import DEFAULT_LIMITS, MAX_COMMAND, Limits
from node_agent.consensus.messages import AskStanding, Message, NextIndex, TellStanding
from node_agent.consensus.outlook import Figures, Outlook
from node_agent.consensus.proposals import Done, Proposals
from node_agent.consensus.replica import Replica
from node_agent.consensus.rules import ALL, Protections
from node_agent.consensus.snapshots import SnapshotStore
from node_agent.consensus.state import State
from node_agent.consensus.transport import Links, RaftTransport
from node_agent.consensus.voters import disregarded, in_use

_RETRY = 1.0  # seconds between attempts on a full disk, and between questions about the others' standing


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
        self._configured = self._voters = tuple(sorted(voters))
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
        self._proposals = Proposals(self._put, max_bytes=limits.batch, in_flight=limits.in_flight)
        self.enrolment = Enrolment(
            name,
            self._voters,
            journal=self.journal,
            replica=self.replica,
            transmit=self.transport.transmit,
            on_voters=self._voters_told,
        )
        self._leading: int | None = None  # the term in which we lead
        self._shown: State | None = None
        self._stood: int | None = None  # the term of our latest vote for ourselves
        self._elections = 0
        self._retry_at = 0.0
        self.full: StorageFull | None = None
        self.failure: HyperMeshError | None = None

    # --- life

    def open(self) -> None:
        """Load snapshot and journal. Raises StorageDamaged, StorageFull or another ConsensusError."""
        snapshot = self.store.load()
        self.journal.open(snapshot.anchor if snapshot else None)
        self._seat()
        self._stood = self._own_vote()
        try:
            self._start_if_entitled()
        except StorageFull as error:
            self.transport.full = error  # waited out, as it is later
        self._after()
        if self.failure is not None:
            raise self.failure

    def _seat(self) -> None:
        """Run with the voters that this node was formed with. Raises ConsensusError if it cannot."""
        voters = in_use(self._name, self._configured, self.journal.standing.voters)
        if voters != self._voters:
            self._voters = voters
            self.transport.seat([voter for voter in voters if voter != self._name])
            self.enrolment.seat(voters)

    def _voters_told(self) -> None:
        self.journal.sync()
        self._seat()

    def close(self) -> None:
        self._proposals.abandon(NoQuorum(f"{self._name} is stopping"))
        self.transport.destroy()
        self.journal.close()
        self._disk.close()

    def _start_if_entitled(self) -> None:
        if self.engine is not None or not self.enrolment.entitled:
            return
        if self.journal.getCurrentTerm() < self.enrolment.floor:
            self.journal.setCurrentTerm(self.enrolment.floor, None)
        self.journal.sync()  # the permission, or the floor, before any message that follows from it
        engine = Engine(
            self._name,
            [voter for voter in self._voters if voter != self._name],
            timing=self._timing,
            journal=self.journal,
            store=self.store,
            transport=self.transport,
            apply_batch=self.replica.apply,
            compact_entries=self._limits.compact_entries,
            max_append=self._limits.append,
        )
        if self.store.exists:
            engine.load_snapshot()
        self.engine = engine
        self.transport.attach(engine)
        self._wake()

    # --- formation and re-seeding

    def formation(self) -> FormationStatus:
        return self.enrolment.status(self.term)

    def permit(self, bootstrap: str) -> None:
        """Durable when it returns. Raises FormationFailed, StorageFull."""
        if self.failure is not None:
            raise self.failure
        self.enrolment.permit(bootstrap)
        self.journal.sync()
        self._start_if_entitled()
        self._after()

    def reseed(self) -> None:
        """The cluster exists, though our journal is empty. Found out by asking the other voters; anybody else may tell, too."""
        self.enrolment.reseed()
        self.journal.sync()
        self._wake()

    def _on_standing(self, peer: str, message: AskStanding | TellStanding) -> None:
        if self.engine is None or isinstance(message, AskStanding):
            self.enrolment.heard(peer, message, self.term)
            self.journal.sync()
            self._start_if_entitled()

    # --- what happens

    def peer_up(self, peer: str) -> None:
        self._guarded(lambda: self._peer_up(peer))

    def _peer_up(self, peer: str) -> None:
        self.transport.peer_up(peer)
        if self.engine is None:
            self.enrolment.ask(peer)
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
        if len(self._voters) == 1:
            self.journal.sync()  # no send will

    def _retry(self) -> None:
        self.store.postponed = False
        if self.engine is None:
            for peer in sorted(self.transport.connected):
                self.enrolment.ask(peer)
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
            if self.engine is not None:
                self.enrolment.settle(self.engine)
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
        if (stood := self._own_vote()) is not None and stood != self._stood:
            self._stood = stood
            self._elections += 1
        full = self.transport.full or self.store.full
        if full is not None and self.full is None:
            self._retry_at = self._clock() + _RETRY
        self.full = self.transport.full = full
        engine = self.engine
        if engine is not None and self.failure is None:
            if self.journal.command_bytes > self._limits.compact_bytes:
                engine.compact()
            if engine.leads and len(self._voters) == 1 and engine.commit_index < self.journal[-1].index:
                self._wake()  # nobody's answer will
        leading = engine.term if engine is not None and self.is_leader else None
        if leading != self._leading:
            self._leading = leading
            self._proposals.abandon(self.outlook.refusal() or NotLeader("the leadership changed", leader=self.leader))
        if self.replica.state is not self._shown and self.failure is None:
            self._shown = self.replica.state
            self._on_applied(self._shown)

    # --- proposals

    def propose(self, proposal: Proposal, done: Done) -> None:
        """Put a command into the log. `done` hears its receipt once it is applied here, or why it cannot be."""
        refusal = None if self.is_leader else self.outlook.refusal()
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
        engine.propose(batch, settled)

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

    @property
    def outlook(self) -> Outlook:
        engine = self.engine
        return Outlook(
            name=self._name,
            voters=self._voters,
            reachable=self._reachable(),
            role=self._role(),
            leader=self.leader,
            term=self.term,
            commit_index=0 if engine is None else engine.commit_index,
            applied_index=0 if engine is None else engine.applied_index,
            enrolment=self.enrolment.trouble,
            fault=self.failure or self.full,
            warning="no room for a snapshot: the journal keeps growing" if self.store.postponed else self.disregarded,
        )

    @property
    def figures(self) -> Figures:
        return Figures(len(self.journal), self.journal.command_bytes, self._elections)

    def _own_vote(self) -> int | None:
        """The current term, if this node voted for itself in it."""
        return self.journal.getCurrentTerm() if self.journal.getVotedForNodeId() == self._name else None

    @property
    def disregarded(self) -> str | None:
        """Which voters of agent.yaml are none, in words."""
        return disregarded(self._configured, self._voters)

    def _reachable(self) -> tuple[str, ...]:
        """Of a leader's followers only those count that answered lately."""
        since = self._clock() - self._timing.election_max
        leads = self.is_leader
        others = [peer for peer in self.transport.connected if not leads or self.transport.heard.get(peer, since) > since]
        return tuple(sorted([self._name, *others]))

    def _role(self) -> str:
        if self.enrolment.reseeding:
            return "reseeding"
        if self.engine is None:
            return "unformed"
        if self.is_leader:
            return "leader"
        return "candidate" if self.engine.stands else "follower"
