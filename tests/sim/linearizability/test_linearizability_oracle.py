"""The search against one that cannot be wrong: all orders of all operations that were answered and of any of those that were not."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from keys_model import Delete, Found, Get, Keys, Missing, Put, Refused, Unchanged, Wrote
from known_histories import Read, Register, Swap, Write
from linearizability import UNKNOWN, Model, Operation, Outcome, check


def in_some_order(model: Model, operations: list[Operation]) -> bool:
    answered = [operation for operation in operations if operation.answer is not UNKNOWN]
    lost = [operation for operation in operations if operation.answer is UNKNOWN]
    return any(
        _respects_time(order) and _fits(model, order)
        for count in range(len(lost) + 1)
        for some in combinations(lost, count)
        for order in permutations([*answered, *some])
    )


def _respects_time(order: tuple[Operation, ...]) -> bool:
    return not any(later.returned < earlier.called for place, earlier in enumerate(order) for later in order[place + 1 :])


def _fits(model: Model, order: tuple[Operation, ...]) -> bool:
    state: Any = model.start()
    for operation in order:
        state = model.step(state, operation.request, operation.answer)
        if state is None:
            return False
    return True


@st.composite
def spans(draw, requests_and_answers, largest=6):
    """Small histories. Most moments differ, some do not."""
    operations = []
    for request, answer in draw(st.lists(requests_and_answers, min_size=1, max_size=largest)):
        called = draw(st.integers(0, 12))
        if answer is UNKNOWN or draw(st.integers(0, 4)) == 0:
            operations.append(Operation(request, called))
        else:
            operations.append(Operation(request, called, answer, called + draw(st.integers(0, 8))))
    return operations


values = st.integers(0, 2)
register_calls = st.one_of(
    st.tuples(st.just(Read()), st.integers(-1, 2)),
    st.tuples(st.builds(Write, values), st.none()),
    st.tuples(st.builds(Swap, values, values), st.booleans()),
)


def agree(model: Model, operations: list[Operation]) -> None:
    expected = Outcome.OK if in_some_order(model, operations) else Outcome.ILLEGAL
    event(expected.value)
    verdict = check(model, operations)
    assert verdict.outcome is expected, verdict.explain()


@settings(max_examples=400, deadline=None)
@given(spans(register_calls))
@example(  # a write of what is there already, that is needed later
    [
        Operation(Write(1), 0, None, 3),
        Operation(Swap(1, 2), 0, True, 2),
        Operation(Write(1), 1, None, 5),
        Operation(Read(), 2, 2, 4),
        Operation(Read(), 4.5, 1, 7),
    ]
)
def test_a_register(operations):
    agree(Register(), operations)


indexes = st.integers(1, 4)
expectations = st.one_of(st.none(), st.integers(0, 4))
texts = st.sampled_from([b"a", b"b"])
outcomes = st.one_of(st.builds(Wrote, indexes), st.just(Refused()), st.just(Unchanged()))
keys_calls = st.one_of(
    st.tuples(
        st.builds(Put, st.just("k"), texts, expectations), st.one_of(st.builds(Wrote, indexes), st.just(Refused()), st.just(Unchanged()))
    ),
    st.tuples(
        st.builds(Delete, st.just("k"), expectations), st.one_of(st.builds(Wrote, indexes), st.just(Refused()), st.just(Unchanged()))
    ),
    st.tuples(st.just(Get("k")), st.one_of(st.just(Missing()), st.builds(Found, texts, indexes, indexes))),
)


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(spans(keys_calls, largest=5))
def test_keys(operations):
    agree(Keys(), operations)


@st.composite
def executions(draw):
    """What a register that really is one could have answered; now and then one read is wrong."""
    model, state = Register(), Register.NOTHING
    operations = []
    for moment in range(10, 10 * draw(st.integers(2, 7)), 10):
        request = draw(register_calls)[0]
        called = moment - draw(st.integers(0, 40))
        before, after = state, model.step(state, request, UNKNOWN)
        if draw(st.integers(0, 4)) == 0:
            state = draw(st.sampled_from([before, after]))  # lost on its way there, or the answer on its way back
            operations.append(Operation(request, called))
        else:
            state = after
            answer = {Read: before, Write: None, Swap: isinstance(request, Swap) and request.old == before}[type(request)]
            operations.append(Operation(request, called, answer, moment + draw(st.integers(0, 40))))
    return operations


@settings(max_examples=150, deadline=None)
@given(executions())
def test_what_happened_is_accepted(operations):
    assert check(Register(), operations).outcome is Outcome.OK


@settings(max_examples=150, deadline=None)
@given(executions(), st.data())
def test_a_wrong_read_is_found_whenever_it_can_be(operations, data):
    reads = [place for place, operation in enumerate(operations) if operation.request == Read() and operation.answer is not UNKNOWN]
    if reads:
        place = data.draw(st.sampled_from(reads))
        read = operations[place]
        wrong = data.draw(st.integers(-1, 2).filter(lambda value: value != read.answer))
        operations = [*operations[:place], Operation(read.request, read.called, wrong, read.returned), *operations[place + 1 :]]
    agree(Register(), operations)
