"""What becomes of calls while they are written down."""

from __future__ import annotations

import pytest
from keys_model import Found, Get, Keys, Put, Wrote
from linearizability import UNKNOWN, Operation, Outcome, check
from recorded_history import History


def test_calls_answers_and_what_nobody_knows():
    history = History()
    history.call("1", "anna", Put("k", b"a"), 1.0)
    history.call("2", "otto", Get("k"), 1.5)
    history.answer("1", Wrote(3), 2.0)
    assert set(history.operations()) == {
        Operation(Put("k", b"a"), 1.0, Wrote(3), 2.0, "anna"),
        Operation(Get("k"), 1.5, UNKNOWN, client="otto"),
    }


def test_a_request_that_is_tried_again_is_one_operation():
    history = History()
    for now in (1.0, 5.0, 9.0):
        history.call("1", "anna", Put("k", b"a"), now)
    history.answer("1", Wrote(3), 10.0)
    history.answer("1", Wrote(3), 11.0)  # of another of the three
    assert history.operations() == [Operation(Put("k", b"a"), 1.0, Wrote(3), 10.0, "anna")]


def test_one_request_is_not_two():
    history = History()
    history.call("1", "anna", Put("k", b"a"), 1.0)
    with pytest.raises(ValueError, match="asks for"):
        history.call("1", "anna", Put("k", b"b"), 2.0)
    history.answer("1", Wrote(3), 3.0)
    with pytest.raises(ValueError, match="was answered"):
        history.answer("1", Wrote(4), 4.0)
    with pytest.raises(KeyError):
        history.answer("2", Wrote(4), 4.0)


def test_at_one_moment_of_the_clock_things_still_happen_one_after_another():
    """A read that begins after the write was acknowledged must see it, however coarse the clock is."""
    history = History()
    history.call("1", "anna", Put("k", b"a"), 7.0)
    history.answer("1", Wrote(3), 7.0)
    history.call("2", "anna", Put("k", b"b"), 7.0)
    history.answer("2", Wrote(4), 7.0)
    history.call("3", "otto", Get("k"), 7.0)
    history.answer("3", Found(b"a", 3, 3), 7.0)
    assert check(Keys(), history.operations()).outcome is Outcome.ILLEGAL
