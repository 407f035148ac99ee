"""A voter without its event loop: everything that RaftNode does, driven by calls and a clock. The simulation drives the same object.

Whatever goes wrong ends in one of two ways. `failure` is final: the node says and hears nothing more (its disk is intact; a restart
may help). A full disk is waited out: the node is deaf and dumb, like one that is cut off, and tries again every second.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from hmcore.errors import ConsensusError, HyperMeshError, NoQuorum, StorageFull
from node_agent.consensus.leading.leadership import Leadership
from node_agent.consensus.limits import DEFAULT_LIMITS, Limits
from node_agent.consensus.log.disk import Disk
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.log.snapshots import SnapshotStore
from node_agent.consensus.outlook import Figures, Outlook
from node_agent.consensus.protocol.append_guard import Append
from node_agent.consensus.protocol.engine import Engine, Timing
from node_agent.consensus.protocol.messages import AskStanding, Confirm, Confirmed, Message, NextIndex, TellStanding
from node_agent.consensus.protocol.transport import Links, RaftTransport
from node_agent.consensus.rules import ALL, Protections
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.replica import Replica
from node_agent.consensus.statemachine.state import State
from node_agent.consensus.viewpoint import Viewpoint
from node_agent.consensus.voters.configured import check, disregarded
from node_agent.consensus.voters.enrolment import Enrolment, FormationStatus
from node_agent.consensus.voters.reconfiguration import LEVEL
from node_agent.consensus.voters.reconfigurer import Reconfigurer

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
        wall_clock: Callable[[], float] = time.time,
        limits: Limits = DEFAULT_LIMITS,
        protections: Protections = ALL,
        latest: int = levels.LATEST,
    ) -> None:
        """`latest`: the highest feature level that this member knows; simulations have members of releases before."""
        self._name = name
        self._configured = tuple(sorted(voters))
        self._timing = timing
        self._clock = clock
        self.wake = wake
        self._on_applied = on_applied
        self._limits = limits
        self._rules = protections
        self._disk = disk
        self.replica = Replica(latest=latest)
        self.journal = Journal(disk, slack=limits.journal_slack, founders=self._configured)
        self.journal.on_configuration = self._reconfigured
        self.journal.at_once = lambda: protections.sync_before_counting and self.engine is not None and self._alone
        self.store = SnapshotStore(disk, self.replica, self.journal, chunk=limits.chunk, portion=limits.portion)
        self.transport = RaftTransport(
            name,
            timing=timing,
            journal=self.journal,
            store=self.store,
            links=links,
            clock=clock,
            rng=rng,
            acquainted=lambda: self.enrolment.acquainted,
            on_standing=self._on_standing,
            on_confirmed=lambda voter, number: self.leadership.confirmed(voter, number),
            protections=protections,
        )
        self.engine: Engine | None = None
        self.enrolment = Enrolment(name, self._configured, journal=self.journal, replica=self.replica, transmit=self.transport.transmit)
        self._viewpoint = Viewpoint(
            name,
            timing=timing,
            journal=self.journal,
            transport=self.transport,
            enrolment=self.enrolment,
            clock=clock,
            healthy=lambda: self.failure is None and self.full is None,
        )
        self.leadership = Leadership(
            name,
            self,
            viewpoint=self._viewpoint,
            journal=self.journal,
            replica=self.replica,
            transport=self.transport,
            reconfigurer=Reconfigurer(
                name,
                journal=self.journal,
                replica=self.replica,
                transport=self.transport,
                timing=timing,
                clock=clock,
                wall_clock=wall_clock,
                rules=protections,
            ),
            timing=timing,
            clock=clock,
            limits=limits,
            confirms=protections.read_barrier,
        )
        self.propose = self.leadership.propose
        self.barrier = self.leadership.barrier
        self.transfer = self.leadership.transfer
        self.change_voters = self.leadership.change_voters
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
        self._check_list()
        self._stood = self._own_vote()
        try:
            self._start_if_entitled()
        except StorageFull as error:
            self.transport.full = error  # waited out, as it is later
        self._after()
        if self.failure is not None:
            raise self.failure

    def _check_list(self) -> None:
        """Raises ConsensusError if agent.yaml's voters cannot work with those that the cluster was formed with."""
        if self.journal.configuration.index == 0:
            check(self._name, self._configured, self.journal.standing.voters)

    def _reconfigured(self) -> None:
        """Another configuration is in force: pysyncobj must count and send by it from this moment on."""
        if self.engine is not None:
            self.engine.configure(self.journal.configuration)
        self.transport.believe()

    def close(self) -> None:
        self.leadership.end(NoQuorum(f"{self._name} is stopping"))
        self.transport.destroy()
        self.store.close()
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
            self.journal.configuration,
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
            engine.configure(self.journal.configuration)
        self.engine = engine
        self._viewpoint.begin(engine)
        self.transport.attach(engine)
        self.wake()

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
        self.wake()

    def _on_standing(self, peer: str, message: AskStanding | TellStanding) -> None:
        commit_index = 0 if self.engine is None else max(self.engine.commit_index, self.engine.applied_index)
        if isinstance(message, AskStanding):
            self.enrolment.tell(peer, term=self.term, commit_index=commit_index)
            return
        self.enrolment.told(peer, message, commit_index=commit_index)
        self.journal.sync()
        self._check_list()
        self._start_if_entitled()

    # --- what happens

    def peer_up(self, peer: str) -> None:
        self._guarded(lambda: self._peer_up(peer))

    def _peer_up(self, peer: str) -> None:
        self.transport.peer_up(peer)
        self.enrolment.ask(peer)
        self.wake()

    def peer_down(self, peer: str) -> None:
        self._guarded(lambda: self.transport.peer_down(peer))

    def receive(self, peer: str, payload: bytes) -> None:
        if self.full is None:
            self._guarded(lambda: self._receive(peer, payload))

    def _receive(self, peer: str, payload: bytes) -> None:
        message = self.transport.receive(peer, payload)
        if message is not None and self._worth_a_tick(message):
            self.wake()

    def _worth_a_tick(self, message: Message) -> bool:
        """Not for a heartbeat with nothing in it, nor for its answer: ticks are what an idle node's CPU time goes into."""
        engine = self.engine
        if engine is None or isinstance(message, Confirm | Confirmed):
            return False
        idle = engine.commit_index <= engine.applied_index and (not engine.leads or engine.commit_index == self.journal[-1].index)
        return not (idle and isinstance(message, Append | NextIndex))

    def tick(self) -> None:
        self._guarded(self._tick)

    def _tick(self) -> None:
        engine, now = self.engine, self._clock()
        if self.full is not None or engine is None or self.store.postponed or self._adrift:
            if now >= self._retry_at:
                self._retry_at = now + _RETRY
                self._retry()
            if self.full is not None or engine is None:
                return
        if self._rules.sync_before_counting:
            self.journal.sync()  # what a leader counts as its own must be durable
        self.transport.before_tick()
        engine.tick()
        self.leadership.promote(engine)
        behind = engine.applied_index < engine.commit_index  # there was more than a tick may take
        if behind or self.store.writing or (engine.leads and self.journal.dirty):
            self.wake()  # what is new is on its way to the others: time to store it here

    def _retry(self) -> None:
        self.store.postponed = False
        if self.engine is None or self._adrift:
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
        deadline = min(engine.heartbeat_deadline, engine.tell_at) if engine.leads else self.transport.wake()
        deadline = min(deadline, self.leadership.due())
        if not engine.leads:
            deadline = min(deadline, max(self._retry_at, self._viewpoint.leader_given_up))
        return min(deadline, self._retry_at) if self.store.postponed else deadline

    @property
    def _alone(self) -> bool:
        return self.journal.configuration.voters == (self._name,)

    @property
    def _adrift(self) -> bool:
        """No leader speaks to us: only a question can tell whether we still are of the cluster, and who has joined it since."""
        return self.engine is not None and not self.engine.leads and not self._viewpoint.leader_heard

    def settle(self) -> None:
        """Draw the consequences of what was begun."""
        self._guarded(lambda: None)

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
            if self.journal.command_bytes > max(self._limits.compact_bytes, self.store.size):
                engine.compact()
            if self.full is None and engine.leads and self._alone and engine.commit_index < self.journal[-1].index:
                self.wake()  # nobody's answer will
        self.leadership.step(engine, self.failure or self.full)
        caught_up = self._viewpoint.catch_up()
        if (caught_up or self.replica.state is not self._shown) and self.failure is None:
            self._shown = self.replica.state
            self._on_applied(self._shown)

    # --- what others may know

    @property
    def name(self) -> str:
        return self._name

    @property
    def term(self) -> int:
        return self._viewpoint.term

    @property
    def is_leader(self) -> bool:
        return self._viewpoint.is_leader

    @property
    def caught_up(self) -> bool:
        """Leads, and has carried out all that was decided before it did: sooner, its state may be behind what was acknowledged."""
        return self.engine is not None and self.is_leader and self.engine.own_term_applied

    @property
    def leader(self) -> str | None:
        """Who leads, as far as we know."""
        return self._viewpoint.leader

    @property
    def outlook(self) -> Outlook:
        warning = "no room for a snapshot: the journal keeps growing" if self.store.postponed else self.disregarded
        return self._viewpoint.outlook(self.failure or self.full, warning)

    @property
    def figures(self) -> Figures:
        return Figures(len(self.journal), self.journal.command_bytes, self._elections)

    def _own_vote(self) -> int | None:
        """The current term, if this node voted for itself in it."""
        return self.journal.getCurrentTerm() if self.journal.getVotedForNodeId() == self._name else None

    @property
    def disregarded(self) -> str | None:
        """Which voters of agent.yaml are none, in words, as long as nothing can change that."""
        cluster, configuration = self.replica.state.cluster, self.journal.configuration
        if configuration.index or (cluster is not None and cluster.feature_level >= LEVEL):
            return None
        return disregarded(self._configured, configuration.voters)
