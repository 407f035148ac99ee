"""What one connection may make us keep is bounded, and what was let go may be used again."""

from __future__ import annotations

import pytest

from hmcore.errors import FrameError
from hmcore.stoq import quota
from hmcore.stoq.quota import STALL, Quota


def test_bytes_are_bounded_until_some_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_HELD", 1000)
    used = Quota()
    used.hold(600)
    used.let_go(100)
    used.read(4, 0, 500, now=0.0)
    with pytest.raises(FrameError, match="over 1000 bytes of incomplete frames and unanswered calls"):
        used.read(8, 0, 1, now=0.0)
    used = Quota()
    used.read(4, 0, 1000, now=0.0)
    used.forget(4, 1000)
    used.read(8, 0, 1000, now=0.0)
    used.read(8, 1000, 0, now=0.0)
    assert used.held == 0


def test_streams_are_bounded_until_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_STREAMS", 2)
    used = Quota()
    used.open_stream()
    used.open_stream()
    with pytest.raises(FrameError, match="over 2 streams at once"):
        used.open_stream()
    used.close_stream()
    used.open_stream()


def test_the_frame_that_has_not_grown_for_longest_sets_the_deadline() -> None:
    used = Quota()
    assert used.deadline is None
    used.expire(1e9)
    used.read(4, 0, 2, now=10.0)
    used.read(8, 0, 1, now=11.0)
    assert used.deadline == 10.0 + STALL
    used.read(4, 2, 3, now=12.0)
    assert used.deadline == 11.0 + STALL
    used.expire(11.0 + STALL - 0.001)
    with pytest.raises(FrameError, match="incomplete for 30 s"):
        used.expire(11.0 + STALL)
    used.read(8, 1, 0, now=13.0)
    assert used.deadline == 12.0 + STALL
    used.forget(4, 3)
    assert used.deadline is None
