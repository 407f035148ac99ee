"""Linearizable reads without a write: ReadIndex (Ongaro 2014, section 6.4; docs/adr/0070). Pure.

A leader that was cut off may have been replaced without knowing it, and what it remembers is then old. So before it answers, it asks the
voters whether they still are in its term. Once a majority (itself included) has said so to a question that was sent after the read came,
nobody can have been elected before the read came, so the index that was committed when the question was sent covers every write that was
acknowledged by then. All reads that come while a question is under way share the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from hmcore.errors import HyperMeshError

Done = Callable[[int | HyperMeshError], None]  # hears the log index of a state that is new enough, or why there is none


@dataclass(frozen=True, slots=True)
class Read:
    """`until`: when it gives up, on the caller's clock."""

    until: float
    done: Done


@dataclass(frozen=True, slots=True)
class Round:
    """A question that was sent, what was committed then, and the reads (some, always) that it is for."""

    number: int
    index: int
    reads: list[Read]


class Reads:
    """Of one leadership. Questions are numbered; who answers one answers all before it, so a lost answer is made good by the next.

    Times are seconds on the caller's clock; `patience`: after which an unanswered question is asked anew.
    """

    def __init__(self, name: str, *, patience: float) -> None:
        self._name = name
        self._patience = patience
        self._arrived: list[Read] = []
        self._rounds: list[Round] = []  # by number
        self._number = 0
        self._asked_at = float("-inf")
        self._answers: dict[str, int] = {}  # by voter: the latest question that it has answered

    def __len__(self) -> int:
        return len(self._arrived) + sum(len(round_.reads) for round_ in self._rounds)

    def arrive(self, read: Read) -> None:
        self._arrived.append(read)

    def question(self, now: float, committed: int) -> int | None:
        """The number of the question to send now, if one is due. `committed`: the leader's commit index, which must cover an entry of its
        own term: before that it may not know all that was acknowledged by those before it."""
        overdue = bool(self._rounds) and now >= self._asked_at + self._patience
        if not overdue and (self._rounds or not self._arrived):
            return None
        self._number += 1
        self._asked_at = now
        if self._arrived:
            self._rounds.append(Round(self._number, committed, self._arrived))
            self._arrived = []
        return self._number

    def answer(self, voter: str, number: int) -> None:
        """`voter` still is in our term, though it had heard question `number`."""
        self._answers[voter] = max(number, self._answers.get(voter, 0))

    def confirmed(self, voters: Collection[str], applied: int) -> list[Read]:
        """The reads that may be answered from a state that is `applied` so far. They are forgotten."""
        answered = {**self._answers, self._name: self._number}
        numbers = sorted((answered.get(voter, 0) for voter in voters), reverse=True)
        agreed = numbers[len(numbers) // 2] if numbers else 0
        ready = [round_ for round_ in self._rounds if round_.number <= agreed and round_.index <= applied]
        self._rounds = [round_ for round_ in self._rounds if round_ not in ready]
        return [read for round_ in ready for read in round_.reads]

    def expired(self, now: float) -> list[Read]:
        """Those that have waited long enough. They are forgotten."""
        late = [read for read in self._all() if read.until <= now]
        if late:
            self._arrived = [read for read in self._arrived if read.until > now]
            kept = [Round(r.number, r.index, [read for read in r.reads if read.until > now]) for r in self._rounds]
            self._rounds = [round_ for round_ in kept if round_.reads]
        return late

    def end(self) -> list[Read]:
        """The leadership is over, and all questions with it. Numbers go on: an answer to an old one must not pass for a new one's."""
        ended = self._all()
        self._arrived, self._rounds, self._answers = [], [], {}
        return ended

    def wake(self) -> float:
        """When to look again, if nothing happens before."""
        again = self._asked_at + self._patience if self._rounds else float("inf")
        return min([again, *(read.until for read in self._all())])

    def _all(self) -> list[Read]:
        return [*(read for round_ in self._rounds for read in round_.reads), *self._arrived]
