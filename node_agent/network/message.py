"""As much of DNS messages (RFC 1035, EDNS of RFC 6891) as the agent's names need. Pure: any bytes give a query, an answer to them, or None.

Only questions are read; what others answer is passed on as it is. docs/adr/0096 says why there is no library for it.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

A, SOA, PTR, AAAA, OPT, ANY = 1, 6, 12, 28, 41, 255
INTERNET = 1
PLAIN_SIZE = 512  # bytes of a UDP message where nothing else was agreed
LARGEST_UDP = 1232  # what goes through every network in one piece
LARGEST = 65_535

_HEADER = struct.Struct(">HHHHHH")
_RESPONSE, _OPCODE, _AUTHORITATIVE, _DESIRED, _AVAILABLE = 0x8000, 0x7800, 0x0400, 0x0100, 0x0080
_OPCODE_SHIFT = 11
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_QUESTION_NAME = b"\xc0\x0c"  # a pointer to the name in the question


class Rcode(IntEnum):
    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `name`: in lower case without the last dot; empty if it is one that none of ours can be. `question`: its bytes, as they
    came. `size`: bytes that an answer by UDP may have. `extended`: the asker speaks EDNS."""

    id: int
    name: str
    kind: int
    internet: bool
    desired: bool
    question: bytes
    size: int = PLAIN_SIZE
    extended: bool = False


def parse(data: bytes) -> Query | bytes | None:
    """The query; or, if it is none that can be answered, the bytes to answer with; or None if nothing shall be answered at all."""
    if len(data) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        return _bare(number, flags, Rcode.NOTIMP)
    found = _question(data) if questions == 1 else None
    if found is None:
        return _bare(number, flags, Rcode.FORMERR)
    name, end = found
    kind, kin = struct.unpack_from(">HH", data, end)
    size = _extended(data, end + 4) if not answers and not authorities and additional else None
    return Query(
        id=number,
        name=name,
        kind=kind,
        internet=kin == INTERNET,
        desired=bool(flags & _DESIRED),
        question=data[_HEADER.size : end + 4],
        size=PLAIN_SIZE if size is None else max(PLAIN_SIZE, min(size, LARGEST_UDP)),
        extended=size is not None,
    )


def _question(data: bytes) -> tuple[str, int] | None:
    """The name, and where its type begins. In a question there is nothing yet that a compressed name could refer to."""
    labels: list[str] = []
    at = _HEADER.size
    while at < len(data) and data[at]:
        length = data[at]
        if length > 63 or at + 1 + length - _HEADER.size > 254:
            return None
        labels.append(data[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    if at + 5 > len(data):
        return None
    name = ".".join(labels).lower()
    return (name if _NAME.fullmatch(name) and all("." not in label for label in labels) else ""), at + 1


def _extended(data: bytes, at: int) -> int | None:
    """The size that the asker takes, if an OPT record follows at once."""
    if len(data) < at + 11 or data[at]:
        return None
    kind, size = struct.unpack_from(">HH", data, at + 1)
    return size if kind == OPT else None


def _bare(number: int, flags: int, code: Rcode) -> bytes:
    return _HEADER.pack(number, _RESPONSE | flags & (_OPCODE | _DESIRED) | code, 0, 0, 0, 0)


def addresses(query: Query, found: Sequence[str], ttl: int, *, limit: int) -> bytes:
    """An answer with as many of the IPv4 addresses `found` as fit into `limit` bytes, in that order: any of them will do for the asker, so
    the answer is whole all the same."""
    room = (limit - _HEADER.size - len(query.question) - (11 if query.extended else 0)) // 16
    records = [
        _QUESTION_NAME + struct.pack(">HHIH", A, INTERNET, ttl, 4) + ipaddress.IPv4Address(each).packed for each in found[: max(0, room)]
    ]
    return _message(query, Rcode.NOERROR, records)


def pointer(query: Query, name: str, ttl: int) -> bytes:
    """An answer with a name for an address."""
    wire = _wire(name)
    return _message(query, Rcode.NOERROR, [_QUESTION_NAME + struct.pack(">HHIH", PTR, INTERNET, ttl, len(wire)) + wire])


def nothing(query: Query, code: Rcode, ttl: int | None = None) -> bytes:
    """An answer without records. `ttl`: for how many seconds whoever remembers it may do so (RFC 2308)."""
    if ttl is None:
        return _message(query, code, [])
    zone = _wire("hypermesh")
    data = zone + zone + struct.pack(">IIIII", 1, 60, 60, 60, ttl)
    return _message(query, code, [], [_QUESTION_NAME + struct.pack(">HHIH", SOA, INTERNET, ttl, len(data)) + data])


def _message(query: Query, code: Rcode, answers: Sequence[bytes], authorities: Sequence[bytes] = ()) -> bytes:
    flags = _RESPONSE | _AUTHORITATIVE | _AVAILABLE | (_DESIRED if query.desired else 0) | code
    extra = b"\0" + struct.pack(">HHIH", OPT, LARGEST_UDP, 0, 0) if query.extended else b""
    head = _HEADER.pack(query.id, flags, 1, len(answers), len(authorities), 1 if query.extended else 0)
    return b"".join((head, query.question, *answers, *authorities, extra))


def _wire(name: str) -> bytes:
    labels = [label.encode("ascii", "replace")[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def renumbered(data: bytes, number: int) -> bytes:
    """The same message with another id."""
    return struct.pack(">H", number) + data[2:]


def answers(data: bytes, question: bytes, number: int) -> bool:
    """Whether `data` is an answer to that question with that id: nothing else may be passed on. The name may have come back in another
    case."""
    if len(data) < _HEADER.size + len(question):
        return False
    found, flags, questions, *_ = _HEADER.unpack_from(data)
    there = data[_HEADER.size : _HEADER.size + len(question)]
    return bool(flags & _RESPONSE) and found == number and questions == 1 and there.lower() == question.lower()
