"""Our keys as a sequential object: drawn by hand, and against one that keeps real indexes."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from keys_model import Delete, Found, Get, Keys, Missing, Put, Refused, Request, Unchanged, Wrote
from linearizability import UNKNOWN, Operation, Outcome, check


def one_after_another(*said: tuple[Request, Any]) -> list[Operation]:
    return [
        Operation(request, 2 * place) if answer is UNKNOWN else Operation(request, 2 * place, answer, 2 * place + 1)
        for place, (request, answer) in enumerate(said)
    ]


A, B = Put("k", b"a"), Put("k", b"b")
GET = Get("k")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([(GET, Missing()), (A, Wrote(5)), (GET, Found(b"a", 5, 5)), (B, Wrote(7)), (GET, Found(b"b", 5, 7))], id="put"),
        pytest.param([(A, Wrote(5)), (A, Unchanged()), (GET, Found(b"a", 5, 5))], id="put again"),
        pytest.param([(A, Wrote(5)), (Put("k", b"a", 5), Wrote(6)), (GET, Found(b"a", 5, 6))], id="put again with expect"),
        pytest.param([(Put("k", b"a", 0), Wrote(5)), (Put("k", b"b", 0), Refused()), (GET, Found(b"a", 5, 5))], id="create"),
        pytest.param([(A, Wrote(5)), (Put("k", b"b", 5), Wrote(6)), (Put("k", b"c", 5), Refused())], id="compare and set"),
        pytest.param([(Put("k", b"b", 5), Refused()), (Delete("k", 5), Refused()), (GET, Missing())], id="of what is not there"),
        pytest.param([(A, Wrote(5)), (Delete("k"), Wrote(6)), (GET, Missing()), (B, Wrote(9)), (GET, Found(b"b", 9, 9))], id="delete"),
        pytest.param([(Delete("k"), Unchanged()), (Delete("k", 0), Unchanged())], id="delete nothing"),
        pytest.param([(A, Wrote(5)), (Delete("k", 4), Refused()), (Delete("k", 5), Wrote(6))], id="compare and delete"),
        pytest.param([(A, UNKNOWN), (GET, Missing()), (GET, Found(b"a", 3, 3)), (GET, Found(b"a", 3, 3))], id="found later"),
        pytest.param([(A, UNKNOWN), (Put("k", b"b", 3), Wrote(4)), (GET, Found(b"b", 3, 4))], id="seen by what expects it"),
        pytest.param([(A, Wrote(2)), (B, UNKNOWN), (Put("k", b"c", 2), Refused())], id="the reason of a refusal"),
        pytest.param([(A, Wrote(2)), (Delete("k"), UNKNOWN), (GET, Missing())], id="deleted, it seems"),
        pytest.param([(A, Wrote(1)), (Put("j", b"x"), Wrote(1)), (Get("j"), Found(b"x", 1, 1))], id="keys are apart"),
    ],
)
def test_legal(said):
    verdict = check(Keys(), one_after_another(*said))
    assert verdict.outcome is Outcome.OK, verdict.explain()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([(A, Wrote(5)), (GET, Missing())], id="lost"),
        pytest.param([(A, Wrote(5)), (B, Wrote(6)), (GET, Found(b"a", 5, 5))], id="stale"),
        pytest.param([(A, Wrote(5)), (GET, Found(b"a", 5, 6))], id="changed by nobody"),
        pytest.param([(A, Wrote(5)), (B, Wrote(6)), (GET, Found(b"b", 6, 6))], id="created anew"),
        pytest.param([(A, Wrote(5)), (B, Wrote(4))], id="indexes go back"),
        pytest.param([(A, Wrote(5)), (Put("k", b"b", 5), Wrote(6)), (Put("k", b"c", 5), Wrote(7))], id="both won"),
        pytest.param([(Put("k", b"a", 0), Wrote(5)), (Put("k", b"b", 0), Wrote(6))], id="both created"),
        pytest.param([(A, Wrote(5)), (Put("k", b"b", 5), Refused())], id="refused for nothing"),
        pytest.param([(A, Wrote(5)), (B, Unchanged())], id="not put"),
        pytest.param([(A, Wrote(5)), (A, Wrote(6))], id="put though it was there"),
        pytest.param([(Delete("k"), Wrote(5))], id="deleted what was not there"),
        pytest.param([(A, Wrote(5)), (Delete("k", 5), Wrote(6)), (GET, Found(b"a", 5, 5))], id="came back"),
        pytest.param([(A, UNKNOWN), (GET, Found(b"a", 3, 3)), (GET, Missing())], id="found, then gone"),
        pytest.param([(A, Wrote(5)), (B, UNKNOWN), (GET, Found(b"b", 5, 4))], id="later, at an earlier index"),
        pytest.param([(A, Wrote(5)), (B, UNKNOWN), (GET, Found(b"b", 5, 7)), (GET, Found(b"b", 5, 8))], id="one write, two indexes"),
        pytest.param([(Put("k", b"a", 4), UNKNOWN), (GET, Found(b"a", 6, 6))], id="an expectation that never came true"),
        pytest.param([(A, Wrote(5)), (B, Wrote(5)), (Put("k", b"c", 5), Wrote(6))], id="two changes share an index: which was expected?"),
    ],
)
def test_illegal(said):
    assert check(Keys(), one_after_another(*said)).outcome is Outcome.ILLEGAL


def test_changes_that_share_a_revision():
    """Who put `a` and expects it to be there still overwrites `b`, which he never saw."""
    history = one_after_another((A, Wrote(5)), (B, Wrote(5)), (GET, Found(b"b", 5, 5)), (Put("k", b"c", 5), Wrote(6)))
    assert check(Keys(), history).outcome is Outcome.ILLEGAL


STEP = 10  # between the indexes that clients are told of: there is room for those that nobody was told


def explained(operations: list[Operation]) -> bool:
    """Whether some order, and some index for each write without an answer, make a plain dictionary say all this."""
    answered = [operation for operation in operations if operation.answer is not UNKNOWN]
    lost = [operation for operation in operations if operation.answer is UNKNOWN]
    return any(
        _plays(order, 0, None)
        for count in range(len(lost) + 1)
        for some in combinations(lost, count)
        for order in permutations([*answered, *some])
        if not any(later.returned < earlier.called for place, earlier in enumerate(order) for later in order[place + 1 :])
    )


def _plays(order: tuple[Operation, ...], floor: int, item: Found | None) -> bool:
    if not order:
        return True
    (operation, *rest), request = order, order[0].request
    if isinstance(request, Get):
        return operation.answer in (UNKNOWN, item or Missing()) and _plays(tuple(rest), floor, item)
    if request.expect not in (None, item.changed if item else 0):
        return operation.answer in (UNKNOWN, Refused()) and _plays(tuple(rest), floor, item)
    idle = item is None if isinstance(request, Delete) else item is not None and (item.value, request.expect) == (request.value, None)
    if idle:
        return operation.answer in (UNKNOWN, Unchanged()) and _plays(tuple(rest), floor, item)
    for index in range(floor + 1, 6 * STEP):
        if operation.answer in (UNKNOWN, Wrote(index)):
            now = None if isinstance(request, Delete) else Found(request.value, item.created if item else index, index)
            if _plays(tuple(rest), index, now):
                return True
    return False


indexes = st.integers(1, 4).map(lambda number: number * STEP)
expectations = st.one_of(st.none(), st.just(0), indexes)
texts = st.sampled_from([b"a", b"b"])
outcomes = st.one_of(st.builds(Wrote, indexes), st.builds(Wrote, indexes), st.just(Refused()), st.just(Unchanged()))
writes = st.one_of(
    st.tuples(st.builds(Put, st.just("k"), texts, expectations), outcomes),
    st.tuples(st.builds(Delete, st.just("k"), expectations), outcomes),
)
reads = st.tuples(st.just(GET), st.one_of(st.just(Missing()), st.builds(Found, texts, indexes, indexes)))


@st.composite
def small(draw, lost: int):
    operations = [
        Operation(request, (called := draw(st.integers(0, 9))), answer, called + draw(st.integers(0, 9)))
        for request, answer in draw(st.lists(st.one_of(writes, reads), min_size=1, max_size=4))
    ]
    unknown = draw(st.lists(writes, min_size=lost, max_size=lost))
    return [*operations, *(Operation(request, draw(st.integers(0, 9))) for request, _ in unknown)]


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(small(lost=0))
def test_as_a_dictionary(operations):
    expected = explained(operations)
    event(f"explained: {expected}")
    assert (check(Keys(), operations).outcome is Outcome.OK) == expected


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(small(lost=1))
def test_what_can_be_explained_is_legal(operations):
    """The other way it may forgive: see Keys."""
    expected, verdict = explained(operations), check(Keys(), operations)
    event(f"explained: {expected}, {verdict.outcome.value}")
    assert verdict.outcome is Outcome.OK or not expected
