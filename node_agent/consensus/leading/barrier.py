"""A leader's answers to those who want to read what is true now: it asks the voters (reads.py decides when, and what follows), or, below
the feature level at which all of them understand the question, writes a command that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hmcore.errors import HyperMeshError
from node_agent.consensus.leading.reads import Done, Read, Reads
from node_agent.consensus.protocol.engine import Engine
from node_agent.consensus.protocol.messages import Confirm
from node_agent.consensus.statemachine.commands import Noop, Proposal, Receipt, encode


class Barrier:
    """`incarnation` tells the requests of this process from those of the ones before it."""

    def __init__(
        self,
        name: str,
        *,
        patience: float,
        clock: Callable[[], float],
        incarnation: int,
        transmit: Callable[[str, Confirm], bool],
        propose: Callable[[Proposal, Callable[[Receipt | HyperMeshError], None]], None],
    ) -> None:
        self._name = name
        self._clock = clock
        self._incarnation = incarnation
        self._transmit = transmit
        self._propose = propose
        self._reads = Reads(name, patience=patience)
        self._written = 0

    def ask(self, done: Done, *, timeout: float) -> None:
        """`done` hears the log index of a state that holds every write acknowledged before now, or after `timeout` seconds at the latest
        what went wrong. A `step` must follow."""
        self._reads.arrive(Read(self._clock() + timeout, done))

    def write(self, done: Done) -> None:
        """The same at every feature level, at the price of a write; only the proposal's own fate ends it."""

        def settled(outcome: Receipt | HyperMeshError) -> None:
            done(outcome.index if isinstance(outcome, Receipt) else outcome)

        self._written += 1
        self._propose(Proposal(f"barrier/{self._name}/{self._incarnation:x}/{self._written}", encode(Noop())), settled)

    def heard(self, voter: str, number: int) -> None:
        self._reads.answer(voter, number)

    def step(self, engine: Engine, voters: Collection[str], state_index: int, late: Callable[[], HyperMeshError]) -> None:
        """Ask what is to be asked, answer what can be from the state at log index `state_index`. `late` makes the error of those that have
        waited too long."""
        if not self._reads:
            return
        now = self._clock()
        for read in self._reads.expired(now):
            read.done(late())
        if engine.own_term_committed and (number := self._reads.question(now, engine.commit_index)) is not None:
            for voter in sorted(voters):
                if voter != self._name:
                    self._transmit(voter, Confirm(engine.term, number))
        for read in self._reads.confirmed(voters, engine.applied_index):
            read.done(state_index)

    def end(self, error: HyperMeshError) -> None:
        """This node does not lead any more."""
        for read in self._reads.end():
            read.done(error)

    def wake(self) -> float:
        return self._reads.wake()
