"""What a frame of the journal holds: changes to the log, the ballot and the standing, as msgpack."""

from __future__ import annotations

import msgspec

from node_agent.consensus import codec
from node_agent.consensus.log.entries import Entry


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """What this node may do in its cluster. Empty `bootstrap`: nobody permitted it to form or vote.

    `formed`: it knows that the cluster was formed. `reseeding`: its disk was empty although the cluster exists, so it may have voted and
    acknowledged before; until it has applied an entry of a term of at least `floor`, it neither votes nor stands (docs/adr/0026).
    `voters`, `learners`, `configured` (a log index): what this node knew of the configuration without its log. 0: as the cluster was formed
    (docs/adr/0045); else it was told that this one is committed, and was in force at log index `known`, by others who know (docs/adr/0069).
    """

    bootstrap: str = ""
    formed: bool = False
    reseeding: bool = False
    floor: int = 0
    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    configured: int = 0
    known: int = 0


class Add(msgspec.Struct, frozen=True, array_like=True, tag=1):
    entry: Entry


class CutFrom(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Entries from `index` on are gone: they conflicted with the leader's."""

    index: int


class CutTo(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Entries before `index` are gone: a snapshot holds what they did."""

    index: int


class Clear(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """All entries are gone: a snapshot takes their place."""


class Ballot(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The current term, and whom we voted for in it."""

    term: int
    vote: str | None


class Stand(msgspec.Struct, frozen=True, array_like=True, tag=6):
    standing: Standing


Change = Add | CutFrom | CutTo | Clear | Ballot | Stand

_decoder: msgspec.msgpack.Decoder[list[Change]] = msgspec.msgpack.Decoder(list[Change])


def encode(changes: list[Change]) -> bytes:
    return msgspec.msgpack.encode(changes)


def decode(body: bytes) -> list[Change]:
    """Raises msgspec.DecodeError."""
    return codec.read(_decoder, body)
