"""What Docker sends of outputs: its multiplexed frames, and a log's lines with their times. Pure, total; what is held is bounded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from hmcore.apps.streams import PIECE
from hmcore.errors import FrameError

HEADER = 8  # bytes: the stream's number, three zeros, the length (big-endian) of what follows
STDERR = 2
MOST_STAMP = 36  # bytes: a time, and the space behind it

_STAMP = re.compile(rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))")


@dataclass(frozen=True, slots=True)
class Part:
    """Of a frame: as much as has come. `stream`: 1 stdout, 2 stderr, 3 Docker's own errors. `first`, `last`: of its frame."""

    stream: int
    data: bytes
    first: bool
    last: bool


class Frames:
    """Cuts a multiplexed stream, in whatever pieces it comes, into parts of frames; holds no more than a header."""

    def __init__(self) -> None:
        self._header = b""
        self.stream = 0  # of the frame that came last
        self._left = 0  # bytes of the frame
        self._begun = False  # something of the frame has been told

    def feed(self, data: bytes) -> list[Part]:
        """Raises FrameError for what is no frame: then the stream is of no further use."""
        parts: list[Part] = []
        at = 0
        while at < len(data):
            if not self._left:
                missing = HEADER - len(self._header)
                self._header += data[at : at + missing]
                at += missing
                if len(self._header) < HEADER:
                    break
                parts += self._begin()
            else:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                parts.append(Part(self.stream, piece, not self._begun, not self._left))
                self._begun = True
        return parts

    def _begin(self) -> list[Part]:
        header, self._header = self._header, b""
        if header[0] > 3 or header[1:4] != b"\0\0\0":
            raise FrameError(f"no header of a frame of Docker's: {header!r}")
        self.stream = header[0] or 1
        self._left = int.from_bytes(header[4:], "big")
        self._begun = False
        return [] if self._left else [Part(self.stream, b"", True, True)]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line, or what of a longer one fits one. `time`: nanoseconds since 1970."""

    time: int
    error: bool
    text: bytes


class LogParser:
    """A log with times, as Docker sends it. What Docker could keep in one record only in part is joined again.

    `tty`: of a container with a terminal, whose log is plain text. A line without a time has that of the one before it.
    """

    def __init__(self, *, tty: bool) -> None:
        self._tty = tty
        self._frames = Frames()
        self._record = bytearray()  # of the frame that is coming, or the line of a terminal
        self._first = True  # its time has not been read yet
        self._lines: dict[bool, _Line] = {False: _Line(0, bytearray()), True: _Line(0, bytearray())}
        self._time = 0

    def feed(self, data: bytes) -> list[Entry]:
        """The lines that `data` completes. Raises FrameError."""
        if self._tty:
            return self._feed_text(data)
        entries: list[Entry] = []
        for part in self._frames.feed(data):
            if part.first:
                self._record.clear()
                self._first = True
            self._record += part.data
            if part.last or len(self._record) >= MOST_STAMP:
                entries += self._take(error=part.stream >= STDERR)
        return entries

    def end(self) -> list[Entry]:
        """The lines that were never ended."""
        entries = self._take(error=not self._tty and self._frames.stream >= STDERR) if self._record else []
        return entries + [Entry(line.time, error, bytes(line.text)) for error, line in self._lines.items() if line.text]

    def _feed_text(self, data: bytes) -> list[Entry]:
        entries: list[Entry] = []
        *ended, rest = data.split(b"\n")
        for text in ended:
            self._record += text + b"\n"
            entries += self._take(error=False)
            self._first = True
        self._record += rest
        if len(self._record) >= MOST_STAMP:
            entries += self._take(error=False)
        return entries

    def _take(self, *, error: bool) -> list[Entry]:
        """What was gathered of the record goes to its line."""
        data = bytes(self._record)
        self._record.clear()
        if self._first:
            data = self._stamped(data)
            self._first = False
        return self._append(error, data)

    def _stamped(self, data: bytes) -> bytes:
        """Without its time, which is read."""
        stamp, space, rest = data.partition(b" ")
        time = nanoseconds(stamp) if space else None
        if time is None:
            return data
        self._time = time
        return rest

    def _append(self, error: bool, data: bytes) -> list[Entry]:
        line = self._lines[error]
        entries: list[Entry] = []
        *ended, rest = data.split(b"\n")
        for text in ended:
            if not line.text:
                line.time = self._time
            entries += _pieces(line.time, error, bytes(line.text) + text, tty=self._tty)
            line.text.clear()
        if rest:
            if not line.text:
                line.time = self._time
            line.text += rest
            while len(line.text) > PIECE:
                entries.append(Entry(line.time, error, bytes(line.text[:PIECE])))
                del line.text[:PIECE]
        return entries


@dataclass(slots=True)
class _Line:
    """That has not ended yet, and when it began."""

    time: int
    text: bytearray


def _pieces(time: int, error: bool, text: bytes, *, tty: bool) -> list[Entry]:
    if tty:
        text = text.removesuffix(b"\r")
    return [Entry(time, error, text[at : at + PIECE]) for at in range(0, max(1, len(text)), PIECE)]


def nanoseconds(stamp: bytes) -> int | None:
    """Of a time of RFC 3339 since 1970; None if it is none, or before."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[number]) for number in range(1, 7))
    try:
        seconds = int(datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC).timestamp()) + max(0, second - 59)
    except (ValueError, OverflowError):
        return None
    if found[8] is not None:
        offset = int(found[9]) * 3600 + int(found[10]) * 60
        seconds -= offset if found[8] == b"+" else -offset
    whole = seconds * 1_000_000_000 + int((found[7] or b"").ljust(9, b"0"))
    return whole if 0 <= seconds < 1 << 33 else None
