"""Is there an order of these operations, each at a moment between its call and its return, in which one object could have answered so?

The search is Wing and Gong's (1993) with Lowe's memory of what was tried (2017), for each partition on its own (Horn and Kroening 2015,
P-compositionality), as in porcupine. Pure. docs/adr/0072 has what we add to it, and why that loses nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import inf
from typing import Any, Final, Protocol

MAX_STEPS = 2_000_000  # of one partition: some seconds


class Unknown(Enum):
    """The answer to a call that nobody heard an answer to: it may take effect at any time from then on, or never."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "?"


UNKNOWN: Final = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class Operation:
    """`called` and `returned` are moments of one clock, of any unit. Of the same moment calls come before returns: they overlap."""

    request: Any
    called: float
    answer: Any = UNKNOWN
    returned: float = inf
    client: str = ""

    def __post_init__(self) -> None:
        if self.returned < self.called:
            raise ValueError(f"returned before it was called: {self}")
        if (self.answer is UNKNOWN) != (self.returned == inf):
            raise ValueError(f"an answer comes at some time, and an unknown one at none: {self}")


class Model(Protocol):
    """A sequential object. States are immutable, hashable, never None; equal ones answer everything alike."""

    def start(self) -> Hashable: ...

    def partition(self, request: Any) -> Hashable:
        """Operations on different partitions have nothing to do with one another."""
        ...

    def is_read(self, request: Any, answer: Any) -> bool:
        """Whether `request`, answered so, changes nothing in whatever state it is (it may tell more of that state)."""
        ...

    def step(self, state: Any, request: Any, answer: Any) -> Hashable | None:
        """The state afterwards, or None if `request` cannot be answered so in `state`.

        If the answer is UNKNOWN: the state afterwards if it takes effect here, or None if it cannot.
        """
        ...


class Outcome(Enum):
    OK = "ok"
    ILLEGAL = "illegal"
    UNDECIDED = "undecided"  # the bound of steps was reached


@dataclass(frozen=True)
class Verdict:
    """Of the partition that decided: `order` is how far the search could get at most, `stuck` what then could not be explained."""

    outcome: Outcome
    steps: int
    partition: Hashable = None
    order: tuple[Operation, ...] = ()
    stuck: tuple[Operation, ...] = ()

    def explain(self, last: int = 8) -> str:
        """For a person: the end of the longest explanation, and the calls that were under way then."""
        if self.outcome is Outcome.OK:
            return f"linearizable ({self.steps} steps)"
        lines = [f"{self.outcome.value} after {self.steps} steps in partition {self.partition!r}; {len(self.order)} operations fit:"]
        lines += [f"    {_describe(operation)}" for operation in self.order[-last:]]
        return "\n".join([*lines, "  then none of these does:", *(f"    {_describe(operation)}" for operation in self.stuck)])


def _describe(operation: Operation) -> str:
    client = f"{operation.client}: " if operation.client else ""
    return f"{operation.called:.4f}..{operation.returned:.4f} {client}{operation.request!r} -> {operation.answer!r}"


def check(model: Model, operations: Iterable[Operation], max_steps: int = MAX_STEPS) -> Verdict:
    """The verdict on the whole: illegal if one partition is, else undecided if one is."""
    parts: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(model.partition(operation.request), []).append(operation)
    steps = 0
    undecided: Verdict | None = None
    for partition, part in parts.items():
        verdict = _Search(model, part, partition).run(max_steps)
        steps += verdict.steps
        if verdict.outcome is Outcome.ILLEGAL:
            return verdict
        if verdict.outcome is Outcome.UNDECIDED:
            undecided = undecided or verdict
    return undecided or Verdict(Outcome.OK, steps)


_HEAD = 0  # of the list of events, and its end


@dataclass(slots=True)
class _Placed:
    """An operation in the order under construction, and how things stood before it."""

    event: int
    state: Any
    unseen: Any


class _Search:
    """Depth first. Events are numbered in order of time: calls and returns, those of answered operations in a linked list from which both
    of a placed one are lifted. What may come next are the calls before the first return that is left, and those without an answer.

    Three things need not be tried, which keeps this fast: what was tried with the same operations placed and the same state; anything else
    while there is an answered read that fits (it hinders nothing); and a call without an answer that the next operation does not notice
    (`unseen` is the state before it: without it the same can follow).
    """

    def __init__(self, model: Model, operations: Sequence[Operation], partition: Hashable) -> None:
        self._model, self._operations, self._partition = model, operations, partition
        moments = [(operation.called, 0, number) for number, operation in enumerate(operations)]
        moments += [(operation.returned, 1, number) for number, operation in enumerate(operations) if operation.returned != inf]
        moments.sort()
        returns = {number: event for event, (_, is_return, number) in enumerate(moments, 1) if is_return}
        self._operation = [-1, *(number for _, _, number in moments)]
        self._is_call = [False, *(not is_return for _, is_return, _ in moments)]
        self._return = [0, *(0 if is_return else returns.get(number, 0) for _, is_return, number in moments)]  # of a call; 0: none
        self._is_read = [op.answer is not UNKNOWN and model.is_read(op.request, op.answer) for op in operations]
        self._open = [event for event, (_, is_return, number) in enumerate(moments, 1) if not is_return and number not in returns]
        linked = [_HEAD, *(event for event, (_, _, number) in enumerate(moments, 1) if number in returns), _HEAD]
        self._after = dict(pairwise(linked))
        self._before = {after: before for before, after in pairwise(linked)}
        self._state: Any = model.start()
        self._unseen: Any = None  # the state before the last operation placed, if that has no answer
        self._placed = 0  # a bit for each operation
        self._order: list[_Placed] = []
        self._tried = {(self._placed, self._state)}
        self._missing = len(returns)
        self._steps = 0
        self._best: tuple[Operation, ...] | None = None
        self._stuck: tuple[Operation, ...] = ()

    def run(self, max_steps: int) -> Verdict:
        moves = [self._moves()]
        while self._missing:
            if self._steps >= max_steps:
                return self._verdict(Outcome.UNDECIDED)
            move = next(moves[-1], None)
            if move is None:
                self._note_how_far()
                moves.pop()
                if not moves:
                    return self._verdict(Outcome.ILLEGAL)
                self._take_back()
            elif self._place(*move):
                moves.append(self._moves())
        return self._verdict(Outcome.OK)

    def _moves(self) -> Iterator[tuple[int, Any]]:
        """What may come next, and the state it leads to. Between two of them the search may go anywhere, but comes back to here."""
        fitting = []
        event = self._after[_HEAD]
        while self._is_call[event]:
            new = self._step(event, self._state)
            if new == self._state and self._is_read[self._operation[event]]:
                yield event, new
                return
            if new is not None:
                fitting.append((event, new))
            event = self._after[event]
        for call, new in fitting:
            if self._is_noticed(call, new):
                yield call, new
        for call in self._open:
            if call > event:
                break
            if not self._placed >> self._operation[call] & 1:
                new = self._step(call, self._state)
                if new is not None and new != self._state and self._is_noticed(call, new):
                    yield call, new

    def _step(self, event: int, state: Any) -> Any:
        self._steps += 1
        operation = self._operations[self._operation[event]]
        return self._model.step(state, operation.request, operation.answer)

    def _is_noticed(self, event: int, new: Any) -> bool:
        return self._unseen is None or new != self._step(event, self._unseen)

    def _place(self, event: int, new: Any) -> bool:
        """Unless the same was tried before."""
        placed = self._placed | 1 << self._operation[event]
        if (placed, new) in self._tried:
            return False
        self._tried.add((placed, new))
        self._order.append(_Placed(event, self._state, self._unseen))
        answered = self._return[event] != 0
        self._unseen = None if answered else self._state
        self._state, self._placed = new, placed
        if answered:
            self._missing -= 1
            for lifted in (event, self._return[event]):
                self._after[self._before[lifted]] = self._after[lifted]
                self._before[self._after[lifted]] = self._before[lifted]
        return True

    def _take_back(self) -> None:
        last = self._order.pop()
        self._state, self._unseen = last.state, last.unseen
        self._placed ^= 1 << self._operation[last.event]
        if self._return[last.event]:
            self._missing += 1
            for lifted in (self._return[last.event], last.event):
                self._after[self._before[lifted]] = lifted
                self._before[self._after[lifted]] = lifted

    def _note_how_far(self) -> None:
        if self._best is None or len(self._order) > len(self._best):
            self._best = self._so_far()
            self._stuck = ()
            event = self._after[_HEAD]
            while self._is_call[event]:
                self._stuck += (self._operations[self._operation[event]],)
                event = self._after[event]

    def _so_far(self) -> tuple[Operation, ...]:
        return tuple(self._operations[self._operation[placed.event]] for placed in self._order)

    def _verdict(self, outcome: Outcome) -> Verdict:
        return Verdict(outcome, self._steps, self._partition, self._best or (), self._stuck)
