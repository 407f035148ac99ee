"""Changing who votes, on the leader: sees how things stand, asks the rules (reconfiguration.py), and puts what they say into the log."""

from __future__ import annotations

from collections.abc import Callable

from node_agent.consensus.log.journal import Journal
from node_agent.consensus.protocol.engine import Engine, Timing
from node_agent.consensus.protocol.transport import RaftTransport
from node_agent.consensus.rules import Protections
from node_agent.consensus.statemachine import commands
from node_agent.consensus.statemachine.commands import ChangeVoters, Proposal
from node_agent.consensus.statemachine.replica import Replica
from node_agent.consensus.voters import reconfiguration
from node_agent.consensus.voters.reconfiguration import Follower, Propose, Step, View, Wish


class Reconfigurer:
    """To be asked only while this node leads."""

    def __init__(
        self,
        name: str,
        *,
        journal: Journal,
        replica: Replica,
        transport: RaftTransport,
        timing: Timing,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        rules: Protections,
    ) -> None:
        self._name = name
        self._journal = journal
        self._replica = replica
        self._transport = transport
        self._patience = timing.election_max
        self._clock = clock
        self._wall_clock = wall_clock
        self._rules = rules
        self._term = -1
        self._since = float("-inf")  # when we began to lead in it

    def carry_out(self, engine: Engine, wish: Wish, *, request_id: str, author: str) -> Step:
        """The next step towards a wish, and its entry in the log if it is one. To be repeated until it is Done.

        Raises InvalidRequest or NoQuorum where it must not be.
        """
        step = reconfiguration.next_step(wish, self._view(engine), self._rules)
        if isinstance(step, Propose):
            self._put(engine, step, request_id, author)
        return step

    def promote(self, engine: Engine) -> None:
        """Let a learner vote that has caught up, whoever led when it was added. To be called at every tick."""
        if engine.term != self._term:
            self._term, self._since = engine.term, self._clock()
        if self._journal.configuration.learners:
            step = reconfiguration.promotion(self._view(engine), self._rules)
            if step is not None:
                self._put(engine, step, "promote", "")

    def _put(self, engine: Engine, step: Propose, request_id: str, author: str) -> None:
        """Under an id of its own: of all entries that follow a configuration, only one can be committed, and that must be applied."""
        change = commands.encode(ChangeVoters(voters=step.voters, learners=step.learners))
        after = self._journal.configuration.index
        engine.reconfigure(commands.encode_batch([Proposal(f"{request_id}/{after}", change, self._wall_clock(), author)]))

    def _view(self, engine: Engine) -> View:
        log, configuration, cluster = self._journal.entries, self._journal.configuration, self._replica.state.cluster
        position = engine.commit_index - log[0].index  # negative: it does not know yet that its snapshot is committed
        names = {*configuration.voters, *configuration.learners} - {self._name}
        return View(
            name=self._name,
            configuration=configuration,
            commit_index=engine.commit_index,
            own_term=position >= 0 and log[position].term == engine.term,
            last=log[-1].index,
            level=1 if cluster is None else cluster.feature_level,
            followers={name: Follower(engine.match(name), self._answers(name)) for name in names},
            young=engine.term != self._term or self._clock() - self._since < self._patience,
            connected=frozenset(self._transport.connected),
        )

    def _answers(self, name: str) -> bool:
        followed = self._transport.followed.get(name)
        return followed is not None and self._clock() - followed < self._patience
