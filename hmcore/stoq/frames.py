"""What travels on a STOQ stream: frames of a 4-byte big-endian length and a msgpack array whose first element names the frame.

Reading is total: any bytes give frames or a FrameError. Frames are arrays, so that a later release can append fields: older readers
ignore what they do not know, newer ones take the default for what is missing.
"""

from __future__ import annotations

import msgspec

from hmcore.errors import FrameError

MAX_FRAME = 16 * 1024 * 1024  # bytes, without the length
MAX_HELLO = 16 * 1024  # until the other end has proved who it is, it may not make us keep more than this
PREFIX = 4


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The dialer's first frame: the protocol versions it speaks and who it is. `author` is whom a relay speaks for (the SSH user)."""

    lowest: int
    highest: int
    cluster: str
    name: str
    role: str
    release: str
    author: str = ""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """The acceptor's answer: the version both will speak, and who it is. Only now may anything else be sent."""

    protocol: int
    cluster: str
    name: str
    role: str
    release: str


class Refuse(msgspec.Struct, frozen=True, array_like=True, tag="refuse"):
    """The acceptor's other answer. `kind`: protocol | identity | not-admitted."""

    kind: str
    reason: str


class Call(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    method: str
    body: bytes


class Reply(msgspec.Struct, frozen=True, array_like=True, tag="reply"):
    body: bytes


class Fault(msgspec.Struct, frozen=True, array_like=True, tag="fault"):
    """The call was refused. `kind` is that of a hmcore.errors.CallRefused."""

    kind: str
    message: str
    leader: str | None = None
    fix: str | None = None


class Open(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """Makes this stream a stream of messages of this kind, both ways."""

    kind: str


class Item(msgspec.Struct, frozen=True, array_like=True, tag="item"):
    payload: bytes


class Credit(msgspec.Struct, frozen=True, array_like=True, tag="credit"):
    """The application has taken this many more bytes of the messages sent to it."""

    size: int


# On a lane (lane.py), since STOQ/2. `number` tells the calls of one lane apart: 1, 2, 3 and so on.


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """A call that shares its stream with others."""

    number: int
    method: str
    body: bytes


class Said(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """The reply to an Ask, on the lane; or on a stream of its own, that the answering end opens and this alone is on."""

    number: int
    body: bytes


class Denied(msgspec.Struct, frozen=True, array_like=True, tag="denied"):
    """The fault that answers an Ask."""

    number: int
    fault: Fault


class Apart(msgspec.Struct, frozen=True, array_like=True, tag="apart"):
    """The reply is too large for the lane: it has a stream of its own, and may be here already."""

    number: int


class Drop(msgspec.Struct, frozen=True, array_like=True, tag="drop"):
    """The caller no longer wants the answer. It may be under way already; otherwise the other end says Dropped."""

    number: int


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag="dropped"):
    """There will be no answer, as the caller wished."""

    number: int


Frame = Said | Ask | Denied | Apart | Drop | Dropped | Hello | Welcome | Refuse | Call | Reply | Fault | Open | Item | Credit

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Raises FrameError when it is over 16 MiB: the other end would hang up."""
    out = bytearray(PREFIX)
    _ENCODER.encode_into(frame, out, PREFIX)
    size = len(out) - PREFIX
    if size > MAX_FRAME:
        raise FrameError(f"a message of {size} bytes is too large: {MAX_FRAME} at most")
    out[:PREFIX] = size.to_bytes(PREFIX, "big")
    return bytes(out)


class FrameReader:
    """Bytes of one stream, in any pieces, to frames. After a FrameError the stream is of no further use."""

    __slots__ = ("_buffer", "limit")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes held of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises FrameError for a length over the limit, or a frame not of the schema."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= PREFIX:
            size = int.from_bytes(buffer[start : start + PREFIX], "big")
            if size > self.limit:
                raise FrameError(f"a frame of {size} bytes: {self.limit} at most")
            end = start + PREFIX + size
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                frames.append(_decode(view[start + PREFIX : end]))
            start = end
        del buffer[:start]
        return frames


def _decode(data: memoryview) -> Frame:
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"not a frame: {error}") from error
