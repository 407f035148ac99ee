"""A follower's position: it is told everything once, whatever the nodes say."""

from __future__ import annotations

import pytest

from hmcore.errors import FrameError
from hmcore.watch import Change, Entry, Position, Step, WatchReply


def entry(index: int) -> Entry:
    return Entry(index, (Change("keys", "a", b"%d" % index),))


def reply(index: int, *entries: int, oldest: int | None = None) -> WatchReply:
    return WatchReply(index=index, entries=[entry(each) for each in entries], oldest=oldest)


def test_what_is_new_is_told_and_the_position_goes_on_also_when_nothing_is():
    position = Position(3)
    assert position.take(3, reply(6, 4, 6)) == Step((entry(4), entry(6)))
    assert position.take(6, reply(9)) == Step()
    assert position.index == 9


def test_an_answer_that_comes_late_brings_nothing_twice():
    position = Position(3)
    position.take(3, reply(6, 4, 6))
    assert position.take(3, reply(7, 4, 6, 7)) == Step((entry(7),))
    assert position.take(3, reply(5, 4)) == Step()
    assert position.index == 7


def test_a_node_that_lags_behind_turns_nothing_back():
    position = Position(7)
    assert position.take(7, reply(5)) == Step(behind=True)
    assert position.index == 7


def test_what_is_lost_is_said_unless_we_have_it_by_now():
    position = Position(3)
    assert position.take(3, reply(90, oldest=40)) == Step(oldest=40)
    assert position.index == 3
    position.take(3, reply(50, 4))
    assert position.take(3, reply(90, oldest=40)) == Step()
    assert position.index == 50


@pytest.mark.parametrize("bad", [reply(6, 5, 4), reply(6, 4, 4), reply(6, 3), reply(6, 7), reply(2, 1)])
def test_an_answer_that_is_none_is_refused_and_changes_nothing(bad):
    position = Position(3)
    with pytest.raises(FrameError):
        position.take(3, bad)
    assert position.index == 3


def test_an_answer_about_what_is_ahead_of_us_would_leave_a_gap():
    position = Position(3)
    with pytest.raises(FrameError, match="only 3 is known"):
        position.take(5, reply(6, 6))
