"""The file format: a torn end is recognised wherever the write stopped, and any other change is damage, never other content."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.consensus.log import wal

bodies = st.lists(st.binary(max_size=60), min_size=1, max_size=6)


def file_of(contents: list[bytes]) -> bytes:
    return wal.MAGIC + b"".join(map(wal.frame, contents))


def read(data: bytes) -> tuple[list[bytes], bool]:
    scanned = list(wal.scan(data))
    return [item.body for item in scanned if item.body is not None], any(item.body is None for item in scanned)


@given(bodies)
def test_what_was_written_is_read(contents):
    assert read(file_of(contents)) == (contents, False)
    assert len(file_of(contents)) == len(wal.MAGIC) + sum(map(wal.size, contents))


@given(bodies, st.data())
def test_a_last_frame_that_ends_early_or_in_zeros_is_torn(contents, data):
    whole = file_of(contents)
    before = len(file_of(contents[:-1]))
    kept = data.draw(st.integers(before + 1, len(whole) - 1))
    zeros = data.draw(st.integers(0, 2 * len(whole)))
    assert read(whole[:kept] + bytes(zeros)) == (contents[:-1], True)


@given(bodies, st.integers(1, 100))
def test_room_behind_the_last_frame_is_torn(contents, zeros):
    assert read(file_of(contents) + bytes(zeros)) == (contents, True)


@given(bodies, st.data())
def test_any_flipped_bit_is_damage(contents, data):
    changed = bytearray(file_of(contents))
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(wal.Damaged) as caught:
        read(bytes(changed))
    assert caught.value.offset <= position


@given(bodies.filter(lambda contents: len(contents) > 1), st.data())
def test_zeros_that_are_not_the_end_are_damage(contents, data):
    changed = bytearray(file_of(contents))
    start = data.draw(st.integers(len(wal.MAGIC), len(file_of(contents[:-1])) - 2))
    length = data.draw(st.integers(1, len(file_of(contents[:-1])) - start))
    if bytes(length) == changed[start : start + length]:
        return
    changed[start : start + length] = bytes(length)
    with pytest.raises(wal.Damaged):
        read(bytes(changed))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_frames_or_damage(data, ours):
    with suppress(wal.Damaged):
        list(wal.scan(wal.MAGIC + data if ours else data))
