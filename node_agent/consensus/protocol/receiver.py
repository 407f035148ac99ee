"""What a voter does with each message from another, before pysyncobj sees any of it (docs/adr/0027).

pysyncobj takes every message at its word. Here it is compared with what we know, rewritten, answered in pysyncobj's place, or dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from node_agent.consensus.log.entries import Entry
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.log.snapshots import SnapshotStore
from node_agent.consensus.protocol import messages
from node_agent.consensus.protocol.append_guard import Append, Deliver, guard
from node_agent.consensus.protocol.election import Candidacy
from node_agent.consensus.protocol.engine import Engine, Timing, Voter
from node_agent.consensus.protocol.messages import (
    Confirm,
    Confirmed,
    Message,
    NextIndex,
    PreVote,
    PreVoteGranted,
    RequestVote,
    SnapshotChunk,
    StaleTerm,
    TimeoutNow,
    Vote,
)
from node_agent.consensus.rules import Protections


class Outlet(Protocol):
    """The transport: hand a dictionary to pysyncobj, send a message, look again at who may be connected."""

    def deliver(self, voter: Voter, message: dict[str, Any]) -> None: ...
    def transmit(self, peer: str, message: Message) -> bool: ...
    def believe(self) -> None: ...


class Receiver:
    """`rewrite` is how pysyncobj's answer to the append that is being delivered must be changed."""

    def __init__(
        self,
        outlet: Outlet,
        *,
        name: str,
        timing: Timing,
        journal: Journal,
        store: SnapshotStore,
        candidacy: Candidacy,
        clock: Callable[[], float],
        rules: Protections,
        on_confirmed: Callable[[str, int], None],
    ) -> None:
        self._outlet = outlet
        self._name = name
        self._on_confirmed = on_confirmed
        self._window = timing.election_max
        self._journal = journal
        self._store = store
        self._candidacy = candidacy
        self._clock = clock
        self._rules = rules
        self._votes: set[tuple[int, str]] = set()
        self._chunks: dict[str, tuple[int, list[bytes]]] = {}  # sender -> its term and what came so far
        self._transfer_until = float("-inf")
        self.rewrite: Deliver | None = None

    @property
    def abstains(self) -> bool:
        """Does not stand: this node forgot what it may have promised, or its vote does not count."""
        return self._forgot or (self._name not in self._journal.configuration.voters and self._rules.members_only)

    @property
    def _forgot(self) -> bool:
        return self._journal.standing.reseeding and self._rules.reseeding_abstains

    @property
    def _mute(self) -> bool:
        """Does not vote. A learner does: it may have been made a voter by an entry that it does not hold yet, and the others may need it;
        who asks counts by his own log."""
        configuration = self._journal.configuration
        return self._forgot or (self._name not in (*configuration.voters, *configuration.learners) and self._rules.members_only)

    def _counts(self, voter: str) -> bool:
        return voter in self._journal.configuration.voters or not self._rules.members_only

    @property
    def standing_by_invitation(self) -> bool:
        return self._clock() < self._transfer_until

    def forget(self, peer: str) -> None:
        """The connection is gone, and with it the rest of what was being sent."""
        self._chunks.pop(peer, None)

    def take(self, engine: Engine, voter: Voter, sender_term: int, message: Message) -> None:
        """Raises CommittedConflict."""
        term = engine.term
        match message:
            case Append() | SnapshotChunk() | Confirm() if message.term < term:
                if self._rules.stale_term_answers:
                    self._outlet.transmit(voter.id, StaleTerm(term))
            case Append():
                self._candidacy.heard_leader(self._clock())
                self._append(engine, voter, message)
            case SnapshotChunk():
                self._candidacy.heard_leader(self._clock())
                self._snapshot(engine, voter, message)
            case Confirm():
                if message.term == term:
                    self._outlet.transmit(voter.id, Confirmed(term, message.number))
            case Confirmed():
                if message.term == term and engine.leads:
                    self._on_confirmed(voter.id, message.number)
            case NextIndex():
                if sender_term == term or not self._rules.term_tags:  # of another term, it may speak of a log that is no more
                    self._outlet.deliver(voter, messages.next_node_idx(message))
            case Vote() if self._counts(voter.id):
                if not self._rules.one_vote_each or (message.term, voter.id) not in self._votes:
                    self._votes = {vote for vote in self._votes if vote[0] >= term} | {(message.term, voter.id)}
                    self._outlet.deliver(voter, {"type": "response_vote", "term": message.term})
            case StaleTerm():
                if message.term > term:
                    self._outlet.deliver(voter, messages.step_down(message.term))
            case PreVoteGranted():
                self.pre_vote(engine, voter.id, message.term)
            case RequestVote() | PreVote() if self._mute:
                pass
            case TimeoutNow() if self.abstains:
                pass
            case RequestVote():
                self._request_vote(engine, voter, message)
            case PreVote():
                self._request_pre_vote(engine, voter, message)
            case TimeoutNow():
                if voter.id == engine.leader and message.term >= term:
                    self._transfer_until = self._clock() + self._window
                    self._candidacy.invite(self._clock())
                    self._outlet.believe()
                self._outlet.deliver(voter, {"type": "timeout_now", "term": message.term})
            case _:
                pass  # standings are the transport's

    # --- votes

    def _leader_lives(self, engine: Engine) -> bool:
        return engine.leads or self._candidacy.leader_lives(self._clock())

    def _request_vote(self, engine: Engine, voter: Voter, request: RequestVote) -> None:
        if self._rules.leader_stickiness and self._leader_lives(engine) and not request.transfer:
            return  # its term alone would unseat the leader. The candidate will learn of the leader from its appends.
        self._outlet.deliver(voter, messages.request_vote(request))

    def _request_pre_vote(self, engine: Engine, voter: Voter, request: PreVote) -> None:
        last = self._journal[-1]
        if request.term <= engine.term:
            self._outlet.transmit(voter.id, StaleTerm(engine.term))
        elif not self._leader_lives(engine) and (request.last_term, request.last_index) >= (last.term, last.index):
            self._outlet.transmit(voter.id, PreVoteGranted(request.term))

    def pre_vote(self, engine: Engine, voter: str, term: int) -> None:
        """Somebody (or we ourselves) would vote for us in `term`."""
        voters = len(self._journal.configuration.voters)
        if not self._counts(voter):
            return
        if self._candidacy.grant(self._clock(), voter, term=term, current=engine.term, voters=voters):
            self._outlet.believe()

    # --- the log

    def _append(self, engine: Engine, voter: Voter, append: Append) -> None:
        if not self._rules.append_guard:
            self._outlet.deliver(voter, messages.append_entries(append))
            return
        log = self._journal.entries
        base = max(engine.commit_index, engine.applied_index, log[0].index)
        verdict = guard(append, log, base)
        self.rewrite = verdict if verdict.on_success_only or self._rules.back_by_term else None
        try:
            self._outlet.deliver(voter, messages.append_entries(verdict.append))
        finally:
            self.rewrite = None

    def _snapshot(self, engine: Engine, voter: Voter, chunk: SnapshotChunk) -> None:
        """Collect chunks; install the whole at once if it is intact and ahead of us. Until then each is only a sign of life."""
        commit_index = 0 if self._rules.snapshots_commit_nothing else chunk.commit_index
        self._outlet.deliver(voter, messages.install_snapshot(chunk.term, None, commit_index))
        whole = self._collect(voter.id, chunk)
        snapshot = None if whole is None else self._store.judge(whole)
        if snapshot is None or whole is None:
            alive = NextIndex(engine.commit_index + 1, reset=False, success=False)  # else the leader thinks us gone while it sends
            self._outlet.transmit(voter.id, alive)
        elif self._rules.snapshots_go_forward and self._covered(engine, snapshot.last):  # say how far we surely agree
            agreed = max(snapshot.last.index, engine.commit_index)
            self._outlet.transmit(voter.id, NextIndex(agreed + 1, reset=False, success=True))
        else:
            self._outlet.deliver(voter, messages.install_snapshot(chunk.term, whole, commit_index))

    def _covered(self, engine: Engine, last: Entry) -> bool:
        """Whether we hold, or have applied, the last entry of a snapshot: to install it would take us back."""
        position = last.index - self._journal[0].index
        held = 0 <= position < len(self._journal) and self._journal[position].term == last.term
        return held or last.index <= max(engine.applied_index, engine.commit_index)

    def _collect(self, sender: str, chunk: SnapshotChunk) -> bytes | None:
        """All the bytes once the last chunk is there. What a lost chunk leaves behind fails its checksum."""
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
