"""Flow control: a writer that keeps to its window is never cut off and never stuck, one that does not is noticed."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import FrameError
from hmcore.stoq.window import OVERHEAD, WINDOW, Window


@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "take", "deliver credit"]), st.sampled_from([0, 1, 1000, WINDOW // 3, WINDOW])), max_size=80
    )
)
def test_whatever_is_sent_and_taken_both_accounts_agree_and_the_writer_goes_on(steps: list[tuple[str, int]]) -> None:
    writer, reader = Window(), Window()
    under_way: deque[bytes] = deque()
    credits: deque[int] = deque()

    def take() -> None:
        if credit := reader.take(under_way.popleft()):
            assert credit >= WINDOW // 2
            credits.append(credit)

    def deliver() -> None:
        was_open, opens = writer.open, writer.credit(credits.popleft())
        assert opens == (writer.open and not was_open)

    for step, size in steps:
        if step == "send" and writer.open:
            payload = bytes(size)
            writer.send(payload)
            reader.receive(payload)
            under_way.append(payload)
        elif step == "take" and under_way:
            take()
        elif step == "deliver credit" and credits:
            deliver()
        assert writer.sent == reader.untaken + reader.uncredited + sum(credits)
        assert reader.untaken <= WINDOW + WINDOW + OVERHEAD  # what fits, and one message more
    while under_way:
        take()
    while credits:
        deliver()
    assert writer.open
    assert writer.sent == reader.uncredited < WINDOW // 2


def test_empty_messages_use_the_window_up_too() -> None:
    writer = Window()
    for _ in range(WINDOW // OVERHEAD):
        assert writer.open
        writer.send(b"")
    assert not writer.open


def test_a_flood_beyond_the_credit_is_refused() -> None:
    reader = Window()
    reader.receive(bytes(WINDOW // 2))
    reader.receive(bytes(WINDOW // 2))
    with pytest.raises(FrameError, match="more messages than there was credit for"):
        reader.receive(b"")


@pytest.mark.parametrize("size", [-1, 0, OVERHEAD + 6])
def test_credit_for_what_was_never_sent_is_refused(size: int) -> None:
    writer = Window()
    writer.send(b"five!")
    with pytest.raises(FrameError, match="credit for messages that were never sent"):
        writer.credit(size)
    assert writer.credit(OVERHEAD + 5) is False
    assert writer.sent == 0
