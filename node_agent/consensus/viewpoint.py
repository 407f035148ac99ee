"""What a voter knows of its cluster at this moment: read from its parts, and handed out as an Outlook."""

from __future__ import annotations

from collections.abc import Callable

from hmcore.errors import HyperMeshError
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.outlook import Outlook
from node_agent.consensus.protocol.engine import Engine, Timing
from node_agent.consensus.protocol.transport import RaftTransport
from node_agent.consensus.voters.enrolment import Enrolment


class Viewpoint:
    """`engine` is None before this node takes part (`begin`); `healthy` tells whether it works."""

    def __init__(
        self,
        name: str,
        *,
        timing: Timing,
        journal: Journal,
        transport: RaftTransport,
        enrolment: Enrolment,
        clock: Callable[[], float],
        healthy: Callable[[], bool],
    ) -> None:
        self._name = name
        self._patience = timing.election_max
        self._fallback = (timing.election_min + timing.election_max) / 2  # as engine.py has it: a leader waits so long for answers
        self._journal = journal
        self._transport = transport
        self._enrolment = enrolment
        self._clock = clock
        self._healthy = healthy
        self.engine: Engine | None = None
        self._owed = 0
        self._made_at = clock()
        self.ceased_at = float("-inf")  # to lead

    def begin(self, engine: Engine) -> None:
        """This node takes part. Until it has carried out all that its log held by then, its state is older than what it said before."""
        self.engine = engine
        self._owed = engine.last_index

    def catch_up(self) -> bool:
        """Whether that has just come to an end. A leader may take back the end of a log."""
        if not self._owed or self.engine is None or self.engine.applied_index < min(self._owed, self.engine.last_index):
            return False
        self._owed = 0
        return True

    @property
    def term(self) -> int:
        return self._journal.getCurrentTerm() if self.engine is None else int(self.engine.term)

    @property
    def is_leader(self) -> bool:
        return self.engine is not None and self.engine.leads and self._healthy()

    @property
    def leader(self) -> str | None:
        """Who leads, as far as we know. A leader that was not heard for longer than any voter's patience is none."""
        if self.is_leader:
            return self._name
        if self.engine is None or self.engine.leads or not self.leader_heard:
            return None
        return self.engine.leader

    @property
    def leader_heard(self) -> bool:
        return self._clock() <= self.leader_given_up

    @property
    def leader_given_up(self) -> float:
        """When a leader that is not heard again counts as gone."""
        return self._transport.candidacy.heard + self._patience

    def outlook(self, fault: HyperMeshError | None, warning: str | None) -> Outlook:
        engine, configuration = self.engine, self._journal.configuration
        return Outlook(
            name=self._name,
            voters=configuration.voters,
            learners=configuration.learners,
            reachable=self._reachable(),
            role=self._role(),
            leader=self.leader,
            term=self.term,
            commit_index=0 if engine is None else engine.commit_index,
            applied_index=0 if engine is None else engine.applied_index,
            enrolment=self._enrolment.trouble,
            fault=fault,
            warning=warning,
            leaderless=self._leaderless(),
            patience=self._patience,
            owed=self._owed,
        )

    def _leaderless(self) -> float:
        """Seconds since anybody led, as far as we know."""
        now = self._clock()
        since = now - max(self._made_at, self.ceased_at)
        return 0.0 if self.leader is not None else min(since, self._transport.candidacy.silence(now))

    def _reachable(self) -> tuple[str, ...]:
        """Of the voters. Of a leader's followers only those count that answered lately; and for a while after it ceased to lead, only those
        that did so in time to keep it from that, or since."""
        now, voters = self._clock(), self._journal.configuration.voters
        others = self._transport.connected.intersection(voters)
        if self.is_leader:
            others = self._heard_since(others, now - self._patience)
        elif now - self.ceased_at < self._patience:
            others = self._heard_since(others, self.ceased_at - self._fallback)
        return tuple(sorted([*others, self._name] if self._name in voters else others))

    def _heard_since(self, voters: set[str], since: float) -> set[str]:
        return {voter for voter in voters if self._transport.heard.get(voter, since) > since}

    def _role(self) -> str:
        if self._enrolment.reseeding:
            return "reseeding"
        if self.engine is None:
            return "unformed"
        if self._enrolment.outside:
            return "outsider"
        if self._name in self._journal.configuration.learners:
            return "learner"
        if self.is_leader:
            return "leader"
        return "candidate" if self.engine.stands else "follower"
