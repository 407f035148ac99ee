"""A follower's own copy of some tables of the replicated state: begun with all records of one log index, kept up by what changes.

Pure, and total: whatever a control node sends makes the copy right, or raises FrameError and leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from hmcore.errors import FrameError
from hmcore.watch import Change, Position, Step, WatchReply
from node_agent.consensus import codec
from node_agent.consensus.statemachine.digests import Sum
from node_agent.consensus.statemachine.state import RECORDS, Record

_DECODERS: Mapping[str, msgspec.msgpack.Decoder[Any]] = {table: msgspec.msgpack.Decoder(record) for table, record in RECORDS.items()}


class Copy:
    """`tables`: their records by key. A table that has changed is another object afterwards; the records that have not are the same."""

    def __init__(self, index: int, tables: Collection[str], records: Sequence[Change]) -> None:
        """All `records` of `tables` at log index `index`."""
        self.tables: dict[str, Mapping[str, Any]] = {table: {} for table in tables}
        self._sums = {table: Sum(table) for table in tables}
        self._position = Position(index)
        self._change(records)

    @property
    def index(self) -> int:
        return self._position.index

    def take(self, since: int, reply: WatchReply) -> Step:
        """Do what an answer to the question for what is behind `since` says. Raises FrameError."""
        position = Position(self.index)
        step = position.take(since, reply)
        self._change([change for entry in step.entries for change in entry.changes])
        self._position = position
        return step

    def differs(self, reply: WatchReply) -> list[str]:
        """The tables of which the answer, which was just taken, tells another digest than ours."""
        if reply.index != self.index:
            return []
        return sorted(table for table, digest in reply.digests.items() if table in self._sums and digest != self._sums[table].digest)

    def _change(self, changes: Sequence[Change]) -> None:
        decoded = [(change, _decoded(change, self.tables)) for change in changes]
        for table in {change.table for change in changes}:
            records = dict(self.tables[table])
            for change, record in decoded:
                if change.table == table:
                    self._sums[table].put(change.key, change.record)
                    if record is None:
                        records.pop(change.key, None)
                    else:
                        records[change.key] = record
            self.tables[table] = records


def _decoded(change: Change, tables: Collection[str]) -> Record | None:
    if change.table not in tables:
        raise FrameError(f"a record of {change.table[:100]!r}, which was not asked for")
    if change.record is None:
        return None
    try:
        record: Record = codec.read(_DECODERS[change.table], change.record)
    except msgspec.DecodeError as error:
        raise FrameError(f"{change.table} {change.key[:100]!r} cannot be read: {error}") from error
    return record
