"""What stands between pysyncobj and the other voters: every rule that makes it safe on a real network (docs/adr/0003, 0027).

pysyncobj believes what this transport tells it: who is connected, what was said, and in which order. The rules, each with its reason
where it is applied, are switched on by `Protections`; only tests switch one off, to see that the simulation finds out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pysyncobj.node import Node
from pysyncobj.transport import Transport as PysyncobjTransport

from hmcore.errors import ConsensusError, StorageFull
from node_agent.consensus import messages
from node_agent.consensus.append_guard import Append, Deliver, guard
from node_agent.consensus.election import Candidacy
from node_agent.consensus.engine import Engine, Timing, Voter
from node_agent.consensus.journal import Journal
from node_agent.consensus.messages import (
    AskStanding,
    Envelope,
    Message,
    NextIndex,
    PreVote,
    PreVoteGranted,
    RequestVote,
    SnapshotChunk,
    StaleTerm,
    TellStanding,
    TimeoutNow,
    Vote,
)
from node_agent.consensus.sequence import Incoming, Outgoing, Place
from node_agent.consensus.snapshots import SnapshotStore


class Links(Protocol):
    """Connections to the other voters: ordered messages, the tail of which a break loses. False: not sent."""

    def send(self, peer: str, payload: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Protections:
    """Each rule of this transport. Off only in tests (tests/sim/raft)."""

    append_guard: bool = True
    back_to_base: bool = True  # a refused append is answered with where we surely agree
    snapshot_rules: bool = True  # whole, checked, never backwards, committing nothing
    term_tags: bool = True
    stale_term_answers: bool = True
    leader_stickiness: bool = True
    one_vote_each: bool = True
    pre_vote: bool = True
    hold_without_snapshot: bool = True
    in_order: bool = True
    sync_before_send: bool = True
    reseeding_abstains: bool = True


ALL = Protections()


class RaftTransport(PysyncobjTransport):  # type: ignore[misc]  # pysyncobj has no types
    """`failure` is what must stop this node, `full` what it must wait out; once either is set nothing is sent any more."""

    def __init__(
        self,
        name: str,
        others: Sequence[str],
        *,
        timing: Timing,
        journal: Journal,
        store: SnapshotStore,
        links: Links,
        clock: Callable[[], float],
        rng: random.Random,
        on_standing: Callable[[str, AskStanding | TellStanding], None],
        protections: Protections = ALL,
    ) -> None:
        super().__init__(None, None, None)
        self._name = name
        self._voters = {other: Voter(other) for other in sorted(others)}
        self._journal = journal
        self._store = store
        self._links = links
        self._clock = clock
        self._rng = rng
        self._on_standing = on_standing
        self._rules = protections
        self._engine: Engine | None = None
        self._window = timing.election_max
        self.candidacy = Candidacy(election_min=timing.election_min, election_max=timing.election_max)
        incarnation = rng.getrandbits(62)
        self._outgoing = {other: Outgoing(incarnation) for other in self._voters}
        self._incoming = {other: Incoming() for other in self._voters}
        self.connected: set[str] = set()
        self._told: set[str] = set()  # whom pysyncobj believes connected
        self._held: set[str] = set()  # whom it must not send to before the next tick
        self._answer: Deliver | None = None  # how to rewrite the answer to the append that is being delivered
        self._votes: set[tuple[int, str]] = set()
        self._chunks: dict[str, tuple[int, list[bytes]]] = {}  # sender -> its term and what came so far
        self._transfer_until = float("-inf")
        self.heard: dict[str, float] = {}  # when each voter last said anything
        self.refused = 0  # messages dropped because they were none
        self.failure: ConsensusError | None = None
        self.full: StorageFull | None = None

    def attach(self, engine: Engine) -> None:
        """From now on pysyncobj takes part; before, only standings are exchanged."""
        self._engine = engine

    @property
    def ready(self) -> bool:
        return True

    def destroy(self) -> None:
        self._engine = None

    # --- connections

    def peer_up(self, peer: str) -> None:
        if peer in self._voters:
            self._outgoing[peer].reconnected()
            self.connected.add(peer)
            self.believe()

    def peer_down(self, peer: str) -> None:
        self.connected.discard(peer)
        self._chunks.pop(peer, None)
        self._store.forget_sending(peer)
        self.believe()

    def believe(self) -> None:
        """Tell pysyncobj who is connected. Nobody is, unless we lead or a majority would vote for us: so it does not stand in vain,
        raising terms that would unseat a living leader."""
        want: set[str] = set()
        if self._engine is not None:
            free = not self._rules.pre_vote or self._engine.leads or self.candidacy.may_stand(self._clock())
            if free and not self._abstains:
                want = self.connected - self._held
        for peer in sorted(self._told - want):
            self._onNodeDisconnected(self._voters[peer])
        for peer in sorted(want - self._told):
            self._onNodeConnected(self._voters[peer])
        self._told = want

    @property
    def _abstains(self) -> bool:
        return self._journal.standing.reseeding and self._rules.reseeding_abstains

    def before_tick(self) -> None:
        self._held.clear()
        engine, now = self._opened(), self._clock()
        if self._rules.pre_vote and not engine.leads and not self._abstains and self.candidacy.due(now):
            last = self._journal[-1]
            term = engine.term + 1
            self.candidacy.ask(now, name=self._name, term=term, jitter=self._rng.random())
            for peer in sorted(self.connected):
                self._transmit(peer, PreVote(term, last.index, last.term))
            self._pre_vote(self._name, term)
        self.believe()

    def wake(self) -> float:
        """When a tick is next worth its while for a follower: for asking pre-votes, or for standing."""
        engine, now = self._opened(), self._clock()
        if not self._voters or self._told:
            return engine.election_deadline
        if self._abstains or not self.connected:
            return float("inf")
        return self.candidacy.wake(now)

    # --- sending

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        """Called by pysyncobj, which never looks at what it returns."""
        peer: str = node.id
        if peer not in self.connected:
            return False
        try:
            translated = messages.from_pysyncobj(message)
        except ValueError as error:
            self.failure = ConsensusError(str(error))
            return False
        match translated:
            case None:
                return False
            case NextIndex():
                if self._store.failure is not None:
                    return False  # pysyncobj reports success after a snapshot that could not be loaded
                translated = self._rewritten(translated)
            case SnapshotChunk():
                return self._send_chunk(peer, translated)
            case RequestVote():
                translated = RequestVote(translated.term, translated.last_index, translated.last_term, self._clock() < self._transfer_until)
        return self._transmit(peer, translated)

    def _send_chunk(self, peer: str, chunk: SnapshotChunk) -> bool:
        sent = chunk.data is not None and self._transmit(peer, chunk)
        if chunk.data is None and not self._rules.hold_without_snapshot:
            return self._transmit(peer, chunk)
        if not sent:  # pysyncobj would try again and again, for a heartbeat's length, unless the peer seems to be gone
            self._store.rewind(peer)
            self._held.add(peer)
            self.believe()
        elif chunk.last:
            self._store.forget_sending(peer)
        return sent

    def _rewritten(self, answer: NextIndex) -> NextIndex:
        verdict = self._answer
        if verdict is None or verdict.answer_next is None or (verdict.on_success_only and not answer.success):
            return answer
        return NextIndex(verdict.answer_next, answer.reset, answer.success)

    def _transmit(self, peer: str, message: Message) -> bool:
        """Send, after everything that the message may depend on is durable."""
        if self.failure is not None or self.full is not None or peer not in self.connected:
            return False
        try:
            if self._rules.sync_before_send:
                self._journal.sync()
        except StorageFull as error:
            self.full = error
            return False
        except ConsensusError as error:
            self.failure = error
            return False
        term = self._journal.getCurrentTerm() if self._engine is None else self._engine.term
        place = self._outgoing[peer].next()
        return self._links.send(peer, messages.encode(Envelope(messages.VERSION, *place, term, message)))

    def tell(self, peer: str, message: AskStanding | TellStanding) -> None:
        self._transmit(peer, message)

    # --- receiving

    def receive(self, peer: str, payload: bytes) -> Message | None:
        """Take a message from the voter `peer` (its certificate's name). Returns it, or None if dropped. Raises CommittedConflict."""
        try:
            envelope = messages.decode(payload)
        except messages.BadMessage:
            self.refused += 1
            return None
        voter = self._voters.get(peer)
        if voter is None:  # not a member: it neither votes nor counts, and pysyncobj would raise KeyError
            self.refused += 1
            return None
        place = Place(envelope.incarnation, envelope.epoch, envelope.number)
        if self._rules.in_order and not self._incoming[peer].accept(place):
            return None
        self.heard[peer] = self._clock()
        message = envelope.message
        if isinstance(message, AskStanding | TellStanding):
            self._on_standing(peer, message)
        elif self._engine is not None:
            self._take(self._engine, voter, envelope.term, message)
        return message

    def _take(self, engine: Engine, voter: Voter, sender_term: int, message: Message) -> None:
        term, now = engine.term, self._clock()
        match message:
            case Append() | SnapshotChunk():
                if message.term < term:
                    if self._rules.stale_term_answers:
                        self._transmit(voter.id, StaleTerm(term))
                    return
                self.candidacy.heard_leader(now)
                if isinstance(message, Append):
                    self._append(engine, voter, message)
                else:
                    self._snapshot(engine, voter, message)
            case NextIndex():
                if sender_term == term or not self._rules.term_tags:  # of another term, it may speak of a log that is no more
                    self._onMessageReceived(voter, messages.next_node_idx(message))
            case RequestVote():
                self._vote_request(engine, voter, message)
            case Vote():
                if not self._rules.one_vote_each or (message.term, voter.id) not in self._votes:
                    self._votes = {vote for vote in self._votes if vote[0] >= term} | {(message.term, voter.id)}
                    self._onMessageReceived(voter, {"type": "response_vote", "term": message.term})
            case TimeoutNow() if self._abstains:
                pass
            case TimeoutNow():
                if voter.id == engine.leader and message.term >= term:
                    self._transfer_until = now + self._window
                    self.candidacy.invite(now)
                    self.believe()
                self._onMessageReceived(voter, {"type": "timeout_now", "term": message.term})
            case PreVote():
                self._pre_vote_request(engine, voter, message)
            case PreVoteGranted():
                self._pre_vote(voter.id, message.term)
            case StaleTerm():
                if message.term > term:
                    self._onMessageReceived(voter, messages.step_down(message.term))
            case AskStanding() | TellStanding():
                pass  # taken by receive

    def _vote_request(self, engine: Engine, voter: Voter, request: RequestVote) -> None:
        if self._abstains:
            return
        leader_lives = engine.leads or self.candidacy.leader_lives(self._clock())
        if self._rules.leader_stickiness and leader_lives and not request.transfer:
            return  # the term alone would unseat the leader. The candidate learns of it from our stale-term answers.
        self._onMessageReceived(voter, messages.request_vote(request))

    def _pre_vote_request(self, engine: Engine, voter: Voter, request: PreVote) -> None:
        if request.term <= engine.term:
            self._transmit(voter.id, StaleTerm(engine.term))
            return
        if self._abstains or engine.leads or self.candidacy.leader_lives(self._clock()):
            return
        last = self._journal[-1]
        if (request.last_term, request.last_index) >= (last.term, last.index):
            self._transmit(voter.id, PreVoteGranted(request.term))

    def _pre_vote(self, voter: str, term: int) -> None:
        engine = self._opened()
        if self.candidacy.grant(self._clock(), voter, term=term, current=engine.term, voters=len(self._voters) + 1):
            self.believe()

    def _append(self, engine: Engine, voter: Voter, append: Append) -> None:
        log = self._journal.entries
        if not self._rules.append_guard:
            self._onMessageReceived(voter, messages.append_entries(append))
            return
        base = max(engine.commit_index, engine.applied_index, log[0].index)
        verdict = guard(append, log, base)
        if verdict.on_success_only or self._rules.back_to_base:
            self._answer = verdict
        try:
            self._onMessageReceived(voter, messages.append_entries(verdict.append))
        finally:
            self._answer = None

    def _snapshot(self, engine: Engine, voter: Voter, chunk: SnapshotChunk) -> None:
        """Collect chunks; install the whole at once if it is intact and ahead of us. Until then each is only a sign of life."""
        if not self._rules.snapshot_rules:
            serialized = None if chunk.data is None else (chunk.data, chunk.first, chunk.last)
            message = messages.install_snapshot(chunk.term, None)
            self._onMessageReceived(voter, {**message, "commit_index": chunk.commit_index, "serialized": serialized})
            return
        self._onMessageReceived(voter, messages.install_snapshot(chunk.term, None))
        whole = self._collect(voter.id, chunk)
        snapshot = None if whole is None else self._store.judge(whole)
        if snapshot is None or whole is None:
            alive = NextIndex(engine.commit_index + 1, reset=False, success=False)  # else the leader thinks us gone while it sends
            self._transmit(voter.id, alive)
            return
        index, term = snapshot.last.index, snapshot.last.term
        position = index - self._journal[0].index
        held = 0 <= position < len(self._journal) and self._journal[position].term == term
        if held or index <= max(engine.applied_index, engine.commit_index):  # never go back: say how far we surely agree
            self._transmit(voter.id, NextIndex(max(index, engine.commit_index) + 1, reset=False, success=True))
        else:
            self._onMessageReceived(voter, messages.install_snapshot(chunk.term, whole))

    def _collect(self, sender: str, chunk: SnapshotChunk) -> bytes | None:
        if chunk.data is None:
            return None
        if chunk.first:
            self._chunks[sender] = (chunk.term, [])
        term, parts = self._chunks.get(sender, (None, []))
        if term != chunk.term:
            return None
        parts.append(chunk.data)
        if not chunk.last:
            return None
        del self._chunks[sender]
        return b"".join(parts)

    def _opened(self) -> Engine:
        if self._engine is None:
            raise ConsensusError("the consensus layer is not open")
        return self._engine
