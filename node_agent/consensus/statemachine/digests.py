"""Digests of single tables, equal wherever the tables are: what a control node tells with its changes, a worker compares with its own copy.

A digest is the sum of what state.share makes of each record, as in the state's own. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from node_agent.consensus.statemachine.state import Record, encode, share

_SIZE = 16  # bytes


class Sum:
    """A sum over encoded records, kept up by what changes."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._shares: dict[str, int] = {}
        self._total = 0

    def put(self, key: str, encoded: bytes | None) -> None:
        """The key's record is this one now; None: there is none."""
        self._total -= self._shares.pop(key, 0)
        if encoded is not None:
            added = self._shares[key] = share(self._table, key, encoded)
            self._total += added

    @property
    def digest(self) -> bytes:
        return (self._total % (1 << (8 * _SIZE))).to_bytes(_SIZE, "big")


class TableDigest:
    """Of a table that is replaced when it changes: the next digest costs a look at each record, and work only for those that are others."""

    def __init__(self, table: str) -> None:
        self._sum = Sum(table)
        self._seen: dict[str, Record] = {}

    def of(self, records: Mapping[str, Record]) -> bytes:
        seen = self._seen
        for key in [key for key in seen if key not in records]:
            del seen[key]
            self._sum.put(key, None)
        for key, record in records.items():
            if seen.get(key) is not record:
                seen[key] = record
                self._sum.put(key, encode(record))
        return self._sum.digest
