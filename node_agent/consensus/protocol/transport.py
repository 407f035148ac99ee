"""The Transport seam of pysyncobj: who it believes connected, and all that it sends (docs/adr/0003, 0027).

Nothing leaves before what it depends on is durable. What comes in is judged by receiver.py.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any, Protocol

from pysyncobj.node import Node
from pysyncobj.transport import Transport as PysyncobjTransport

from hmcore.errors import ConsensusError, StorageFull
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.log.snapshots import SnapshotStore
from node_agent.consensus.protocol import messages
from node_agent.consensus.protocol.append_guard import Append
from node_agent.consensus.protocol.election import Candidacy
from node_agent.consensus.protocol.engine import Engine, Timing, Voter
from node_agent.consensus.protocol.messages import (
    AskStanding,
    Envelope,
    Message,
    NextIndex,
    PreVote,
    RequestVote,
    SnapshotChunk,
    TellStanding,
)
from node_agent.consensus.protocol.receiver import Receiver
from node_agent.consensus.protocol.sequence import Incoming, Outgoing, Place
from node_agent.consensus.rules import ALL, Protections

logger = logging.getLogger(__name__)


class Links(Protocol):
    """Connections to the other voters: ordered messages, the tail of which a break loses. False: not sent."""

    def send(self, peer: str, payload: bytes) -> bool: ...


class RaftTransport(PysyncobjTransport):  # type: ignore[misc]  # pysyncobj has no types
    """`failure` is what must stop this node, `full` what it must wait out; once either is set nothing is sent any more.

    `acquainted`: whose appends and vote requests are heard though our log does not know them (yet). `on_standing` also gets a question that
    nobody asked: from one outside of the configuration that behaves as if it were inside.
    """

    def __init__(
        self,
        name: str,
        *,
        timing: Timing,
        journal: Journal,
        store: SnapshotStore,
        links: Links,
        clock: Callable[[], float],
        rng: random.Random,
        acquainted: Callable[[], frozenset[str]],
        on_standing: Callable[[str, AskStanding | TellStanding], None],
        on_confirmed: Callable[[str, int], None],
        protections: Protections = ALL,
    ) -> None:
        super().__init__(None, None, None)
        self._name = name
        self._journal = journal
        self._store = store
        self._links = links
        self._clock = clock
        self._rng = rng
        self._acquainted = acquainted
        self._on_standing = on_standing
        self._rules = protections
        self._engine: Engine | None = None
        self.candidacy = Candidacy(election_min=timing.election_min, election_max=timing.election_max)
        self.incarnation = rng.getrandbits(62)  # of this process
        self._outgoing: dict[str, Outgoing] = {}
        self._incoming: dict[str, Incoming] = {}
        self.connected: set[str] = set()
        self._told: set[str] = set()  # whom pysyncobj believes connected
        self._held: set[str] = set()  # whom it must not send to before the next tick
        self._receiver = Receiver(
            self,
            name=name,
            timing=timing,
            journal=journal,
            store=store,
            candidacy=self.candidacy,
            clock=clock,
            rules=protections,
            on_confirmed=on_confirmed,
        )
        self.heard: dict[str, float] = {}  # when each voter last said anything
        self.followed: dict[str, float] = {}  # when each last took what we, leading in this term, sent on this connection
        self.refused = 0  # messages dropped because they were none
        self._complained: set[str] = set()  # about whom the log speaks already
        self.failure: ConsensusError | None = None
        self.full: StorageFull | None = None

    def _others(self) -> frozenset[str]:
        """Whom a leader sends to: the other voters, and the learners."""
        configuration = self._journal.configuration
        return frozenset((*configuration.voters, *configuration.learners)) - {self._name}

    def _out(self, peer: str) -> Outgoing:
        return self._outgoing.setdefault(peer, Outgoing(self.incarnation))

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
        self.followed.pop(peer, None)  # its disk may have been emptied meanwhile
        self._out(peer).reconnected()
        self.connected.add(peer)
        self.believe()

    def peer_down(self, peer: str) -> None:
        self.followed.pop(peer, None)
        self._complained.discard(peer)
        self.connected.discard(peer)
        self._receiver.forget(peer)
        self._store.forget_sending(peer)
        self.believe()

    def believe(self) -> None:
        """Tell pysyncobj who is connected. Nobody is, unless we lead or a majority would vote for us: so it does not stand in vain,
        raising terms that would unseat a living leader."""
        want: set[str] = set()
        if self._engine is not None:
            free = not self._rules.pre_vote or self._engine.leads or self.candidacy.may_stand(self._clock())
            if free and not self._receiver.abstains:
                want = (self.connected & self._others()) - self._held
        for peer in sorted(self._told - want):
            if peer not in self._held:
                self._store.forget_sending(peer)
            self._onNodeDisconnected(Voter(peer))
        for peer in sorted(want - self._told):
            self._onNodeConnected(Voter(peer))
        self._told = want

    def before_tick(self) -> None:
        self._held.clear()
        engine, now = self._opened(), self._clock()
        if self._rules.pre_vote and not engine.leads and not self._receiver.abstains and self.candidacy.due(now):
            last = self._journal[-1]
            term = engine.term + 1
            self.candidacy.ask(now, name=self._name, term=term, jitter=self._rng.random())
            for peer in sorted(self.connected.intersection(self._journal.configuration.voters)):
                self.transmit(peer, PreVote(term, last.index, last.term))
            self._receiver.pre_vote(engine, self._name, term)
        self.believe()

    def wake(self) -> float:
        """When a tick is next worth its while for a follower: for asking pre-votes, or for standing."""
        engine, voters = self._opened(), self._journal.configuration.voters
        if self._receiver.abstains:
            return float("inf")
        if voters == (self._name,) or self._told:
            return engine.election_deadline
        if not self.connected.intersection(voters):
            return float("inf")
        return self.candidacy.wake()

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
                translated = self._rewritten(translated)
            case SnapshotChunk():
                return self._send_chunk(peer, translated)
            case Append():
                return self._send_append(peer, translated)
            case RequestVote():
                translated = RequestVote(
                    translated.term, translated.last_index, translated.last_term, self._receiver.standing_by_invitation
                )
        return self.transmit(peer, translated)

    def _send_append(self, peer: str, append: Append) -> bool:
        sent = self.transmit(peer, append)
        if not sent:
            if append.prev_index is not None:
                self._opened().resend(peer, append.prev_index + 1)  # or a follower that lags more than the line holds never catches up
            self._hold(peer)
        return sent

    def _send_chunk(self, peer: str, chunk: SnapshotChunk) -> bool:
        sent = chunk.data is not None and self.transmit(peer, chunk)
        if chunk.data is None and not self._rules.hold_without_snapshot:
            return self.transmit(peer, chunk)
        if not sent:
            self._store.rewind(peer)
            self._hold(peer)
        elif chunk.last:
            self._store.forget_sending(peer)
        return sent

    def _hold(self, peer: str) -> None:
        """pysyncobj would try again and again, for a heartbeat's length, unless the peer seems to be gone."""
        self._held.add(peer)
        self.believe()

    def _rewritten(self, answer: NextIndex) -> NextIndex:
        verdict = self._receiver.rewrite
        if verdict is None or verdict.answer_next is None or (verdict.on_success_only and not answer.success):
            return answer
        return NextIndex(verdict.answer_next, answer.reset, answer.success)

    def transmit(self, peer: str, message: Message) -> bool:
        """Send, after everything that the message may depend on is durable. New entries are not among that: followers may store them
        while this leader does, as long as it counts its own copy only then (Ongaro 2014, section 10.2.1; docs/adr/0079)."""
        if self.failure is not None or self.full is not None or peer not in self.connected:
            return False
        if self._store.failure is not None:  # after a snapshot that could not be loaded, pysyncobj would report success
            return False
        try:
            if self._rules.sync_before_send and not (isinstance(message, Append) and self._journal.only_grown):
                self._journal.sync()
        except StorageFull as error:
            self.full = error
            return False
        except ConsensusError as error:
            self.failure = error
            return False
        term = self._journal.getCurrentTerm() if self._engine is None else self._engine.term
        place = self._out(peer).next()
        return self._links.send(peer, messages.encode(Envelope(messages.VERSION, *place, term, message)))

    # --- receiving

    def receive(self, peer: str, payload: bytes) -> Message | None:
        """Take a message from the node `peer` (its certificate's name). Returns it, or None if dropped. Raises CommittedConflict."""
        try:
            envelope = messages.decode(payload)
        except messages.BadMessage as error:
            self._refuse(peer, str(error))
            return None
        place = Place(envelope.incarnation, envelope.epoch, envelope.number)
        if self._rules.in_order and not self._incoming.setdefault(peer, Incoming()).accept(place):
            return None
        message = envelope.message
        if isinstance(message, AskStanding | TellStanding):
            self._on_standing(peer, message)
        elif not self._admits(peer, message):
            self._refuse(peer, "it is not a voter")
            return None
        elif self._engine is not None:
            self.heard[peer] = self._clock()
            if isinstance(message, NextIndex) and message.success and envelope.term == self._engine.term:
                self.followed[peer] = self._clock()
            self._receiver.take(self._engine, Voter(peer), envelope.term, message)
        return message

    def _admits(self, peer: str, message: Message) -> bool:
        """Whether to look at what a node says. One that our log does not know may have been added since, and then lead or stand; its
        answers count for nothing, and pysyncobj would raise KeyError. Whether it was removed, it learns at the same time; and whom nobody
        told us of is asked for proof (enrolment.py)."""
        if peer in self._others():
            return True
        if self._engine is not None and self._journal.configuration.index:
            self._on_standing(peer, AskStanding())
        if not isinstance(message, Append | SnapshotChunk | RequestVote | PreVote):
            return False
        known = peer in self._acquainted()
        if self._engine is not None and not known:
            self.transmit(peer, AskStanding())
        return known

    def _refuse(self, peer: str, why: str) -> None:
        self.refused += 1
        if peer not in self._complained:  # once a connection is enough to be noticed
            self._complained.add(peer)
            logger.warning("dropping what %s sends: %s", peer, why)

    def deliver(self, voter: Voter, message: dict[str, Any]) -> None:
        self._onMessageReceived(voter, message)

    def _opened(self) -> Engine:
        if self._engine is None:
            raise ConsensusError("the consensus layer is not open")
        return self._engine
