"""Frames of bulk connections: whatever the pieces, whatever the bytes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import (
    BlobBusy,
    BlobCorrupt,
    BlobError,
    BlobMissing,
    BlobStoreFull,
    ConnectionLost,
    FrameError,
    InternalFault,
    InvalidRequest,
    PermissionDenied,
)
from hmcore.stoq.bulk.frames import (
    CHUNK,
    MARK,
    MAX_HEAD,
    MOST_DIGESTS,
    Chunk,
    Done,
    Doubt,
    Fault,
    Found,
    Frame,
    Get,
    Go,
    Have,
    Held,
    Part,
    Put,
    Reader,
    Ready,
    bad_offset,
    encode,
    error_of,
    fault_of,
)

DIGESTS = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
SIZES = st.integers(0, 1 << 42)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Ready, st.integers(0, 100)),
    st.builds(Have, st.lists(DIGESTS, max_size=5).map(tuple)),
    st.builds(Held, st.lists(st.none() | SIZES, max_size=5).map(tuple)),
    st.builds(Put, DIGESTS, SIZES),
    st.builds(Go, SIZES),
    st.builds(Get, DIGESTS, SIZES),
    st.builds(Found, SIZES),
    st.builds(Doubt, DIGESTS),
    st.just(Done()),
    st.builds(Fault, st.text(max_size=20), st.text(max_size=50)),
)
PARTS = st.builds(Part, st.binary(min_size=MARK, max_size=MARK), st.binary(min_size=1, max_size=300).map(bytearray))


def feed(reader: Reader, data: bytes, pieces: list[int] | None = None) -> list[Frame | Part]:
    """As an event loop does it: no more than there is room for, and no more than came."""
    found: list[Frame | Part] = []
    sizes = iter(pieces or [])
    while data:
        room = reader.room()
        assert len(room) > 0
        size = min(len(room), len(data), next(sizes, len(data)))
        room[:size] = data[:size]
        data = data[size:]
        if (item := reader.took(size)) is not None:
            found.append(item)
    return found


def bytes_of(item: Frame | Part) -> bytes:
    return encode(Chunk(len(item.content), item.mark)) + item.content if isinstance(item, Part) else encode(item)


@given(st.lists(FRAMES | PARTS, max_size=8), st.lists(st.integers(1, 60), max_size=200))
def test_what_was_sent_is_read_in_any_pieces(items: list[Frame | Part], pieces: list[int]) -> None:
    reader = Reader()
    assert feed(reader, b"".join(map(bytes_of, items)), pieces) == items
    assert not reader.within


@given(st.binary(max_size=600) | st.lists(FRAMES, max_size=3).flatmap(lambda frames: st.just(b"".join(map(encode, frames)))), st.data())
def test_any_bytes_give_frames_or_an_error_and_bounded_memory(data: bytes, draw: st.DataObject) -> None:
    flipped = bytearray(data)
    for at in draw.draw(st.lists(st.integers(0, max(0, len(data) - 1)), max_size=4)) if data else []:
        flipped[at] ^= draw.draw(st.integers(1, 255))
    reader = Reader()
    try:
        feed(reader, bytes(flipped))
    except FrameError:
        return
    assert len(reader.room()) <= CHUNK


@pytest.mark.parametrize("length", [0, MAX_HEAD + 1, 0xFFFFFFFF])
def test_a_length_out_of_bounds_is_refused_before_anything_is_kept(length: int) -> None:
    reader = Reader()
    with pytest.raises(FrameError):
        feed(reader, length.to_bytes(4, "big"))


@pytest.mark.parametrize(
    "frame",
    [
        ("have", ["sha256:" + "0" * 63]),
        ("have", ["sha256:" + "0" * 64 + "\n"]),
        ("have", ["sha256:" + "0" * 64] * (MOST_DIGESTS + 1)),
        ("put", "sha256:" + "A" * 64, 1),
        ("put", "sha256:" + "0" * 64, -1),
        ("put", "../../etc/passwd", 1),
        ("get", "sha256:" + "0" * 64, 1 << 43),
        ("chunk", 0, b"0" * 32),
        ("chunk", CHUNK + 1, b"0" * 32),
        ("chunk", 1, b"0" * 31),
        ("no such frame", 1),
        {"a": 1},
        None,
    ],
)
def test_a_frame_that_is_not_of_the_schema_is_refused(frame: object) -> None:
    body = msgspec.msgpack.encode(frame)
    with pytest.raises(FrameError):
        feed(Reader(), len(body).to_bytes(4, "big") + body)


def test_a_frame_within_is_told() -> None:
    reader = Reader()
    feed(reader, encode(Chunk(10, bytes(32))) + b"12345")
    assert reader.within


@pytest.mark.parametrize("kind", [BlobMissing, BlobCorrupt, BlobBusy, BlobStoreFull, PermissionDenied, InvalidRequest])
def test_an_error_keeps_its_type_over_the_wire(kind: type[BlobError]) -> None:
    error = error_of(fault_of(kind("why")), host="node1")
    assert type(error) is kind
    assert (error.message, error.host) == ("why", "node1")


def test_other_errors_become_internal_and_unexpected_ones_are_not_described() -> None:
    assert isinstance(error_of(fault_of(ConnectionLost("it broke")), host=None), InternalFault)
    assert "secret" not in fault_of(ValueError("a secret")).message
    assert isinstance(error_of(Fault("of a later release", "x"), host=None), InternalFault)


@given(SIZES, SIZES)
def test_chunks_begin_at_multiples_or_not_at_all(offset: int, size: int) -> None:
    fine = offset == size or (offset < size and offset % CHUNK == 0)
    assert (bad_offset(offset, size) is None) == fine
