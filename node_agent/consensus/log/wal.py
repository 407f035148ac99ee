"""The journal's file format. Pure: bytes in, bytes out.

    file  = MAGIC frame*
    frame = length of body (u32) | CRC32C of body (u32) | CRC32C of those eight bytes (u32) | body | TRAILER

A write that a crash interrupted can only be the last frame, and can only end early or in zeros (the file had grown before its data
arrived). TRAILER is never zero, so a complete frame never looks torn; the header has a checksum of its own, so that a damaged length
is not mistaken for a frame that ends early, which would drop everything behind it. All else is damage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c

MAGIC = b"HMRAFT1\n"
TRAILER = b"\xa5"

_HEADER = struct.Struct(">II")
_CHECK = struct.Struct(">I")
_HEADER_SIZE = _HEADER.size + _CHECK.size


class Damaged(Exception):
    """The bytes at `offset` are neither a frame nor the torn end of one."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


@dataclass(frozen=True, slots=True)
class Scanned:
    """A frame's body and where the frame begins; or, with `body` None, the torn end of the file, to be cut off at `offset`."""

    offset: int
    body: bytes | None


def frame(body: bytes) -> bytes:
    header = _HEADER.pack(len(body), google_crc32c.value(body))
    return header + _CHECK.pack(google_crc32c.value(header)) + body + TRAILER


def scan(data: bytes) -> Iterator[Scanned]:
    """The frames of a file, in order; a torn end comes last. Raises Damaged."""
    if data[: len(MAGIC)] != MAGIC:
        raise Damaged(0, "this is not a journal that this release can read")
    offset = len(MAGIC)
    written = len(data.rstrip(b"\0"))  # zeros at the end may be room that a crash left unwritten
    while offset < len(data):
        end = offset + _HEADER_SIZE
        if written < end and not _header_holds(data, offset):
            yield Scanned(offset, None)
            return
        if not _header_holds(data, offset):
            raise Damaged(offset, "the checksum of a frame's header does not hold")
        length, checksum = _HEADER.unpack_from(data, offset)
        body_end = end + length
        if written < body_end + len(TRAILER):
            yield Scanned(offset, None)
            return
        body = data[end:body_end]
        if data[body_end : body_end + 1] != TRAILER or google_crc32c.value(body) != checksum:
            raise Damaged(offset, "the checksum of a frame does not hold")
        yield Scanned(offset, body)
        offset = body_end + len(TRAILER)


def _header_holds(data: bytes, offset: int) -> bool:
    header = data[offset : offset + _HEADER.size]
    check = data[offset + _HEADER.size : offset + _HEADER_SIZE]
    return len(check) == _CHECK.size and _CHECK.unpack(check)[0] == google_crc32c.value(header)


def size(body: bytes) -> int:
    """Of the frame around `body`, in bytes."""
    return _HEADER_SIZE + len(body) + len(TRAILER)
