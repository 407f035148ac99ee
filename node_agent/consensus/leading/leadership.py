"""What a voter does for callers: takes their proposals, confirms their reads, hands the leadership over, changes who votes. All but the
first only as long as it leads; what waits when that ends is told who leads then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hmcore.errors import ConsensusError, HyperMeshError, InvalidRequest, NotLeader
from node_agent.consensus.leading.barrier import Barrier
from node_agent.consensus.leading.handover import Follower
from node_agent.consensus.leading.proposals import Done, Proposals
from node_agent.consensus.leading.reads import Done as ReadDone
from node_agent.consensus.leading.transfer import Told, Transfer
from node_agent.consensus.limits import MAX_COMMAND, Limits
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.outlook import Outlook
from node_agent.consensus.protocol.engine import Engine, Timing
from node_agent.consensus.protocol.transport import RaftTransport
from node_agent.consensus.statemachine.commands import Proposal, Receipt
from node_agent.consensus.statemachine.levels import TRUSTED
from node_agent.consensus.statemachine.replica import Replica
from node_agent.consensus.viewpoint import Viewpoint
from node_agent.consensus.voters.reconfiguration import HandOver, Step, Wait, Wish
from node_agent.consensus.voters.reconfigurer import Reconfigurer


class Voter(Protocol):
    """The member whose leadership it is. `settle` draws the consequences of what was begun; `wake` asks for a tick soon."""

    @property
    def outlook(self) -> Outlook: ...
    def settle(self) -> None: ...
    def wake(self) -> None: ...


class Leadership:
    """Possible or real: a node that does not lead refuses what only a leader does."""

    def __init__(
        self,
        name: str,
        voter: Voter,
        *,
        viewpoint: Viewpoint,
        journal: Journal,
        replica: Replica,
        transport: RaftTransport,
        reconfigurer: Reconfigurer,
        timing: Timing,
        clock: Callable[[], float],
        limits: Limits,
        confirms: bool,
    ) -> None:
        """`confirms`: whether reads ask the voters, off only in tests."""
        self._name = name
        self._voter = voter
        self._viewpoint = viewpoint
        self._journal = journal
        self._replica = replica
        self._transport = transport
        self._reconfigurer = reconfigurer
        self._timing = timing
        self._clock = clock
        self._confirms = confirms
        self._proposals = Proposals(self._put, max_bytes=limits.batch, in_flight=limits.in_flight)
        self._barrier = Barrier(
            name,
            patience=timing.heartbeat,
            clock=clock,
            incarnation=transport.incarnation,
            transmit=transport.transmit,
            propose=self.propose,
        )
        self._transfer = Transfer(name, timing=timing, clock=clock, proposals=self._proposals)
        self._term: int | None = None  # in which we lead

    # --- what callers ask for

    def propose(self, proposal: Proposal, done: Done) -> None:
        """Put a command into the log. `done` hears its receipt once it is applied here, or why it cannot be."""
        refusal = None if self._viewpoint.is_leader or self._transfer.under_way else self._refusal()
        if len(proposal.command) > MAX_COMMAND:
            refusal = InvalidRequest(f"a command of {len(proposal.command)} bytes is too large; {MAX_COMMAND} are allowed")
        if refusal is not None:
            done(refusal)
            return
        self._proposals.offer(proposal, done)
        self._voter.wake()

    def _put(self, batch: bytes, settled: Callable[[list[Receipt] | None], None]) -> None:
        engine = self._viewpoint.engine
        if engine is None:
            raise ConsensusError("the consensus layer is not open")
        engine.propose(batch, settled)

    def barrier(self, done: ReadDone, *, timeout: float) -> None:
        """`done` hears the log index of a state that holds every write acknowledged before now, or why this node cannot tell: it does not
        lead (any more), or too few voters answered within `timeout` seconds."""
        refusal = None if self._viewpoint.is_leader else self._refusal()
        if refusal is not None:
            done(refusal)
        elif not self._confirms:
            done(self._replica.state.index)
        elif self._replica.state.level < TRUSTED:
            self._barrier.write(done)
        else:
            self._barrier.ask(done, timeout=timeout)
            self._voter.settle()
            self._voter.wake()

    def transfer(self, to: str | None, told: Told, *, timeout: float) -> None:
        """Hand the leadership to the voter `to`, or to the one that is furthest ahead. `told` hears who leads then, or what went wrong,
        after `timeout` seconds, or an election timeout, at most: this node goes on leading if it can. Proposals wait meanwhile."""
        engine = self._viewpoint.engine
        refusal = None if self._viewpoint.is_leader else self._refusal()
        if engine is None or refusal is not None:
            told(refusal or self._voter.outlook.no_quorum())
            return
        since = self._clock() - self._timing.election_min
        connected, heard = self._transport.connected, self._transport.heard
        followers = [
            Follower(voter, engine.match(voter), voter in connected and heard.get(voter, since) > since)
            for voter in self._journal.configuration.voters
            if voter != self._name
        ]
        self._transfer.begin(engine.term, followers, to, told, timeout=timeout)
        self._voter.settle()
        self._voter.wake()

    def change_voters(self, wish: Wish, *, request_id: str, author: str = "") -> Step:
        """The next step towards a wish, carried out; to be repeated until it is Done. Handing over, another node leads before long.

        Raises NotLeader, NoQuorum, StorageFull or InvalidRequest.
        """
        engine = self._viewpoint.engine
        if engine is None or not self._viewpoint.is_leader:
            raise self._refusal() or NotLeader("the leadership changed", leader=self._viewpoint.leader)
        if self._transfer.under_way:  # an entry of ours would keep the next leader from being up to date
            return Wait("the leadership is being handed over")
        step = self._reconfigurer.carry_out(engine, wish, request_id=request_id, author=author)
        if isinstance(step, HandOver) and not self._transfer.under_way:
            self.transfer(None, lambda outcome: None, timeout=self._timing.election_max)  # how it ends shows in the next step
        self._voter.wake()
        return step

    def _refusal(self) -> HyperMeshError | None:
        return self._voter.outlook.refusal()

    # --- what the member tells it

    def confirmed(self, voter: str, number: int) -> None:
        """A voter still takes us for its leader."""
        self._barrier.heard(voter, number)

    def promote(self, engine: Engine) -> None:
        """Make voters of the learners that have caught up."""
        if self._viewpoint.is_leader and not self._transfer.under_way:
            self._reconfigurer.promote(engine)

    def step(self, engine: Engine | None, fault: HyperMeshError | None) -> None:
        """After every call to pysyncobj: go on with what waits for what it did. `fault`: why this node does not work, if so."""
        leads = self._viewpoint.is_leader
        term = engine.term if engine is not None and leads else None
        if term != self._term:
            if self._term is not None:
                self._viewpoint.ceased_at = self._clock()
            self._term = term
            self._lost()
        if engine is None:
            return
        if leads:
            voters = self._journal.configuration.voters
            self._barrier.step(engine, voters, self._replica.state.index, late=lambda: self._voter.outlook.no_quorum())
        self._transfer.step(engine, leads=leads, leader=self._viewpoint.leader, fault=fault, refusal=self._refusal)

    def _lost(self) -> None:
        lost = self._refusal() or NotLeader("the leadership changed", leader=self._viewpoint.leader)
        self._barrier.end(lost)
        if self._transfer.under_way:
            self._proposals.lose(lost)  # what waits shall learn who leads next
        else:
            self._proposals.abandon(lost)

    def end(self, error: HyperMeshError) -> None:
        """This node stops."""
        self._transfer.end(error)
        self._barrier.end(error)
        self._proposals.abandon(error)

    def due(self) -> float:
        """When to step, if nothing happens before. On the clock."""
        return min(self._barrier.wake(), self._transfer.wake())
