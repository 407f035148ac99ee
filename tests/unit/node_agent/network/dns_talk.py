"""DNS messages as a client makes and reads them, apart from the code under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


def question(name: str, kind: int = 1, *, number: int = 7, size: int | None = None) -> bytes:
    """A query. `size`: of EDNS; None: without."""
    wire = b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".") if label) + b"\0"
    extra = b"" if size is None else b"\0" + struct.pack(">HHIH", 41, size, 0, 0)
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 1 if extra else 0) + wire + struct.pack(">HH", kind, 1) + extra


@dataclass
class Answer:
    number: int
    code: int
    truncated: bool
    name: str = ""
    addresses: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ttls: list[int] = field(default_factory=list)
    remembered: int | None = None  # seconds, of a negative answer
    extended: bool = False


def read(data: bytes) -> Answer:
    """Everything in an answer; fails where it is malformed."""
    number, flags, questions, answers, authorities, additional = struct.unpack_from(">HHHHHH", data)
    assert flags & 0x8000
    found = Answer(number, flags & 15, bool(flags & 0x0200))
    at = 12
    for _ in range(questions):
        found.name, at = _name(data, at)
        at += 4
    for index in range(answers + authorities + additional):
        _, at = _name(data, at)
        kind, _, ttl, length = struct.unpack_from(">HHIH", data, at)
        at += 10
        body, at = data[at : at + length], at + length
        assert len(body) == length
        if index < answers:
            found.ttls.append(ttl)
        if kind == 1:
            found.addresses.append(".".join(map(str, body)))
        elif kind == 12:
            found.names.append(_name(data, at - length)[0])
        elif kind == 6:
            found.remembered = min(ttl, struct.unpack(">I", body[-4:])[0])
        elif kind == 41:
            found.extended = True
    assert at == len(data)
    return found


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels, end = [], None
    while data[at]:
        if data[at] >= 0xC0:
            end = end if end is not None else at + 2
            at = struct.unpack_from(">H", data, at)[0] & 0x3FFF
        else:
            labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
            at += 1 + data[at]
    return ".".join(labels), end if end is not None else at + 1
