"""What Docker sends of outputs, in any pieces; and anything else, which is an error of ours or a line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streaming_docker import BEGIN, frame, stamp

from hmcore.apps.streams import PIECE
from hmcore.errors import FrameError
from node_agent.container.loglines import Entry, Frames, LogParser, Part, nanoseconds


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def parsed(pieces: list[bytes], *, tty: bool = False) -> list[Entry]:
    parser = LogParser(tty=tty)
    return [entry for piece in pieces for entry in parser.feed(piece)] + parser.end()


lines = st.binary(max_size=80).map(lambda data: data.replace(b"\n", b"-"))


@given(st.lists(st.tuples(st.integers(0, 2**40), st.sampled_from([1, 2]), lines), max_size=8), st.lists(st.integers(0, 60), max_size=40))
def test_lines_survive_any_cutting(records: list[tuple[int, int, bytes]], sizes: list[int]) -> None:
    data = b"".join(frame(stream, stamp(BEGIN + time) + text + b"\n") for time, stream, text in records)
    assert parsed(cut(data, sizes)) == [Entry(BEGIN + time, stream == 2, text) for time, stream, text in records]


@given(st.lists(st.tuples(st.integers(0, 2**40), lines), max_size=8), st.lists(st.integers(0, 60), max_size=40))
def test_lines_of_a_terminal_survive_it_too(records: list[tuple[int, bytes]], sizes: list[int]) -> None:
    data = b"".join(stamp(BEGIN + time) + text + b"\r\n" for time, text in records)
    assert parsed(cut(data, sizes), tty=True) == [Entry(BEGIN + time, False, text) for time, text in records]


@given(st.lists(st.binary(max_size=60), max_size=10), st.booleans())
def test_any_bytes_give_lines_or_an_error(pieces: list[bytes], tty: bool) -> None:
    with contextlib.suppress(FrameError):
        for entry in parsed(pieces, tty=tty):
            assert len(entry.text) <= PIECE
            assert entry.time >= 0


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_bytes_give_parts_of_frames_or_an_error(pieces: list[bytes]) -> None:
    frames = Frames()
    with contextlib.suppress(FrameError):
        for piece in pieces:
            assert sum(len(part.data) for part in frames.feed(piece)) <= len(piece)


def test_parts_are_told_as_they_come() -> None:
    frames = Frames()
    whole = frame(2, b"abc") + frame(1, b"")
    assert frames.feed(whole[:10]) == [Part(2, b"ab", True, False)]
    assert frames.feed(whole[10:]) == [Part(2, b"c", False, True), Part(1, b"", True, True)]


@pytest.mark.parametrize("header", [b"\x04\0\0\0\0\0\0\1", b"\1\1\0\0\0\0\0\1", b"HTTP/1.1"])
def test_what_is_no_frame_is_said(header: bytes) -> None:
    with pytest.raises(FrameError, match="no header of a frame"):
        Frames().feed(header)


def test_what_docker_kept_in_parts_is_one_line_again_of_the_time_when_it_began() -> None:
    parts = [(1, b"a" * 16_384), (2, b"b" * 16_384), (3, b"c\n"), (4, b"next\n")]
    data = b"".join(frame(1, stamp(BEGIN + time) + text) for time, text in parts)
    assert parsed([data]) == [Entry(BEGIN + 1, False, b"a" * 16_384 + b"b" * 16_384 + b"c"), Entry(BEGIN + 4, False, b"next")]


def test_stdout_and_stderr_do_not_share_a_line() -> None:
    data = b"".join(frame(s, stamp(BEGIN + t) + text) for t, s, text in [(1, 1, b"out "), (2, 2, b"err\n"), (3, 1, b"more\n")])
    assert parsed([data]) == [Entry(BEGIN + 2, True, b"err"), Entry(BEGIN + 1, False, b"out more")]


@pytest.mark.parametrize("tty", [False, True])
def test_a_line_without_end_is_told_in_pieces_and_never_held(tty: bool) -> None:
    parser = LogParser(tty=tty)
    head = stamp(BEGIN) if tty else b"\1\0\0\0" + (1 << 30).to_bytes(4, "big") + stamp(BEGIN)
    entries = parser.feed(head)
    for _ in range(100):
        entries += parser.feed(b"x" * 10_000)
        assert len(parser._record) + sum(len(line.text) for line in parser._lines.values()) <= PIECE + 10_000
    entries += parser.end()
    assert {entry.time for entry in entries} == {BEGIN}
    assert b"".join(entry.text for entry in entries) == b"x" * 1_000_000


def test_a_line_without_a_time_has_that_of_the_one_before() -> None:
    assert parsed([frame(1, stamp(BEGIN) + b"a\n"), frame(1, b"Error grabbing logs: invalid character\n")]) == [
        Entry(BEGIN, False, b"a"),
        Entry(BEGIN, False, b"Error grabbing logs: invalid character"),
    ]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (b"1970-01-01T00:00:01Z", 1_000_000_000),
        (b"1970-01-01T00:00:01.5Z", 1_500_000_000),
        (b"2026-11-18T11:06:40.000000001Z", BEGIN + 1),
        (b"2026-11-18T13:06:40+02:00", BEGIN),
        (b"2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        (b"1969-12-31T23:59:59Z", None),
        (b"2026-13-18T11:06:40Z", None),
        (b"2026-11-18 11:06:40", None),
        (b"", None),
    ],
)
def test_times(text: bytes, time: int | None) -> None:
    assert nanoseconds(text) == time
