"""What travels on a bulk connection: frames of a 4-byte big-endian length and a msgpack array whose first element names the frame; behind
a Chunk's frame, its content as it is. Total: any bytes give frames or a FrameError.

The dialer asks, one question at a time; the acceptor speaks first (Ready, or a Fault that says why not). Content goes in chunks that begin
at multiples of CHUNK; all but the last are that long. Each carries the SHA-256 of the content from its very beginning up to the chunk's
end: one running hash checks every chunk when it arrives and, with the last, the whole; and whoever was interrupted can tell how far what it
has is good.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from hmcore.digests import Digest
from hmcore.errors import (
    BlobBusy,
    BlobCorrupt,
    BlobError,
    BlobMissing,
    BlobStoreFull,
    CallRefused,
    FrameError,
    HyperMeshError,
    InternalFault,
    InvalidRequest,
    PermissionDenied,
)

PROTOCOL = 1
CHUNK = 1 << 20  # bytes
MAX_HEAD = 128 << 10  # bytes of a frame: what a stranger may have us keep
MOST_DIGESTS = 512  # in one question
MOST_SIZE = 1 << 42  # bytes of content
MARK = 32  # bytes
PREFIX = 4

Size = Annotated[int, Meta(ge=0, le=MOST_SIZE)]


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The acceptor's first word to whom it accepts."""

    protocol: int


class Have(msgspec.Struct, frozen=True, array_like=True, tag="have"):
    digests: Annotated[tuple[Digest, ...], Meta(max_length=MOST_DIGESTS)]


class Held(msgspec.Struct, frozen=True, array_like=True, tag="held"):
    """The answer to Have, in its order: the content's size, or None where it is not there whole."""

    sizes: tuple[Size | None, ...]


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    digest: Digest
    size: Size


class Go(msgspec.Struct, frozen=True, array_like=True, tag="go"):
    """The answer to Put: send from `offset` on."""

    offset: Size


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    digest: Digest
    offset: Size = 0


class Found(msgspec.Struct, frozen=True, array_like=True, tag="found"):
    """The answer to Get: the content's size; the chunks from the offset on follow."""

    size: Size


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag="chunk"):
    """`size` bytes follow the frame. `mark`: see above."""

    size: Annotated[int, Meta(ge=1, le=CHUNK)]
    mark: Annotated[bytes, Meta(min_length=MARK, max_length=MARK)]


class Doubt(msgspec.Struct, frozen=True, array_like=True, tag="doubt"):
    """The content under this digest did not fit it: look at it again, and throw it away if it does not."""

    digest: Digest


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """All of the content is there, on disk; or was already. After a Doubt: it has been looked at."""


class Fault(msgspec.Struct, frozen=True, array_like=True, tag="fault"):
    """Instead of any answer or chunk; it ends what was going on."""

    kind: str
    message: str


Frame = Ready | Have | Held | Put | Go | Get | Found | Chunk | Doubt | Done | Fault


class Part(msgspec.Struct, frozen=True):
    """A chunk and its content."""

    mark: bytes
    content: bytearray


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_KINDS: dict[str, type[HyperMeshError]] = {
    BlobMissing.kind: BlobMissing,
    BlobCorrupt.kind: BlobCorrupt,
    BlobBusy.kind: BlobBusy,
    BlobStoreFull.kind: BlobStoreFull,
    PermissionDenied.kind: PermissionDenied,
    InvalidRequest.kind: InvalidRequest,
}


def encode(frame: Frame) -> bytes:
    body = _ENCODER.encode(frame)
    if len(body) > MAX_HEAD:
        raise FrameError(f"a frame of {len(body)} bytes is too large: {MAX_HEAD} at most")
    return len(body).to_bytes(PREFIX, "big") + body


def fault_of(error: Exception) -> Fault:
    """What the other end is told. Unexpected exceptions are named, not described: their text may hold anything."""
    match error:
        case BlobError() | CallRefused():
            return Fault(error.kind, error.message[:1000])
        case FrameError():
            return Fault(InvalidRequest.kind, error.message[:1000])
        case HyperMeshError():
            return Fault(InternalFault.kind, error.message[:1000])
        case _:
            return Fault(InternalFault.kind, f"unexpected {type(error).__name__}; the agent's journal there says more")


def error_of(fault: Fault, *, host: str | None) -> HyperMeshError:
    """The exception that it becomes here; `host` is who said it."""
    return _KINDS.get(fault.kind, InternalFault)(fault.message[:1000], host=host)


class Reader:
    """Bytes of one connection to frames and their content. Whoever has bytes puts them where `room` says: content is copied nowhere else.

    After a FrameError the connection is of no further use.
    """

    __slots__ = ("_chunk", "_filled", "_in_head", "_into")

    def __init__(self) -> None:
        self._into = bytearray(PREFIX)
        self._filled = 0
        self._in_head = False
        self._chunk: Chunk | None = None

    @property
    def within(self) -> bool:
        """Whether a frame or its content has begun and is not complete."""
        return self._filled > 0 or self._in_head or self._chunk is not None

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return memoryview(self._into)[self._filled :]

    def took(self, size: int) -> Frame | Part | None:
        """The first `size` bytes of `room` have been filled; what that completes."""
        self._filled += size
        if self._filled < len(self._into):
            return None
        whole = self._into
        if self._chunk is not None:
            mark, self._chunk = self._chunk.mark, None
            self._await(PREFIX)
            return Part(mark, whole)
        if not self._in_head:
            length = int.from_bytes(whole, "big")
            if not 0 < length <= MAX_HEAD:
                raise FrameError(f"a frame of {length} bytes: {MAX_HEAD} at most")
            self._in_head = True
            self._await(length)
            return None
        self._in_head = False
        frame = _decode(whole)
        if isinstance(frame, Chunk):
            self._chunk = frame
            self._await(frame.size)
            return None
        self._await(PREFIX)
        return frame

    def _await(self, size: int) -> None:
        self._into = bytearray(size)
        self._filled = 0


def _decode(data: bytearray) -> Frame:
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"not a frame: {error}") from error


def chunk_size(offset: int, size: int) -> int:
    """Of the chunk at `offset`, a multiple of CHUNK, in content of `size` bytes."""
    return min(CHUNK, size - offset)


def bad_offset(offset: int, size: int) -> str | None:
    """Why chunks cannot begin at `offset`; None: they can."""
    if offset > size:
        return f"offset {offset} lies behind the content's end, {size}"
    if offset % CHUNK and offset != size:
        return f"offset {offset} is no multiple of {CHUNK}"
    return None
