"""A log entry, and what its command may be: a no-op, a batch for the state machine, or a configuration. Pure.

pysyncobj's own kinds (membership, code version) are never proposed and never accepted. A configuration is a batch like any other, in a call
of another method, so that everybody sees at once which entries change the voters.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from node_agent.consensus import codec
from node_agent.consensus.statemachine import commands
from node_agent.consensus.statemachine.commands import ChangeVoters

APPLY, RECONFIGURE = 0, 1  # pysyncobj's numbers of the methods of engine._Core

_CONFIGURATION = codec.REGULAR + b"\x92\x01"  # how an entry begins that calls method 1: an array of two
_call: msgspec.msgpack.Decoder[tuple[int, tuple[bytes]]] = msgspec.msgpack.Decoder(tuple[int, tuple[bytes]])


class Entry(NamedTuple):
    """One log entry: an opaque command at a log index, proposed in a term. A tuple, because pysyncobj compares entries with tuples."""

    command: bytes
    index: int  # type: ignore[assignment]  # the field's own word; tuple.index is not missed
    term: int


def command(method: int, batch: bytes) -> bytes:
    return codec.REGULAR + codec.dumps((method, (batch,)))


def is_command(command: bytes) -> bool:
    """Whether a log entry is one that we propose. Others would make pysyncobj raise at every attempt to apply them, so they are kept out
    of the log."""
    if command[:1] != codec.REGULAR:
        return command == codec.NO_OP
    if command.startswith(_CONFIGURATION):
        return configuration(command) is not None
    try:
        method, _ = codec.read(_call, command[1:])
    except msgspec.DecodeError:
        return False
    return method == APPLY


def configuration(command: bytes) -> ChangeVoters | None:
    """What a log entry changes the voters to; None for any other entry. It holds this one proposal and nothing else."""
    if not command.startswith(_CONFIGURATION):
        return None
    try:
        _, (batch,) = codec.read(_call, command[1:])
        proposals = commands.decode_batch(batch)
        change = commands.decode(proposals[0].command) if len(proposals) == 1 else None
    except msgspec.DecodeError:
        return None
    return change if isinstance(change, ChangeVoters) and change.voters else None
