"""What is in a tar archive, and where: POSIX ustar with pax headers, GNU's long names and large sizes. Content is not read, only skipped.

Total: any bytes give entries or an ArchiveError. (Python's tarfile reads what an archive says into memory, and raises much else.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from hmcore.errors import ArchiveError

BLOCK = 512
MOST_ENTRIES = 20_000
MOST_EXTENSION = 64 << 10  # bytes of a pax header or a long name

_FILES = b"0\0" + b"7"
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of `size` bytes at `offset`; or (`link`) another name of the file whose name that is."""

    offset: int
    size: int
    link: str = ""


def entries(file: BinaryIO) -> dict[str, Entry]:
    """By name, without leading ./; the last of a name counts, as it does for tar. `file` must be seekable. Raises ArchiveError."""
    try:
        end = file.seek(0, os.SEEK_END)
        return dict(_walk(file, end))
    except OSError as error:
        raise ArchiveError(f"the archive cannot be read: {error.strerror or error}") from error


def compression(start: bytes) -> str | None:
    """Of a file that begins so; None: none that we know."""
    return next((name for magic, name in _COMPRESSED if start.startswith(magic)), None)


def _walk(file: BinaryIO, end: int) -> Iterator[tuple[str, Entry]]:
    at, count = 0, 0
    pax: dict[str, str] = {}
    long_name = long_link = ""
    while True:
        header = _read(file, at, BLOCK)
        if not any(header):
            return
        _check_sum(header, at)
        size = _number(header[124:136], at)
        kind, content = header[156:157], at + BLOCK
        if kind in (b"x", b"L", b"K"):
            if size > MOST_EXTENSION:
                raise ArchiveError(f"a header of {size} bytes at byte {at}: {MOST_EXTENSION} at most")
            extension = _read(file, content, size)
            if kind == b"x":
                pax = _pax(extension, at)
            elif kind == b"L":
                long_name = _text(extension, at)
            else:
                long_link = _text(extension, at)
        elif kind != b"g":
            size = _pax_size(pax, size, at)
            name = pax.get("path") or long_name or _name(header, at)
            link = pax.get("linkpath") or long_link or _text(header[157:257], at)
            if kind in _FILES and content + size > end:
                raise ArchiveError(f"the archive ends within {name[:200]!r}: it is not whole")
            if kind in _FILES:
                yield _plain(name), Entry(content, size)
            elif kind == b"2":
                yield _plain(name), Entry(content, 0, _beside(name, link))
            elif kind == b"1":
                yield _plain(name), Entry(content, 0, _plain(link))
            if kind not in _FILES:
                size = 0 if kind in b"12345" else size
            pax, long_name, long_link = {}, "", ""
        at = content + -(-size // BLOCK) * BLOCK
        count += 1
        if count > MOST_ENTRIES:
            raise ArchiveError(f"more than {MOST_ENTRIES} entries: that is no archive of an image")
        if at > end:
            raise ArchiveError("the archive ends in the middle: it is not whole")
        if at == end:  # some leave the two empty blocks out that should end it
            return


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        if not at:
            raise ArchiveError(f"not a tar archive: it has {len(data)} bytes in all")
        raise ArchiveError(f"the archive ends at byte {at + len(data)}, in the middle: it is not whole")
    return data


def _check_sum(header: bytes, at: int) -> None:
    """The sum of the header's bytes, its own eight taken for spaces; some old writers took the bytes for signed."""
    said = _number(header[148:156], at)
    others = header[:148] + b" " * 8 + header[156:]
    if said not in (sum(others), sum(byte - 256 if byte > 127 else byte for byte in others)):
        raise ArchiveError(f"not a tar archive: there is no header at byte {at}" if not at else f"damaged: no header at byte {at}")


def _number(field: bytes, at: int) -> int:
    """Octal digits; or, where the first bit is set, a number as bytes (GNU)."""
    if field[0] & 0x80:
        number = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if number < 1 << 62:
            return number
    else:
        digits = field.strip(b" \0")
        if all(byte in b"01234567" for byte in digits):
            return int(digits or b"0", 8)
    raise ArchiveError(f"not a tar archive: no number in the header at byte {at}")


def _pax(data: bytes, at: int) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n`, the length counting all of it."""
    found: dict[str, str] = {}
    while data.strip(b"\0"):
        digits, space, _ = data.partition(b" ")
        length = int(digits) if len(digits) < 8 and digits.isdigit() else 0
        record = data[len(digits) + 1 : length]
        if not space or length <= len(digits) + 2 or length > len(data) or not record.endswith(b"\n"):
            raise ArchiveError(f"damaged: no pax header at byte {at}")
        key, _, value = record[:-1].partition(b"=")
        found[_text(key, at)] = _text(value, at)
        data = data[length:]
    return found


def _pax_size(pax: dict[str, str], size: int, at: int) -> int:
    said = pax.get("size")
    if said is None:
        return size
    if not said.isascii() or not said.isdigit() or len(said) > 18:
        raise ArchiveError(f"damaged: no size in the pax header before byte {at}")
    return int(said)


def _name(header: bytes, at: int) -> str:
    name, prefix = _text(header[:100], at), _text(header[345:500], at) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes, at: int) -> str:
    try:
        return field.partition(b"\0")[0].decode()
    except UnicodeDecodeError as error:
        raise ArchiveError(f"damaged: a name that is no text at byte {at}") from error


def _plain(name: str) -> str:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _beside(name: str, link: str) -> str:
    """Where a symbolic link leads that stands under `name`."""
    return _plain(link if link.startswith("/") else f"{name.rpartition('/')[0]}/{link}")
