"""Does what handover.py decides: holds proposals back, invites the target, and tells how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hmcore.errors import HyperMeshError, TransferFailed
from node_agent.consensus.leading.handover import Follower, Handed, Handover, Invite, Moment, Over, choose
from node_agent.consensus.leading.proposals import Proposals
from node_agent.consensus.protocol.engine import Engine, Timing

Told = Callable[[Handed | HyperMeshError], None]


class Transfer:
    """At most one is under way at a time."""

    def __init__(self, name: str, *, timing: Timing, clock: Callable[[], float], proposals: Proposals) -> None:
        self._name = name
        self._timing = timing
        self._clock = clock
        self._proposals = proposals
        self._handover: Handover | None = None
        self._told: Told = _nobody

    @property
    def under_way(self) -> bool:
        return self._handover is not None

    def begin(self, term: int, followers: Iterable[Follower], to: str | None, told: Told, *, timeout: float) -> None:
        """This node leads in `term` and shall not any more. `told` is called once it is over, after `timeout` seconds and an election
        timeout at most. A `step` must follow."""
        try:
            if self._handover is not None:
                raise TransferFailed(f"the leadership is being handed to {self._handover.to} already", host=self._name)
            target = choose(self._name, followers, to)
        except HyperMeshError as error:
            told(error)
            return
        now = self._clock()
        until = now + min(timeout, self._timing.election_max)
        self._handover = Handover(self._name, target, term=term, now=now, until=until, patience=self._timing.heartbeat)
        self._told = told
        self._proposals.hold()

    def step(
        self,
        engine: Engine,
        *,
        leads: bool,
        leader: str | None,
        fault: HyperMeshError | None,
        refusal: Callable[[], HyperMeshError | None],
    ) -> None:
        """Do what is next. `refusal`: what proposals are told by a node that does not lead; None from one that does."""
        handover = self._handover
        if handover is None:
            return
        moment = Moment(
            now=self._clock(),
            term=engine.term,
            leads=leads,
            leader=leader,
            settled=leads and self._proposals.settled and engine.commit_index == engine.last_index,
            caught_up=leads and engine.match(handover.to) == engine.last_index,
            fault=fault,
        )
        match handover.next(moment):
            case Invite():
                engine.transfer(handover.to)
            case Over(outcome=outcome):
                self._end(outcome, refusal())
            case None:
                pass

    def end(self, error: HyperMeshError) -> None:
        """This node stops."""
        if self._handover is not None:
            self._end(error, error)

    def _end(self, outcome: Handed | HyperMeshError, refusal: HyperMeshError | None) -> None:
        told, self._told, self._handover = self._told, _nobody, None
        if refusal is not None:
            self._proposals.abandon(refusal)
        self._proposals.release()
        told(outcome)

    def wake(self) -> float:
        return float("inf") if self._handover is None else self._handover.wake()


def _nobody(outcome: Handed | HyperMeshError) -> None:
    """Waits for the end of what is not under way."""
