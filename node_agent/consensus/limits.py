"""How large things may become."""

from __future__ import annotations

from dataclasses import dataclass

MAX_COMMAND = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """When the log is compacted, and in which portions things travel, in bytes. Simulations use tiny ones.

    An entry (one batch) must stay well below `append`, or pysyncobj takes a path that breaks it. The log is in memory until it is
    compacted: `compact_bytes` hold for a small state; a larger one is stored once as many bytes have come as it has itself.
    """

    compact_entries: int = 5000
    compact_bytes: int = 8 << 20
    journal_slack: int = 4 << 20
    chunk: int = 256 << 10
    portion: int = 1 << 20  # of a snapshot, encoded or stored at a time: some milliseconds
    batch: int = MAX_COMMAND
    append: int = 4 << 20
    in_flight: int = 1  # batches; waiting for the one before makes larger batches, and fewer fsyncs


DEFAULT_LIMITS = Limits()
