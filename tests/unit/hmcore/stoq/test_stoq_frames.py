"""Frames survive any cutting; anything else is a FrameError, whatever the bytes."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import FrameError
from hmcore.stoq.frames import (
    MAX_FRAME,
    PREFIX,
    Apart,
    Ask,
    Call,
    Credit,
    Denied,
    Drop,
    Dropped,
    Fault,
    Frame,
    FrameReader,
    Hello,
    Item,
    Open,
    Refuse,
    Reply,
    Said,
    Welcome,
    encode,
)

text = st.text(max_size=20)
blobs = st.binary(max_size=200)
faults = st.builds(Fault, text, text, st.none() | text, st.none() | text)
numbers = st.integers(-3, 2**40)
frames = st.one_of(
    st.builds(Hello, st.integers(0, 9), st.integers(0, 9), text, text, text, text, text),
    st.builds(Welcome, st.integers(0, 9), text, text, text, text),
    st.builds(Refuse, text, text),
    st.builds(Call, text, blobs),
    st.builds(Reply, blobs),
    faults,
    st.builds(Open, text),
    st.builds(Item, blobs),
    st.builds(Credit, st.integers(0, 2**40)),
    st.builds(Ask, numbers, text, blobs),
    st.builds(Said, numbers, blobs),
    st.builds(Denied, numbers, faults),
    st.builds(Apart, numbers),
    st.builds(Drop, numbers),
    st.builds(Dropped, numbers),
)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(PREFIX, "big") + payload


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 40), max_size=30))
def test_frames_survive_any_cutting(sent: list[Frame], sizes: list[int]) -> None:
    reader = FrameReader()
    got = [frame for piece in cut(b"".join(map(encode, sent)), sizes) for frame in reader.feed(piece)]
    assert got == sent
    assert reader.pending == 0


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_bytes_give_frames_or_a_frame_error(pieces: list[bytes]) -> None:
    reader = FrameReader(limit=1000)
    try:
        for piece in pieces:
            reader.feed(piece)
            assert reader.pending <= PREFIX + reader.limit
    except FrameError:
        pass


@given(
    st.recursive(
        st.none() | st.integers(-9, 9) | text | blobs, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=3)
    )
)
def test_any_msgpack_gives_a_frame_or_a_frame_error(value: object) -> None:
    with contextlib.suppress(FrameError):
        FrameReader().feed(framed(msgspec.msgpack.encode(value)))


def test_an_oversized_frame_is_refused_from_its_length_alone() -> None:
    with pytest.raises(FrameError, match=str(MAX_FRAME)):
        FrameReader().feed((MAX_FRAME + 1).to_bytes(PREFIX, "big"))


def test_a_deeply_nested_frame_is_refused() -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(framed(b"\x91" * 100_000))


def test_nothing_is_read_before_a_frame_is_complete() -> None:
    data = encode(Item(b"payload"))
    reader = FrameReader()
    assert reader.feed(data[:-1]) == []
    assert reader.pending == len(data) - 1
    assert reader.feed(data[-1:]) == [Item(b"payload")]


def test_what_is_too_large_is_not_sent() -> None:
    assert len(encode(Item(bytes(MAX_FRAME - 20)))) < MAX_FRAME + PREFIX
    with pytest.raises(FrameError, match="too large"):
        encode(Item(bytes(MAX_FRAME)))


def test_fields_that_a_later_release_appends_are_ignored_and_missing_ones_take_their_default() -> None:
    later = msgspec.msgpack.encode(["fault", "internal", "text", None, None, "a field of tomorrow"])
    assert FrameReader().feed(framed(later)) == [Fault("internal", "text")]
    earlier = msgspec.msgpack.encode(["fault", "internal", "text"])
    assert FrameReader().feed(framed(earlier)) == [Fault("internal", "text")]


def test_a_frame_of_unknown_kind_is_refused() -> None:
    with pytest.raises(FrameError, match="not a frame"):
        FrameReader().feed(framed(msgspec.msgpack.encode(["teleport", 1])))
