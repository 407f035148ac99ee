"""The search, on histories small enough to draw, and on ones that a worse search would not finish."""

from __future__ import annotations

import random
from math import inf

import pytest
from known_histories import Read, Register, Swap, Write
from linearizability import UNKNOWN, Operation, Outcome, check


def write(value: int, called: float, returned: float = inf) -> Operation:
    return Operation(Write(value), called, UNKNOWN if returned == inf else None, returned)


def read(value: int, called: float, returned: float) -> Operation:
    return Operation(Read(), called, value, returned)


def swap(old: int, new: int, answer: bool, called: float, returned: float) -> Operation:
    return Operation(Swap(old, new), called, answer, returned)


NONE = Register.NOTHING


@pytest.mark.parametrize(
    ("operations", "outcome"),
    [
        pytest.param([], Outcome.OK, id="nothing happened"),
        pytest.param([read(NONE, 0, 1)], Outcome.OK, id="nothing yet"),
        pytest.param([read(7, 0, 1)], Outcome.ILLEGAL, id="out of thin air"),
        pytest.param([write(1, 0, 100), read(1, 25, 75), read(NONE, 30, 60)], Outcome.OK, id="overlapping reads see both"),
        pytest.param([write(1, 0, 100), read(1, 10, 30), read(NONE, 40, 90)], Outcome.ILLEGAL, id="reads go back"),
        pytest.param([write(1, 0, 1), read(NONE, 2, 3)], Outcome.ILLEGAL, id="stale read"),
        pytest.param([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)], Outcome.ILLEGAL, id="lost update"),
        pytest.param([write(1, 0, 3), write(2, 1, 4), read(1, 5, 6), read(1, 7, 8)], Outcome.OK, id="the first write was second"),
        pytest.param([write(1, 0, 3), write(2, 1, 4), read(1, 5, 6), read(2, 7, 8)], Outcome.ILLEGAL, id="either, not both"),
        pytest.param([write(1, 0, 100), read(NONE, 30, 30), read(1, 30, 30)], Outcome.OK, id="no duration: at one moment all overlap"),
        pytest.param([write(1, 0, 100), read(1, 10, 10), read(NONE, 40, 90)], Outcome.ILLEGAL, id="no duration: still goes back"),
        pytest.param([write(1, 0, 5), read(NONE, 5, 6)], Outcome.OK, id="called when the other returned: they overlap"),
        pytest.param([write(1, 0, 1), swap(1, 2, True, 2, 5), swap(1, 3, True, 3, 6)], Outcome.ILLEGAL, id="both swapped"),
        pytest.param([write(1, 0, 1), swap(1, 2, False, 2, 5), swap(1, 3, True, 3, 6)], Outcome.OK, id="one swapped"),
        pytest.param(
            [write(1, 0, 3), swap(1, 4, True, 0, 2), write(1, 1, 5), read(4, 2, 4), read(1, 5, 7)],
            Outcome.OK,
            id="a write of what is there already can come later",
        ),
        pytest.param([write(1, 0, 1), swap(1, 2, False, 2, 5)], Outcome.ILLEGAL, id="refused without a reason"),
    ],
)
def test_drawn_by_hand(operations, outcome):
    assert check(Register(), operations).outcome is outcome


@pytest.mark.parametrize(
    ("operations", "outcome"),
    [
        pytest.param([write(1, 0)], Outcome.OK, id="never"),
        pytest.param([write(1, 0), read(1, 50, 51), read(1, 60, 61)], Outcome.OK, id="late"),
        pytest.param([write(1, 0), read(NONE, 1, 2), read(1, 50, 51)], Outcome.OK, id="not yet, then late"),
        pytest.param([write(1, 5), read(1, 1, 2)], Outcome.ILLEGAL, id="before it was called"),
        pytest.param([write(1, 0), read(1, 1, 2), read(NONE, 3, 4)], Outcome.ILLEGAL, id="taken back"),
        pytest.param([write(1, 0), write(2, 1, 2), read(1, 3, 4), read(2, 5, 6)], Outcome.ILLEGAL, id="twice"),
        pytest.param([write(1, 0), write(2, 0), read(2, 1, 2), read(1, 3, 4)], Outcome.OK, id="each in its time"),
        pytest.param([write(1, 0), swap(1, 2, True, 1, 2), read(2, 3, 4)], Outcome.OK, id="something else needs it"),
        pytest.param([Operation(Read(), 0), write(1, 1, 2), read(1, 3, 4)], Outcome.OK, id="a read without an answer says nothing"),
        pytest.param([Operation(Swap(NONE, 1), 0), Operation(Swap(1, 2), 0), read(2, 1, 2)], Outcome.OK, id="one builds on another"),
        pytest.param([Operation(Swap(1, 2), 0), read(2, 1, 2)], Outcome.ILLEGAL, id="an unknown one that cannot have happened"),
    ],
)
def test_calls_without_an_answer(operations, outcome):
    assert check(Register(), operations).outcome is outcome


def test_an_operation_makes_sense():
    with pytest.raises(ValueError, match="returned before"):
        Operation(Read(), 2, 1, 1)
    with pytest.raises(ValueError, match="at none"):
        Operation(Read(), 2, UNKNOWN, 3)
    with pytest.raises(ValueError, match="at none"):
        Operation(Read(), 2, 7)


def sequential(count: int, clients: int, seed: int, values: int, lost: float = 0.0) -> list[Operation]:
    """A register that really is one, asked by `clients` at a time; each operation takes effect somewhere between its ends, if it does."""
    rnd = random.Random(seed)
    model, state = Register(), Register.NOTHING
    free = [0.0] * clients
    operations = []
    moments = sorted(rnd.uniform(0, count) for _ in range(count))
    for moment in moments:
        client = rnd.randrange(clients)
        called, returned = max(free[client], moment - rnd.uniform(0, clients)), moment + rnd.uniform(0, clients)
        if called > moment:
            continue
        free[client] = returned + 1e-6
        request = rnd.choice(
            (Read(), Write(rnd.randrange(values)), Swap(rnd.choice((state, rnd.randrange(values))), rnd.randrange(values)))
        )
        if rnd.random() < lost:
            operations.append(Operation(request, called))
            if rnd.random() < 0.5:
                continue  # never arrived
        before, state = state, model.step(state, request, UNKNOWN)
        if operations and operations[-1].request is request:
            continue  # it did, and nobody heard of it
        answer = {Read: before, Write: None, Swap: isinstance(request, Swap) and request.old == before}[type(request)]
        operations.append(Operation(request, called, answer, returned))
    rnd.shuffle(operations)
    return operations


@pytest.mark.long
@pytest.mark.parametrize(("clients", "values", "lost"), [(8, 5, 0.0), (4, 10**6, 0.01)])
def test_thousands_of_operations_on_one_register(clients, values, lost):
    """With few values most is legal in many orders, and if each lost call may be any of those, nobody can tell: clients should write what
    nobody else writes."""
    operations = sequential(6000, clients, 1, values, lost)
    assert len(operations) > 3500
    assert sum(operation.answer is UNKNOWN for operation in operations) >= 30 * bool(lost)
    verdict = check(Register(), operations)
    assert verdict.outcome is Outcome.OK
    last = max(operation.returned for operation in operations if operation.returned < inf)
    wrong = check(Register(), [*operations, Operation(Read(), last + 1, 99, last + 2)])
    assert (wrong.outcome, wrong.stuck[-1].answer) == (Outcome.ILLEGAL, 99)


def test_many_lost_writes_do_not_multiply():
    """Any subset of them may have happened, in any order: 2 to the 60th states if each were tried."""
    lost = [write(value, 0) for value in range(60)]
    verdict = check(Register(), [*lost, write(100, 1, 2), read(100, 3, 4), read(7, 5, 6), read(8, 7, 8), read(7, 9, 10)])
    assert verdict.outcome is Outcome.ILLEGAL
    assert verdict.steps < 50_000
    assert check(Register(), [*lost, write(100, 1, 2), read(100, 3, 4), read(7, 5, 6), read(8, 7, 8)]).outcome is Outcome.OK


def test_a_bound_of_steps_is_no_verdict():
    operations = [write(1, 0, 1), read(1, 2, 3), read(2, 4, 5)]
    assert check(Register(), operations, max_steps=2).outcome is Outcome.UNDECIDED
    assert check(Register(), operations).outcome is Outcome.ILLEGAL


class Registers:
    """A register for each value that is divided by ten alike."""

    def start(self) -> int:
        return Register.NOTHING

    def partition(self, request: Write) -> int:
        return request.value // 10

    def is_read(self, request: Write, answer: object) -> bool:
        return False

    def step(self, state: int, request: Write, answer: object) -> int | None:
        return request.value if answer in (None, UNKNOWN) else None


def test_one_bad_partition_decides_even_if_another_was_too_much():
    many = [Operation(Write(number), number, None, number + 1) for number in range(10)]
    bad = [Operation(Write(10), 0, "no", 1)]
    verdict = check(Registers(), [*many, *bad], max_steps=5)
    assert (verdict.outcome, verdict.partition) == (Outcome.ILLEGAL, 1)
    assert check(Registers(), many, max_steps=5).outcome is Outcome.UNDECIDED
    assert check(Registers(), many).outcome is Outcome.OK


def test_a_verdict_can_be_read():
    operations = [Operation(Write(1), 0, None, 1, "anna"), Operation(Read(), 2, Register.NOTHING, 3, "otto"), read(1, 2, 4)]
    verdict = check(Register(), operations)
    assert [operation.request for operation in verdict.order] == [Write(1), Read()]
    assert verdict.stuck == (operations[1],)
    told = verdict.explain()
    assert "2 operations fit" in told
    assert told.index("anna: Write(value=1) -> None") < told.index("then none") < told.index("2.0000..3.0000 otto: Read() -> -1")
    assert check(Register(), operations[:1]).explain() == "linearizable (1 steps)"
