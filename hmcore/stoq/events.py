"""What a session tells the application (events) and the wire (writes)."""

from __future__ import annotations

import msgspec

from hmcore.stoq.frames import Fault, Reply
from hmcore.stoq.greeting import Peer


class Welcomed(msgspec.Struct, frozen=True):
    peer: Peer


class Refused(msgspec.Struct, frozen=True):
    """The acceptor does not want this dialer; both ends learn the reason."""

    kind: str
    reason: str


class Called(msgspec.Struct, frozen=True):
    stream: int
    method: str
    body: bytes


class Answered(msgspec.Struct, frozen=True):
    stream: int
    answer: Reply | Fault


class Opened(msgspec.Struct, frozen=True):
    stream: int
    kind: str


class Received(msgspec.Struct, frozen=True):
    stream: int
    payload: bytes


class Credited(msgspec.Struct, frozen=True):
    """A stream whose window was used up may send again."""

    stream: int


class Ended(msgspec.Struct, frozen=True):
    """The other end will send no more on this stream."""

    stream: int


class Abandoned(msgspec.Struct, frozen=True):
    """The other end no longer wants this stream."""

    stream: int


Event = Welcomed | Refused | Called | Answered | Opened | Received | Credited | Ended | Abandoned


class Write(msgspec.Struct, frozen=True):
    stream: int
    data: bytes
    end: bool = False


class Abort(msgspec.Struct, frozen=True):
    """Stop the stream in both directions, at once."""

    stream: int
